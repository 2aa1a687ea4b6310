//! The decision: total, deterministic, the same whatever the order of roles.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use mezite_core::{Login, Span};
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::explain::{Explanation, explain};
use crate::once::{AsLogin, AtNode};
use crate::options::{Merged, Obligations};
use crate::policy::{Compiled, PolicySet};
use crate::subject::{Node, Subject};

/// Who asks to reach which node as which login, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub subject: &'a Subject,
    /// The machine.
    pub node: &'a Node,
    /// The account on it.
    pub login: &'a Login,
    /// The client's address, where it is known.
    pub source: Option<IpAddr>,
}

/// The answer.
#[derive(Clone, Debug)]
#[must_use]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is no third answer, and a new one must break every caller"
)]
pub enum Decision<'a> {
    /// Yes, under obligations.
    Allow(Permit),
    /// No.
    Deny(Denial<'a>),
}

/// The proof that the policy said yes. Only [`authorize`] makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Permit(Box<Granted>);

#[derive(Clone, Debug)]
struct Granted {
    subject: Subject,
    node: Node,
    login: Login,
    obligations: Obligations,
}

impl Permit {
    /// Who may.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// Where.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// As which account.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.0.login
    }

    /// On which conditions.
    #[must_use]
    pub fn obligations(&self) -> &Obligations {
        &self.0.obligations
    }
}

/// A no, with its reasons.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Denial<'a> {
    reason: Reason,
    policy: &'a PolicySet,
    request: Request<'a>,
}

impl Denial<'_> {
    /// The reason in a few words, fit for the user: names no role and no label.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The reasons in full, for administrators and the audit log. Found now, and not when the decision was made: it takes
    /// longer than the decision, and not everybody asks.
    #[must_use]
    pub fn explanation(&self) -> Explanation {
        explain(self.policy, &self.request)
    }
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

/// Why it is a no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new way to deny must break every caller"
)]
pub enum Reason {
    /// A role denies it.
    Denied,
    /// The decision would take more than [`MAX_STEPS`](crate::budget::MAX_STEPS) steps.
    Exhausted,
    /// No role allows it.
    NotAllowed,
    /// The roles that allow it do not allow it from this address.
    SourceNetwork,
    /// The subject has more than [`MAX_SUBJECT_ROLES`](crate::budget::MAX_SUBJECT_ROLES) roles.
    TooManyRoles,
    /// The subject has a role that the policy does not know, and that might deny it.
    UnknownRole,
}

impl Reason {
    /// The reason as a word for machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::NotAllowed => "not_allowed",
            Self::SourceNetwork => "source_network",
            Self::TooManyRoles => "too_many_roles",
            Self::UnknownRole => "unknown_role",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            // One text for both: whether a deny rule stands in the way is not the user's to know.
            Self::Denied | Self::NotAllowed => "your roles do not allow this login on this node",
            Self::Exhausted => "your roles are too many or too large to decide",
            Self::SourceNetwork => "your roles do not allow this from your network",
            Self::TooManyRoles => "you have too many roles",
            Self::UnknownRole => "you have a role that does not exist any more",
        })
    }
}

/// Whether the subject may reach the node as the login, under which obligations, or why not.
pub fn authorize<'a>(policy: &'a PolicySet, request: &Request<'a>) -> Decision<'a> {
    match can(policy, request) {
        Ok(obligations) => Decision::Allow(Permit(Box::new(Granted {
            subject: request.subject.clone(),
            node: request.node.clone(),
            login: request.login.clone(),
            obligations,
        }))),
        Err(reason) => Decision::Deny(Denial {
            reason,
            policy,
            request: *request,
        }),
    }
}

/// What [`authorize`] answers, for those who only want to know: without the permit to act on it.
///
/// # Errors
/// Why not.
pub fn can(policy: &PolicySet, request: &Request<'_>) -> Result<Obligations, Reason> {
    let obligations = conditions(policy, request)?;
    if !obligations.admits(request.source) {
        return Err(Reason::SourceNetwork);
    }
    Ok(obligations)
}

