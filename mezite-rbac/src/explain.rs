//! The decision once more, this time keeping every role, rule and selector and what became of it.

use std::fmt;

use mezite_core::{Login, NodeName, RoleName, UserName};
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::decide::{Reason, Request, can};
use crate::document::EVERY_NODE;
use crate::policy::{Compiled, KeySelector, LabelSet, LoginSet, PolicySet};
use crate::selector::Selector;
use crate::subject::NodeLabels;

/// Which roles, rules and selectors decided, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who asked.
    pub user: UserName,
    /// The machine.
    pub node: NodeName,
    /// The account on it.
    pub login: Login,
    /// Why it is a no; none for a yes.
    pub reason: Option<Reason>,
    /// Every role of the subject, in the subject's order; empty when walking them would take too many steps.
    pub roles: Vec<RoleFindings>,
}

impl Explanation {
    /// The rules that decided: for a no those in its way, for a yes those that allow. None where nothing did: no role
    /// allows it, or deciding was too much.
    #[must_use]
    pub fn decided_by(&self) -> Vec<String> {
        let Some(reason) = self.reason else {
            return self.rules_that(|_, rule| rule.allows());
        };
        match reason {
            Reason::Denied => {
                self.rules_that(|_, rule| rule.matched && rule.rule.starts_with(DENY))
            }
            Reason::SourceNetwork => self.rules_that(|role, rule| {
                role.rules.iter().any(RuleFindings::allows) && rule.rule == SOURCE && !rule.matched
            }),
            Reason::UnknownRole => {
                let unknown = self.roles.iter().filter(|role| !role.known);
                unknown.map(|role| format!("role {}", role.role)).collect()
            }
            Reason::Exhausted | Reason::NotAllowed | Reason::TooManyRoles => Vec::new(),
        }
    }

    fn rules_that(&self, decide: fn(&RoleFindings, &RuleFindings) -> bool) -> Vec<String> {
        let rules = self.roles.iter().flat_map(|role| {
            let rules = role.rules.iter().filter(move |rule| decide(role, rule));
            rules.map(move |rule| format!("role {}: {}", role.role, rule.rule))
        });
        rules.collect()
    }
}

impl RuleFindings {
    fn allows(&self) -> bool {
        self.matched && self.rule == ALLOW
    }
}

/// What became of one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleFindings {
    /// The role.
    pub role: RoleName,
    /// Whether the policy knows it.
    pub known: bool,
    /// Its rules that bear on logins and nodes.
    pub rules: Vec<RuleFindings>,
}

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFindings {
    /// Where it stands: `allow`, `deny.node_labels`, `deny.logins`, `deny.combined[0]`, `options.source_networks`.
    pub rule: String,
    /// Whether it matched: granted under allow, denied under deny, admitted the source under options.
    pub matched: bool,
    /// Its selectors.
    pub selectors: Vec<Finding>,
}

/// What became of one selector. Texts are cut to 200 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where it stands: `node_labels.env`, `logins`, `source_networks`.
    pub selector: String,
    /// What the document asks for.
    pub wanted: String,
    /// What there was to compare; empty when there was nothing.
    pub found: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a selector matches, misses, or cannot be resolved"
)]
pub enum Outcome {
    /// It matched.
    Matched,
    /// It did not match.
    Missed,
    /// A template has no value for this subject: grants nothing, denies everything.
    Unresolved,
}

/// How rules are named: one that allows, those that deny, one for the source.
const ALLOW: &str = "allow";
const DENY: &str = "deny.";
const SOURCE: &str = "options.source_networks";

/// Explains what [`authorize`](crate::authorize) answers to the same request.
#[must_use]
pub fn explain(policy: &PolicySet, request: &Request<'_>) -> Explanation {
    let budget = Budget::default();
    let walk = Walk {
        request,
        budget: &budget,
    };
    // Where the decision stops early, the walk would be as long as the subject likes: it stops there, too.
    let reason = can(policy, request).err();
    let stopped = matches!(reason, Some(Reason::Exhausted | Reason::TooManyRoles));
    let names = request.subject.roles.iter().filter(|_| !stopped);
    let mut roles: Vec<RoleFindings> = names
        .map(|name| walk.role(name, policy.get(name)))
        .collect();
    if budget.is_exhausted() {
        // The walk looks at more than the decision did: findings made on an empty budget would be wrong.
        roles.clear();
    }
    Explanation {
        user: request.subject.user.clone(),
        node: request.node.name.clone(),
        login: request.login.clone(),
        reason,
        roles,
    }
}

