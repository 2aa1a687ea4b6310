//! Cases made from bytes: cheap where many are needed, and what a fuzzer can steer.

use std::collections::{BTreeMap, BTreeSet};

use mezite_core::{LabelSource, Labels, NodeId};
use mezite_rbac::{Names, Node, NodeLabels, Resource, Subject, Traits, Verb};

use crate::forwards::{
    ASKED_HOSTS, ASKED_PORTS, ASKED_SOCKETS, Asked, Entry, Forward, HOSTS, PORTS, SOCKETS,
};
use crate::spec::{Case, Expression, LabelMap, Model, Options, Rule, Text, VALUES, WORDS};

/// Decisions read off a text of bytes; the first of each once it has ended.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// One of `0..count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: usize) -> bool {
        self.below(of) + 1 == of
    }

    fn one<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn flag(&mut self) -> Option<bool> {
        self.one(&[None, Some(false), Some(true)])
    }

    fn many<T>(
        &mut self,
        least: usize,
        most: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| make(self)).collect()
    }

    fn word(&mut self) -> String {
        self.one(&WORDS).to_owned()
    }

    /// A whole case.
    pub(crate) fn case(&mut self) -> Case {
        let roles: BTreeMap<String, Model> = (0..self.below(5))
            .map(|index| (format!("r{index}"), self.role()))
            .collect();
        let subject = self.subject(roles.keys());
        Case {
            subject,
            node: self.node(),
            login: self.word().parse().unwrap(),
            source: self.source(),
            forward: self.forward(),
            roles,
        }
    }

    pub(crate) fn subject<'n>(&mut self, names: impl Iterator<Item = &'n String>) -> Subject {
        let mut roles: Vec<_> = names.map(|name| name.parse().unwrap()).collect();
        roles.retain(|_| !self.once_in(8));
        if self.once_in(20) {
            roles.push("gone".parse().unwrap());
        }
        Subject {
            user: "alice".parse().unwrap(),
            roles,
            internal: self.traits(),
            external: self.traits(),
        }
    }

    pub(crate) fn node(&mut self) -> Node {
        let mut labels = || {
            let pairs = self.many(0, 2, |me| {
                let key = me.one(&["env", "team", "env", "team", "tag:env"]);
                (key.to_owned(), me.one(&VALUES).to_owned())
            });
            Labels::new(pairs.into_iter().collect()).unwrap()
        };
        let labels = NodeLabels {
            operator: labels(),
            token: labels(),
            agent: labels(),
        };
        Node {
            id: NodeId::new([7; 16]),
            name: "db1".parse().unwrap(),
            labels,
        }
    }

    pub(crate) fn source(&mut self) -> Option<std::net::IpAddr> {
        let sources = [
            "10.1.2.3",
            "10.9.9.9",
            "192.0.2.1",
            "::ffff:10.1.2.3",
            "2001:db8::1",
        ];
        (!self.once_in(4)).then(|| self.one(&sources).parse().unwrap())
    }

    fn traits(&mut self) -> Traits {
        let values = self.many(0, 2, |me| me.one(&VALUES).to_owned());
        let map = if self.once_in(5) {
            BTreeMap::new()
        } else {
            BTreeMap::from([("t".to_owned(), values)])
        };
        Traits::new(map).unwrap()
    }

    fn text(&mut self) -> Text {
        match self.below(10) {
            0 => Text::Any,
            1 | 2 => Text::OneOf(self.many(1, 2, Self::word)),
            3..=6 => Text::Exact(self.word()),
            _ => {
                let (before, after) =
                    self.one(&[("", ""), ("", ""), ("", ""), ("a", ""), ("", "t")]);
                let expression = match self.below(5) {
                    0 => Expression::Internal,
                    1 => Expression::External,
                    2 => Expression::UserName,
                    3 => Expression::EmailLocal,
                    _ => Expression::Replace,
                };
                Text::Template(before, expression, after)
            }
        }
    }

    fn label_map(&mut self, keys: &[&str]) -> LabelMap {
        let every = || ("*".to_owned(), vec![Text::Any]);
        if self.once_in(3) {
            return LabelMap::from([every()]);
        }
        let pairs = self.many(1, 2, |me| {
            (me.one(keys).to_owned(), me.many(1, 2, Self::text))
        });
        let mut map: LabelMap = pairs.into_iter().collect();
        map.extend(self.once_in(8).then(every));
        map
    }

    fn options(&mut self) -> Options {
        let networks = [
            ("10.0.0.0/8", "10."),
            ("10.1.0.0/16", "10.1."),
            ("10.1.2.0/24", "10.1.2."),
            ("192.0.2.0/24", "192.0.2."),
        ];
        Options {
            ttl: self.one(&[None, Some(1), Some(30), Some(60)]),
            forwarding: self.one(&[None, Some(false), Some(true), Some(true)]),
            copy: self.flag(),
            agent: self.flag(),
            x11: self.flag(),
            nested: self.flag(),
            destinations: self.once_in(2).then(|| self.many(1, 4, Self::entry)),
            listen: self.once_in(2).then(|| self.many(1, 4, Self::entry)),
            input: self.flag(),
            suspend: self.flag(),
            sessions: self.one(&[None, Some(1), Some(3)]),
            factor: self.one(&["", "", "totp", "webauthn"]),
            networks: self
                .once_in(3)
                .then(|| self.many(1, 2, |me| me.one(&networks))),
            content: self.flag(),
            announce: self.flag(),
        }
    }

    fn entry(&mut self) -> Entry {
        if self.once_in(4) {
            self.one(&SOCKETS)
        } else {
            Entry::Tcp(self.one(&HOSTS), self.one(&PORTS))
        }
    }

    pub(crate) fn forward(&mut self) -> Forward {
        Forward {
            asked: if self.once_in(4) {
                Asked::Socket(self.one(&ASKED_SOCKETS))
            } else {
                Asked::Tcp(self.one(&ASKED_HOSTS), self.one(&ASKED_PORTS))
            },
            listen: self.once_in(2),
            names: self.one(&[Names::Checked, Names::Unchecked]),
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            resource: self.one(&[Resource::Session, Resource::Role]),
            verb: self.one(&[Verb::Read, Verb::List]),
            own: self.once_in(2),
        }
    }

    fn role(&mut self) -> Model {
        const GRANTING: &[&str] = &["env", "team"];
        const REFUSING: &[&str] = &["env", "team", "tag:env"];
        let sources = [
            LabelSource::Operator,
            LabelSource::Token,
            LabelSource::Agent,
        ];
        let mut role = Model {
            options: self.options(),
            allow_labels: (!self.once_in(8)).then(|| self.label_map(GRANTING)),
            sources: self.once_in(2).then(|| {
                self.many(1, 3, |me| me.one(&sources))
                    .into_iter()
                    .collect::<BTreeSet<_>>()
            }),
            allow_logins: self.many(0, 5, Self::text),
            allow_rules: self.many(0, 2, Self::rule),
            ..Model::default()
        };
        if self.once_in(3) {
            role.deny_labels = self.once_in(4).then(|| self.label_map(REFUSING));
            if self.once_in(4) {
                role.deny_logins = self.many(1, 2, Self::text);
            }
            role.combined = self.many(0, 1, |me| {
                (me.label_map(REFUSING), me.many(1, 2, Self::text))
            });
            role.deny_rules = self.many(0, 1, Self::rule);
        }
        role
    }
}
