//! Who can reach what: everybody and every node at once, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use mezite_core::{Login, NodeName};
use serde::{Deserialize, Serialize};

use crate::policy::PolicySet;
use crate::subject::{Node, Subject};
use crate::survey::{Fleet, Found, Question, Survey};

/// The users and nodes that there are, for questions about all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Everybody who holds roles.
    #[serde(default)]
    pub users: Vec<Subject>,
    /// Every node.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Logins to ask about besides those that roles and traits name: where a role allows a pattern, the accounts that exist.
    #[serde(default)]
    pub logins: Vec<Login>,
}

/// As which logins one user reaches one node, from some address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reach {
    /// Logins that can be listed.
    pub logins: BTreeSet<Login>,
    /// `"*"` and patterns under allow, which may grant more; a deny may still take some logins out.
    pub patterns: BTreeSet<String>,
    /// Finding out would take more than [`MAX_STEPS`](crate::budget::MAX_STEPS); nothing is listed.
    pub exhausted: bool,
}

impl Reach {
    /// Whether there is no way at all. Not so when it could not be found out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logins.is_empty() && self.patterns.is_empty() && !self.exhausted
    }
}

impl From<&Found> for Reach {
    fn from(found: &Found) -> Self {
        Self {
            logins: found.logins.keys().cloned().collect(),
            patterns: found.patterns.clone(),
            exhausted: found.exhausted,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exhausted {
            return f.write_str("too large to say");
        }
        if self.is_empty() {
            return f.write_str("nothing");
        }
        let logins = self.logins.iter().map(ToString::to_string);
        let patterns = self.patterns.iter().map(|pattern| shown(pattern));
        let all: Vec<String> = logins.chain(patterns).collect();
        f.write_str(&all.join(", "))
    }
}

/// A pattern among logins: in backticks, control characters escaped.
pub(crate) fn shown(pattern: &str) -> String {
    format!("`{}`", pattern.escape_debug())
}

/// One user and the nodes that this user reaches in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// Who.
    pub subject: &'a Subject,
    /// Where, in the order of the question; at least one.
    pub nodes: Vec<&'a Node>,
    /// As whom; never empty.
    pub reach: Reach,
}

/// `alice: deploy, root on db1, db2 and 14 more`
impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NodeNames(self.nodes.iter().map(|node| &node.name).collect());
        write!(f, "{}: {} on {names}", self.subject.user, self.reach)
    }
}

/// The first few names of nodes, and how many more there are.
pub(crate) struct NodeNames<'a>(pub(crate) Vec<&'a NodeName>);

impl fmt::Display for NodeNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let names: Vec<&str> = self
            .0
            .iter()
            .take(SHOWN)
            .map(|name| name.as_str())
            .collect();
        f.write_str(&names.join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Which of `users` reach which of `nodes`, as which logins; or as `login` alone. Pass one user for what this user can reach,
/// one node for who can reach it.
///
/// Users come in their order; those who reach nothing do not come. Nodes that a user reaches in the same way come together. The answer
/// is what [`authorize`](crate::authorize) says to each user, node and login from an address that the options admit, except that
/// a decision which is denied for its size alone may come as [`Reach::exhausted`] or as if it had the room.
pub fn who_can<'a>(
    policy: &'a PolicySet,
    users: impl IntoIterator<Item = &'a Subject>,
    nodes: impl IntoIterator<Item = &'a Node>,
    login: Option<&'a Login>,
) -> impl Iterator<Item = Access<'a>> {
    let users: Vec<&Subject> = users.into_iter().collect();
    let fleet = Fleet::new(nodes, &[policy]);
    let survey = Survey::new(policy, &users, &fleet);
    let question = Question {
        login,
        ..Question::default()
    };
    users
        .into_iter()
        .flat_map(move |user| accesses(&survey, &fleet, user, question))
}

fn accesses<'a>(
    survey: &Survey<'a>,
    fleet: &Fleet<'a>,
    subject: &'a Subject,
    question: Question<'_>,
) -> Vec<Access<'a>> {
    let Some(mut person) = survey.person(subject, question) else {
        return Vec::new();
    };
    let mut groups = Groups::default();
    for class in fleet.classes() {
        let found = person.at(class);
        if !found.is_empty() {
            groups.add(found, &class.nodes);
        }
    }
    let mut accesses: Vec<Access<'a>> = Vec::new();
    let mut places: BTreeMap<Reach, usize> = BTreeMap::new();
    for (found, nodes) in groups.groups {
        let reach = Reach::from(&*found);
        let place = *places.entry(reach.clone()).or_insert(accesses.len());
        match accesses.get_mut(place) {
            Some(access) => access.nodes.extend(nodes),
            None => accesses.push(Access {
                subject,
                nodes,
                reach,
            }),
        }
    }
    accesses
}

/// Nodes by the very finding that holds for them: cheaper than comparing what was found.
#[derive(Default)]
struct Groups<'a> {
    groups: Vec<(Rc<Found>, Vec<&'a Node>)>,
    /// A group holds its finding, so that its address is nobody else's.
    places: BTreeMap<*const Found, usize>,
}

impl<'a> Groups<'a> {
    fn add(&mut self, found: Rc<Found>, nodes: &[&'a Node]) {
        let next = self.groups.len();
        let place = *self.places.entry(Rc::as_ptr(&found)).or_insert(next);
        match self.groups.get_mut(place) {
            Some((_, group)) => group.extend(nodes),
            None => self.groups.push((found, nodes.to_vec())),
        }
    }
}

/// As which logins the subject reaches the node, from some address: [`logins`](crate::logins) and [`sees`](crate::sees) in one.
#[must_use]
pub fn reach(policy: &PolicySet, subject: &Subject, node: &Node) -> Reach {
    let mut found = who_can(policy, [subject], [node], None);
    found.next().map(|access| access.reach).unwrap_or_default()
}
