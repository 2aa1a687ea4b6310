//! Templates: `{{internal.x}}`, `{{external.x}}`, `{{user.name}}`, `email.local(…)`, `regexp.replace(…)`.
//!
//! One expression per value, with plain text around it. What a trait holds is data: it is compared, never read.

use std::borrow::Cow;

use regex::Regex;
use thiserror::Error;

use crate::budget::{Budget, MAX_EXPANSION_BYTES};
use crate::selector::{SelectorError, anchored};
use crate::subject::Subject;
use crate::word::excerpt;

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The text around the expression holds braces, or there is more than one expression.
    #[error("write one `{{{{…}}}}` in a value, and no other double braces")]
    Braces,
    /// The expression has another form.
    #[error(
        "`{0}` is not an expression: write internal.x, external.x, external[\"x\"], user.name, \
         email.local(…) or regexp.replace(…, \"^…$\", \"…\")"
    )]
    Expression(String),
    /// The pattern of `regexp.replace`.
    #[error("in regexp.replace: {0}")]
    Pattern(Box<SelectorError>),
    /// The replacement names something that is not a group of the pattern.
    #[error(
        "`{0}` in the replacement is not a group of the pattern: write $1 to $9, or $$ for a dollar"
    )]
    Group(String),
}

/// A parsed template: plain text, one expression, plain text.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    before: String,
    expression: Expression,
    after: String,
}

#[derive(Clone, Debug)]
struct Expression {
    source: Source,
    function: Function,
}

/// Where the values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Internal(String),
    External(String),
    UserName,
}

/// What is done to each value.
#[derive(Clone, Debug)]
enum Function {
    Plain,
    EmailLocal,
    Replace(Regex, Vec<Part>),
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Template {
    /// Whether `text` means to be a template.
    pub(crate) fn is_in(text: &str) -> bool {
        text.contains("{{") || text.contains("}}")
    }

    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (before, rest) = text.split_once("{{").ok_or(TemplateError::Braces)?;
        let mut cursor = Cursor(rest);
        let expression = cursor.expression()?;
        let after = cursor.after_braces().ok_or_else(|| cursor.error())?;
        if Self::is_in(before) || Self::is_in(after) {
            return Err(TemplateError::Braces);
        }
        Ok(Self {
            before: before.to_owned(),
            expression,
            after: after.to_owned(),
        })
    }

    pub(crate) fn has_pattern(&self) -> bool {
        matches!(self.expression.function, Function::Replace(..))
    }

    /// The trait that the values come from, as documents name it: `internal.x`; none for `user.name`.
    pub(crate) fn trait_name(&self) -> Option<String> {
        match &self.expression.source {
            Source::Internal(name) => Some(format!("internal.{name}")),
            Source::External(name) => Some(format!("external.{name}")),
            Source::UserName => None,
        }
    }

    /// Whether the subject has a value to start from, whatever becomes of it.
    pub(crate) fn has_source(&self, subject: &Subject) -> bool {
        self.expression.source.values(subject).next().is_some()
    }

    /// The plain text before and behind the expression.
    pub(crate) fn around(&self) -> (&str, &str) {
        (&self.before, &self.after)
    }

    /// Whether the plain text around the expression holds `c`.
    pub(crate) fn has_around(&self, c: char) -> bool {
        self.before.contains(c) || self.after.contains(c)
    }

    /// Whether the template gives exactly `text` for some value.
    #[inline(never)] // so that comparing exact values, which are most, is inlined
    pub(crate) fn matches(&self, subject: &Subject, text: &str, budget: &Budget) -> bool {
        let wanted = if self.before.is_empty() && self.after.is_empty() {
            // Comparing with no text at all takes some processors longer than all the rest of a decision.
            Some(text)
        } else {
            text.strip_prefix(self.before.as_str())
                .and_then(|rest| rest.strip_suffix(self.after.as_str()))
        };
        let Some(wanted) = wanted.filter(|_| text.len() <= MAX_EXPANSION_BYTES) else {
            return false;
        };
        let source = &self.expression.source;
        if matches!(self.expression.function, Function::Plain) {
            // Most templates are plain: the value itself has to be there.
            return source.is_one(subject, |value| budget.spend(1) && value == wanted);
        }
        source.is_one(subject, |value| {
            let output = self.expression.function.apply(value, budget);
            output.is_some_and(|output| output == wanted)
        })
    }

