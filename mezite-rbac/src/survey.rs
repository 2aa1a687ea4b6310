//! One policy asked about many users and nodes. Nodes that no role can tell apart are decided together, and so are
//! the logins wherever the same roles grant and deny.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mezite_core::{LabelSource, Login, RoleName};

use crate::budget::Budget;
use crate::once::AtNode;
use crate::options::{Merged, Obligations};
use crate::policy::{Compiled, LoginSet, PolicySet};
use crate::subject::{Node, Subject};

/// Nodes in classes: two are in one if they agree on every label that some role selects by.
#[derive(Debug)]
pub(crate) struct Fleet<'a>(Vec<Class<'a>>);

/// Nodes that no role can tell apart; never empty.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    index: usize,
    first: &'a Node,
    pub(crate) nodes: Vec<&'a Node>,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(nodes: impl IntoIterator<Item = &'a Node>, policies: &[&PolicySet]) -> Self {
        let keys: BTreeSet<&str> = policies
            .iter()
            .flat_map(|policy| policy.compiled())
            .flat_map(Compiled::label_sets)
            .flat_map(|set| set.keys())
            .map(|key| key.key.as_str())
            .collect();
        let mut found: BTreeMap<Vec<(LabelSource, &str, &str)>, usize> = BTreeMap::new();
        let mut classes: Vec<Class<'a>> = Vec::new();
        for node in nodes {
            let seen = node.labels.iter().filter(|(_, key, _)| keys.contains(key));
            let index = *found.entry(seen.collect()).or_insert(classes.len());
            match classes.get_mut(index) {
                Some(class) => class.nodes.push(node),
                None => classes.push(Class {
                    index,
                    first: node,
                    nodes: vec![node],
                }),
            }
        }
        Self(classes)
    }

    pub(crate) fn classes(&self) -> &[Class<'a>] {
        &self.0
    }
}

/// What is asked about each user and node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Question<'a> {
    /// This login alone, and no patterns.
    pub(crate) login: Option<&'a Login>,
    /// These logins besides those that the roles list.
    pub(crate) also: &'a [Login],
    /// The obligations, too.
    pub(crate) conditions: bool,
}

/// What one user may do on the nodes of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The logins, with their obligations if they were asked for.
    pub(crate) logins: BTreeMap<Login, Option<Obligations>>,
    /// `"*"` and the patterns that grant logins which cannot be listed.
    pub(crate) patterns: BTreeSet<String>,
    /// The budget did not suffice to find out.
    pub(crate) exhausted: bool,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.logins.is_empty() && self.patterns.is_empty() && !self.exhausted
    }

    fn exhausted() -> Self {
        Self {
            exhausted: true,
            ..Self::default()
        }
    }
}

/// The roles that some users hold, and what those without templates say about each class.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    policy: &'a PolicySet,
    views: BTreeMap<&'a RoleName, View<'a>>,
}

#[derive(Debug)]
struct View<'a> {
    role: &'a Compiled,
    /// By class; none when it depends on who asks.
    fixed: Option<Vec<Verdict>>,
}

/// What the labels of one class mean to one role.
#[derive(Clone, Debug, Default)]
struct Verdict {
    grants: bool,
    refuses: bool,
    /// The entries of `deny.combined` whose labels match.
    combined: Vec<usize>,
    exhausted: bool,
}

impl Verdict {
    fn new<'p>(role: &'p Compiled, node: &AtNode<'p>) -> Self {
        let combined = role.combined.iter().enumerate();
        Self {
            grants: role.grants_node(node),
            refuses: role.refuses_node(node),
            combined: combined
                .filter(|(_, (labels, _))| labels.refuses(node))
                .map(|(index, _)| index)
                .collect(),
            exhausted: node.is_exhausted(),
        }
    }
}

impl<'a> Survey<'a> {
    pub(crate) fn new(policy: &'a PolicySet, users: &[&'a Subject], fleet: &Fleet<'_>) -> Self {
        let mut views = BTreeMap::new();
        for user in users {
            for name in &user.roles {
                let Some(role) = policy.get(name) else {
                    continue;
                };
                views
                    .entry(role.role.name())
                    .or_insert_with(|| View::new(role, user, fleet));
            }
        }
        Self { policy, views }
    }

    /// None where rule 2.1 of SPEC.md denies whatever is asked.
    pub(crate) fn person<'s>(
        &'s self,
        subject: &'a Subject,
        question: Question<'s>,
    ) -> Option<Person<'s>> {
        self.policy.roles_of(subject).ok()?;
        let budget = Budget::default();
        let views = subject.roles.iter().filter_map(|name| self.views.get(name));
        let listed = |role: &Compiled| match question.login {
            Some(_) => Vec::new(),
            None => role.allow_logins.listed(subject, &budget),
        };
        let roles = views
            .map(|view| Held {
                view,
                listed: listed(view.role),
            })
            .collect();
        let exhausted = budget.is_exhausted();
        Some(Person {
            subject,
            roles,
            question,
            exhausted,
            memo: BTreeMap::new(),
        })
    }
}

