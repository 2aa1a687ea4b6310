//! Cases: what roles are meant to allow and deny, written down and checked without a hub.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use mezite_core::{Labels, Login, NodeId, NodeName, RoleName, UserName};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::admin::{Resource, Verb, allows};
use crate::budget::{MAX_DOCUMENT_BYTES, MAX_VALUES};
use crate::decide::{Decision, Reason, Request, authorize};
use crate::document::{Bounded, announced, read, shown};
use crate::options::Obligations;
use crate::policy::PolicySet;
use crate::subject::{Node, NodeLabels, Subject, Traits};

/// A checked document `kind: role-cases`.
///
/// ```yaml
/// kind: role-cases
/// version: v1
/// users:
///   alice: { roles: [backend-dev], internal: { logins: [alice] }, external: { team: [payments] } }
/// nodes:
///   web-01: { labels: { env: dev, team: payments } }
/// cases:
///   - name: developers deploy, without forwarding
///     reach: { user: alice, node: web-01, logins: [deploy, alice], source: 10.1.2.3 }
///     expect: allow
///     obligations: { port_forwarding: false }
///   - name: nobody is root
///     reach: { user: alice, node: web-01, logins: [root] }
///     expect: deny
///     reason: denied
///   - name: developers see their own recordings alone
///     call: { user: alice, verb: read, resource: recording, owner: bob }
///     expect: deny
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Cases {
    users: BTreeMap<UserName, Subject>,
    nodes: BTreeMap<NodeName, Node>,
    cases: Vec<Case>,
}

/// Why a text holds no cases.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CasesError {
    /// A case has to say either `reach` or `call`, and `reason` and `obligations` only where they can be.
    #[error("{origin}: case `{case}`: {rule}")]
    Case {
        /// Where the text comes from, as the caller said.
        origin: String,
        /// The case.
        case: String,
        /// What is wrong with it.
        rule: &'static str,
    },
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
    /// There is no case in it: a run would pass without having checked anything.
    #[error("{origin}: there is no case in it: write a document with `kind: role-cases`")]
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
    /// A case names a user or node that the document does not describe.
    #[error(
        "{origin}: case `{case}` names the {kind} `{name}`, who is not there: describe it under `{kind}s`"
    )]
    Unknown {
        /// Where the text comes from, as the caller said.
        origin: String,
        /// The case.
        case: String,
        /// `user` or `node`.
        kind: &'static str,
        /// The name.
        name: String,
    },
}

impl Cases {
    /// Reads every YAML document in `yaml`. `origin` names it in errors, for example a path.
    ///
    /// # Errors
    /// The first thing that is unknown, misspelt or out of bounds, with its line and column where it has one.
    pub fn parse(yaml: &str, origin: &str) -> Result<Vec<Self>, CasesError> {
        let origin = shown(origin);
        if yaml.len() > MAX_DOCUMENT_BYTES {
            let bytes = yaml.len();
            return Err(CasesError::TooLong { origin, bytes });
        }
        let documents: Vec<Document> = read(yaml).map_err(|found| CasesError::Document {
            origin: origin.clone(),
            line: found.line,
            column: found.column,
            message: found.message,
        })?;
        if documents.is_empty() {
            return Err(CasesError::Empty { origin });
        }
        let checked = documents
            .into_iter()
            .map(|document| document.check(&origin));
        checked.collect()
    }

    /// Asks the policy every question and keeps the answers that are not as expected.
    #[must_use]
    pub fn run(&self, policy: &PolicySet) -> Report {
        let mut report = Report {
            cases: self.cases.len(),
            ..Report::default()
        };
        for case in &self.cases {
            match &case.asks {
                Asks::Reach(asked) => self.run_reach(policy, case, asked, &mut report),
                Asks::Call(asked) => self.run_call(policy, case, asked, &mut report),
            }
        }
        report
    }

    fn run_reach(&self, policy: &PolicySet, case: &Case, asked: &AskedReach, report: &mut Report) {
        let found = (self.users.get(&asked.user), self.nodes.get(&asked.node));
        let (Some(subject), Some(node)) = found else {
            return;
        };
        for login in asked.logins.iter() {
            let request = Request {
                subject,
                node,
                login,
                source: asked.source,
            };
            let decision = authorize(policy, &request);
            let differences = case.compare(&decision);
            let explanation = crate::explain::explain(policy, &request).to_string();
            let question = format!("{} as {login} on {}", asked.user, asked.node);
            report.note(case, question, differences, explanation);
        }
    }

