//! What roles repeat. Many of them name the same labels and logins: a policy keeps equal lists once, and a decision
//! compares each list once.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ptr;
use std::sync::Arc;

use mezite_core::Login;

use crate::budget::Budget;
use crate::policy::{KeySelector, LoginSet};
use crate::subject::{NodeLabels, Subject};

/// The different lists of one policy.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    keys: BTreeSet<Arc<KeySelector>>,
    logins: BTreeSet<Arc<LoginSet>>,
}

impl Lists {
    pub(crate) fn key(&mut self, key: KeySelector) -> Arc<KeySelector> {
        only(&mut self.keys, key)
    }

    pub(crate) fn logins(&mut self, logins: LoginSet) -> Arc<LoginSet> {
        only(&mut self.logins, logins)
    }
}

/// The one that stands for all that are equal.
fn only<T: Ord>(known: &mut BTreeSet<Arc<T>>, one: T) -> Arc<T> {
    if let Some(only) = known.get(&one) {
        return Arc::clone(only);
    }
    let only = Arc::new(one);
    known.insert(Arc::clone(&only));
    only
}

/// A subject at a node, with what the keys of labels came to there.
#[derive(Debug)]
pub(crate) struct AtNode<'p> {
    subject: &'p Subject,
    labels: &'p NodeLabels,
    budget: &'p Budget,
    granting: Answers<'p, KeySelector>,
    refusing: Answers<'p, KeySelector>,
}

impl<'p> AtNode<'p> {
    pub(crate) fn new(subject: &'p Subject, labels: &'p NodeLabels, budget: &'p Budget) -> Self {
        Self {
            subject,
            labels,
            budget,
            granting: Answers::default(),
            refusing: Answers::default(),
        }
    }

    /// [`KeySelector::grants`].
    pub(crate) fn grants(&self, key: &'p KeySelector) -> bool {
        let answer = || key.grants(self.subject, self.labels, self.budget);
        self.granting.of(key, answer)
    }

    /// [`KeySelector::refuses`].
    pub(crate) fn refuses(&self, key: &'p KeySelector) -> bool {
        let answer = || key.refuses(self.subject, self.labels, self.budget);
        self.refusing.of(key, answer)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.is_exhausted()
    }

    /// [`KeySelector::resolves`].
    pub(crate) fn resolves(&self, key: &KeySelector) -> bool {
        key.resolves(self.subject, self.budget)
    }
}

/// A subject as a login, with what the lists of logins came to.
#[derive(Debug)]
pub(crate) struct AsLogin<'p> {
    subject: &'p Subject,
    login: &'p Login,
    budget: &'p Budget,
    granting: Answers<'p, LoginSet>,
    refusing: Answers<'p, LoginSet>,
}

impl<'p> AsLogin<'p> {
    pub(crate) fn new(subject: &'p Subject, login: &'p Login, budget: &'p Budget) -> Self {
        Self {
            subject,
            login,
            budget,
            granting: Answers::default(),
            refusing: Answers::default(),
        }
    }

    /// [`LoginSet::grants`].
    pub(crate) fn grants(&self, logins: &'p LoginSet) -> bool {
        let answer = || logins.grants(self.subject, self.login, self.budget);
        self.granting.of(logins, answer)
    }

    /// [`LoginSet::refuses`].
    pub(crate) fn refuses(&self, logins: &'p LoginSet) -> bool {
        let answer = || logins.refuses(self.subject, self.login, self.budget);
        self.refusing.of(logins, answer)
    }
}

/// How many answers are kept: each list has one place, by where it lies in memory, and the last to come has it.
const PLACES: usize = 16;

/// What was answered for some lists. A list is known by its address, which nobody else has while it is borrowed.
#[derive(Debug)]
struct Answers<'p, T>([Cell<Option<(&'p T, bool)>>; PLACES]);

impl<T> Default for Answers<'_, T> {
    fn default() -> Self {
        Self([const { Cell::new(None) }; PLACES])
    }
}

impl<'p, T> Answers<'p, T> {
    fn of(&self, list: &'p T, answer: impl FnOnce() -> bool) -> bool {
        // Lists lie in allocations of their own, which are some 64 bytes apart.
        let place = ptr::from_ref(list).addr() / 64 % PLACES;
        let Some(place) = self.0.get(place) else {
            return answer();
        };
        match place.get() {
            Some((known, answered)) if ptr::eq(known, list) => answered,
            _ => {
                let answered = answer();
                place.set(Some((list, answered)));
                answered
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More lists than there are places: each gets its own answer, again and again.
    #[test]
    fn a_list_gets_its_own_answer_however_many_there_are() {
        let lists: Vec<String> = (0..5 * PLACES).map(|n| "x".repeat(n)).collect();
        let answers = Answers::default();
        for list in lists.iter().chain(&lists).chain(lists.iter().rev()) {
            let expected = list.len() % 3 == 0;
            assert_eq!(answers.of(list, || expected), expected, "{}", list.len());
        }
    }

    #[test]
    fn a_list_is_compared_once() {
        let list = "one";
        for answer in [true, false] {
            let compared = Cell::new(0);
            let answers = Answers::default();
            for _ in 0..3 {
                let compare = || {
                    compared.set(compared.get() + 1);
                    answer
                };
                assert_eq!(answers.of(&list, compare), answer);
            }
            assert_eq!(compared.get(), 1);
        }
    }

    #[test]
    fn equal_lists_are_one() {
        let mut known = BTreeSet::new();
        let [one, same, other] = ["a", "a", "b"].map(|one| only(&mut known, one.to_owned()));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert_eq!((one.as_str(), other.as_str()), ("a", "b"));
    }
}
