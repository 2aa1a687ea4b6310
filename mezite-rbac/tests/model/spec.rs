//! SPEC.md in naive Rust, rule by rule, on roles of its own, and how those become documents for the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mezite_core::{LabelSource, Login, Span, UserName};
use mezite_rbac::{
    Decision, Node, Obligations, OnFailure, PolicySet, Reason, RecordObligation, Request, Resource,
    Role, Subject, Verb, authorize, can,
};
use serde_json::{Value, json};

use crate::forwards::{self, Entry, Forward};

/// Few words, so that things meet.
pub(crate) const WORDS: [&str; 4] = ["a", "b", "alice", "root"];
/// What labels and traits hold: words, and what looks like more.
pub(crate) const VALUES: [&str; 12] = [
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

// ---- the model's roles -------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
pub(crate) enum Text {
    Any,
    /// `^a|b$`
    OneOf(Vec<String>),
    Exact(String),
    /// Plain text, expression, plain text.
    Template(&'static str, Expression, &'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum Expression {
    Internal,
    External,
    UserName,
    EmailLocal,
    /// `regexp.replace(external.t, "^(a|b)x$", "$1")`
    Replace,
}

pub(crate) type LabelMap = BTreeMap<String, Vec<Text>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) ttl: Option<u64>,
    pub(crate) forwarding: Option<bool>,
    pub(crate) copy: Option<bool>,
    pub(crate) agent: Option<bool>,
    pub(crate) x11: Option<bool>,
    pub(crate) nested: Option<bool>,
    pub(crate) destinations: Option<Vec<Entry>>,
    pub(crate) listen: Option<Vec<Entry>>,
    pub(crate) input: Option<bool>,
    pub(crate) content: Option<bool>,
    pub(crate) announce: Option<bool>,
    pub(crate) suspend: Option<bool>,
    pub(crate) sessions: Option<u32>,
    pub(crate) factor: &'static str,
    pub(crate) networks: Option<Vec<(&'static str, &'static str)>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) resource: Resource,
    pub(crate) verb: Verb,
    pub(crate) own: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) options: Options,
    pub(crate) allow_labels: Option<LabelMap>,
    pub(crate) sources: Option<BTreeSet<LabelSource>>,
    pub(crate) allow_logins: Vec<Text>,
    pub(crate) allow_rules: Vec<Rule>,
    pub(crate) deny_labels: Option<LabelMap>,
    pub(crate) deny_logins: Vec<Text>,
    pub(crate) combined: Vec<(LabelMap, Vec<Text>)>,
    pub(crate) deny_rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) roles: BTreeMap<String, Model>,
    pub(crate) subject: Subject,
    pub(crate) node: Node,
    pub(crate) login: Login,
    pub(crate) source: Option<IpAddr>,
    /// What is asked for within the session.
    pub(crate) forward: Forward,
}

// ---- the specification -------------------------------------------------------------------------------------------

