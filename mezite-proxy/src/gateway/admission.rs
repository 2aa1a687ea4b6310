//! Who comes in: the certificate is verified, bound to what is already known, and the user looked up live.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use mezite_ca::verify::VerifiedIdentity;
use mezite_core::UserName;
use mezite_net::ssh::{Attempt, Authenticator};

use super::way::Way;
use crate::authority::{Authority, FailedAttempt};

/// A verified identity, and the words for its user if it may not come in after all.
///
/// SSH has no way to say why an authentication failed; so a locked user is let in as far as the first channel, is told
/// there, and reaches nothing: [`Admission::identity`] is the only way on.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    identity: VerifiedIdentity,
    refusal: Option<String>,
}

impl Admission {
    /// The identity, if it may go on.
    pub(crate) fn identity(&self) -> Result<&VerifiedIdentity, String> {
        match &self.refusal {
            None => Ok(&self.identity),
            Some(words) => Err(words.clone()),
        }
    }
}

/// What the certificate must agree with.
#[derive(Debug)]
enum Bound {
    /// An outer connection: the SSH user name is the user, or `login+node`.
    UserName,
    /// An inner connection: the very certificate key of the outer one.
    Outer(Box<Admission>),
    /// A proxied connection: the user that TLS authenticated.
    User(UserName),
}

/// Judges certificates of one connection.
#[derive(Debug)]
pub(super) struct Check {
    authority: Arc<dyn Authority>,
    source: IpAddr,
    bound: Bound,
}

impl Check {
    pub(super) fn outer(authority: Arc<dyn Authority>, source: IpAddr) -> Self {
        Self {
            authority,
            source,
            bound: Bound::UserName,
        }
    }

    pub(super) fn same_as(authority: Arc<dyn Authority>, source: IpAddr, outer: Admission) -> Self {
        Self {
            authority,
            source,
            bound: Bound::Outer(Box::new(outer)),
        }
    }

    pub(super) fn of_user(authority: Arc<dyn Authority>, source: IpAddr, user: UserName) -> Self {
        Self {
            authority,
            source,
            bound: Bound::User(user),
        }
    }

    fn verify(&self, user: &str, blob: &[u8]) -> Result<VerifiedIdentity, String> {
        let identity = self
            .authority
            .verify(blob, self.source)
            .map_err(|error| error.to_string())?;
        let holds = match &self.bound {
            Bound::UserName => match user.parse::<Way>()? {
                Way::Jump(claimed) => claimed == *identity.user(),
                Way::Direct { .. } => true,
            },
            Bound::Outer(outer) => {
                outer.identity.user() == identity.user()
                    && outer.identity.public_key() == identity.public_key()
            }
            Bound::User(expected) => expected == identity.user(),
        };
        if holds {
            Ok(identity)
        } else {
            Err(format!(
                "the certificate of `{}` does not fit this connection",
                identity.user()
            ))
        }
    }

    async fn report(&self, claimed_user: &str, error: &str, certificate: Option<&[u8]>) {
        let attempt = FailedAttempt {
            claimed_user,
            source: self.source,
            error,
            certificate,
        };
        self.authority.report_attempt(attempt).await;
    }
}

#[async_trait]
impl Authenticator for Check {
    type Proof = Admission;

    async fn certificate(&mut self, user: &str, blob: &[u8]) -> Option<Admission> {
        match self.verify(user, blob) {
            Ok(identity) => {
                let admitted = self.authority.admit(&identity, self.source).await;
                Some(Admission {
                    identity,
                    refusal: admitted.err().map(|refusal| refusal.message),
                })
            }
            Err(error) => {
                self.report(user, &error, Some(blob)).await;
                None
            }
        }
    }

    async fn refused(&mut self, user: &str, attempt: Attempt) {
        // Every OpenSSH client begins with `none` to learn the methods; it claims nothing.
        if attempt != Attempt::None {
            self.report(user, &attempt.to_string(), None).await;
        }
    }
}