/// [`can`] from some address: where the request comes from is left out, and stands among the conditions.
///
/// # Errors
/// Why not.
pub fn conditions(policy: &PolicySet, request: &Request<'_>) -> Result<Obligations, Reason> {
    let budget = Budget::default();
    let roles = policy.roles_of(request.subject)?;
    let node = AtNode::new(request.subject, &request.node.labels, &budget);
    let login = AsLogin::new(request.subject, request.login, &budget);
    let verdict = weigh(&roles, &node, &login);
    if budget.is_exhausted() {
        return Err(Reason::Exhausted);
    }
    verdict
}

/// The decision but for the source: deny of any role first, then labels and login of the same role.
/// Means nothing once the budget is exhausted.
fn weigh<'p>(
    roles: &[&'p Compiled],
    node: &AtNode<'p>,
    login: &AsLogin<'p>,
) -> Result<Obligations, Reason> {
    if roles.iter().any(|role| role.refuses(node, login)) {
        return Err(Reason::Denied);
    }
    let mut merged = Merged::default();
    let mut allowed = false;
    for role in roles.iter().filter(|role| role.grants(node, login)) {
        merged.add(role.options());
        allowed = true;
    }
    if allowed {
        Ok(merged.finish())
    } else {
        Err(Reason::NotAllowed)
    }
}

/// The strictest `max_session_ttl` over all of the subject's roles: how long an identity may last.
/// No limit when no role says one.
#[must_use]
pub fn identity_ttl(policy: &PolicySet, subject: &Subject) -> Option<Span> {
    let mut merged = Merged::default();
    for role in subject.roles.iter().filter_map(|name| policy.get(name)) {
        merged.add(role.options());
    }
    merged.max_session_ttl()
}

/// The logins that the subject may use on the node from some address, sorted: those that can be listed.
/// None when finding out would take more than [`MAX_STEPS`](crate::budget::MAX_STEPS). See [`sees`] for patterns and `"*"`.
#[must_use]
pub fn logins(policy: &PolicySet, subject: &Subject, node: &Node) -> Vec<Login> {
    let budget = Budget::default();
    let Ok(roles) = policy.roles_of(subject) else {
        return Vec::new();
    };
    let node = AtNode::new(subject, &node.labels, &budget);
    let candidates: BTreeSet<Login> = roles
        .iter()
        .filter(|role| role.grants_node(&node))
        .flat_map(|role| role.allow_logins.listed(subject, &budget))
        .collect();
    let mut allowed = Vec::new();
    for login in &candidates {
        if weigh(&roles, &node, &AsLogin::new(subject, login, &budget)).is_ok() {
            allowed.push(login.clone());
        }
    }
    if budget.is_exhausted() {
        allowed.clear();
    }
    allowed
}

/// Whether the subject could be allowed some login on the node; otherwise the node is not there for it.
///
/// A role that allows a pattern or `"*"` counts unless a deny leaves no login at all.
#[must_use]
pub fn sees(policy: &PolicySet, subject: &Subject, node: &Node) -> bool {
    let budget = Budget::default();
    let Ok(roles) = policy.roles_of(subject) else {
        return false;
    };
    let here = AtNode::new(subject, &node.labels, &budget);
    let closed = roles.iter().any(|role| {
        role.refuses_node(&here)
            || role.deny_logins.refuses_all(subject, &budget)
            || role.combined.iter().any(|(labels, logins)| {
                labels.refuses(&here) && logins.refuses_all(subject, &budget)
            })
    });
    let open = || {
        let mut open = roles.iter().filter(|role| role.allow_logins.is_open());
        open.any(|role| role.grants_node(&here))
    };
    let some = !closed && (open() || !logins(policy, subject, node).is_empty());
    some && !budget.is_exhausted()
}
