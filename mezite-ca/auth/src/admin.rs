//! Administration: what can be done with a resource of any kind, and roles; the other kinds below. Each operation is guarded by the
//! rules and committed with its event. What is given out is a document without secrets.

use mezite_api::document::Document;
use mezite_core::UserName;
use mezite_core::store::{Commit, Expect, Key, Revision, Versioned};
use mezite_rbac::{PolicySet, Resource, Role, Verb, builtin_roles};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::break_glass;
use crate::error::Error;
use crate::live;
use crate::record::{self, Lock, NameOwner, Node, Token, User, prefix};
use crate::revoked;

mod lock;
mod node;
mod user;

pub use node::{NewToken, OpenSshNode, TOKEN_CEILING, TOKEN_LIFE};
pub use user::MIN_PASSWORD;

/// Resources that travel as documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BreakGlass,
    Lock,
    Node,
    Revocation,
    Role,
    Token,
    User,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "break_glass" => Self::BreakGlass,
            "lock" => Self::Lock,
            "node" => Self::Node,
            "revocation" => Self::Revocation,
            "role" => Self::Role,
            "token" => Self::Token,
            "user" => Self::User,
            other => {
                let shown: String = other
                    .chars()
                    .take(40)
                    .flat_map(char::escape_default)
                    .collect();
                return Err(Error::Document(format!(
                    "`{shown}` is not a kind of resource: user, role, node, token, lock, revocation or break_glass"
                )));
            }
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::BreakGlass => "break_glass",
            Self::Lock => "lock",
            Self::Node => "node",
            Self::Revocation => "revocation",
            Self::Role => "role",
            Self::Token => "token",
            Self::User => "user",
        }
    }

    fn resource(self) -> Resource {
        match self {
            Self::Lock => Resource::Lock,
            Self::Node => Resource::Node,
            Self::BreakGlass | Self::Revocation => Resource::Ca,
            Self::Role => Resource::Role,
            Self::Token => Resource::Token,
            Self::User => Resource::User,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Lock => prefix::LOCK,
            Self::Node => prefix::NODE,
            Self::BreakGlass => prefix::BREAK_GLASS,
            Self::Revocation => prefix::REVOKED,
            Self::Role => prefix::ROLE,
            Self::Token => prefix::TOKEN,
            Self::User => prefix::USER,
        }
    }
}

/// A resource as it is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shown {
    /// `user`, `role`, `node`, `token`, `lock`, `revocation` or `break_glass`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The document.
    pub document: Value,
}

impl Auth {
    /// One resource.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Document`] for an unknown kind, [`Error::Unavailable`].
    pub async fn resource(&self, actor: &Actor, kind: &str, name: &str) -> Result<Shown, Error> {
        let kind = Kind::parse(kind)?;
        self.guard_named(actor, kind, Verb::Read, name).await?;
        let found = self.find(kind, name).await?;
        show(kind, &found.key, &found.stored)
    }

    /// All resources of a kind, by name.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Document`] for an unknown kind, [`Error::Unavailable`].
    pub async fn resources(&self, actor: &Actor, kind: &str) -> Result<Vec<Shown>, Error> {
        let kind = Kind::parse(kind)?;
        self.guard(actor, kind.resource(), Verb::List, None).await?;
        let found = live::all(self.store(), kind.prefix()).await?;
        let mut shown = found
            .iter()
            .map(|(key, stored)| show(kind, key, stored))
            .collect::<Result<Vec<_>, _>>()?;
        shown.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(shown)
    }

