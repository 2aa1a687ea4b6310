//! SPEC.md in naive Rust, rule by rule, and the engine compared with it.
//!
//! The model shares nothing with the engine but the names: it works on its own role values, knows neither regex nor
//! parser nor budget, and is slow.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mezite_core::{LabelSource, Labels, Login, NodeId, Span, UserName};
use mezite_rbac::{
    Decision, Node, NodeLabels, Obligations, OnFailure, PolicySet, Reason, RecordObligation,
    Request, Resource, Role, Subject, Traits, Verb, allows, authorize, explain, identity_ttl,
    logins, sees,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

// ---- the model's roles -------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Text {
    Any,
    /// `^a|b$`
    OneOf(Vec<String>),
    Exact(String),
    /// Plain text, expression, plain text.
    Template(&'static str, Expression, &'static str),
}

#[derive(Clone, Debug)]
enum Expression {
    Internal,
    External,
    UserName,
    EmailLocal,
    /// `regexp.replace(external.t, "^(a|b)x$", "$1")`
    Replace,
}

type LabelMap = BTreeMap<String, Vec<Text>>;

#[derive(Clone, Debug, Default)]
struct Options {
    ttl: Option<u64>,
    forwarding: Option<bool>,
    copy: Option<bool>,
    agent: Option<bool>,
    input: Option<bool>,
    suspend: Option<bool>,
    sessions: Option<u32>,
    factor: &'static str,
    networks: Option<Vec<(&'static str, &'static str)>>,
}

#[derive(Clone, Debug)]
struct Rule {
    resource: Resource,
    verb: Verb,
    own: bool,
}

#[derive(Clone, Debug, Default)]
struct Model {
    options: Options,
    allow_labels: Option<LabelMap>,
    sources: Option<BTreeSet<LabelSource>>,
    allow_logins: Vec<Text>,
    allow_rules: Vec<Rule>,
    deny_labels: Option<LabelMap>,
    deny_logins: Vec<Text>,
    combined: Vec<(LabelMap, Vec<Text>)>,
    deny_rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Case {
    roles: BTreeMap<String, Model>,
    subject: Subject,
    node: Node,
    login: Login,
    source: Option<IpAddr>,
}

// ---- the specification -------------------------------------------------------------------------------------------

/// 2.
fn decide(case: &Case) -> Result<Obligations, Reason> {
    let allowing = allowing(case)?;
    // 2.4, 2.5
    let obligations = merge(&allowing);
    let admitted = allowing
        .iter()
        .all(|role| match (&role.options.networks, case.source) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(networks), Some(source)) => networks
                .iter()
                .any(|(_, start)| canonical(source).to_string().starts_with(start)),
        });
    if !admitted {
        return Err(Reason::SourceNetwork);
    }
    Ok(obligations)
}

/// 2.1 to 2.3.
fn allowing(case: &Case) -> Result<Vec<&Model>, Reason> {
    let names = &case.subject.roles;
    // 2.1
    if names
        .iter()
        .any(|name| !case.roles.contains_key(name.as_str()))
    {
        return Err(Reason::UnknownRole);
    }
    let roles: Vec<&Model> = names
        .iter()
        .map(|name| &case.roles[name.as_str()])
        .collect();
    // 2.2
    if roles.iter().any(|role| denies(role, case)) {
        return Err(Reason::Denied);
    }
    // 2.3
    let allowing: Vec<&Model> = roles
        .into_iter()
        .filter(|role| allows_target(role, case))
        .collect();
    if allowing.is_empty() {
        return Err(Reason::NotAllowed);
    }
    Ok(allowing)
}

/// 3.1
fn allows_target(role: &Model, case: &Case) -> bool {
    let labels = role
        .allow_labels
        .as_ref()
        .is_some_and(|map| allow_labels_match(role, map, case));
    let login = role
        .allow_logins
        .iter()
        .any(|text| matches(text, case.login.as_str(), case));
    labels && login
}

/// 3.2
fn allow_labels_match(role: &Model, map: &LabelMap, case: &Case) -> bool {
    map.iter().all(|(key, values)| {
        key == "*"
            || granting_value(role, key, case)
                .is_some_and(|label| values.iter().any(|value| matches(value, &label, case)))
    })
}

