//! Role documents: what they may hold, how they are read and written.
//!
//! Here everything is still text, checked where it stands so that errors have a line and a column;
//! [`crate::PolicySet`] compiles it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use mezite_core::{LabelSource, Labels, RoleName};
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::{DefaultMessageFormatter, MergeKeyPolicy, MessageFormatter};
use thiserror::Error;

use crate::admin::Rule;
use crate::budget::{MAX_DOCUMENT_BYTES, MAX_LABEL_KEYS, MAX_RULES, MAX_VALUES};
use crate::options::Options;
use crate::selector::{Selector, SelectorError};
use crate::subject::{Sources, TAG};

/// A checked document `kind: role`.
///
/// Reading it from JSON with serde makes the same checks as [`Role::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    pub(crate) kind: Kind,
    pub(crate) version: Version,
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) spec: Spec,
}

/// Why a text holds no role documents.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RoleError {
    /// Something in it is not as it should be.
    #[error("{origin}:{line}:{column}: {message}")]
    Document {
        /// Where the text comes from, as the caller said.
        origin: String,
        /// Line, from 1; 0 when not known.
        line: u64,
        /// Column in characters, from 1; 0 when not known.
        column: u64,
        /// What is wrong.
        message: String,
    },
    /// There is no document in it.
    #[error("{origin}: there is no role in it: write a document with `kind: role`")]
    Empty {
        /// Where the text comes from, as the caller said.
        origin: String,
    },
    /// Longer than [`MAX_DOCUMENT_BYTES`].
    #[error("{origin}: {bytes} bytes are too long: at most {MAX_DOCUMENT_BYTES}, split it")]
    TooLong {
        /// Where the text comes from, as the caller said.
        origin: String,
        /// How long it is.
        bytes: usize,
    },
}

impl Role {
    /// Reads every YAML document in `yaml`. `origin` names it in errors, for example a path.
    ///
    /// # Errors
    /// The first thing that is unknown, misspelt or out of bounds, with its line and column.
    pub fn parse(yaml: &str, origin: &str) -> Result<Vec<Self>, RoleError> {
        let origin = shown(origin);
        if yaml.len() > MAX_DOCUMENT_BYTES {
            let bytes = yaml.len();
            return Err(RoleError::TooLong { origin, bytes });
        }
        match read::<Self>(yaml) {
            Err(found) => Err(RoleError::Document {
                origin,
                line: found.line,
                column: found.column,
                message: found.message,
            }),
            Ok(roles) if roles.is_empty() => Err(RoleError::Empty { origin }),
            Ok(roles) => Ok(roles),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RoleName {
        &self.metadata.name
    }

    /// What it is for, in words; may be empty.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.metadata.description
    }

    /// The document as YAML, which [`Role::parse`] reads back to the same role.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        // Maps, lists and strings always have a YAML form; an empty text would be refused when it is read.
        serde_saphyr::to_string(self).unwrap_or_default()
    }

    /// The document as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // Keys are strings and there are no floats: nothing can fail; null would be refused when it is read.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// YAML without its surprises: no aliases, no merge keys, `no` is text, tags are refused.
fn reading() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_depth: 32,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// What is wrong with a document, and where.
pub(crate) struct Mistake {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) message: String,
}

/// Every YAML document in `yaml`.
pub(crate) fn read<T: DeserializeOwned>(yaml: &str) -> Result<Vec<T>, Mistake> {
    serde_saphyr::from_multiple_with_options(yaml, reading()).map_err(|error| {
        let message = DefaultMessageFormatter.format_message(error.without_snippet());
        let location = error.location();
        Mistake {
            line: location.map_or(0, |location| location.line()),
            column: location.map_or(0, |location| location.column()),
            message: meant(message.chars().flat_map(escape_control).collect()),
        }
    })
}

