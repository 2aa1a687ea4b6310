//! What a change of roles would do: who gains, who loses, whose sessions get other conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use mezite_core::{Login, NodeName, RoleName, Span, UserName};
use serde::Serialize;
use serde_json::Value;

use crate::admin::{Owner, Resource, Verb, allows_of};
use crate::decide::identity_ttl;
use crate::options::Obligations;
use crate::policy::{Compiled, PolicySet};
use crate::reach::{Inventory, NodeNames, shown};
use crate::selector::Selector;
use crate::subject::Subject;
use crate::survey::{Fleet, Found, Question, Survey};

/// What becomes different for the users of an inventory; readable lines as `Display`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Those for whom something does, in the inventory's order.
    pub users: Vec<UserDiff>,
}

impl Diff {
    /// Whether nothing changes for anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// What becomes different for one user.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UserDiff {
    /// Who.
    pub user: UserName,
    /// Roles of the user that the policy knew and does not know any more: the user loses everything.
    pub forgotten: Vec<RoleName>,
    /// On nodes.
    pub targets: Vec<TargetDiff>,
    /// Administrative calls that become possible.
    pub gained: Vec<Call>,
    /// Administrative calls that are not possible any more.
    pub lost: Vec<Call>,
    /// How long an identity may last, before and after, where that changes; none is no limit.
    pub identity_ttl: Option<(Option<Span>, Option<Span>)>,
}

/// What becomes different for one user on some nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetDiff {
    /// Where, at least one.
    pub nodes: Vec<NodeName>,
    /// Logins that become possible.
    pub gained: Vec<Login>,
    /// Logins that are not possible any more.
    pub lost: Vec<Login>,
    /// Patterns under allow that begin to hold: logins beyond the listed ones may become possible.
    pub gained_patterns: Vec<String>,
    /// Patterns under allow that hold no more.
    pub lost_patterns: Vec<String>,
    /// Logins that stay possible on other conditions.
    pub conditions: Vec<ConditionDiff>,
    /// One of the two sides takes too many steps to say: before, after.
    pub exhausted: (bool, bool),
}

/// An obligation that changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionDiff {
    /// The obligation's name, as in [`Obligations`].
    pub option: String,
    /// What it was.
    pub before: Value,
    /// What it becomes.
    pub after: Value,
    /// For whom.
    pub logins: Vec<Login>,
}

/// An administrative call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Call {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub resource: Resource,
    /// Whose it is; none when that does not matter.
    pub owner: Option<Owner>,
}

/// Compares what two policies say to everybody in the inventory about every node, login and administrative call.
///
/// The logins asked about are those that roles of either policy name, those that traits give, and those of the inventory. The
/// client's address is left out, but the networks that are admitted are among the conditions.
#[must_use]
pub fn diff(before: &PolicySet, after: &PolicySet, inventory: &Inventory) -> Diff {
    Diff {
        users: differences(before, after, inventory).collect(),
    }
}

/// [`diff`], one user after the other: what changes for a large inventory need not be held at once.
pub fn differences<'a>(
    before: &'a PolicySet,
    after: &'a PolicySet,
    inventory: &'a Inventory,
) -> impl Iterator<Item = UserDiff> {
    let users: Vec<&Subject> = inventory.users.iter().collect();
    let logins = named_logins(before, after, inventory);
    let fleet = Fleet::new(&inventory.nodes, &[before, after]);
    let surveys = (
        Survey::new(before, &users, &fleet),
        Survey::new(after, &users, &fleet),
    );
    let change = move |user: &'a Subject| {
        let question = Question {
            login: None,
            also: &logins,
            conditions: true,
        };
        UserDiff {
            user: user.user.clone(),
            forgotten: forgotten(before, after, user),
            targets: targets((&surveys.0, &surveys.1), &fleet, user, question),
            gained: calls(after, before, user),
            lost: calls(before, after, user),
            identity_ttl: changed(identity_ttl(before, user), identity_ttl(after, user)),
        }
    };
    users
        .into_iter()
        .map(change)
        .filter(UserDiff::says_something)
}