    fn run_call(&self, policy: &PolicySet, case: &Case, asked: &AskedCall, report: &mut Report) {
        let Some(subject) = self.users.get(&asked.user) else {
            return;
        };
        let AskedCall {
            user,
            verb,
            resource,
            owner,
        } = asked;
        let allowed = allows(policy, subject, *resource, *verb, owner.as_ref());
        let answer = if allowed { Expect::Allow } else { Expect::Deny };
        let mut differences = Vec::new();
        differ(
            &mut differences,
            "answer",
            case.expect.as_str(),
            answer.as_str(),
        );
        let whose = owner.as_ref().map(|owner| format!(" of {owner}"));
        let question = format!("{user}: {verb} {resource}{}", whose.unwrap_or_default());
        report.note(case, question, differences, String::new());
    }
}

/// What became of some cases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many cases there were.
    pub cases: usize,
    /// How many questions they asked: one for each login or call.
    pub questions: usize,
    /// The answers that are not as expected.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Whether every answer was as expected.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Adds what became of other cases.
    pub fn add(&mut self, other: Self) {
        self.cases = self.cases.saturating_add(other.cases);
        self.questions = self.questions.saturating_add(other.questions);
        self.failures.extend(other.failures);
    }

    fn note(&mut self, case: &Case, question: String, differences: Vec<Difference>, why: String) {
        self.questions = self.questions.saturating_add(1);
        if !differences.is_empty() {
            self.failures.push(Failure {
                case: case.name.clone(),
                question,
                differences,
                explanation: why,
            });
        }
    }
}

/// An answer that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The case's name.
    pub case: String,
    /// What was asked: `alice as root on web-01`, `alice: read recording of bob`.
    pub question: String,
    /// In what the answer differs; at least one.
    pub differences: Vec<Difference>,
    /// Which role, rule and selector decided; empty for administrative calls.
    pub explanation: String,
}

/// A part of an answer that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `answer`, `reason` or an obligation.
    pub what: String,
    /// What the case says.
    pub expected: String,
    /// What the policy says.
    pub found: String,
}

/// Failures as differences of text, and a line that sums up.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}\n")?;
        }
        let Self {
            cases, questions, ..
        } = self;
        let failed = self.failures.len();
        write!(f, "{cases} cases, {questions} questions, {failed} failed")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = self.case.escape_debug();
        write!(f, "FAILED {case}: {}", self.question)?;
        for Difference {
            what,
            expected,
            found,
        } in &self.differences
        {
            write!(f, "\n  - {what}: {expected}\n  + {what}: {found}")?;
        }
        for line in self.explanation.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

impl Expect {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A case, checked.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    name: String,
    asks: Asks,
    expect: Expect,
    reason: Option<Reason>,
    obligations: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
enum Asks {
    Reach(AskedReach),
    Call(AskedCall),
}

impl Case {
    fn compare(&self, decision: &Decision<'_>) -> Vec<Difference> {
        let mut differences = Vec::new();
        let answer = match decision {
            Decision::Allow(_) => Expect::Allow,
            Decision::Deny(_) => Expect::Deny,
        };
        differ(
            &mut differences,
            "answer",
            self.expect.as_str(),
            answer.as_str(),
        );
        if answer != self.expect {
            return differences;
        }
        match decision {
            Decision::Deny(denial) => {
                let wanted = self.reason.unwrap_or_else(|| denial.reason());
                differ(
                    &mut differences,
                    "reason",
                    wanted.as_str(),
                    denial.reason().as_str(),
                );
            }
            Decision::Allow(permit) => {
                let found = permit.obligations().to_fields();
                for (name, wanted) in &self.obligations {
                    let found = found.get(name).cloned().unwrap_or_default();
                    differ(
                        &mut differences,
                        name,
                        &wanted.to_string(),
                        &found.to_string(),
                    );
                }
            }
        }
        differences
    }
}

fn differ(differences: &mut Vec<Difference>, what: &str, expected: &str, found: &str) {
    if expected != found {
        differences.push(Difference {
            what: what.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        });
    }
}

// ---- as written ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[expect(dead_code, reason = "checked by reading it")]
    kind: Kind,
    #[expect(dead_code, reason = "checked by reading it")]
    version: Version,
    users: BTreeMap<UserName, WrittenUser>,
    #[serde(default)]
    nodes: BTreeMap<NodeName, WrittenNode>,
    cases: Bounded<WrittenCase, 1, 10_000>,
}

#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "role-cases")]
    Cases,
}