    /// Whether there is a value, and every value gave an output. A deny that is not resolved matches everything.
    pub(crate) fn resolves(&self, subject: &Subject, budget: &Budget) -> bool {
        let mut outputs = self.outputs(subject, budget).peekable();
        outputs.peek().is_some() && outputs.all(|output| output.is_some())
    }

    /// Every text that the template gives.
    pub(crate) fn expand(&self, subject: &Subject, budget: &Budget) -> Vec<String> {
        self.outputs(subject, budget)
            .flatten()
            .map(|output| format!("{}{output}{}", self.before, self.after))
            .collect()
    }

    /// What the expression gives for each value; none for one that the function refuses or that grows too long.
    fn outputs<'a>(
        &'a self,
        subject: &'a Subject,
        budget: &'a Budget,
    ) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        let values = self.expression.source.values(subject);
        let room = MAX_EXPANSION_BYTES.saturating_sub(self.before.len() + self.after.len());
        values.map(move |value| {
            let output = self.expression.function.apply(value, budget)?;
            (output.len() <= room).then_some(output)
        })
    }
}

impl Source {
    /// Whether some value is as asked.
    fn is_one(&self, subject: &Subject, asked: impl FnMut(&str) -> bool) -> bool {
        let mut asked = asked;
        let list = match self {
            Self::Internal(name) => subject.internal.values(name),
            Self::External(name) => subject.external.values(name),
            Self::UserName => return asked(subject.user.as_str()),
        };
        list.iter().any(|value| asked(value))
    }

    fn values<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a str> {
        let (list, single) = match self {
            Self::Internal(name) => (subject.internal.values(name), None),
            Self::External(name) => (subject.external.values(name), None),
            Self::UserName => (&[][..], Some(subject.user.as_str())),
        };
        list.iter().map(String::as_str).chain(single)
    }
}

impl Function {
    fn apply<'a>(&self, value: &'a str, budget: &Budget) -> Option<Cow<'a, str>> {
        match self {
            Self::Plain => budget.spend(1).then_some(Cow::Borrowed(value)),
            Self::EmailLocal => budget
                .spend(1)
                .then(|| email_local(value))
                .flatten()
                .map(Cow::Borrowed),
            Self::Replace(pattern, parts) => {
                if !budget.spend_pattern(value) {
                    return None;
                }
                replace(pattern, parts, value).map(Cow::Owned)
            }
        }
    }
}

/// The part before the one `@` of a plain address (RFC 5321 section 4.1.2, `Dot-string` only: no quoted forms).
fn email_local(value: &str) -> Option<&str> {
    let (local, domain) = value.split_once('@')?;
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"@\"()<>[]\\,:;".contains(&byte))
    };
    (plain(local) && plain(domain)).then_some(local)
}

fn replace(pattern: &Regex, parts: &[Part], value: &str) -> Option<String> {
    let captures = pattern.captures(value)?;
    let mut output = String::new();
    for part in parts {
        match part {
            Part::Text(text) => output.push_str(text),
            Part::Group(index) => {
                output.push_str(captures.get(*index).map_or("", |found| found.as_str()));
            }
        }
        if output.len() > MAX_EXPANSION_BYTES {
            return None;
        }
    }
    Some(output)
}