/// 3.3, 3.4
fn granting_value(role: &Model, key: &str, case: &Case) -> Option<String> {
    if key.starts_with("tag:") {
        return None;
    }
    let default = BTreeSet::from([LabelSource::Operator, LabelSource::Token]);
    let read = role.sources.clone().unwrap_or(default);
    let (source, value) = said(key, case).first()?.clone();
    read.contains(&source).then_some(value)
}

/// Strongest source first.
fn said(key: &str, case: &Case) -> Vec<(LabelSource, String)> {
    let labels = &case.node.labels;
    let mut all = Vec::new();
    if let Some(value) = labels.operator.get(key) {
        all.push((LabelSource::Operator, value.to_owned()));
    }
    if let Some(value) = labels.token.get(key) {
        all.push((LabelSource::Token, value.to_owned()));
    }
    if let Some(value) = labels.agent.get(key) {
        all.push((LabelSource::Agent, value.to_owned()));
    }
    all
}

/// 4.1
fn denies(role: &Model, case: &Case) -> bool {
    role.deny_labels
        .as_ref()
        .is_some_and(|map| deny_labels_match(map, case))
        || deny_logins_match(&role.deny_logins, case)
        || role
            .combined
            .iter()
            .any(|(map, logins)| deny_labels_match(map, case) && deny_logins_match(logins, case))
}

/// 4.2, 4.3
fn deny_labels_match(map: &LabelMap, case: &Case) -> bool {
    let unresolved = map
        .values()
        .flatten()
        .any(|value| is_unresolved(value, case));
    let all = map.iter().all(|(key, values)| {
        key == "*"
            || said(key, case)
                .iter()
                .any(|(_, label)| values.iter().any(|value| matches(value, label, case)))
    });
    unresolved || all
}

/// 4.1, 4.3
fn deny_logins_match(logins: &[Text], case: &Case) -> bool {
    logins
        .iter()
        .any(|text| is_unresolved(text, case) || matches(text, case.login.as_str(), case))
}

/// 5
fn matches(text: &Text, found: &str, case: &Case) -> bool {
    match text {
        Text::Any => true,
        Text::OneOf(list) => list.iter().any(|one| one == found),
        Text::Exact(exact) => exact == found,
        Text::Template(..) => outputs(text, case)
            .iter()
            .flatten()
            .any(|output| output == found),
    }
}

/// 6.1, 6.2, 6.4
fn outputs(text: &Text, case: &Case) -> Vec<Option<String>> {
    let Text::Template(before, expression, after) = text else {
        return Vec::new();
    };
    let internal = case.subject.internal.values("t").to_vec();
    let external = case.subject.external.values("t").to_vec();
    let outputs: Vec<Option<String>> = match expression {
        Expression::Internal => internal.into_iter().map(Some).collect(),
        Expression::External => external.into_iter().map(Some).collect(),
        Expression::UserName => vec![Some(case.subject.user.to_string())],
        Expression::EmailLocal => external.iter().map(|value| local(value)).collect(),
        Expression::Replace => external
            .iter()
            .map(|value| match value.as_str() {
                "ax" => Some("a".to_owned()),
                "bx" => Some("b".to_owned()),
                _ => None,
            })
            .collect(),
    };
    outputs
        .into_iter()
        .map(|output| output.map(|output| format!("{before}{output}{after}")))
        .collect()
}

/// 6.1, for the few values that the generator makes.
fn local(value: &str) -> Option<String> {
    let pieces: Vec<&str> = value.split('@').collect();
    match pieces.as_slice() {
        [local, domain]
            if !local.is_empty() && !domain.is_empty() && !value.contains(['"', '\n']) =>
        {
            Some((*local).to_owned())
        }
        _ => None,
    }
}

/// 6.3
fn is_unresolved(text: &Text, case: &Case) -> bool {
    let outputs = outputs(text, case);
    matches!(text, Text::Template(..)) && (outputs.is_empty() || outputs.contains(&None))
}