/// Every login that a role names anywhere, so that a new deny of one that `"*"` allowed is seen.
fn named_logins(before: &PolicySet, after: &PolicySet, inventory: &Inventory) -> Vec<Login> {
    let sets = |role: &Compiled| {
        let combined = role.combined.iter().flat_map(|(_, logins)| &logins.values);
        let all = role
            .allow_logins
            .values
            .iter()
            .chain(&role.deny_logins.values);
        let exact = all.chain(combined).filter(|selector| selector.is_exact());
        exact
            .map(Selector::text)
            .filter_map(|text| text.parse().ok())
            .collect::<Vec<Login>>()
    };
    let roles = before.compiled().chain(after.compiled());
    let named: BTreeSet<Login> = roles
        .flat_map(sets)
        .chain(inventory.logins.iter().cloned())
        .collect();
    named.into_iter().collect()
}

fn changed<T: PartialEq>(before: T, after: T) -> Option<(T, T)> {
    (before != after).then_some((before, after))
}

fn forgotten(before: &PolicySet, after: &PolicySet, user: &Subject) -> Vec<RoleName> {
    let names = user.roles.iter();
    names
        .filter(|name| before.get(name).is_some() && after.get(name).is_none())
        .cloned()
        .collect()
}

/// The calls that `with` allows and `without` does not.
fn calls(with: &PolicySet, without: &PolicySet, user: &Subject) -> Vec<Call> {
    let mut calls = Vec::new();
    for resource in Resource::ALL.iter().copied() {
        for verb in Verb::ALL.iter().copied() {
            let owners: Vec<Owner> = Owner::ALL
                .into_iter()
                .filter(|owner| allows_of(with, user, resource, verb, *owner))
                .filter(|owner| !allows_of(without, user, resource, verb, *owner))
                .collect();
            let call = |owner| Call {
                verb,
                resource,
                owner,
            };
            if owners == Owner::ALL {
                calls.push(call(None));
            } else {
                calls.extend(owners.into_iter().map(|owner| call(Some(owner))));
            }
        }
    }
    calls
}

/// A pair of findings and where it holds.
type Pairs<'a> = Vec<(Rc<Found>, Rc<Found>, Vec<&'a NodeName>)>;

fn targets<'a>(
    surveys: (&Survey<'a>, &Survey<'a>),
    fleet: &Fleet<'a>,
    user: &'a Subject,
    question: Question<'_>,
) -> Vec<TargetDiff> {
    let nothing = Rc::new(Found::default());
    let mut earlier = surveys.0.person(user, question);
    let mut later = surveys.1.person(user, question);
    let mut pairs: Pairs<'a> = Vec::new();
    // The pairs hold their findings, so that an address is nobody else's.
    let mut places: BTreeMap<(*const Found, *const Found), usize> = BTreeMap::new();
    for class in fleet.classes() {
        let at = |person: &mut Option<_>| match person {
            Some(person) => crate::survey::Person::at(person, class),
            None => Rc::clone(&nothing),
        };
        let (before, after) = (at(&mut earlier), at(&mut later));
        let names = class.nodes.iter().map(|node| &node.name);
        let key = (Rc::as_ptr(&before), Rc::as_ptr(&after));
        let place = *places.entry(key).or_insert(pairs.len());
        match pairs.get_mut(place) {
            Some((_, _, nodes)) => nodes.extend(names),
            None => pairs.push((before, after, names.collect())),
        }
    }
    let mut targets: Vec<TargetDiff> = Vec::new();
    for (before, after, nodes) in pairs.iter().filter(|(before, after, _)| before != after) {
        let target = TargetDiff::new(before, after);
        let names = nodes.iter().copied().cloned();
        match targets.iter_mut().find(|other| other.is_same(&target)) {
            Some(other) => other.nodes.extend(names),
            None => targets.push(TargetDiff {
                nodes: names.collect(),
                ..target
            }),
        }
    }
    targets
}

impl UserDiff {
    fn says_something(&self) -> bool {
        // A forgotten role that makes no difference is none: the user was denied everything before.
        !(self.targets.is_empty()
            && self.gained.is_empty()
            && self.lost.is_empty()
            && self.identity_ttl.is_none())
    }
}