/// One walk over the roles for one request.
struct Walk<'a> {
    request: &'a Request<'a>,
    budget: &'a Budget,
}

impl Walk<'_> {
    fn role(&self, name: &RoleName, role: Option<&Compiled>) -> RoleFindings {
        RoleFindings {
            role: name.clone(),
            known: role.is_some(),
            rules: role.map_or_else(Vec::new, |role| self.rules(role)),
        }
    }

    fn rules(&self, role: &Compiled) -> Vec<RuleFindings> {
        let mut rules = Vec::new();
        if role.allow_labels.is_some() || !role.allow_logins.values.is_empty() {
            rules.push(self.allow(role));
        }
        if let Some(labels) = &role.deny_labels {
            let selectors: Vec<Finding> =
                labels.keys().iter().map(|key| self.refusing(key)).collect();
            rules.push(RuleFindings {
                rule: "deny.node_labels".to_owned(),
                matched: denies_labels(&selectors),
                selectors,
            });
        }
        if !role.deny_logins.values.is_empty() {
            let login = self.logins(&role.deny_logins);
            rules.push(RuleFindings {
                rule: "deny.logins".to_owned(),
                matched: login.outcome != Outcome::Missed,
                selectors: vec![login],
            });
        }
        for (index, (labels, logins)) in role.combined.iter().enumerate() {
            rules.push(self.combined(index, labels, logins));
        }
        if role.options().source_networks.is_some() {
            rules.push(self.source(role));
        }
        rules
    }

    fn allow(&self, role: &Compiled) -> RuleFindings {
        let keys = role.allow_labels.as_ref().map_or(&[][..], LabelSet::keys);
        let mut selectors: Vec<Finding> = keys.iter().map(|key| self.granting(key)).collect();
        selectors.push(self.logins(&role.allow_logins));
        RuleFindings {
            rule: ALLOW.to_owned(),
            matched: !keys.is_empty()
                && selectors
                    .iter()
                    .all(|found| found.outcome == Outcome::Matched),
            selectors,
        }
    }

    fn combined(&self, index: usize, labels: &LabelSet, logins: &LoginSet) -> RuleFindings {
        let mut selectors: Vec<Finding> =
            labels.keys().iter().map(|key| self.refusing(key)).collect();
        let on_node = denies_labels(&selectors);
        let login = self.logins(logins);
        let matched = on_node && login.outcome != Outcome::Missed;
        selectors.push(login);
        RuleFindings {
            rule: format!("deny.combined[{index}]"),
            matched,
            selectors,
        }
    }

    fn granting(&self, key: &KeySelector) -> Finding {
        let (subject, labels) = (self.request.subject, &self.request.node.labels);
        let outcome = if key.grants(subject, labels, self.budget) {
            Outcome::Matched
        } else if key.resolves(subject, self.budget) {
            Outcome::Missed
        } else {
            Outcome::Unresolved
        };
        label_finding(key, labels, outcome)
    }

    fn refusing(&self, key: &KeySelector) -> Finding {
        let (subject, labels) = (self.request.subject, &self.request.node.labels);
        let outcome = if !key.resolves(subject, self.budget) {
            Outcome::Unresolved
        } else if key.refuses(subject, labels, self.budget) {
            Outcome::Matched
        } else {
            Outcome::Missed
        };
        label_finding(key, labels, outcome)
    }

    fn logins(&self, logins: &LoginSet) -> Finding {
        let (subject, login) = (self.request.subject, self.request.login);
        let outcome = if logins.grants(subject, login, self.budget) {
            Outcome::Matched
        } else if logins.resolves(subject, self.budget) {
            Outcome::Missed
        } else {
            Outcome::Unresolved
        };
        Finding {
            selector: "logins".to_owned(),
            wanted: wanted(&logins.values),
            found: login.to_string(),
            outcome,
        }
    }

    fn source(&self, role: &Compiled) -> RuleFindings {
        let networks = role
            .options()
            .source_networks
            .as_deref()
            .unwrap_or_default();
        let source = self.request.source;
        let matched = source.is_some_and(|source| networks.iter().any(|net| net.contains(source)));
        let names: Vec<String> = networks.iter().map(ToString::to_string).collect();
        RuleFindings {
            rule: SOURCE.to_owned(),
            matched,
            selectors: vec![Finding {
                selector: "source_networks".to_owned(),
                wanted: cut(&names.join(", ")),
                found: source.map(|source| source.to_string()).unwrap_or_default(),
                outcome: if matched {
                    Outcome::Matched
                } else {
                    Outcome::Missed
                },
            }],
        }
    }
}