/// 7
fn merge(roles: &[&Model]) -> Obligations {
    let options: Vec<&Options> = roles.iter().map(|role| &role.options).collect();
    let flag = |get: fn(&Options) -> Option<bool>| {
        let said: Vec<bool> = options.iter().filter_map(|one| get(one)).collect();
        !said.is_empty() && said.iter().all(|flag| *flag)
    };
    let suspends: Vec<bool> = options.iter().filter_map(|one| one.suspend).collect();
    let suspend = !suspends.is_empty() && suspends.iter().all(|suspend| *suspend);
    Obligations {
        max_session_ttl: options
            .iter()
            .filter_map(|one| one.ttl)
            .min()
            .map(Span::from_secs),
        idle_timeout: None,
        port_forwarding: flag(|one| one.forwarding),
        file_copy: flag(|one| one.copy),
        agent_forwarding: flag(|one| one.agent),
        record: RecordObligation {
            input: options.iter().any(|one| one.input == Some(true)),
            on_failure: if suspend {
                OnFailure::Suspend
            } else {
                OnFailure::Terminate
            },
        },
        max_sessions: options.iter().filter_map(|one| one.sessions).min(),
        require_session_mfa: options
            .iter()
            .map(|one| one.factor.to_owned())
            .filter(|factor| !factor.is_empty())
            .collect(),
        // What the networks admit is compared by asking, in `decide`.
        source_networks: None,
    }
}

/// 7.1
fn longest_identity(case: &Case) -> Option<Span> {
    let known = case
        .subject
        .roles
        .iter()
        .filter_map(|name| case.roles.get(name.as_str()));
    known
        .filter_map(|role| role.options.ttl)
        .min()
        .map(Span::from_secs)
}

/// 7.2
fn canonical(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(source, IpAddr::V4),
        IpAddr::V4(_) => source,
    }
}

/// 8
fn may(case: &Case, resource: Resource, verb: Verb, owner: Option<&UserName>) -> bool {
    let names = &case.subject.roles;
    // 8.4
    if names
        .iter()
        .any(|name| !case.roles.contains_key(name.as_str()))
    {
        return false;
    }
    let roles: Vec<&Model> = names
        .iter()
        .map(|name| &case.roles[name.as_str()])
        .collect();
    let named = |rule: &Rule| rule.resource == resource && rule.verb == verb;
    // 8.3
    let own_allow = owner == Some(&case.subject.user);
    let own_deny = owner.is_none() || own_allow;
    // 8.2
    let allowed = roles
        .iter()
        .flat_map(|role| &role.allow_rules)
        .any(|rule| named(rule) && (!rule.own || own_allow));
    let denied = roles
        .iter()
        .flat_map(|role| &role.deny_rules)
        .any(|rule| named(rule) && (!rule.own || own_deny));
    allowed && !denied
}

// ---- from the model's roles to documents -------------------------------------------------------------------------

impl Text {
    fn to_json(&self) -> Value {
        match self {
            Self::Any => "*".into(),
            Self::OneOf(list) => format!("^{}$", list.join("|")).into(),
            Self::Exact(text) => text.clone().into(),
            Self::Template(before, expression, after) => {
                let inner = match expression {
                    Expression::Internal => "internal.t",
                    Expression::External => "external[\"t\"]",
                    Expression::UserName => " user.name ",
                    Expression::EmailLocal => "email.local(external.t)",
                    Expression::Replace => "regexp.replace(external.t, \"^(a|b)x$\", \"$1\")",
                };
                format!("{before}{{{{{inner}}}}}{after}").into()
            }
        }
    }
}

fn list(texts: &[Text]) -> Value {
    texts.iter().map(Text::to_json).collect()
}

fn label_map(map: &LabelMap) -> Value {
    let entry = |(key, values): (&String, &Vec<Text>)| {
        let value = match values.as_slice() {
            [one] => one.to_json(),
            many => list(many),
        };
        (key.clone(), value)
    };
    Value::Object(map.iter().map(entry).collect())
}

fn rules(rules: &[Rule]) -> Value {
    let one = |rule: &Rule| {
        let mut json = json!({ "resources": [rule.resource], "verbs": [rule.verb] });
        if rule.own {
            json["where"] = "own".into();
        }
        json
    };
    rules.iter().map(one).collect()
}

