//! Who asks for something administrative, and the one guard before it is done.

use std::net::IpAddr;

use mezite_core::{RoleName, UserName};
use mezite_rbac::{Resource, Subject, Verb, allows};

use crate::auth::Auth;
use crate::bursts::Attempt;
use crate::error::Error;

/// Who asks: as events name them, and as the rules see them.
#[derive(Clone, Debug)]
pub struct Actor {
    name: String,
    standing: Standing,
    source: Option<IpAddr>,
}

#[derive(Clone, Debug)]
enum Standing {
    /// Decided by the roles in the store.
    Subject(Subject),
    /// Decided by the built-in role `admin`, so that no change of roles locks the hub's own host out.
    Local(Subject),
    /// The hub by itself, on its first start.
    Hub,
}

impl Actor {
    /// A user who was found by [`Auth::subject`] or by a client certificate.
    #[must_use]
    pub fn user(subject: Subject, source: Option<IpAddr>) -> Self {
        Self {
            name: subject.user.to_string(),
            standing: Standing::Subject(subject),
            source,
        }
    }

    /// The administrator on the hub's own Unix socket, with this user id. The composition root has checked that the
    /// peer's credentials are root's or its own.
    ///
    /// # Errors
    /// None in practice: the built-in names are valid.
    pub fn local(uid: u32) -> Result<Self, Error> {
        let invalid = |error: mezite_core::name::NameError| Error::Corrupt(error.to_string());
        let subject = Subject {
            // No user is stored under this name while it acts: the local policy knows no users.
            user: "local".parse::<UserName>().map_err(invalid)?,
            roles: vec!["admin".parse::<RoleName>().map_err(invalid)?],
            internal: mezite_rbac::Traits::default(),
            external: mezite_rbac::Traits::default(),
        };
        Ok(Self {
            name: format!("local:{uid}"),
            standing: Standing::Local(subject),
            source: None,
        })
    }

    pub(crate) fn hub(name: &str) -> Self {
        Self {
            // No user name has a colon.
            name: format!("hub:{name}"),
            standing: Standing::Hub,
            source: None,
        }
    }

    /// As events name it: a user name, or `local:<uid>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The roles it acts with.
    #[must_use]
    pub fn roles(&self) -> &[RoleName] {
        match &self.standing {
            Standing::Subject(subject) | Standing::Local(subject) => &subject.roles,
            Standing::Hub => &[],
        }
    }

    /// Where it asks from.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The user behind it, unless it is the local administrator.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        match &self.standing {
            Standing::Subject(subject) => Some(subject),
            Standing::Local(_) | Standing::Hub => None,
        }
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self.standing, Standing::Local(_))
    }
}

impl Auth {
    /// Whether the rules let `actor` do `verb` to a `resource` that `owner` owns.
    #[must_use]
    pub fn may(
        &self,
        actor: &Actor,
        resource: Resource,
        verb: Verb,
        owner: Option<&UserName>,
    ) -> bool {
        match &actor.standing {
            Standing::Subject(subject) => {
                allows(self.snapshot().policy(), subject, resource, verb, owner)
            }
            // The local administrator owns nothing: `own` never helps.
            Standing::Local(subject) => allows(self.local_policy(), subject, resource, verb, None),
            Standing::Hub => false,
        }
    }

    /// [`Auth::may`], or a denial that is durable before it is told.
    pub(crate) async fn guard(
        &self,
        actor: &Actor,
        resource: Resource,
        verb: Verb,
        owner: Option<&UserName>,
    ) -> Result<(), Error> {
        if self.may(actor, resource, verb, owner) {
            return Ok(());
        }
        let event = self.tell().admin_denied(actor, resource, verb);
        let who = Attempt::User(actor.name().to_owned());
        let event_id = self.report_refused(who, actor.name(), event).await?;
        let event_id = event_id.ok_or(Error::TooManyRefusals)?;
        Err(Error::Denied {
            verb: verb.to_string(),
            resource: resource.to_string(),
            event_id,
        })
    }
}
