//! One value of a selector: exact, `"*"`, `^pattern$`, or a template.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

use crate::budget::{Budget, MAX_PATTERN_PROGRAM_BYTES, MAX_VALUE_BYTES};
use crate::subject::Subject;
use crate::template::{Template, TemplateError};
use crate::word::excerpt;

/// Why a text is not a selector value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// A pattern has `^` in front or `$` behind, but not both.
    #[error("`{0}` is half a pattern: write ^…$ around the whole")]
    HalfPattern(String),
    /// A `*` beside other text would be taken literally, which nobody means.
    #[error("`{0}` is not a value: globs are not known, write a pattern such as ^prod-.*$")]
    Glob(String),
    /// An exact login that no account can have.
    #[error(transparent)]
    Login(#[from] mezite_core::name::NameError),
    /// A leading `!` would be taken literally, which nobody means.
    #[error("`{0}` is not a value: negation is not known, write what you mean under deny")]
    Negation(String),
    /// The pattern does not compile, or takes more than [`MAX_PATTERN_PROGRAM_BYTES`].
    #[error("`{pattern}` is not a pattern: {reason}")]
    Pattern {
        /// The pattern, cut to 80 characters.
        pattern: String,
        /// What the compiler says.
        reason: String,
    },
    /// A pattern holds double braces: a trait would be read as a pattern.
    #[error("`{0}` is not a pattern: a pattern holds no template")]
    PatternTemplate(String),
    /// The template cannot be read.
    #[error("`{value}` is not a template: {reason}")]
    Template {
        /// The value, cut to 80 characters.
        value: String,
        /// What is wrong with it.
        reason: TemplateError,
    },
    /// Longer than [`MAX_VALUE_BYTES`], or with control characters.
    #[error("`{0}` is not a value: at most {MAX_VALUE_BYTES} bytes without control characters")]
    Text(String),
}

/// A compiled value and the text it came from.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Any,
    Exact,
    Pattern(Regex),
    Template(Template),
}

/// The text is all there is: what matches is compiled from it.
impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let matcher = if text.len() > MAX_VALUE_BYTES || text.chars().any(char::is_control) {
            return Err(SelectorError::Text(excerpt(text)));
        } else if text.starts_with('^') || text.ends_with('$') {
            if Template::is_in(text) {
                return Err(SelectorError::PatternTemplate(excerpt(text)));
            }
            Matcher::Pattern(anchored(text)?)
        } else if Template::is_in(text) {
            let template = Template::parse(text).map_err(|reason| SelectorError::Template {
                value: excerpt(text),
                reason,
            })?;
            if template.has_around('*') {
                return Err(SelectorError::Glob(excerpt(text)));
            }
            Matcher::Template(template)
        } else if text == "*" {
            Matcher::Any
        } else if text.contains('*') {
            return Err(SelectorError::Glob(excerpt(text)));
        } else if text.starts_with('!') {
            return Err(SelectorError::Negation(excerpt(text)));
        } else {
            Matcher::Exact
        };
        let text = text.to_owned();
        Ok(Self { text, matcher })
    }

    /// The same, where an exact value has to be a login.
    pub(crate) fn parse_login(text: &str) -> Result<Self, SelectorError> {
        let selector = Self::parse(text)?;
        if matches!(selector.matcher, Matcher::Exact) {
            text.parse::<mezite_core::Login>()?;
        }
        Ok(selector)
    }

    /// What the document says.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn has_pattern(&self) -> bool {
        match &self.matcher {
            Matcher::Pattern(_) => true,
            Matcher::Template(template) => template.has_pattern(),
            Matcher::Any | Matcher::Exact => false,
        }
    }

    /// Whether it can match texts that cannot be listed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.matcher, Matcher::Any | Matcher::Pattern(_))
    }

    pub(crate) fn is_any(&self) -> bool {
        matches!(self.matcher, Matcher::Any)
    }

    pub(crate) fn template(&self) -> Option<&Template> {
        match &self.matcher {
            Matcher::Template(template) => Some(template),
            Matcher::Any | Matcher::Exact | Matcher::Pattern(_) => None,
        }
    }

    pub(crate) fn is_exact(&self) -> bool {
        matches!(self.matcher, Matcher::Exact)
    }

    pub(crate) fn is_pattern(&self) -> bool {
        matches!(self.matcher, Matcher::Pattern(_))
    }

    /// Whether it matches `text` whoever asks: a template never surely does.
    pub(crate) fn surely_matches(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Any => true,
            Matcher::Exact => self.text == text,
            Matcher::Pattern(pattern) => pattern.is_match(text),
            Matcher::Template(_) => false,
        }
    }

    /// Whether it matches `text`. A template without values matches nothing.
    #[inline]
    pub(crate) fn matches(&self, subject: &Subject, text: &str, budget: &Budget) -> bool {
        if !budget.spend(1) {
            return false;
        }
        match &self.matcher {
            Matcher::Any => true,
            Matcher::Exact => self.text == text,
            Matcher::Pattern(pattern) => budget.spend_pattern(text) && pattern.is_match(text),
            Matcher::Template(template) => template.matches(subject, text, budget),
        }
    }

    /// Whether what it means for this subject is known. Only a template may not be.
    pub(crate) fn resolves(&self, subject: &Subject, budget: &Budget) -> bool {
        match &self.matcher {
            Matcher::Template(template) => template.resolves(subject, budget),
            Matcher::Any | Matcher::Exact | Matcher::Pattern(_) => true,
        }
    }

    /// The texts that it matches, where they can be listed.
    pub(crate) fn expand(&self, subject: &Subject, budget: &Budget) -> Vec<String> {
        match &self.matcher {
            Matcher::Exact => vec![self.text.clone()],
            Matcher::Template(template) => template.expand(subject, budget),
            Matcher::Any | Matcher::Pattern(_) => Vec::new(),
        }
    }
}

/// Compiles `^…$` so that both anchors hold for the whole: `^a|b$` is `a` or `b`, not "begins with a".
pub(crate) fn anchored(text: &str) -> Result<Regex, SelectorError> {
    let inner = text
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix('$'))
        .ok_or_else(|| SelectorError::HalfPattern(excerpt(text)))?;
    // The inner text has to be a pattern by itself, or `^)|(?:$` would close our group.
    compile(inner, text)?;
    compile(&format!(r"\A(?:{inner})\z"), text)
}

fn compile(pattern: &str, text: &str) -> Result<Regex, SelectorError> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_PROGRAM_BYTES)
        .dfa_size_limit(MAX_PATTERN_PROGRAM_BYTES)
        .nest_limit(32)
        .build()
        .map_err(|error| SelectorError::Pattern {
            pattern: excerpt(text),
            reason: reason(&error),
        })
}

/// The last line of the compiler's message: the ones above draw the pattern over several lines.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_equal_and_ordered_by_their_texts() {
        let [a, same, b] = ["^a$", "^a$", "a"].map(|text| Selector::parse(text).unwrap());
        assert!(a == same && a != b);
        assert_eq!(a.partial_cmp(&b), Some(Ordering::Less));
        assert_eq!(
            (a.cmp(&same), b.cmp(&a)),
            (Ordering::Equal, Ordering::Greater)
        );
    }
}