impl Options {
    fn to_json(&self) -> Value {
        let mut json = json!({ "require_session_mfa": self.factor, "record": {} });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                json[name] = value;
            }
        };
        set(
            "max_session_ttl",
            self.ttl.map(|ttl| format!("{ttl}s").into()),
        );
        set("port_forwarding", self.forwarding.map(Value::from));
        set("file_copy", self.copy.map(Value::from));
        set("agent_forwarding", self.agent.map(Value::from));
        set("max_sessions", self.sessions.map(Value::from));
        set(
            "source_networks",
            self.networks
                .as_ref()
                .map(|all| all.iter().map(|(network, _)| *network).collect()),
        );
        if let Some(input) = self.input {
            json["record"]["input"] = input.into();
        }
        if let Some(suspend) = self.suspend {
            json["record"]["on_failure"] = if suspend { "suspend" } else { "terminate" }.into();
        }
        json
    }
}

impl Model {
    fn to_role(&self, name: &str) -> Role {
        let mut allow =
            json!({ "logins": list(&self.allow_logins), "rules": rules(&self.allow_rules) });
        if let Some(map) = &self.allow_labels {
            allow["node_labels"] = label_map(map);
        }
        if let Some(sources) = &self.sources {
            allow["node_label_sources"] = json!(sources);
        }
        let mut deny = json!({ "rules": rules(&self.deny_rules) });
        if let Some(map) = &self.deny_labels {
            deny["node_labels"] = label_map(map);
        }
        if !self.deny_logins.is_empty() {
            deny["logins"] = list(&self.deny_logins);
        }
        let both = |(map, logins): &(LabelMap, Vec<Text>)| json!({ "node_labels": label_map(map), "logins": list(logins) });
        deny["combined"] = self.combined.iter().map(both).collect();
        let document = json!({
            "kind": "role", "version": "v1", "metadata": { "name": name },
            "spec": { "options": self.options.to_json(), "allow": allow, "deny": deny },
        });
        serde_json::from_value(document.clone())
            .unwrap_or_else(|error| panic!("{error}: {document:#}"))
    }
}

impl Case {
    fn policy(&self) -> PolicySet {
        PolicySet::compile(self.roles.iter().map(|(name, role)| role.to_role(name))).unwrap()
    }

    fn request(&self) -> Request<'_> {
        Request {
            subject: &self.subject,
            node: &self.node,
            login: &self.login,
            source: self.source,
        }
    }
}

// ---- generators: few words, so that things meet -------------------------------------------------------------------

const WORDS: [&str; 4] = ["a", "b", "alice", "root"];
const VALUES: [&str; 12] = [
    "a",
    "b",
    "alice",
    "root",
    "ax",
    "bx",
    "a@x",
    "root@x",
    "a@b@x",
    "*",
    "{{user.name}}",
    "^a|b$",
];

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(&WORDS[..]).prop_map(str::to_owned)
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
    );
    let factor = prop_oneof![3 => Just(""), 1 => Just("totp"), 1 => Just("webauthn")];
    (
        option::of(1_u64..100),
        flags,
        option::of(1_u32..5),
        factor,
        option::weighted(0.3, networks),
    )
        .prop_map(|(ttl, flags, sessions, factor, networks)| {
            let (forwarding, copy, agent, input, suspend) = flags;
            Options {
                ttl,
                forwarding,
                copy,
                agent,
                input,
                suspend,
                sessions,
                factor,
                networks,
            }
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
        let value = prop::sample::select(&VALUES[..]);
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
    let values = vec(
        prop::sample::select(&VALUES[..]).prop_map(str::to_owned),
        0..3,
    );
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
    )
        .prop_map(
            |(roles, internal, external, node, login, source, unknown)| {
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
                }
            },
        )
}

/// What the engine answers. Networks are left out: what they admit was asked.
fn engine(policy: &PolicySet, case: &Case) -> Result<Obligations, Reason> {
    match authorize(policy, &case.request()) {
        Decision::Allow(permit) => {
            let obligations = permit.obligations().clone();
            Ok(Obligations {
                source_networks: None,
                ..obligations
            })
        }
        Decision::Deny(denial) => Err(denial.reason()),
    }
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