/// One unresolved key makes the whole match; otherwise every key has to.
fn denies_labels(keys: &[Finding]) -> bool {
    keys.iter().any(|key| key.outcome == Outcome::Unresolved)
        || keys.iter().all(|key| key.outcome == Outcome::Matched)
}

fn label_finding(key: &KeySelector, labels: &NodeLabels, outcome: Outcome) -> Finding {
    let found: Vec<String> = labels
        .by_source(&key.key)
        .map(|(source, value)| format!("{value} ({})", format!("{source:?}").to_lowercase()))
        .collect();
    Finding {
        selector: format!("node_labels.{}", key.key),
        wanted: wanted(&key.values),
        found: if key.key == EVERY_NODE {
            "every node".to_owned()
        } else {
            cut(&found.join(", "))
        },
        outcome,
    }
}

fn wanted(selectors: &[Selector]) -> String {
    let texts: Vec<&str> = selectors.iter().map(Selector::text).collect();
    cut(&texts.join(", "))
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(200).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Readable lines. Control characters are escaped.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user, node, login, ..
        } = self;
        write!(f, "{user} as {login} on {node}: ")?;
        match self.reason {
            None => f.write_str("allowed")?,
            Some(Reason::Denied) => f.write_str("denied, a role denies it")?,
            Some(Reason::Exhausted) => f.write_str("denied, deciding would take too many steps")?,
            Some(Reason::NotAllowed) => f.write_str("denied, no role allows it")?,
            Some(Reason::SourceNetwork) => f.write_str("denied, not from this address")?,
            Some(Reason::TooManyRoles) => f.write_str("denied, the user has too many roles")?,
            Some(Reason::UnknownRole) => {
                f.write_str("denied, a role is not known and might deny it")?
            }
        }
        let decided_by = self.decided_by();
        if !decided_by.is_empty() {
            write!(f, "\ndecided by {}", decided_by.join(", "))?;
        }
        for role in &self.roles {
            write!(f, "\n{role}")?;
        }
        if self.roles.is_empty() && self.reason == Some(Reason::NotAllowed) {
            f.write_str("\nthe user has no roles")?;
        }
        Ok(())
    }
}

impl fmt::Display for RoleFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.known {
            return write!(f, "role {}: not known", self.role);
        }
        write!(f, "role {}", self.role)?;
        for rule in &self.rules {
            write!(f, "\n  {rule}")?;
        }
        if self.rules.is_empty() {
            f.write_str("\n  nothing about logins and nodes")?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matched = if self.matched {
            "matched"
        } else {
            "not matched"
        };
        write!(f, "{}: {matched}", self.rule)?;
        for finding in &self.selectors {
            write!(f, "\n    {finding}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.outcome {
            Outcome::Matched => "+",
            Outcome::Missed => "-",
            Outcome::Unresolved => "?",
        };
        let wanted = self.wanted.escape_debug();
        let found = self.found.escape_debug();
        write!(f, "{mark} {} wants `{wanted}`, ", self.selector)?;
        if self.found.is_empty() {
            f.write_str("found nothing")?;
        } else {
            write!(f, "found `{found}`")?;
        }
        if self.outcome == Outcome::Unresolved {
            f.write_str(", and a template has no value for this user")?;
        }
        Ok(())
    }
}
