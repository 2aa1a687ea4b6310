//! Users and their passwords.

use mezite_api::document::{Document, UserMetadata, UserSpec};
use mezite_api::request;
use mezite_core::Secret;
use mezite_core::store::{Commit, Expect, StoreError};
use mezite_rbac::{Resource, Traits, Verb};

use super::{Found, Kind, Shown, shown};
use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::random;
use crate::record::{self, User, prefix};

/// Shortest password that somebody may choose, in bytes.
pub const MIN_PASSWORD: usize = 12;

impl Auth {
    pub(super) async fn apply_user(
        &self,
        actor: &Actor,
        document: Document<UserMetadata, UserSpec>,
        create_only: bool,
    ) -> Result<(Shown, bool), Error> {
        let name = document.metadata.name;
        let key = record::key(prefix::USER, name.as_str())?;
        let before = self.store().get(&key).await?;
        self.guard_apply(
            actor,
            Kind::User,
            before.as_ref(),
            create_only,
            name.as_str(),
        )
        .await?;
        self.check_user(&document.spec)?;
        let old: Option<User> = before
            .as_ref()
            .map(|stored| record::read(&key, stored))
            .transpose()?;
        let user = User {
            name,
            roles: document.spec.roles,
            traits: document.spec.traits,
            created_ms: old
                .as_ref()
                .map_or_else(|| self.now().as_millis(), |old| old.created_ms),
            password: old.and_then(|old| old.password),
        };
        let event = match before {
            None => self.tell().user_created(actor, &user),
            Some(_) => self.tell().user_updated(actor, &user, false),
        };
        let created = self
            .put(
                Commit::new(event),
                key,
                before.as_ref(),
                record::write(&user)?,
            )
            .await?;
        Ok((show_user(user), created))
    }

    /// A user holds only roles that exist: one that does not would deny everything.
    fn check_user(&self, spec: &UserSpec) -> Result<(), Error> {
        let snapshot = self.snapshot();
        if let Some(missing) = spec.roles.iter().find(|role| !snapshot.has_role(role)) {
            return Err(Error::not_found("role", missing.as_str()));
        }
        Traits::new(spec.traits.clone())
            .map(|_| ())
            .map_err(|error| Error::Document(error.to_string()))
    }

    /// Makes a user with a random password, which is returned this once.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Exists`], [`Error::NotFound`] for a role, [`Error::Unavailable`].
    pub async fn create_user(
        &self,
        actor: &Actor,
        wanted: request::CreateUser,
    ) -> Result<Secret<String>, Error> {
        self.guard(actor, Resource::User, Verb::Create, None)
            .await?;
        let spec = UserSpec {
            roles: wanted.roles,
            traits: wanted.traits,
        };
        self.check_user(&spec)?;
        let key = record::key(prefix::USER, wanted.name.as_str())?;
        if self.store().get(&key).await?.is_some() {
            return Err(Error::exists("user", wanted.name.as_str()));
        }
        let password = random::password();
        let hash = self.hash(Secret::new(password.expose().clone())).await?;
        let user = User {
            name: wanted.name,
            roles: spec.roles,
            traits: spec.traits,
            password: Some(hash),
            created_ms: self.now().as_millis(),
        };
        let commit = Commit::new(self.tell().user_created(actor, &user)).put(
            key,
            Expect::Absent,
            record::write(&user)?,
        );
        match self.commit(commit).await {
            Ok(_) => Ok(password),
            Err(StoreError::Conflict(_)) => Err(Error::exists("user", user.name.as_str())),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces a user's password; returns the new one when the hub made it.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unfit`] for a password that is too short, [`Error::Conflict`],
    /// [`Error::Unavailable`].
    pub async fn set_password(
        &self,
        actor: &Actor,
        wanted: request::SetPassword,
    ) -> Result<Option<Secret<String>>, Error> {
        self.guard(actor, Resource::User, Verb::Update, Some(&wanted.user))
            .await?;
        let Found { key, stored } = self.find(Kind::User, wanted.user.as_str()).await?;
        let mut user: User = record::read(&key, &stored)?;
        let (password, made) = match wanted.password {
            Some(chosen) if chosen.expose().len() < MIN_PASSWORD => {
                return Err(Error::Unfit(format!(
                    "the password has {} bytes: at least {MIN_PASSWORD}, or none to have one made",
                    chosen.expose().len()
                )));
            }
            Some(chosen) => (chosen, None),
            None => {
                let made = random::password();
                (Secret::new(made.expose().clone()), Some(made))
            }
        };
        user.password = Some(self.hash(password).await?);
        let commit = Commit::new(self.tell().user_updated(actor, &user, true)).put(
            key,
            Expect::Revision(stored.revision),
            record::write(&user)?,
        );
        self.commit(commit).await?;
        Ok(made)
    }

    async fn hash(&self, password: Secret<String>) -> Result<crate::password::Hash, Error> {
        let hashed = self.passwords().hash(password).await;
        hashed.map_err(|error| Error::Corrupt(error.to_string()))
    }
}

pub(super) fn show_user(user: User) -> Shown {
    let spec = user.spec();
    let name = user.name.to_string();
    let document = Document::v1("user", UserMetadata { name: user.name }, spec);
    shown("user", name, &document)
}
