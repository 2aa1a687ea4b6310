//! Properties of the engine, and its agreement with the model, on cases that shrink.

use std::collections::BTreeMap;

use mezite_core::{LabelSource, Labels, NodeId, UserName};
use mezite_rbac::{
    Decision, Names, Node, NodeLabels, PolicySet, Reason, Resource, Role, Subject, Traits, Verb,
    allows, authorize, conditions, explain, identity_ttl, logins, reach, sees,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::forwards::{
    ASKED_HOSTS, ASKED_PORTS, ASKED_SOCKETS, Asked, Entry, Forward, HOSTS, PORTS, SOCKETS,
};
use crate::spec::{
    Case, Expression, LabelMap, Model, Options, Rule, Text, VALUES, WORDS, allowing, decide,
    engine, longest_identity, may,
};

// ---- generators: few words, so that things meet -------------------------------------------------------------------

fn word() -> impl Strategy<Value = String> {
    select(&WORDS[..]).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = Text> {
    let expression = prop_oneof![
        Just(Expression::Internal),
        Just(Expression::External),
        Just(Expression::UserName),
        Just(Expression::EmailLocal),
        Just(Expression::Replace),
    ];
    let around = prop_oneof![4 => Just(("", "")), 1 => Just(("a", "")), 1 => Just(("", "t"))];
    prop_oneof![
        1 => Just(Text::Any),
        2 => vec(word(), 1..3).prop_map(Text::OneOf),
        4 => word().prop_map(Text::Exact),
        3 => (around, expression).prop_map(|((before, after), inner)| Text::Template(before, inner, after)),
    ]
}

fn labels(tags: bool) -> impl Strategy<Value = LabelMap> {
    let key = prop_oneof![
        4 => Just("env"),
        4 => Just("team"),
        1 => Just(if tags { "tag:env" } else { "env" }),
    ];
    let named = btree_map(key.prop_map(str::to_owned), vec(text(), 1..3), 1..3);
    (named, prop::bool::weighted(0.4), prop::bool::weighted(0.7)).prop_map(
        |(mut map, every, alone)| {
            if every && alone {
                map.clear();
            }
            if every {
                map.insert("*".to_owned(), vec![Text::Any]);
            }
            map
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let networks = prop::sample::subsequence(
        vec![
            ("10.0.0.0/8", "10."),
            ("10.1.0.0/16", "10.1."),
            ("10.1.2.0/24", "10.1.2."),
            ("192.0.2.0/24", "192.0.2."),
        ],
        1..3,
    );
    let flags = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    let entries = || option::of(vec(entry(), 1..4));
    let factor = prop_oneof![3 => Just(""), 1 => Just("totp"), 1 => Just("webauthn")];
    (
        option::of(1_u64..100),
        flags,
        option::of(1_u32..5),
        factor,
        option::weighted(0.3, networks),
        entries(),
        entries(),
    )
        .prop_map(
            |(ttl, flags, sessions, factor, networks, destinations, listen)| {
                let (forwarding, copy, agent, x11, nested, input, suspend, content, announce) =
                    flags;
                Options {
                    ttl,
                    forwarding,
                    copy,
                    agent,
                    x11,
                    nested,
                    destinations,
                    listen,
                    input,
                    suspend,
                    sessions,
                    factor,
                    networks,
                    content,
                    announce,
                }
            },
        )
}

fn entry() -> impl Strategy<Value = Entry> {
    let tcp = (select(&HOSTS[..]), select(&PORTS[..]));
    prop_oneof![
        3 => tcp.prop_map(|(host, ports)| Entry::Tcp(host, ports)),
        1 => select(&SOCKETS[..]),
    ]
}

fn forward() -> impl Strategy<Value = Forward> {
    let tcp = (select(&ASKED_HOSTS[..]), select(&ASKED_PORTS[..]));
    let asked = prop_oneof![
        3 => tcp.prop_map(|(host, port)| Asked::Tcp(host, port)),
        1 => select(&ASKED_SOCKETS[..]).prop_map(Asked::Socket),
    ];
    let names = select(&[Names::Checked, Names::Unchecked][..]);
    (asked, any::<bool>(), names).prop_map(|(asked, listen, names)| Forward {
        asked,
        listen,
        names,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let resource = prop_oneof![Just(Resource::Session), Just(Resource::Role)];
    let verb = prop_oneof![Just(Verb::Read), Just(Verb::List)];
    (resource, verb, any::<bool>()).prop_map(|(resource, verb, own)| Rule {
        resource,
        verb,
        own,
    })
}

/// The denying parts of a role, which alone are a role that only denies.
fn deny() -> impl Strategy<Value = Model> {
    (
        option::weighted(0.15, labels(true)),
        prop_oneof![5 => Just(Vec::new()), 1 => vec(text(), 1..3)],
        vec((labels(true), vec(text(), 1..3)), 0..2),
        vec(rule(), 0..2),
    )
        .prop_map(|(deny_labels, deny_logins, combined, deny_rules)| Model {
            deny_labels,
            deny_logins,
            combined,
            deny_rules,
            ..Model::default()
        })
}

fn role() -> impl Strategy<Value = Model> {
    let sources = btree_set(
        prop_oneof![
            Just(LabelSource::Operator),
            Just(LabelSource::Token),
            Just(LabelSource::Agent)
        ],
        1..=3,
    );
    (
        prop_oneof![2 => Just(Model::default()), 1 => deny()],
        options(),
        option::weighted(0.9, labels(false)),
        option::of(sources),
        vec(text(), 0..6),
        vec(rule(), 0..3),
    )
        .prop_map(
            |(deny, options, allow_labels, sources, allow_logins, allow_rules)| Model {
                options,
                allow_labels,
                sources,
                allow_logins,
                allow_rules,
                ..deny
            },
        )
}

fn node() -> impl Strategy<Value = Node> {
    let one = || {
        let key = prop_oneof![3 => Just("env"), 3 => Just("team"), 1 => Just("tag:env")];
        let value = select(&VALUES[..]);
        btree_map(
            key.prop_map(str::to_owned),
            value.prop_map(str::to_owned),
            0..3,
        )
        .prop_map(|map| Labels::new(map).unwrap())
    };
    (one(), one(), one()).prop_map(|(operator, token, agent)| Node {
        id: NodeId::new([7; 16]),
        name: "db1".parse().unwrap(),
        labels: NodeLabels {
            operator,
            token,
            agent,
        },
    })
}

fn traits() -> impl Strategy<Value = Traits> {
    let values = vec(select(&VALUES[..]).prop_map(str::to_owned), 0..3);
    option::weighted(0.8, values).prop_map(|values| {
        let map = values.map(|values| ("t".to_owned(), values));
        Traits::new(map.into_iter().collect()).unwrap()
    })
}

fn case() -> impl Strategy<Value = Case> {
    let roles = vec(role(), 0..4).prop_map(|roles| {
        let named = roles.into_iter().enumerate();
        named
            .map(|(index, role)| (format!("r{index}"), role))
            .collect::<BTreeMap<_, _>>()
    });
    let source = prop_oneof![
        Just(None),
        Just(Some("10.1.2.3")),
        Just(Some("10.9.9.9")),
        Just(Some("192.0.2.1")),
        Just(Some("::ffff:10.1.2.3")),
        Just(Some("2001:db8::1")),
    ];
    (
        roles,
        traits(),
        traits(),
        node(),
        word(),
        source,
        prop::bool::weighted(0.05),
        forward(),
    )
        .prop_map(
            |(roles, internal, external, node, login, source, unknown, forward)| {
                let mut names: Vec<_> = roles.keys().map(|name| name.parse().unwrap()).collect();
                if unknown {
                    names.push("gone".parse().unwrap());
                }
                Case {
                    roles,
                    subject: Subject {
                        user: "alice".parse().unwrap(),
                        roles: names,
                        internal,
                        external,
                    },
                    node,
                    login: login.parse().unwrap(),
                    source: source.map(|source| source.parse().unwrap()),
                    forward,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_decides_as_the_specification_says(case in case()) {
        prop_assert_eq!(engine(&case.policy(), &case), decide(&case));
    }

    #[test]
    fn explanations_agree_with_decisions(case in case()) {
        let policy = case.policy();
        let explanation = explain(&policy, &case.request());
        prop_assert_eq!(explanation.reason, decide(&case).err());
        // The findings, too, and not only the reason that stands above them.
        let known = explanation.roles.iter().all(|role| role.known);
        let rules = || explanation.roles.iter().flat_map(|role| &role.rules);
        let denied = rules().any(|rule| rule.rule.starts_with("deny") && rule.matched);
        let allowed = rules().any(|rule| rule.rule == "allow" && rule.matched);
        let from_findings = match (known, denied, allowed) {
            (false, _, _) => Some(Reason::UnknownRole),
            (_, true, _) => Some(Reason::Denied),
            (_, _, false) => Some(Reason::NotAllowed),
            (true, false, true) => None,
        };
        prop_assert_eq!(from_findings, allowing(&case).err());
        let admitted = explanation.roles.iter().all(|role| {
            let allows = role.rules.iter().any(|rule| rule.rule == "allow" && rule.matched);
            !allows || role.rules.iter().all(|rule| !rule.rule.starts_with("options") || rule.matched)
        });
        prop_assert_eq!(from_findings.is_none() && admitted, explanation.reason.is_none());
        // What is named as decisive alone would decide so: it is there whenever something decided.
        let decided = explanation.decided_by();
        prop_assert_eq!(decided.is_empty(), explanation.reason == Some(Reason::NotAllowed), "{}", explanation);
    }

    #[test]
    fn default_is_deny(mut case in case()) {
        case.subject.roles.clear();
        prop_assert_eq!(engine(&case.policy(), &case), Err(Reason::NotAllowed));
        for resource in Resource::ALL {
            prop_assert!(!allows(&case.policy(), &case.subject, *resource, Verb::Read, Some(&case.subject.user)));
        }
    }

    #[test]
    fn deny_overrides(mut case in case()) {
        let every = LabelMap::from([("*".to_owned(), vec![Text::Any])]);
        case.roles.insert("no".to_owned(), Model { deny_labels: Some(every), ..Model::default() });
        case.subject.roles.insert(0, "no".parse().unwrap());
        let reason = engine(&case.policy(), &case).unwrap_err();
        prop_assert!(matches!(reason, Reason::Denied | Reason::UnknownRole));
        prop_assert!(!sees(&case.policy(), &case.subject, &case.node));
    }

    #[test]
    fn adding_a_deny_never_adds_access(before in case(), deny in deny()) {
        let mut after = before.clone();
        after.roles.insert("deny".to_owned(), deny);
        after.subject.roles.push("deny".parse().unwrap());
        let (policy_before, policy_after) = (before.policy(), after.policy());
        match (engine(&policy_before, &before), engine(&policy_after, &after)) {
            (Err(_), later) => prop_assert!(later.is_err()),
            (Ok(first), Ok(later)) => prop_assert_eq!(first, later),
            (Ok(_), Err(reason)) => prop_assert_eq!(reason, Reason::Denied),
        }
        let earlier = logins(&policy_before, &before.subject, &before.node);
        let later = logins(&policy_after, &after.subject, &after.node);
        prop_assert!(later.iter().all(|login| earlier.contains(login)));
        prop_assert!(
            !sees(&policy_after, &after.subject, &after.node) || sees(&policy_before, &before.subject, &before.node)
        );
        for (resource, verb) in [(Resource::Session, Verb::Read), (Resource::Role, Verb::List)] {
            prop_assert!(
                !allows(&policy_after, &after.subject, resource, verb, None)
                    || allows(&policy_before, &before.subject, resource, verb, None)
            );
        }
    }

    /// Conditions are another matter: what a role that no longer allows demanded is demanded no longer (SPEC.md, 2.7).
    #[test]
    fn removing_an_allow_never_adds_access(before in case(), whose in 0_usize..4, what in 0_usize..4, which in 0_usize..6) {
        let mut after = before.clone();
        let roles = after.roles.len().max(1);
        let Some(role) = after.roles.values_mut().nth(whose % roles) else { return Ok(()) };
        match what {
            0 => role.allow_labels = None,
            1 => drop(role.allow_logins.drain(which.min(role.allow_logins.len())..)),
            2 => drop(role.allow_rules.pop()),
            _ => (role.allow_labels, role.allow_logins, role.allow_rules) = Default::default(),
        }
        let (policy_before, policy_after) = (before.policy(), after.policy());
        if conditions(&policy_after, &after.request()).is_ok() {
            prop_assert!(conditions(&policy_before, &before.request()).is_ok());
        }
        if let Err(reason) = engine(&policy_before, &before) {
            prop_assert!(engine(&policy_after, &after).is_err() || reason == Reason::SourceNetwork);
        }
        let earlier = logins(&policy_before, &before.subject, &before.node);
        let later = logins(&policy_after, &after.subject, &after.node);
        prop_assert!(later.iter().all(|login| earlier.contains(login)));
        prop_assert!(
            !sees(&policy_after, &after.subject, &after.node) || sees(&policy_before, &before.subject, &before.node)
        );
        for (resource, verb) in [(Resource::Session, Verb::Read), (Resource::Role, Verb::List)] {
            for owner in [None, Some(&before.subject.user)] {
                prop_assert!(
                    !allows(&policy_after, &after.subject, resource, verb, owner)
                        || allows(&policy_before, &before.subject, resource, verb, owner)
                );
            }
        }
    }

    #[test]
    fn order_of_documents_is_irrelevant(case in case(), by in 0_usize..4) {
        let mut roles: Vec<Role> = case.roles.iter().map(|(name, role)| role.to_role(name)).collect();
        roles.reverse();
        let by = by.min(roles.len());
        roles.rotate_left(by);
        let other = PolicySet::compile(roles).unwrap();
        let policy = case.policy();
        prop_assert_eq!(engine(&other, &case), engine(&policy, &case));
        prop_assert_eq!(explain(&other, &case.request()), explain(&policy, &case.request()));
        prop_assert_eq!(
            reach(&other, &case.subject, &case.node),
            reach(&policy, &case.subject, &case.node)
        );
        prop_assert_eq!(identity_ttl(&other, &case.subject), identity_ttl(&policy, &case.subject));
        for (resource, verb) in [(Resource::Session, Verb::Read), (Resource::Role, Verb::List)] {
            let asked = |policy| allows(policy, &case.subject, resource, verb, None);
            prop_assert_eq!(asked(&other), asked(&policy));
        }
    }

    #[test]
    fn order_of_roles_is_irrelevant(case in case(), by in 0_usize..4) {
        let policy = case.policy();
        let asked = |case: &Case| match authorize(&policy, &case.request()) {
            Decision::Allow(permit) => Ok(permit.obligations().clone()),
            Decision::Deny(denial) => Err(denial.reason()),
        };
        let mut turned = case.clone();
        turned.subject.roles.rotate_left(by.min(case.subject.roles.len()));
        let mut reversed = case.clone();
        reversed.subject.roles.reverse();
        let mut doubled = case.clone();
        doubled.subject.roles.extend(case.subject.roles.clone());
        for other in [turned, reversed, doubled] {
            prop_assert_eq!(asked(&other), asked(&case));
            prop_assert_eq!(identity_ttl(&policy, &other.subject), identity_ttl(&policy, &case.subject));
        }
    }

    #[test]
    fn what_is_listed_is_what_is_allowed(mut case in case()) {
        let policy = case.policy();
        let listed = logins(&policy, &case.subject, &case.node);
        let seen = sees(&policy, &case.subject, &case.node);
        prop_assert!(seen || listed.is_empty());
        for login in listed.iter().cloned().chain(WORDS.map(|word| word.parse().unwrap())) {
            case.login = login.clone();
            let allowed = allowing(&case).is_ok();
            prop_assert!(allowed || !listed.contains(&login), "listed but not allowed: {}", login);
            prop_assert!(seen || !allowed, "allowed but not seen: {}", login);
            let open = |role: &Model| role.allow_logins.iter().any(|text| matches!(text, Text::Any | Text::OneOf(_)));
            prop_assert!(!allowed || listed.contains(&login) || case.roles.values().any(open), "not listed: {}", login);
        }
    }

    #[test]
    fn administration_is_as_the_specification_says(case in case()) {
        let policy = case.policy();
        let bob: UserName = "bob".parse().unwrap();
        for owner in [None, Some(&case.subject.user), Some(&bob)] {
            for (resource, verb) in [
                (Resource::Session, Verb::Read),
                (Resource::Session, Verb::List),
                (Resource::Role, Verb::Read),
                (Resource::Role, Verb::Delete),
            ] {
                prop_assert_eq!(
                    allows(&policy, &case.subject, resource, verb, owner),
                    may(&case, resource, verb, owner)
                );
            }
        }
        prop_assert_eq!(identity_ttl(&policy, &case.subject), longest_identity(&case));
    }

    #[test]
    fn documents_come_back_the_same(role in role()) {
        let role = role.to_role("r");
        let yaml = role.to_yaml();
        prop_assert_eq!(Role::parse(&yaml, "again"), Ok(vec![role]), "{}", yaml);
    }
}

/// The generators reach every answer often enough for the comparisons to mean something.
#[test]
fn the_cases_reach_every_answer() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = case();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..2000 {
        let case = strategy.new_tree(&mut runner).unwrap().current();
        let answer = decide(&case).map_or_else(Reason::as_str, |_| "allowed");
        *counts.entry(answer).or_default() += 1;
    }
    for answer in [
        "allowed",
        "denied",
        "not_allowed",
        "source_network",
        "unknown_role",
    ] {
        assert!(
            counts.get(answer).copied().unwrap_or_default() > 40,
            "{answer}: {counts:?}"
        );
    }
}
