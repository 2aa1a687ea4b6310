//! Administration: users, roles, nodes, tokens, locks. Each operation is guarded by the rules and committed with its
//! event. What is given out is a document without secrets.

use mezite_api::document::{
    Binding, Document, LockMetadata, LockSpec, LockTarget, NodeKind, NodeMetadata, NodeSpec,
    TokenMetadata, TokenSpec, UserMetadata, UserSpec,
};
use mezite_api::request;
use mezite_ca::openssh::{self, Principals, SshdPaths};
use mezite_core::store::{Commit, Expect, Key, Revision, StoreError, Versioned};
use mezite_core::{NodeName, RoleName, Secret, SessionId, Span, UnixTime, UserName};
use mezite_rbac::{NodeLabels, PolicySet, Resource, Role, Traits, Verb, builtin_roles};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ssh_key::Certificate;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::break_glass;
use crate::error::Error;
use crate::live;
use crate::random;
use crate::record::{self, Lock, NameOwner, Node, Token, User, prefix};
use crate::revoked;
use crate::session::Running;

/// Life of a join token when nothing is asked.
pub const TOKEN_LIFE: Span = Span::from_secs(60 * 60);
/// Longest life of a join token.
pub const TOKEN_CEILING: Span = Span::from_secs(7 * 24 * 60 * 60);
/// Shortest password that somebody may choose, in bytes.
pub const MIN_PASSWORD: usize = 12;

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

/// A token, shown this once.
#[derive(Debug)]
#[non_exhaustive]
pub struct NewToken {
    /// What the node shows.
    pub token: Secret<String>,
    /// What documents and events call it.
    pub name: String,
    /// Until when it is good.
    pub expires: UnixTime,
}

/// What a new node with a stock sshd has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenSshNode {
    /// The node.
    pub node: Node,
    /// For its `sshd_config`.
    pub sshd_lines: String,
    /// For the file that `TrustedUserCAKeys` names.
    pub user_ca: String,
    /// What the chosen binding costs; empty for [`Binding::Node`].
    pub warning: &'static str,
}