/// The message about an unknown word, with the known one that was probably meant: at most two letters away.
fn meant(message: String) -> String {
    let nearest = || {
        let (said, known) = message.split_once(", expected one of ")?;
        let (_, word) = said.strip_suffix('`')?.rsplit_once('`')?;
        let known = known.split(", ").map(|one| one.trim_matches('`'));
        let near = known.map(|one| (strsim::osa_distance(word, one), one));
        let (distance, one) = near.min()?;
        (distance <= 2 && distance < word.chars().count()).then_some(one)
    };
    match nearest() {
        None => message,
        Some(one) => format!("{message}: did you mean `{one}`?"),
    }
}

fn escape_control(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

pub(crate) fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(escape_control).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[serde(rename = "role")]
    Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    #[serde(rename = "v1")]
    V1,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) name: RoleName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) options: Options,
    pub(crate) allow: Allow,
    pub(crate) deny: Deny,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allow {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) node_labels: Option<LabelSelectors<Granting>>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) node_label_sources: Option<Bounded<LabelSource, 1, 3>>,
    #[serde(skip_serializing_if = "Bounded::is_empty")]
    pub(crate) logins: Bounded<LoginValue, 0, MAX_VALUES>,
    #[serde(skip_serializing_if = "Bounded::is_empty")]
    pub(crate) rules: Bounded<Rule, 0, MAX_RULES>,
}

impl Allow {
    /// Which sources the role believes: all but the agent, unless it says otherwise.
    pub(crate) fn sources(&self) -> Sources {
        match &self.node_label_sources {
            Some(sources) => Sources::of(sources),
            None => Sources::of(&[LabelSource::Operator, LabelSource::Token]),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Deny {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) node_labels: Option<LabelSelectors<Refusing>>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) logins: Option<Bounded<LoginValue, 1, MAX_VALUES>>,
    #[serde(skip_serializing_if = "Bounded::is_empty")]
    pub(crate) combined: Bounded<Combined, 0, MAX_RULES>,
    #[serde(skip_serializing_if = "Bounded::is_empty")]
    pub(crate) rules: Bounded<Rule, 0, MAX_RULES>,
}

/// An entry of `deny.combined`: denies where both match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Combined {
    pub(crate) node_labels: LabelSelectors<Refusing>,
    pub(crate) logins: Bounded<LoginValue, 1, MAX_VALUES>,
}

/// A list of `MIN` to `MAX` entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounded<T, const MIN: usize, const MAX: usize>(Vec<T>);

impl<T, const MIN: usize, const MAX: usize> Bounded<T, MIN, MAX> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T, const MAX: usize> Default for Bounded<T, 0, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MIN: usize, const MAX: usize> From<Bounded<T, MIN, MAX>> for Vec<T> {
    fn from(list: Bounded<T, MIN, MAX>) -> Self {
        list.0
    }
}

impl<T, const MIN: usize, const MAX: usize> Deref for Bounded<T, MIN, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize, const MIN: usize, const MAX: usize> Serialize for Bounded<T, MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MIN: usize, const MAX: usize> Deserialize<'de>
    for Bounded<T, MIN, MAX>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MIN: usize, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MIN: usize, const MAX: usize> Visitor<'de>
    for ListVisitor<T, MIN, MAX>
{
    type Value = Bounded<T, MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {MIN} to {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = seq.next_element()? {
            if list.len() == MAX {
                return Err(serde::de::Error::custom(format_args!(
                    "this list is too long: at most {MAX} entries"
                )));
            }
            list.push(entry);
        }
        if list.len() < MIN {
            return Err(serde::de::Error::custom(
                "this list is empty: name at least one, or leave the key out",
            ));
        }
        Ok(Bounded(list))
    }
}

/// Where a `node_labels` stands: the two read labels differently.
pub(crate) trait Side: Clone + fmt::Debug + PartialEq + Eq {
    /// Why this key cannot stand here.
    fn refuses_key(key: &str) -> Option<&'static str>;
}

/// Under allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granting;

/// Under deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusing;

impl Side for Granting {
    fn refuses_key(key: &str) -> Option<&'static str> {
        key.starts_with(TAG)
            .then_some("labels that start with `tag:` never grant: select by another label")
    }
}

impl Side for Refusing {
    fn refuses_key(_: &str) -> Option<&'static str> {
        None
    }
}