#[derive(Deserialize)]
enum Version {
    #[serde(rename = "v1")]
    V1,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    roles: Vec<RoleName>,
    #[serde(default)]
    internal: Traits,
    #[serde(default)]
    external: Traits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    token_labels: Labels,
    #[serde(default)]
    agent_labels: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    #[serde(default, deserialize_with = "announced")]
    reach: Option<AskedReach>,
    #[serde(default, deserialize_with = "announced")]
    call: Option<AskedCall>,
    expect: Expect,
    #[serde(default, deserialize_with = "announced")]
    reason: Option<Reason>,
    #[serde(default, deserialize_with = "announced")]
    obligations: Option<Expected>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedReach {
    user: UserName,
    node: NodeName,
    logins: Bounded<Login, 1, MAX_VALUES>,
    #[serde(default, deserialize_with = "announced")]
    source: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedCall {
    user: UserName,
    verb: Verb,
    resource: Resource,
    #[serde(default, deserialize_with = "announced")]
    owner: Option<UserName>,
}

/// Some of the fields of [`Obligations`], each with a value that it could have.
struct Expected(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let written = serde_json::Map::deserialize(deserializer)?;
        let mut strictest = serde_json::to_value(Obligations::default()).unwrap_or_default();
        let known = strictest.as_object_mut();
        let mut names = Vec::new();
        if let Some(known) = known {
            for (name, value) in written {
                let Some(field) = known.get_mut(&name) else {
                    let known: Vec<&str> = known.keys().map(String::as_str).collect();
                    return Err(D::Error::custom(format_args!(
                        "`{}` is not an obligation: one of {}",
                        shown(&name),
                        known.join(", ")
                    )));
                };
                names.extend(merge(field, value, &name));
            }
        }
        // Read and written again, so that `1h` and `60m` are one value, and one that could never be is refused.
        let whole: Obligations = serde_json::from_value(strictest).map_err(D::Error::custom)?;
        let mut fields = whole.to_fields();
        if let Some(name) = names.iter().find(|name| !fields.contains_key(*name)) {
            let name = shown(name);
            return Err(D::Error::custom(format_args!(
                "`{name}` is not an obligation"
            )));
        }
        fields.retain(|name, _| names.contains(name));
        Ok(Self(fields))
    }
}

/// Puts `value` into `field`, of an object only what it names; returns the full names of what was set.
fn merge(field: &mut Value, value: Value, name: &str) -> Vec<String> {
    match (field, value) {
        (Value::Object(inner), Value::Object(parts)) => {
            let names = parts.keys().map(|part| format!("{name}.{part}")).collect();
            inner.extend(parts);
            names
        }
        (field, value) => {
            *field = value;
            vec![name.to_owned()]
        }
    }
}

impl Document {
    fn check(self, origin: &str) -> Result<Cases, CasesError> {
        let users: BTreeMap<UserName, Subject> = self.users.into_iter().map(subject).collect();
        let nodes: BTreeMap<NodeName, Node> =
            self.nodes.into_iter().zip(0_u128..).map(node).collect();
        let written = Vec::from(self.cases);
        let mut cases = Vec::with_capacity(written.len());
        for case in written {
            let case = case.check(origin)?;
            let unknown = match &case.asks {
                Asks::Reach(asked) if !nodes.contains_key(&asked.node) => {
                    Some(("node", asked.node.to_string()))
                }
                Asks::Reach(AskedReach { user, .. }) | Asks::Call(AskedCall { user, .. }) => {
                    (!users.contains_key(user)).then(|| ("user", user.to_string()))
                }
            };
            if let Some((kind, name)) = unknown {
                return Err(CasesError::Unknown {
                    origin: origin.to_owned(),
                    case: shown(&case.name),
                    kind,
                    name,
                });
            }
            cases.push(case);
        }
        Ok(Cases {
            users,
            nodes,
            cases,
        })
    }
}

fn subject((user, written): (UserName, WrittenUser)) -> (UserName, Subject) {
    let subject = Subject {
        user: user.clone(),
        roles: written.roles,
        internal: written.internal,
        external: written.external,
    };
    (user, subject)
}

fn node(((name, written), index): ((NodeName, WrittenNode), u128)) -> (NodeName, Node) {
    let node = Node {
        id: NodeId::new(index.to_be_bytes()),
        name: name.clone(),
        labels: NodeLabels {
            operator: written.labels,
            token: written.token_labels,
            agent: written.agent_labels,
        },
    };
    (name, node)
}

impl WrittenCase {
    fn check(self, origin: &str) -> Result<Case, CasesError> {
        let name = self.name;
        let error = |rule| CasesError::Case {
            origin: origin.to_owned(),
            case: shown(&name),
            rule,
        };
        let asks = match (self.reach, self.call) {
            (Some(reach), None) => Asks::Reach(reach),
            (None, Some(call)) => Asks::Call(call),
            (Some(_), Some(_)) | (None, None) => {
                return Err(error("write either `reach` or `call`"));
            }
        };
        let is_call = matches!(asks, Asks::Call(_));
        if self.reason.is_some() && (is_call || self.expect == Expect::Allow) {
            return Err(error("`reason` belongs to `reach` with `expect: deny`"));
        }
        if self.obligations.is_some() && (is_call || self.expect == Expect::Deny) {
            return Err(error(
                "`obligations` belong to `reach` with `expect: allow`",
            ));
        }
        Ok(Case {
            asks,
            expect: self.expect,
            reason: self.reason,
            obligations: self
                .obligations
                .map_or_else(BTreeMap::new, |expected| expected.0),
            name,
        })
    }
}