/// What [`Binding::Login`] costs.
const LOGIN_BINDING: &str = "with `--binding login` a session certificate for this node opens the same login on every other \
    node set up so, for the five minutes that it lives; only `egress` in the hub's configuration narrows that. Use it \
    where nothing but TrustedUserCAKeys can be set, and `--binding principal` everywhere else";

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

    async fn apply_user(
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

    async fn apply_lock(
        &self,
        actor: &Actor,
        document: Document<LockMetadata, LockSpec>,
    ) -> Result<(Shown, bool), Error> {
        let name = document.metadata.name;
        // A lock's name is bounded like a role's.
        name.parse::<RoleName>()
            .map_err(|error| Error::Document(error.to_string()))?;
        let spec = document.spec;
        if let Some(end) = spec
            .expires
            .as_deref()
            .filter(|end| UnixTime::parse_rfc3339(end).is_none())
        {
            return Err(Error::Document(format!(
                "`{}` is not a time: write for example 2026-01-31T12:00:00.000Z",
                end.escape_default()
            )));
        }
        self.guard(actor, Resource::Lock, Verb::Create, None)
            .await?;
        let lock = Lock { name, spec };
        self.create_lock_record(actor, &lock).await?;
        Ok((show_lock(lock), true))
    }

    async fn apply_node(
        &self,
        actor: &Actor,
        document: Document<NodeMetadata, NodeSpec>,
    ) -> Result<(Shown, bool), Error> {
        let (metadata, spec) = (document.metadata, document.spec);
        self.guard(actor, Resource::Node, Verb::Create, None)
            .await?;
        let address = match (spec.kind, spec.address) {
            (NodeKind::OpenSsh, Some(address)) => address,
            (NodeKind::OpenSsh, None) => {
                return Err(Error::Document(
                    "`address` is missing: write host:port".to_owned(),
                ));
            }
            _ => {
                return Err(Error::Unfit(
                    "a node with an agent joins with a token: make one with `mezctl tokens add`"
                        .to_owned(),
                ));
            }
        };
        if metadata.id.is_some() || !spec.token_labels.is_empty() || !spec.agent_labels.is_empty() {
            return Err(Error::Document(
                "`id`, `token_labels` and `agent_labels` are not an operator's to set".to_owned(),
            ));
        }
        let address = request::address(&address)?;
        let node = self
            .create_node(
                actor,
                metadata.name,
                address,
                spec.labels,
                spec.binding.unwrap_or(Binding::Node),
            )
            .await?;
        Ok((show_node(node), true))
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

    /// Makes a one-time join token, which is returned this once; the store keeps its SHA-256.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unfit`] for a life beyond [`TOKEN_CEILING`], [`Error::Unavailable`].
    pub async fn create_token(
        &self,
        actor: &Actor,
        wanted: request::CreateToken,
    ) -> Result<NewToken, Error> {
        self.guard(actor, Resource::Token, Verb::Create, None)
            .await?;
        let life = wanted.ttl.unwrap_or(TOKEN_LIFE);
        if life > TOKEN_CEILING {
            return Err(Error::Unfit(format!(
                "a token may live {TOKEN_CEILING} at most, not {life}"
            )));
        }
        let now = self.now();
        let secret = random::token();
        let token = Token {
            name: random::document_name(now),
            labels: wanted.labels,
            node_name: wanted.node_name,
            expires_ms: now.plus(life).as_millis(),
            used_by: None,
        };
        let key = record::token_key(secret.expose())?;
        let commit = Commit::new(self.tell().token_created(actor, &token)).put(
            key,
            Expect::Absent,
            record::write(&token)?,
        );
        self.commit(commit).await?;
        Ok(NewToken {
            token: secret,
            expires: token.expires(),
            name: token.name,
        })
    }

    /// Makes a node with a stock sshd and says what its administrator has to write where.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NameTaken`], [`Error::NameOfHub`], [`Error::Unavailable`].
    pub async fn add_openssh_node(
        &self,
        actor: &Actor,
        wanted: request::AddOpenSshNode,
    ) -> Result<OpenSshNode, Error> {
        self.guard(actor, Resource::Node, Verb::Create, None)
            .await?;
        let node = self
            .create_node(
                actor,
                wanted.name,
                wanted.address,
                wanted.labels,
                wanted.binding,
            )
            .await?;
        let by_login = wanted.binding == Binding::Login;
        let paths = SshdPaths {
            user_ca_keys: "/etc/ssh/mezite_user_ca.pub",
            host_certificate: "/etc/ssh/ssh_host_ed25519_key-cert.pub",
            principals: if by_login {
                Principals::Login
            } else {
                Principals::Command("/bin/echo")
            },
        };
        let written = |error: openssh::OpensshError| Error::Corrupt(error.to_string());
        let trust = self.trust();
        Ok(OpenSshNode {
            sshd_lines: openssh::sshd_lines(&node.id, &paths).map_err(written)?,
            warning: if by_login { LOGIN_BINDING } else { "" },
            user_ca: openssh::authorized_ca_keys(self.cluster(), &trust.session)
                .map_err(written)?,
            node,
        })
    }

    async fn create_node(
        &self,
        actor: &Actor,
        name: NodeName,
        address: String,
        labels: mezite_core::Labels,
        binding: Binding,
    ) -> Result<Node, Error> {
        self.check_name(&name).await?;
        let node = Node {
            id: random::node_id(),
            name,
            kind: NodeKind::OpenSsh,
            labels: NodeLabels {
                operator: labels,
                ..NodeLabels::default()
            },
            address: Some(address),
            binding: Some(binding),
            created_ms: self.now().as_millis(),
        };
        let owner = NameOwner {
            id: node.id.clone(),
        };
        let commit = Commit::new(self.tell().node_created(actor, &node))
            .put(
                record::key(prefix::NODE, node.id.as_str())?,
                Expect::Absent,
                record::write(&node)?,
            )
            .put(
                record::key(prefix::NODE_NAME, node.name.as_str())?,
                Expect::Absent,
                record::write(&owner)?,
            );
        match self.commit(commit).await {
            Ok(_) => Ok(node),
            Err(StoreError::Conflict(_)) => Err(Error::NameTaken(node.name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs the host key of a node with a stock sshd.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unfit`] for a node with an agent or a longer life than the
    /// authority gives, [`Error::Issue`], [`Error::Unavailable`].
    pub async fn sign_host(
        &self,
        actor: &Actor,
        wanted: &request::SignHost,
    ) -> Result<Certificate, Error> {
        self.guard(actor, Resource::Ca, Verb::Create, None).await?;
        let found = self.find(Kind::Node, wanted.node.as_str()).await?;
        let node: Node = record::read(&found.key, &found.stored)?;
        if node.kind != NodeKind::OpenSsh {
            return Err(Error::Unfit(format!(
                "the agent of `{}` renews its certificate by itself",
                node.name
            )));
        }
        let life = wanted.ttl.unwrap_or(mezite_ca::NODE_LIFE);
        if life > mezite_ca::NODE_LIFE {
            return Err(Error::Unfit(format!(
                "a host certificate of a node lives {} at most, not {life}: sign it anew each day",
                mezite_ca::NODE_LIFE
            )));
        }
        self.check_node_lock(&node)?;
        self.certify_host(&node, &wanted.public_key, life).await
    }

    /// Makes a lock; it works at once. Returns its name.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn create_lock(
        &self,
        actor: &Actor,
        wanted: request::CreateLock,
    ) -> Result<String, Error> {
        self.guard(actor, Resource::Lock, Verb::Create, None)
            .await?;
        let lock = Lock {
            name: random::document_name(self.now()),
            spec: LockSpec {
                target: wanted.target,
                reason: wanted.reason,
                expires: wanted.expires.map(|end| end.to_string()),
            },
        };
        self.create_lock_record(actor, &lock).await?;
        Ok(lock.name)
    }

    async fn create_lock_record(&self, actor: &Actor, lock: &Lock) -> Result<(), Error> {
        let key = record::key(prefix::LOCK, &lock.name)?;
        let commit = Commit::new(self.tell().lock_created(actor, lock)).put(
            key,
            Expect::Absent,
            record::write(lock)?,
        );
        match self.commit(commit).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => Err(Error::exists("lock", &lock.name)),
            Err(error) => Err(error.into()),
        }
    }

    /// The sessions that run on this hub and that the actor may see: all, or one's own.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn sessions(&self, actor: &Actor) -> Result<Vec<Running>, Error> {
        let own = actor.subject().map(|subject| &subject.user);
        let all = self.may(actor, Resource::Session, Verb::List, None);
        if !all {
            self.guard(actor, Resource::Session, Verb::List, own)
                .await?;
        }
        let running = self.running();
        let seen = running
            .values()
            .filter(|session| all || own == Some(&session.user));
        Ok(seen.cloned().collect())
    }

    /// Ends a running session by a lock on it: it is over within a second, on whichever hub it runs.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn end_session(
        &self,
        actor: &Actor,
        session_id: SessionId,
        reason: String,
    ) -> Result<(), Error> {
        let here = self.running().get(&session_id).map(|it| it.user.clone());
        let owner = match here {
            Some(owner) => Some(owner),
            None => self.runs_elsewhere(session_id).await?,
        };
        self.guard(actor, Resource::Session, Verb::Delete, owner.as_ref())
            .await?;
        if owner.is_none() {
            return Err(Error::not_found("running session", &session_id.to_string()));
        }
        let now = self.now();
        let reason = match reason.as_str() {
            "" => "ended by an administrator".to_owned(),
            _ => reason,
        };
        let lock = Lock {
            name: random::document_name(now),
            spec: LockSpec {
                target: LockTarget::Session(session_id),
                reason,
                // No session lives longer than an identity.
                expires: Some(now.plus(mezite_ca::IDENTITY_CEILING).to_string()),
            },
        };
        self.create_lock_record(actor, &lock).await
    }

    /// Whose session it is, if it began and nothing tells of its end: it runs at another hub.
    async fn runs_elsewhere(&self, session_id: SessionId) -> Result<Option<UserName>, Error> {
        for kind in ["session.end", "session.recording.recovered"] {
            if self.session_event(session_id, kind).await?.is_some() {
                return Ok(None);
            }
        }
        let begun = self.session_event(session_id, "session.start").await?;
        let owner = begun.as_ref().and_then(|event| event.get("user_name"));
        Ok(owner
            .and_then(Value::as_str)
            .and_then(|name| name.parse().ok()))
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

    /// Tokens lie under their hash, so a name has to be searched for.
    async fn find_token(&self, name: &str) -> Result<Option<Found>, Error> {
        for (key, stored) in live::all(self.store(), prefix::TOKEN).await? {
            if record::read::<Token>(&key, &stored)?.name == name {
                return Ok(Some(Found { key, stored }));
            }
        }
        Ok(None)
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
        Kind::User => show_user(record::read(key, stored)?),
        Kind::Role => show_role(&record::read(key, stored)?),
        Kind::Node => show_node(record::read(key, stored)?),
        Kind::BreakGlass => break_glass::show(record::read(key, stored)?),
        Kind::Revocation => revoked::show(record::read(key, stored)?),
        Kind::Token => show_token(record::read(key, stored)?),
        Kind::Lock => show_lock(record::read(key, stored)?),
    })
}

fn show_user(user: User) -> Shown {
    let spec = user.spec();
    let name = user.name.to_string();
    let document = Document::v1("user", UserMetadata { name: user.name }, spec);
    shown("user", name, &document)
}

fn show_role(role: &Role) -> Shown {
    Shown {
        kind: "role",
        name: role.name().to_string(),
        document: role.to_json(),
    }
}

fn show_node(node: Node) -> Shown {
    let name = node.name.to_string();
    let metadata = NodeMetadata {
        name: node.name,
        id: Some(node.id),
    };
    let spec = NodeSpec {
        kind: node.kind,
        labels: node.labels.operator,
        token_labels: node.labels.token,
        agent_labels: node.labels.agent,
        address: node.address,
        binding: node.binding,
    };
    shown("node", name, &Document::v1("node", metadata, spec))
}

fn show_token(token: Token) -> Shown {
    let spec = TokenSpec {
        expires: token.expires().to_string(),
        labels: token.labels,
        node_name: token.node_name,
        used_by: token.used_by,
    };
    let metadata = TokenMetadata {
        name: token.name.clone(),
    };
    shown("token", token.name, &Document::v1("token", metadata, spec))
}

fn show_lock(lock: Lock) -> Shown {
    let metadata = LockMetadata {
        name: lock.name.clone(),
    };
    shown(
        "lock",
        lock.name,
        &Document::v1("lock", metadata, lock.spec),
    )
}

fn shown(kind: &'static str, name: String, document: &impl serde::Serialize) -> Shown {
    Shown {
        kind,
        name,
        document: serde_json::json!(document),
    }
}