/// 2.
pub(crate) fn decide(case: &Case) -> Result<Obligations, Reason> {
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
pub(crate) fn allowing(case: &Case) -> Result<Vec<&Model>, Reason> {
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
pub(crate) fn allows_target(role: &Model, case: &Case) -> bool {
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
pub(crate) fn allow_labels_match(role: &Model, map: &LabelMap, case: &Case) -> bool {
    map.iter().all(|(key, values)| {
        key == "*"
            || granting_value(role, key, case)
                .is_some_and(|label| values.iter().any(|value| matches(value, &label, case)))
    })
}

/// 3.3, 3.4
pub(crate) fn granting_value(role: &Model, key: &str, case: &Case) -> Option<String> {
    if key.starts_with("tag:") {
        return None;
    }
    let default = BTreeSet::from([LabelSource::Operator, LabelSource::Token]);
    let read = role.sources.clone().unwrap_or(default);
    let (source, value) = said(key, case).first()?.clone();
    read.contains(&source).then_some(value)
}

/// Strongest source first.
pub(crate) fn said(key: &str, case: &Case) -> Vec<(LabelSource, String)> {
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
pub(crate) fn denies(role: &Model, case: &Case) -> bool {
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
pub(crate) fn deny_labels_match(map: &LabelMap, case: &Case) -> bool {
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
pub(crate) fn deny_logins_match(logins: &[Text], case: &Case) -> bool {
    logins
        .iter()
        .any(|text| is_unresolved(text, case) || matches(text, case.login.as_str(), case))
}

/// 5
pub(crate) fn matches(text: &Text, found: &str, case: &Case) -> bool {
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
pub(crate) fn outputs(text: &Text, case: &Case) -> Vec<Option<String>> {
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
pub(crate) fn local(value: &str) -> Option<String> {
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
pub(crate) fn is_unresolved(text: &Text, case: &Case) -> bool {
    let outputs = outputs(text, case);
    matches!(text, Text::Template(..)) && (outputs.is_empty() || outputs.contains(&None))
}

/// 7
pub(crate) fn merge(roles: &[&Model]) -> Obligations {
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
        x11_forwarding: flag(|one| one.x11),
        nested_ssh: flag(|one| one.nested),
        // What the lists permit is compared by asking, in `engine`.
        forward_destinations: BTreeSet::new(),
        forward_listen: BTreeSet::new(),
        record: RecordObligation {
            input: options.iter().any(|one| one.input == Some(true)),
            file_content: options.iter().any(|one| one.content == Some(true)),
            announce_watchers: options.iter().any(|one| one.announce == Some(true)),
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
pub(crate) fn longest_identity(case: &Case) -> Option<Span> {
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
pub(crate) fn canonical(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(source, IpAddr::V4),
        IpAddr::V4(_) => source,
    }
}

/// 8
pub(crate) fn may(case: &Case, resource: Resource, verb: Verb, owner: Option<&UserName>) -> bool {
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
    pub(crate) fn to_json(&self) -> Value {
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

pub(crate) fn list(texts: &[Text]) -> Value {
    texts.iter().map(Text::to_json).collect()
}

pub(crate) fn label_map(map: &LabelMap) -> Value {
    let entry = |(key, values): (&String, &Vec<Text>)| {
        let value = match values.as_slice() {
            [one] => one.to_json(),
            many => list(many),
        };
        (key.clone(), value)
    };
    Value::Object(map.iter().map(entry).collect())
}

pub(crate) fn rules(rules: &[Rule]) -> Value {
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
    pub(crate) fn to_json(&self) -> Value {
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
        set("x11_forwarding", self.x11.map(Value::from));
        set("nested_ssh", self.nested.map(Value::from));
        let entries = |list: &Vec<Entry>| list.iter().map(Entry::text).collect();
        set(
            "forward_destinations",
            self.destinations.as_ref().map(entries),
        );
        set("forward_listen", self.listen.as_ref().map(entries));
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
        if let Some(content) = self.content {
            json["record"]["file_content"] = content.into();
        }
        if let Some(announce) = self.announce {
            json["record"]["announce_watchers"] = announce.into();
        }
        if let Some(suspend) = self.suspend {
            json["record"]["on_failure"] = if suspend { "suspend" } else { "terminate" }.into();
        }
        json
    }
}

impl Model {
    pub(crate) fn to_role(&self, name: &str) -> Role {
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
    pub(crate) fn policy(&self) -> PolicySet {
        PolicySet::compile(self.roles.iter().map(|(name, role)| role.to_role(name))).unwrap()
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            subject: &self.subject,
            node: &self.node,
            login: &self.login,
            source: self.source,
        }
    }
}

/// What the engine answers. Networks and forwards are left out: what they permit was asked.
pub(crate) fn engine(policy: &PolicySet, case: &Case) -> Result<Obligations, Reason> {
    let asked = |obligations: Obligations| {
        let roles = allowing(case).unwrap();
        let permitted = forwards::permitted(&roles, &case.forward);
        let answered = forwards::engine(&obligations, &case.forward);
        assert_eq!(answered, permitted, "{case:#?}");
        Obligations {
            source_networks: None,
            forward_destinations: BTreeSet::new(),
            forward_listen: BTreeSet::new(),
            ..obligations
        }
    };
    let short = can(policy, &case.request());
    let answer = match authorize(policy, &case.request()) {
        Decision::Allow(permit) => Ok(asked(permit.obligations().clone())),
        Decision::Deny(denial) => Err(denial.reason()),
    };
    assert_eq!(short.map(asked), answer);
    answer
}
