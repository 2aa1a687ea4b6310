//! Roles, compiled once: what decisions run on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use mezite_core::{Login, RoleName};
use thiserror::Error;

use crate::admin::Rule;
use crate::budget::{Budget, MAX_PATTERNS, MAX_ROLES, MAX_SUBJECT_ROLES};
use crate::decide::Reason;
use crate::document::{EVERY_NODE, LabelSelectors, LoginValue, Role};
use crate::once::{AsLogin, AtNode, Lists};
use crate::options::Options;
use crate::selector::{Selector, SelectorError};
use crate::subject::{NodeLabels, Sources, Subject};

/// The roles of a cluster, compiled. Cheap to ask, immutable; a change of roles compiles a new one.
#[derive(Debug, Default)]
pub struct PolicySet {
    /// Sorted by name.
    roles: Vec<Compiled>,
    /// Where a role stands among them: a decision looks up each role of the subject. Their names are an administrator's
    /// choice, so that the hash has to be quick and need not be secret.
    places: HashMap<RoleName, usize, FixedState>,
}

/// Why roles do not make a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Two roles have one name.
    #[error("there are two roles `{0}`: rename one")]
    Duplicate(RoleName),
    /// More than [`MAX_PATTERNS`] in all roles.
    #[error("the roles hold more than {MAX_PATTERNS} patterns: role `{0}` is the first beyond")]
    Patterns(RoleName),
    /// More than [`MAX_ROLES`].
    #[error("there are more than {MAX_ROLES} roles: role `{0}` is the first beyond")]
    Roles(RoleName),
    /// A value does not compile.
    #[error("role `{role}`: {reason}")]
    Selector {
        /// The role.
        role: RoleName,
        /// What is wrong.
        reason: SelectorError,
    },
}

impl PolicySet {
    /// Compiles these roles, and no others: add [`builtin_roles`](crate::builtin_roles) where they are wanted.
    ///
    /// # Errors
    /// Two roles of one name, or a bound that is exceeded.
    pub fn compile(roles: impl IntoIterator<Item = Role>) -> Result<Self, PolicyError> {
        let mut compiled = BTreeMap::new();
        let mut patterns = 0_usize;
        let mut lists = Lists::default();
        for role in roles {
            let name = role.name().clone();
            if compiled.len() == MAX_ROLES {
                return Err(PolicyError::Roles(name));
            }
            let one = Compiled::new(role, &mut lists).map_err(|reason| PolicyError::Selector {
                role: name.clone(),
                reason,
            })?;
            patterns = patterns.saturating_add(one.patterns());
            if patterns > MAX_PATTERNS {
                return Err(PolicyError::Patterns(name));
            }
            if compiled.insert(name.clone(), one).is_some() {
                return Err(PolicyError::Duplicate(name));
            }
        }
        let names = compiled.keys().cloned();
        Ok(Self {
            places: names.zip(0..).collect(),
            roles: compiled.into_values().collect(),
        })
    }

    /// The documents it was compiled from, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.iter().map(|compiled| &compiled.role)
    }

    /// Its roles with their selectors, by name.
    pub(crate) fn compiled(&self) -> impl Iterator<Item = &Compiled> {
        self.roles.iter()
    }

    pub(crate) fn get(&self, name: &RoleName) -> Option<&Compiled> {
        self.roles.get(*self.places.get(name)?)
    }

    /// The subject's roles. One that is not known might deny, so none can be used without it.
    pub(crate) fn roles_of(&self, subject: &Subject) -> Result<Vec<&Compiled>, Reason> {
        if subject.roles.len() > MAX_SUBJECT_ROLES {
            return Err(Reason::TooManyRoles);
        }
        let mut roles = Vec::with_capacity(subject.roles.len());
        for name in &subject.roles {
            roles.push(self.get(name).ok_or(Reason::UnknownRole)?);
        }
        Ok(roles)
    }
}

/// One role with its selectors compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) role: Role,
    pub(crate) allow_labels: Option<LabelSet>,
    pub(crate) allow_logins: Arc<LoginSet>,
    pub(crate) deny_labels: Option<LabelSet>,
    pub(crate) deny_logins: Arc<LoginSet>,
    pub(crate) combined: Vec<(LabelSet, Arc<LoginSet>)>,
}

