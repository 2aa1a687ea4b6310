//! Who asks and what is asked for: subjects with their traits, nodes with their labels by source.

use std::collections::BTreeMap;

use mezite_core::{LabelSource, Labels, NodeId, NodeName, RoleName, UserName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::budget::{MAX_TRAIT_VALUE_BYTES, MAX_TRAIT_VALUES, MAX_TRAITS};
use crate::word::excerpt;

/// Who acts: a user or bot with roles and traits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The user's name, `{{user.name}}` in templates.
    pub user: UserName,
    /// The roles the user holds. One that the policy does not know denies everything.
    pub roles: Vec<RoleName>,
    /// Traits that an administrator of this cluster set, `{{internal.…}}` in templates.
    #[serde(default)]
    pub internal: Traits,
    /// Traits that an identity provider asserted, `{{external.…}}` in templates.
    #[serde(default)]
    pub external: Traits,
}

/// Named lists of strings. Values are data: nothing in them is ever expanded, split or read as a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, Vec<String>>",
    into = "BTreeMap<String, Vec<String>>"
)]
pub struct Traits(BTreeMap<String, Vec<String>>);

/// Why traits are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TraitError {
    /// The name is empty, longer than 255 bytes, or holds control characters.
    #[error("trait name `{0}` is not valid: 1 to 255 bytes without control characters")]
    Name(String),
    /// More than [`MAX_TRAITS`].
    #[error("{0} traits are too many: at most {MAX_TRAITS}")]
    TooMany(usize),
    /// More than [`MAX_TRAIT_VALUES`] values of one trait.
    #[error("trait `{name}` has {count} values: at most {MAX_TRAIT_VALUES}")]
    TooManyValues {
        /// The trait.
        name: String,
        /// How many values it has.
        count: usize,
    },
    /// A value longer than [`MAX_TRAIT_VALUE_BYTES`].
    #[error("a value of trait `{0}` is too long: at most {MAX_TRAIT_VALUE_BYTES} bytes")]
    ValueTooLong(String),
}

impl Traits {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first trait that breaks one.
    pub fn new(map: BTreeMap<String, Vec<String>>) -> Result<Self, TraitError> {
        if map.len() > MAX_TRAITS {
            return Err(TraitError::TooMany(map.len()));
        }
        for (name, values) in &map {
            check_trait(name, values)?;
        }
        Ok(Self(map))
    }

    /// The values of `name`; none when there is no such trait.
    #[must_use]
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0
            .iter()
            .map(|(name, values)| (name.as_str(), values.as_slice()))
    }
}

fn check_trait(name: &str, values: &[String]) -> Result<(), TraitError> {
    if !(1..=255).contains(&name.len()) || name.chars().any(char::is_control) {
        return Err(TraitError::Name(excerpt(name)));
    }
    if values.len() > MAX_TRAIT_VALUES {
        return Err(TraitError::TooManyValues {
            name: excerpt(name),
            count: values.len(),
        });
    }
    if values
        .iter()
        .any(|value| value.len() > MAX_TRAIT_VALUE_BYTES)
    {
        return Err(TraitError::ValueTooLong(excerpt(name)));
    }
    Ok(())
}

impl TryFrom<BTreeMap<String, Vec<String>>> for Traits {
    type Error = TraitError;

    fn try_from(map: BTreeMap<String, Vec<String>>) -> Result<Self, TraitError> {
        Self::new(map)
    }
}

impl From<Traits> for BTreeMap<String, Vec<String>> {
    fn from(traits: Traits) -> Self {
        traits.0
    }
}

/// A machine people log in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What certificates name.
    pub id: NodeId,
    /// What people call it.
    pub name: NodeName,
    /// Its labels, by who said them.
    #[serde(default)]
    pub labels: NodeLabels,
}

/// The labels of one node, by who said them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLabels {
    /// Set by an administrator.
    #[serde(default)]
    pub operator: Labels,
    /// Set with the join token.
    #[serde(default)]
    pub token: Labels,
    /// Reported by the node's own agent.
    #[serde(default)]
    pub agent: Labels,
}

/// Whose labels an allow reads: a flag for each source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sources {
    operator: bool,
    token: bool,
    agent: bool,
}

impl Sources {
    pub(crate) const ALL: Self = Self {
        operator: true,
        token: true,
        agent: true,
    };

    pub(crate) fn of(named: &[LabelSource]) -> Self {
        Self {
            operator: named.contains(&LabelSource::Operator),
            token: named.contains(&LabelSource::Token),
            agent: named.contains(&LabelSource::Agent),
        }
    }

