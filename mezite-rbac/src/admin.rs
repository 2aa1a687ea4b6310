//! Admin rules: which verbs on which resources, perhaps only one's own.

use mezite_core::UserName;
use serde::{Deserialize, Serialize};

use crate::budget::MAX_VALUES;
use crate::document::{Bounded, announced};
use crate::policy::PolicySet;
use crate::subject::Subject;
use crate::word::words;

words!(
    /// What is done to a resource.
    Verb, "verb",
    /// Make a new one.
    Create => "create",
    /// Remove one.
    Delete => "delete",
    /// Learn which there are.
    List => "list",
    /// See what one holds.
    Read => "read",
    /// Change one.
    Update => "update",
);

words!(
    /// What the administrative interface manages.
    Resource, "resource",
    /// The audit log.
    Audit => "audit",
    /// Certificate authorities.
    Ca => "ca",
    /// Settings of the whole cluster.
    Cluster => "cluster",
    /// Locks.
    Lock => "lock",
    /// Machines.
    Node => "node",
    /// Recordings of sessions.
    Recording => "recording",
    /// Role documents.
    Role => "role",
    /// Running sessions.
    Session => "session",
    /// Join tokens.
    Token => "token",
    /// Users and bots.
    User => "user",
);

/// One entry of `rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) resources: Bounded<Resource, 1, MAX_VALUES>,
    pub(crate) verbs: Bounded<Verb, 1, MAX_VALUES>,
    #[serde(
        default,
        rename = "where",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) only: Option<Only>,
}

/// `where` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Only {
    Own,
}

impl Rule {
    fn names(&self, resource: Resource, verb: Verb) -> bool {
        self.resources.contains(&resource) && self.verbs.contains(&verb)
    }

    /// In allow, `own` has to be known to hold.
    pub(crate) fn grants(&self, resource: Resource, verb: Verb, owner: Owner) -> bool {
        let holds = match self.only {
            None => true,
            Some(Only::Own) => owner == Owner::Own,
        };
        holds && self.names(resource, verb)
    }

    /// In deny, `own` has to be known not to hold.
    pub(crate) fn refuses(&self, resource: Resource, verb: Verb, owner: Owner) -> bool {
        let may_hold = match self.only {
            None => true,
            Some(Only::Own) => owner != Owner::Other,
        };
        may_hold && self.names(resource, verb)
    }
}

/// Whose a thing is, seen from the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a thing is mine, somebody else's, or without a known owner"
)]
pub enum Owner {
    /// The subject's own.
    Own,
    /// Somebody else's.
    Other,
    /// Nobody's, or not known whose.
    Unknown,
}

impl Owner {
    /// Every case.
    pub(crate) const ALL: [Self; 3] = [Self::Own, Self::Other, Self::Unknown];
}

/// Whether the subject may do `verb` to `resource`, which `owner` owns where one does.
///
/// A rule `where: own` grants only when `owner` is the subject. A deny rule of any role wins; so does a role that the
/// policy does not know, or more roles than [`MAX_SUBJECT_ROLES`](crate::budget::MAX_SUBJECT_ROLES).
#[must_use]
pub fn allows(
    policy: &PolicySet,
    subject: &Subject,
    resource: Resource,
    verb: Verb,
    owner: Option<&UserName>,
) -> bool {
    let owner = match owner {
        None => Owner::Unknown,
        Some(owner) if *owner == subject.user => Owner::Own,
        Some(_) => Owner::Other,
    };
    allows_of(policy, subject, resource, verb, owner)
}

pub(crate) fn allows_of(
    policy: &PolicySet,
    subject: &Subject,
    resource: Resource,
    verb: Verb,
    owner: Owner,
) -> bool {
    let Ok(roles) = policy.roles_of(subject) else {
        return false;
    };
    let denied = |rule: &Rule| rule.refuses(resource, verb, owner);
    let granted = |rule: &Rule| rule.grants(resource, verb, owner);
    !roles
        .iter()
        .any(|role| role.deny_rules().iter().any(denied))
        && roles
            .iter()
            .any(|role| role.allow_rules().iter().any(granted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_40_words_are_exact() {
        for word in Resource::ALL {
            assert_eq!(word.to_string().parse(), Ok(*word));
        }
        for bad in [
            "Role",
            "ROLE",
            "roles",
            " role",
            "role ",
            "",
            "*",
            "r\u{3bf}le",
        ] {
            assert!(bad.parse::<Resource>().is_err(), "{bad:?}");
            assert!(
                serde_json::from_value::<Resource>(bad.into()).is_err(),
                "{bad:?}"
            );
        }
        assert_eq!(
            "Read".parse::<Verb>().unwrap_err().to_string(),
            "`Read` is not a verb: one of create, delete, list, read, update"
        );
    }
}