impl Compiled {
    fn new(role: Role, lists: &mut Lists) -> Result<Self, SelectorError> {
        let (allow, deny) = (&role.spec.allow, &role.spec.deny);
        let sources = allow.sources();
        let granting = allow.node_labels.as_ref();
        let refusing = deny.node_labels.as_ref();
        let combined = deny.combined.iter();
        Ok(Self {
            allow_labels: granting
                .map(|labels| LabelSet::new(labels, sources, lists))
                .transpose()?,
            allow_logins: LoginSet::new(&allow.logins, lists)?,
            deny_labels: refusing
                .map(|labels| LabelSet::new(labels, Sources::ALL, lists))
                .transpose()?,
            deny_logins: LoginSet::new(deny.logins.as_deref().unwrap_or_default(), lists)?,
            combined: combined
                .map(|both| {
                    Ok((
                        LabelSet::new(&both.node_labels, Sources::ALL, lists)?,
                        LoginSet::new(&both.logins, lists)?,
                    ))
                })
                .collect::<Result<_, SelectorError>>()?,
            role,
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.role.spec.options
    }

    pub(crate) fn allow_rules(&self) -> &[Rule] {
        &self.role.spec.allow.rules
    }

    pub(crate) fn deny_rules(&self) -> &[Rule] {
        &self.role.spec.deny.rules
    }

    /// Whether the role allows.
    pub(crate) fn grants<'p>(&'p self, node: &AtNode<'p>, login: &AsLogin<'p>) -> bool {
        login.grants(&self.allow_logins) && self.grants_node(node)
    }

    /// Whether `allow.node_labels` is there and matches.
    pub(crate) fn grants_node<'p>(&'p self, node: &AtNode<'p>) -> bool {
        self.allow_labels
            .as_ref()
            .is_some_and(|set| set.grants(node))
    }

    /// Whether some part of `deny` matches.
    pub(crate) fn refuses<'p>(&'p self, node: &AtNode<'p>, login: &AsLogin<'p>) -> bool {
        self.refuses_node(node)
            || login.refuses(&self.deny_logins)
            || self
                .combined
                .iter()
                .any(|(labels, logins)| labels.refuses(node) && login.refuses(logins))
    }

    /// Whether `deny.node_labels` is there and matches.
    pub(crate) fn refuses_node<'p>(&'p self, node: &AtNode<'p>) -> bool {
        self.deny_labels
            .as_ref()
            .is_some_and(|set| set.refuses(node))
    }

    /// Every `node_labels`, under allow and under deny.
    pub(crate) fn label_sets(&self) -> impl Iterator<Item = &LabelSet> {
        let combined = self.combined.iter().map(|(labels, _)| labels);
        self.allow_labels
            .iter()
            .chain(&self.deny_labels)
            .chain(combined)
    }

    fn patterns(&self) -> usize {
        let login_sets = [&self.allow_logins, &self.deny_logins]
            .into_iter()
            .chain(self.combined.iter().map(|(_, logins)| logins));
        self.label_sets()
            .flat_map(LabelSet::selectors)
            .chain(login_sets.flat_map(|set| &set.values))
            .filter(|selector| selector.has_pattern())
            .count()
    }
}

/// A compiled `node_labels`.
#[derive(Debug)]
pub(crate) struct LabelSet {
    keys: Vec<Arc<KeySelector>>,
    /// Whether a value is a template: only one of those may not be resolved.
    templates: bool,
}

/// One key of it with its values.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeySelector {
    pub(crate) key: String,
    pub(crate) values: Vec<Selector>,
    /// Whose labels count under allow. Under deny all do.
    sources: Sources,
}