    pub(crate) fn hold(self, source: LabelSource) -> bool {
        match source {
            LabelSource::Operator => self.operator,
            LabelSource::Token => self.token,
            LabelSource::Agent => self.agent,
        }
    }
}

/// Keys that start so never grant: anybody may set them for their own order.
pub(crate) const TAG: &str = "tag:";

impl NodeLabels {
    /// The value that an allow reads: what the strongest source says that set `key`, if the role reads that source.
    pub(crate) fn granting<'a>(&'a self, sources: Sources, key: &'a str) -> Option<&'a str> {
        if key.starts_with(TAG) {
            return None;
        }
        let (source, value) = self.strongest(key)?;
        sources.hold(source).then_some(value)
    }

    /// [`by_source`](Self::by_source), its first alone: every allow asks for it.
    fn strongest(&self, key: &str) -> Option<(LabelSource, &str)> {
        if let Some(value) = self.operator.get(key) {
            return Some((LabelSource::Operator, value));
        }
        if let Some(value) = self.token.get(key) {
            return Some((LabelSource::Token, value));
        }
        let value = self.agent.get(key)?;
        Some((LabelSource::Agent, value))
    }

    /// The values that a deny reads: what any source says.
    pub(crate) fn refusing<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.by_source(key).map(|(_, value)| value)
    }

    /// Every label with its source, strongest source first, then by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LabelSource, &str, &str)> {
        [
            (LabelSource::Operator, &self.operator),
            (LabelSource::Token, &self.token),
            (LabelSource::Agent, &self.agent),
        ]
        .into_iter()
        .flat_map(|(source, labels)| labels.iter().map(move |(key, value)| (source, key, value)))
    }

    /// Every source that set `key`, strongest first.
    pub(crate) fn by_source<'a>(
        &'a self,
        key: &'a str,
    ) -> impl Iterator<Item = (LabelSource, &'a str)> {
        [
            (LabelSource::Operator, &self.operator),
            (LabelSource::Token, &self.token),
            (LabelSource::Agent, &self.agent),
        ]
        .into_iter()
        .filter_map(move |(source, labels)| Some((source, labels.get(key)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(words: &[&str]) -> Labels {
        Labels::parse(words.iter().copied()).unwrap()
    }

    #[test]
    fn an_agent_cannot_override_and_tags_never_grant() {
        let labels = NodeLabels {
            operator: labels(&["env=prod", "tag:team=db"]),
            token: labels(&["team=db"]),
            agent: labels(&["env=dev", "team=web", "os=debian"]),
        };
        let all = Sources::ALL;
        let default = Sources::of(&[LabelSource::Operator, LabelSource::Token]);
        let agent = Sources::of(&[LabelSource::Agent]);
        assert_eq!(labels.granting(all, "env"), Some("prod"));
        assert_eq!(labels.granting(agent, "env"), None);
        assert_eq!(labels.granting(all, "team"), Some("db"));
        assert_eq!(labels.granting(all, "os"), Some("debian"));
        assert_eq!(labels.granting(default, "os"), None);
        assert_eq!(labels.granting(all, "tag:team"), None);
        assert_eq!(labels.refusing("env").collect::<Vec<_>>(), ["prod", "dev"]);
        assert_eq!(labels.refusing("tag:team").collect::<Vec<_>>(), ["db"]);
    }

    #[test]
    fn traits_have_bounds() {
        let one = |name: &str, values: Vec<String>| {
            Traits::new(BTreeMap::from([(name.to_owned(), values)]))
        };
        assert_eq!(one("", vec![]), Err(TraitError::Name(String::new())));
        assert_eq!(one("a\n", vec![]), Err(TraitError::Name("a\\n".to_owned())));
        assert_eq!(
            one("a", vec![String::new(); MAX_TRAIT_VALUES + 1]),
            Err(TraitError::TooManyValues {
                name: "a".to_owned(),
                count: MAX_TRAIT_VALUES + 1
            })
        );
        assert_eq!(
            one("a", vec!["x".repeat(MAX_TRAIT_VALUE_BYTES + 1)]),
            Err(TraitError::ValueTooLong("a".to_owned()))
        );
        let many = (0..=MAX_TRAITS)
            .map(|n| (format!("t{n}"), vec![]))
            .collect();
        assert_eq!(Traits::new(many), Err(TraitError::TooMany(MAX_TRAITS + 1)));
        let most = (1..=MAX_TRAITS).map(|n| (format!("t{n}"), vec![]));
        assert!(Traits::new(most.collect()).is_ok());
        let most = vec!["x".repeat(MAX_TRAIT_VALUE_BYTES); MAX_TRAIT_VALUES];
        assert!(one("a", most).is_ok());
        assert!(serde_json::from_str::<Traits>("{\"\": []}").is_err());
    }
}