    /// Creates or replaces what a document (YAML or JSON) describes; says whether it was created.
    ///
    /// # Errors
    /// [`Error::Document`], [`Error::Denied`], [`Error::Exists`], [`Error::NotFound`], [`Error::Conflict`],
    /// [`Error::Unfit`], [`Error::Unavailable`].
    pub async fn apply(
        &self,
        actor: &Actor,
        text: &str,
        create_only: bool,
    ) -> Result<(Shown, bool), Error> {
        let document: Value =
            serde_saphyr::from_str(text).map_err(|error| Error::Document(error.to_string()))?;
        let kind = document.get("kind").and_then(Value::as_str);
        let kind = kind.ok_or_else(|| Error::Document("`kind` is missing".to_owned()))?;
        match Kind::parse(kind)? {
            Kind::Role => self.apply_role(actor, text, create_only).await,
            Kind::User => self.apply_user(actor, typed(document)?, create_only).await,
            Kind::Lock => self.apply_lock(actor, typed(document)?).await,
            Kind::Node => self.apply_node(actor, typed(document)?).await,
            Kind::BreakGlass => self.apply_break_glass(actor, typed(document)?).await,
            Kind::Revocation => self.apply_revocation(actor, typed(document)?).await,
            Kind::Token => Err(Error::Unfit(
                "a token is drawn by the hub: make one with `mezctl tokens add`".to_owned(),
            )),
        }
    }

    async fn apply_role(
        &self,
        actor: &Actor,
        text: &str,
        create_only: bool,
    ) -> Result<(Shown, bool), Error> {
        let mut roles =
            Role::parse(text, "document").map_err(|error| Error::Document(error.to_string()))?;
        let (Some(role), true) = (roles.pop(), roles.is_empty()) else {
            return Err(Error::Document("give one document at a time".to_owned()));
        };
        let key = record::key(prefix::ROLE, role.name().as_str())?;
        let before = self.store().get(&key).await?;
        self.guard_apply(
            actor,
            Kind::Role,
            before.as_ref(),
            create_only,
            role.name().as_str(),
        )
        .await?;
        let snapshot = self.snapshot();
        let others = snapshot
            .policy()
            .roles()
            .filter(|other| other.name() != role.name());
        PolicySet::compile(others.chain([&role]).cloned())
            .map_err(|error| Error::Document(error.to_string()))?;
        let event = match before {
            None => self.tell().role_created(actor, &role),
            Some(_) => self.tell().role_updated(actor, &role),
        };
        let created = self
            .put(
                Commit::new(event),
                key,
                before.as_ref(),
                record::write(&role)?,
            )
            .await?;
        Ok((show_role(&role), created))
    }

    /// Removes a resource.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unfit`] for a built-in role, [`Error::Conflict`],
    /// [`Error::Unavailable`].
    pub async fn remove(&self, actor: &Actor, kind: &str, name: &str) -> Result<(), Error> {
        let kind = Kind::parse(kind)?;
        self.guard_named(actor, kind, Verb::Delete, name).await?;
        let Found { key, stored } = self.find(kind, name).await?;
        let tell = self.tell();
        let expect = Expect::Revision(stored.revision);
        let commit = match kind {
            Kind::User => {
                Commit::new(tell.user_deleted(actor, &record::read::<User>(&key, &stored)?.name))
            }
            Kind::Role => {
                let role: Role = record::read(&key, &stored)?;
                if builtin_roles().iter().any(|own| own.name() == role.name()) {
                    return Err(Error::Unfit(format!(
                        "the role `{}` is built in and stays",
                        role.name()
                    )));
                }
                Commit::new(tell.role_deleted(actor, role.name()))
            }
            Kind::Node => {
                let node: Node = record::read(&key, &stored)?;
                let name_key = record::key(prefix::NODE_NAME, node.name.as_str())?;
                let adopted = record::key(prefix::ADOPTED_NODE, node.id.as_str())?;
                let left = tell.node_left(Some(actor), &node.id, &node.name, "removed");
                let marks = self.marks(&node.id).await?;
                marks.into_iter().fold(
                    Commit::new(left)
                        .remove(name_key, Expect::Any)
                        .remove(adopted, Expect::Any),
                    |commit, (mark, _)| commit.remove(mark, Expect::Any),
                )
            }
            Kind::BreakGlass => self.remove_break_glass(actor, &key, &stored)?,
            Kind::Revocation => self.remove_revocation(actor, &key, &stored).await?,
            Kind::Token => {
                Commit::new(tell.token_deleted(actor, &record::read::<Token>(&key, &stored)?.name))
            }
            Kind::Lock => {
                Commit::new(tell.lock_deleted(actor, &record::read::<Lock>(&key, &stored)?))
            }
        };
        self.commit(commit.remove(key, expect)).await?;
        Ok(())
    }