impl TargetDiff {
    fn new(before: &Found, after: &Found) -> Self {
        Self {
            nodes: Vec::new(),
            gained: logins_beyond(after, before),
            lost: logins_beyond(before, after),
            gained_patterns: after
                .patterns
                .difference(&before.patterns)
                .cloned()
                .collect(),
            lost_patterns: before
                .patterns
                .difference(&after.patterns)
                .cloned()
                .collect(),
            conditions: conditions(before, after),
            exhausted: (before.exhausted, after.exhausted),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let Self {
            nodes: _,
            gained,
            lost,
            gained_patterns,
            lost_patterns,
            conditions,
            exhausted,
        } = self;
        *gained == other.gained
            && *lost == other.lost
            && *gained_patterns == other.gained_patterns
            && *lost_patterns == other.lost_patterns
            && *conditions == other.conditions
            && *exhausted == other.exhausted
    }
}

fn logins_beyond(more: &Found, fewer: &Found) -> Vec<Login> {
    let logins = more.logins.keys();
    logins
        .filter(|login| !fewer.logins.contains_key(login))
        .cloned()
        .collect()
}

fn conditions(before: &Found, after: &Found) -> Vec<ConditionDiff> {
    let mut all: Vec<ConditionDiff> = Vec::new();
    for (login, earlier) in &before.logins {
        let later = after.logins.get(login).and_then(Option::as_ref);
        let (Some(earlier), Some(later)) = (earlier, later) else {
            continue;
        };
        for (option, before, after) in differing(earlier, later) {
            let same = |one: &&mut ConditionDiff| {
                one.option == option && one.before == before && one.after == after
            };
            match all.iter_mut().find(same) {
                Some(one) => one.logins.push(login.clone()),
                None => all.push(ConditionDiff {
                    option,
                    before,
                    after,
                    logins: vec![login.clone()],
                }),
            }
        }
    }
    all
}

/// The obligations that differ, by name, with both values.
pub(crate) fn differing(one: &Obligations, other: &Obligations) -> Vec<(String, Value, Value)> {
    let (one, other) = (one.to_fields(), other.to_fields());
    one.into_iter()
        .filter_map(|(name, value)| {
            let second = other.get(&name).cloned().unwrap_or_default();
            (value != second).then_some((name, value, second))
        })
        .collect()
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing changes for anybody");
        }
        for (index, user) in self.users.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            user.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for UserDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)?;
        for role in &self.forgotten {
            write!(
                f,
                "\n  ! role {role} is gone: whoever holds it may do nothing"
            )?;
        }
        for target in &self.targets {
            target.fmt(f)?;
        }
        for call in &self.gained {
            write!(f, "\n  + may {call}")?;
        }
        for call in &self.lost {
            write!(f, "\n  - may {call}")?;
        }
        if let Some((before, after)) = &self.identity_ttl {
            let said =
                |ttl: &Option<Span>| ttl.map_or("no limit".to_owned(), |ttl| ttl.to_string());
            let (before, after) = (said(before), said(after));
            write!(f, "\n  ~ identity may last {before} -> {after}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TargetDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = NodeNames(self.nodes.iter().collect());
        let joined = |logins: &[Login], patterns: &[String]| {
            let logins = logins.iter().map(ToString::to_string);
            let patterns = patterns.iter().map(|pattern| shown(pattern));
            logins.chain(patterns).collect::<Vec<_>>().join(", ")
        };
        let gained = joined(&self.gained, &self.gained_patterns);
        if !gained.is_empty() {
            write!(f, "\n  + {gained} on {nodes}")?;
        }
        let lost = joined(&self.lost, &self.lost_patterns);
        if !lost.is_empty() {
            write!(f, "\n  - {lost} on {nodes}")?;
        }
        for condition in &self.conditions {
            let logins = joined(&condition.logins, &[]);
            write!(f, "\n  ~ {condition} as {logins} on {nodes}")?;
        }
        match self.exhausted {
            (false, false) => Ok(()),
            (true, _) => write!(f, "\n  ! before: too large to say on {nodes}"),
            (false, true) => write!(f, "\n  ! after: too large to say on {nodes}"),
        }
    }
}

/// `port_forwarding: true -> false`
impl fmt::Display for ConditionDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.option, self.before, self.after)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        f.write_str(match self.owner {
            None => "",
            Some(Owner::Own) => " of their own",
            Some(Owner::Other) => " of others",
            Some(Owner::Unknown) => " without a known owner",
        })
    }
}