impl LabelSet {
    fn new<S>(
        labels: &LabelSelectors<S>,
        sources: Sources,
        lists: &mut Lists,
    ) -> Result<Self, SelectorError> {
        let keys = labels.iter().map(|(key, values)| {
            let values = values.iter().map(|value| value.selector());
            Ok(lists.key(KeySelector {
                key: key.to_owned(),
                values: values.collect::<Result<_, _>>()?,
                sources,
            }))
        });
        let keys = keys.collect::<Result<Vec<Arc<KeySelector>>, SelectorError>>()?;
        let mut values = keys.iter().flat_map(|key| &key.values);
        let templates = values.any(|value| value.template().is_some());
        Ok(Self { keys, templates })
    }

    pub(crate) fn keys(&self) -> &[Arc<KeySelector>] {
        &self.keys
    }

    pub(crate) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.keys.iter().flat_map(|key| &key.values)
    }

    /// Under allow: every key has a value that this role believes, and it matches.
    fn grants<'p>(&'p self, node: &AtNode<'p>) -> bool {
        self.keys.iter().all(|key| node.grants(key))
    }

    /// Under deny: every key matches what some source says, or a template is not resolved.
    pub(crate) fn refuses<'p>(&'p self, node: &AtNode<'p>) -> bool {
        self.templates && !self.keys.iter().all(|key| node.resolves(key))
            || self.keys.iter().all(|key| node.refuses(key))
    }
}

impl KeySelector {
    pub(crate) fn grants(&self, subject: &Subject, labels: &NodeLabels, budget: &Budget) -> bool {
        self.key == EVERY_NODE
            || labels
                .granting(self.sources, &self.key)
                .is_some_and(|value| self.matches(subject, value, budget))
    }

    pub(crate) fn refuses(&self, subject: &Subject, labels: &NodeLabels, budget: &Budget) -> bool {
        self.key == EVERY_NODE
            || labels
                .refusing(&self.key)
                .any(|value| self.matches(subject, value, budget))
    }

    pub(crate) fn resolves(&self, subject: &Subject, budget: &Budget) -> bool {
        self.values
            .iter()
            .all(|value| value.resolves(subject, budget))
    }

    fn matches(&self, subject: &Subject, text: &str, budget: &Budget) -> bool {
        self.values
            .iter()
            .any(|value| value.matches(subject, text, budget))
    }
}

/// Compiled `logins`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoginSet {
    pub(crate) values: Vec<Selector>,
    /// Whether a value is a template: only one of those may not be resolved.
    templates: bool,
}

impl LoginSet {
    fn new(logins: &[LoginValue], lists: &mut Lists) -> Result<Arc<Self>, SelectorError> {
        let values = logins.iter().map(LoginValue::selector);
        let values: Vec<Selector> = values.collect::<Result<_, _>>()?;
        let templates = values.iter().any(|value| value.template().is_some());
        Ok(lists.logins(Self { values, templates }))
    }

    /// Under allow: one matches.
    pub(crate) fn grants(&self, subject: &Subject, login: &Login, budget: &Budget) -> bool {
        self.values
            .iter()
            .any(|value| value.matches(subject, login.as_str(), budget))
    }

    /// Under deny: one matches, or one is not resolved.
    pub(crate) fn refuses(&self, subject: &Subject, login: &Login, budget: &Budget) -> bool {
        !self.resolves(subject, budget) || self.grants(subject, login, budget)
    }

    pub(crate) fn resolves(&self, subject: &Subject, budget: &Budget) -> bool {
        !self.templates
            || self
                .values
                .iter()
                .all(|value| value.resolves(subject, budget))
    }

    /// Whether, under deny, no login is left: `"*"`, or one that is not resolved.
    pub(crate) fn refuses_all(&self, subject: &Subject, budget: &Budget) -> bool {
        self.values.iter().any(Selector::is_any) || !self.resolves(subject, budget)
    }

    /// Whether it can match logins that cannot be listed.
    pub(crate) fn is_open(&self) -> bool {
        self.values.iter().any(Selector::is_open)
    }

    /// The logins that can be listed.
    pub(crate) fn listed(&self, subject: &Subject, budget: &Budget) -> Vec<Login> {
        let texts = self
            .values
            .iter()
            .flat_map(|value| value.expand(subject, budget));
        texts.filter_map(|text| text.parse().ok()).collect()
    }
}
