//! Nodes: those with a stock sshd, and the tokens with which agents join.

use mezite_api::document::{
    Binding, Document, NodeKind, NodeMetadata, NodeSpec, TokenMetadata, TokenSpec,
};
use mezite_api::request;
use mezite_ca::openssh::{self, Principals, SshdPaths};
use mezite_core::store::{Commit, Expect, StoreError};
use mezite_core::{NodeName, Secret, Span, UnixTime};
use mezite_rbac::{NodeLabels, Resource, Verb};
use ssh_key::Certificate;

use super::{Found, Kind, Shown, shown};
use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::live;
use crate::random;
use crate::record::{self, NameOwner, Node, Token, prefix};

/// Life of a join token when nothing is asked.
pub const TOKEN_LIFE: Span = Span::from_secs(60 * 60);
/// Longest life of a join token.
pub const TOKEN_CEILING: Span = Span::from_secs(7 * 24 * 60 * 60);

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
    pub(super) async fn apply_node(
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

    /// Tokens lie under their hash, so a name has to be searched for.
    pub(super) async fn find_token(&self, name: &str) -> Result<Option<Found>, Error> {
        for (key, stored) in live::all(self.store(), prefix::TOKEN).await? {
            if record::read::<Token>(&key, &stored)?.name == name {
                return Ok(Some(Found { key, stored }));
            }
        }
        Ok(None)
    }
}

pub(super) fn show_node(node: Node) -> Shown {
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

pub(super) fn show_token(token: Token) -> Shown {
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