/// `node_labels`: every key has to match (`"*": "*"` always does), and of its values one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelSelectors<S>(BTreeMap<String, Values>, PhantomData<S>);

/// The key that, with the value `"*"`, stands for every node.
pub(crate) const EVERY_NODE: &str = "*";

impl<S> LabelSelectors<S> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Values)> {
        self.0.iter().map(|(key, values)| (key.as_str(), values))
    }
}

impl<S> Serialize for LabelSelectors<S> {
    fn serialize<Out: Serializer>(&self, serializer: Out) -> Result<Out::Ok, Out::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, S: Side> Deserialize<'de> for LabelSelectors<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelsVisitor(PhantomData))
    }
}

struct LabelsVisitor<S>(PhantomData<S>);

impl<'de, S: Side> Visitor<'de> for LabelsVisitor<S> {
    type Value = LabelSelectors<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 to {MAX_LABEL_KEYS} labels with what they have to be")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<LabelKey<S>>()? {
            let values: Values = access.next_value()?;
            if key.0 == EVERY_NODE && !values.is_any() {
                return Err(serde::de::Error::custom(
                    "the key \"*\" means every node and has the value \"*\" only",
                ));
            }
            if map.len() == MAX_LABEL_KEYS {
                return Err(serde::de::Error::custom(format_args!(
                    "too many labels: at most {MAX_LABEL_KEYS}"
                )));
            }
            if map.insert(key.0, values).is_some() {
                return Err(serde::de::Error::custom("this label stands here twice"));
            }
        }
        if map.is_empty() {
            return Err(serde::de::Error::custom(
                "name at least one label, or write \"*\": \"*\" for every node",
            ));
        }
        Ok(LabelSelectors(map, PhantomData))
    }
}

/// A key that a node's labels can have, or `"*"`.
struct LabelKey<S>(String, PhantomData<S>);

impl<'de, S: Side> Deserialize<'de> for LabelKey<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = text(deserializer)?;
        if let Some(reason) = S::refuses_key(&key) {
            return Err(serde::de::Error::custom(reason));
        }
        if key != EVERY_NODE {
            let alone = BTreeMap::from([(key.clone(), String::new())]);
            Labels::new(alone).map_err(serde::de::Error::custom)?;
        }
        Ok(Self(key, PhantomData))
    }
}

/// What a label has to be: one value or a list of values of which one has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values(Vec<LabelValue>);

impl Values {
    fn is_any(&self) -> bool {
        matches!(self.0.as_slice(), [LabelValue(text)] if text == "*")
    }
}

impl Deref for Values {
    type Target = [LabelValue];

    fn deref(&self) -> &[LabelValue] {
        &self.0
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of text (numbers, booleans and null in quotes)")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Values, E> {
        let value = LabelValue::try_from(text.to_owned()).map_err(E::custom)?;
        Ok(Values(vec![value]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Values, A::Error> {
        let list: Bounded<LabelValue, 1, MAX_VALUES> =
            ListVisitor::<_, 1, MAX_VALUES>(PhantomData).visit_seq(seq)?;
        Ok(Values(list.0))
    }
}

/// Declares a checked text whose selector is compiled later.
macro_rules! value {
    ($(#[$doc:meta])* $type:ident, $parse:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(into = "String")]
        pub(crate) struct $type(String);

        impl $type {
            /// The compiled form.
            pub(crate) fn selector(&self) -> Result<Selector, SelectorError> {
                $parse(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = SelectorError;

            fn try_from(text: String) -> Result<Self, SelectorError> {
                $parse(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(text(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

value!(
    /// What a label has to be.
    LabelValue,
    Selector::parse
);

value!(
    /// What a login has to be.
    LoginValue,
    Selector::parse_login
);

/// A key that is there has a value: `logins:` with nothing behind it is no empty list, it is a mistake.
pub(crate) fn announced<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Text that is text: YAML numbers, booleans and null have to be quoted, so that `1.10` is not `1.1`.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(TextVisitor)
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text (numbers, booleans and null in quotes)")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}