/// What is left to read of an expression.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn expression(&mut self) -> Result<Expression, TemplateError> {
        if self.take("email.local(") {
            let source = self.source().ok_or_else(|| self.error())?;
            self.expect(")")?;
            return Ok(Expression {
                source,
                function: Function::EmailLocal,
            });
        }
        if self.take("regexp.replace(") {
            return self.replacement();
        }
        let source = self.source().ok_or_else(|| self.error())?;
        Ok(Expression {
            source,
            function: Function::Plain,
        })
    }

    fn replacement(&mut self) -> Result<Expression, TemplateError> {
        let source = self.source().ok_or_else(|| self.error())?;
        self.expect(",")?;
        let pattern = self.string().ok_or_else(|| self.error())?;
        self.expect(",")?;
        let replacement = self.string().ok_or_else(|| self.error())?;
        self.expect(")")?;
        let pattern =
            anchored(&pattern).map_err(|error| TemplateError::Pattern(Box::new(error)))?;
        let parts = parts(&replacement, pattern.captures_len())?;
        Ok(Expression {
            source,
            function: Function::Replace(pattern, parts),
        })
    }

    fn source(&mut self) -> Option<Source> {
        if self.take("user.name") {
            return Some(Source::UserName);
        }
        let make = if self.take("internal") {
            Source::Internal
        } else if self.take("external") {
            Source::External
        } else {
            return None;
        };
        self.trait_name().map(make)
    }

    /// `.name`, or `["any name"]` for claims that are named by URLs.
    fn trait_name(&mut self) -> Option<String> {
        if self.take("[") {
            let name = self.string()?;
            return (self.take("]") && !name.is_empty()).then_some(name);
        }
        let rest = self.0.strip_prefix('.')?;
        let after =
            rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let (name, after) = rest.split_at(rest.len() - after.len());
        self.0 = after;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// A string in double quotes; `\"` and `\\` are the only escapes.
    fn string(&mut self) -> Option<String> {
        if !self.take("\"") {
            return None;
        }
        let mut text = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
                other => text.push(other),
            }
        }
        self.0 = chars.as_str();
        Some(text)
    }

    fn expect(&mut self, token: &str) -> Result<(), TemplateError> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    /// Skips spaces and takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        let rest = self.0.trim_start_matches(' ');
        match rest.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn after_braces(&mut self) -> Option<&'a str> {
        self.take("}}").then_some(self.0)
    }

    /// What could not be read, from where reading stopped.
    fn error(&self) -> TemplateError {
        TemplateError::Expression(excerpt(self.0))
    }
}

/// Cuts a replacement into text and groups; `groups` counts the whole match as one.
fn parts(replacement: &str, groups: usize) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '$' {
            text.push(c);
            continue;
        }
        let next = chars.next();
        let group = next
            .and_then(|c| c.to_digit(10))
            .and_then(|n| usize::try_from(n).ok());
        match (next, group) {
            (Some('$'), _) => text.push('$'),
            (_, Some(group)) if (1..groups).contains(&group) => {
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::Group(group));
            }
            (next, _) => {
                let named: String = std::iter::once('$').chain(next).collect();
                return Err(TemplateError::Group(excerpt(&named)));
            }
        }
    }
    parts.push(Part::Text(text));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::subject::Traits;

    fn alice(value: &str) -> Subject {
        let traits = BTreeMap::from([("x".to_owned(), vec![value.to_owned()])]);
        Subject {
            user: "alice".parse().unwrap(),
            roles: Vec::new(),
            internal: Traits::default(),
            external: Traits::new(traits).unwrap(),
        }
    }

    /// The text around the expression counts on both sides.
    #[test]
    fn an_expansion_may_be_as_long_as_the_bound_says() {
        let template = Template::parse("abcd{{external.x}}efg").unwrap();
        let budget = Budget::default();
        for (length, fits) in [
            (MAX_EXPANSION_BYTES, true),
            (MAX_EXPANSION_BYTES + 1, false),
        ] {
            let value = "v".repeat(length - 7);
            let subject = alice(&value);
            let text = format!("abcd{value}efg");
            assert_eq!(template.matches(&subject, &text, &budget), fits, "{length}");
            assert_eq!(template.resolves(&subject, &budget), fits, "{length}");
            assert_eq!(template.expand(&subject, &budget).contains(&text), fits);
        }
    }

    #[test]
    fn a_replacement_may_be_as_long_as_the_bound_says() {
        let budget = Budget::default();
        let template = Template::parse("{{regexp.replace(external.x, \"^(.*)$\", \"$1$1\")}}");
        let template = template.unwrap();
        let half = "v".repeat(MAX_EXPANSION_BYTES / 2);
        assert!(template.resolves(&alice(&half), &budget));
        assert!(!template.resolves(&alice(&format!("{half}v")), &budget));
    }
}