impl<'a> View<'a> {
    fn new(role: &'a Compiled, holder: &Subject, fleet: &Fleet<'_>) -> Self {
        let depends = role
            .label_sets()
            .flat_map(|set| set.selectors())
            .any(|selector| selector.template().is_some());
        let verdicts = || {
            let classes = fleet.classes().iter();
            let verdict = |class: &Class<'_>| {
                let budget = Budget::default();
                Verdict::new(role, &AtNode::new(holder, &class.first.labels, &budget))
            };
            classes.map(verdict).collect()
        };
        Self {
            role,
            fixed: (!depends).then(verdicts),
        }
    }

    /// Of the class with this number, whose labels `node` has.
    fn verdict<'p>(&'p self, class: usize, node: &AtNode<'p>) -> Cow<'p, Verdict> {
        let fixed = self.fixed.as_ref().and_then(|all| all.get(class));
        fixed.map_or_else(|| Cow::Owned(Verdict::new(self.role, node)), Cow::Borrowed)
    }
}

/// One user, with what was found so far.
#[derive(Debug)]
pub(crate) struct Person<'s> {
    subject: &'s Subject,
    roles: Vec<Held<'s>>,
    question: Question<'s>,
    /// The budget did not suffice to list the logins of the user's roles.
    exhausted: bool,
    memo: BTreeMap<Situation, Rc<Found>>,
}

#[derive(Debug)]
struct Held<'s> {
    view: &'s View<'s>,
    listed: Vec<Login>,
}

/// All that the answer depends on once the labels are read: which of the user's roles grant the node (one bit each, there are at
/// most 64), and which entries of `deny.combined` hold there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Situation {
    granting: u64,
    combined: Vec<(usize, usize)>,
}

impl Person<'_> {
    /// What this user may do on the nodes of `class`.
    pub(crate) fn at(&mut self, class: &Class<'_>) -> Rc<Found> {
        let budget = Budget::default();
        let node = AtNode::new(self.subject, &class.first.labels, &budget);
        let mut situation = Situation::default();
        let mut exhausted = false;
        for (index, held) in self.roles.iter().enumerate() {
            let verdict = held.view.verdict(class.index, &node);
            if verdict.refuses {
                return self.found(Situation::default());
            }
            exhausted |= verdict.exhausted;
            situation.granting |= u64::from(verdict.grants) << index;
            let combined = verdict.combined.iter().map(|entry| (index, *entry));
            situation.combined.extend(combined);
        }
        if exhausted {
            return Rc::new(Found::exhausted());
        }
        self.found(situation)
    }

    fn found(&mut self, situation: Situation) -> Rc<Found> {
        if let Some(found) = self.memo.get(&situation) {
            return Rc::clone(found);
        }
        let found = Rc::new(self.find(&situation));
        self.memo.insert(situation, Rc::clone(&found));
        found
    }

    fn find(&self, situation: &Situation) -> Found {
        let budget = Budget::default();
        let granting: Vec<&Held<'_>> = self
            .roles
            .iter()
            .enumerate()
            .filter(|(index, _)| situation.granting >> index & 1 == 1)
            .map(|(_, held)| held)
            .collect();
        if granting.is_empty() {
            return Found::default();
        }
        if self.exhausted {
            return Found::exhausted();
        }
        let barred = self.barred(situation);
        let mut found = Found::default();
        for login in self.candidates(&granting) {
            if barred
                .iter()
                .any(|set| set.refuses(self.subject, login, &budget))
            {
                continue;
            }
            let mut allowing = granting
                .iter()
                .map(|held| held.view.role)
                .filter(|role| role.allow_logins.grants(self.subject, login, &budget))
                .peekable();
            if allowing.peek().is_some() {
                let conditions = self.question.conditions.then(|| merged(allowing));
                found.logins.insert(login.clone(), conditions);
            }
        }
        let closed = |set: &&LoginSet| set.refuses_all(self.subject, &budget);
        if self.question.login.is_none() && !barred.iter().any(closed) {
            let sets = granting
                .iter()
                .map(|held| &held.view.role.allow_logins.values);
            found.patterns = sets
                .flatten()
                .filter(|selector| selector.is_open())
                .map(|selector| selector.text().to_owned())
                .collect();
        }
        if budget.is_exhausted() {
            return Found::exhausted();
        }
        found
    }

    /// The lists of denied logins that hold in this situation.
    fn barred(&self, situation: &Situation) -> Vec<&LoginSet> {
        let everywhere = self.roles.iter().map(|held| &*held.view.role.deny_logins);
        let here = situation.combined.iter().filter_map(|(role, entry)| {
            let (_, logins) = self.roles.get(*role)?.view.role.combined.get(*entry)?;
            Some(&**logins)
        });
        everywhere.chain(here).collect()
    }

    fn candidates<'c>(&'c self, granting: &[&'c Held<'_>]) -> BTreeSet<&'c Login> {
        match self.question.login {
            Some(login) => BTreeSet::from([login]),
            None => {
                let listed = granting.iter().flat_map(|held| &held.listed);
                listed.chain(self.question.also).collect()
            }
        }
    }
}

fn merged<'a>(roles: impl Iterator<Item = &'a Compiled>) -> Obligations {
    let mut merged = Merged::default();
    for role in roles {
        merged.add(role.options());
    }
    merged.finish()
}