    async fn guard_named(
        &self,
        actor: &Actor,
        kind: Kind,
        verb: Verb,
        name: &str,
    ) -> Result<(), Error> {
        let owner = match kind {
            Kind::User => name.parse::<UserName>().ok(),
            Kind::BreakGlass
            | Kind::Lock
            | Kind::Node
            | Kind::Revocation
            | Kind::Role
            | Kind::Token => None,
        };
        self.guard(actor, kind.resource(), verb, owner.as_ref())
            .await
    }

    async fn guard_apply(
        &self,
        actor: &Actor,
        kind: Kind,
        before: Option<&Versioned>,
        create_only: bool,
        name: &str,
    ) -> Result<(), Error> {
        let verb = if before.is_some() {
            Verb::Update
        } else {
            Verb::Create
        };
        // What somebody is, and so may do, is not their own to change: `own` does not help here.
        self.guard(actor, kind.resource(), verb, None).await?;
        if create_only && before.is_some() {
            return Err(Error::exists(kind.as_str(), name));
        }
        Ok(())
    }

    /// Writes over exactly what was read; says whether it was new.
    async fn put(
        &self,
        commit: Commit,
        key: Key,
        before: Option<&Versioned>,
        value: Vec<u8>,
    ) -> Result<bool, Error> {
        let revision: Option<Revision> = before.map(|stored| stored.revision);
        let expect = revision.map_or(Expect::Absent, Expect::Revision);
        self.commit(commit.put(key, expect, value)).await?;
        Ok(before.is_none())
    }

    async fn find(&self, kind: Kind, name: &str) -> Result<Found, Error> {
        let missing = || Error::not_found(kind.as_str(), name);
        let key = match kind {
            Kind::Token => return self.find_token(name).await?.ok_or_else(missing),
            Kind::Node => {
                let name_key = record::key(prefix::NODE_NAME, name).map_err(|_| missing())?;
                let stored = self.store().get(&name_key).await?.ok_or_else(missing)?;
                let owner: NameOwner = record::read(&name_key, &stored)?;
                record::key(prefix::NODE, owner.id.as_str())?
            }
            Kind::BreakGlass | Kind::Lock | Kind::Revocation | Kind::Role | Kind::User => {
                record::key(kind.prefix(), name).map_err(|_| missing())?
            }
        };
        let stored = self.store().get(&key).await?.ok_or_else(missing)?;
        Ok(Found { key, stored })
    }
}

struct Found {
    key: Key,
    stored: Versioned,
}

/// The document as its type, whose version is known.
fn typed<M: DeserializeOwned, S: DeserializeOwned>(
    document: Value,
) -> Result<Document<M, S>, Error> {
    let document: Document<M, S> =
        serde_json::from_value(document).map_err(|error| Error::Document(error.to_string()))?;
    if document.version != "v1" {
        let version = document.version.escape_default();
        return Err(Error::Document(format!(
            "version `{version}` is not known: write v1"
        )));
    }
    Ok(document)
}

fn show(kind: Kind, key: &Key, stored: &Versioned) -> Result<Shown, Error> {
    Ok(match kind {
        Kind::User => user::show_user(record::read(key, stored)?),
        Kind::Role => show_role(&record::read(key, stored)?),
        Kind::Node => node::show_node(record::read(key, stored)?),
        Kind::BreakGlass => break_glass::show(record::read(key, stored)?),
        Kind::Revocation => revoked::show(record::read(key, stored)?),
        Kind::Token => node::show_token(record::read(key, stored)?),
        Kind::Lock => lock::show_lock(record::read(key, stored)?),
    })
}

fn show_role(role: &Role) -> Shown {
    Shown {
        kind: "role",
        name: role.name().to_string(),
        document: role.to_json(),
    }
}

fn shown(kind: &'static str, name: String, document: &impl serde::Serialize) -> Shown {
    Shown {
        kind,
        name,
        document: serde_json::json!(document),
    }
}
