//! Why the auth service did not do what it was asked. The text of an error is meant for the caller: it tells nothing
//! about the hub's insides and nothing about what the caller may not see.

use mezite_api::error::Kind;
use mezite_api::request::ParseError;
use mezite_ca::IssueError;
use mezite_ca::KeyKind;
use mezite_ca::rotation::{Adoption, RotationError};
use mezite_ca::seal::SealError;
use mezite_core::store::StoreError;
use mezite_core::{ClusterName, EventId, NodeName, Serial, Span, UnixTime};
use thiserror::Error;

use crate::recording::RecordingError;

/// Clocks that differ by more are refused at login and join.
pub const MAX_CLOCK_SKEW: Span = Span::from_secs(60);

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the request is wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// There is nothing to look for.
    #[error("{0}")]
    Query(String),
    /// The store of recordings does not answer; the log says why.
    #[error("the recordings cannot be read at the moment: try again, or ask the hub's operator")]
    Recordings,
    /// A document is wrong.
    #[error("the document is not valid: {0}")]
    Document(String),
    /// Somebody unknown, or a wrong password: not told which.
    #[error("wrong user or password")]
    Credentials,
    /// No client certificate.
    #[error("log in first: this call needs a client certificate")]
    Anonymous,
    /// The certificate that was shown has ended.
    #[error("the certificate ended at {0}: log in again")]
    Expired(UnixTime),
    /// The key that signed the certificate is trusted no more.
    #[error("the key that signed this certificate was replaced: log in again")]
    Replaced,
    /// The certificate that was shown, or its key, is revoked.
    #[error(
        "the certificate with serial {0} is revoked: ask an administrator, and log in again with a new key"
    )]
    Revoked(Serial),
    /// What is to be certified is revoked: a key, by its fingerprint, or everything with a key id.
    #[error(
        "`{0}` is revoked, so no certificate is made: use a new key, or ask an administrator (`mezctl ca revocations`)"
    )]
    Uncertifiable(String),
    /// The user of a certificate is no longer there.
    #[error("the user of this certificate does not exist any more")]
    Gone,
    /// The rules say no, again and again: the log counts, and says it once.
    #[error("you were refused too often within a minute: wait, and ask for what your roles allow")]
    TooManyRefusals,
    /// A lock stops the caller.
    #[error("{target} is locked{reason}")]
    Locked {
        /// What is locked.
        target: String,
        /// `: <why>`, or empty.
        reason: String,
    },
    /// The two clocks differ too much for certificates to work.
    #[error(
        "the clocks differ by more than {MAX_CLOCK_SKEW}: this client says {client}, the hub says {hub}; set the wrong one right"
    )]
    ClockSkew {
        /// The client's time.
        client: UnixTime,
        /// The hub's time.
        hub: UnixTime,
    },
    /// No such token.
    #[error(
        "the join token is not known to this hub: copy it again, or make a new one with `mezctl tokens add`"
    )]
    TokenUnknown,
    /// The token's time is over.
    #[error("the join token expired at {0}: make a new one with `mezctl tokens add`")]
    TokenExpired(UnixTime),
    /// The token was used.
    #[error(
        "the join token was already used: each joins one node; make a new one with `mezctl tokens add`"
    )]
    TokenUsed,
    /// The token is for a node of another name.
    #[error("the join token is for another node than `{0}`")]
    TokenName(NodeName),
    /// Another node has the name.
    #[error(
        "the node name `{0}` is taken: choose another, or remove the old node with `mezctl rm node/{0}`"
    )]
    NameTaken(NodeName),
    /// Another process has this hub's name.
    #[error("another process runs as the hub `{0}`: this one stops")]
    HubRuns(String),
    /// The rules may be others by now.
    #[error(
        "this hub could not confirm its rules for more than {0}: go through another hub, or wait until its database answers"
    )]
    Stale(Span),
    /// The hub itself goes by the name.
    #[error("the node name `{0}` is the hub's own: choose another")]
    NameOfHub(NodeName),
    /// It is not there, or the caller may not know that it is.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its name, escaped.
        name: String,
    },
    /// It is there already.
    #[error("the {kind} `{name}` exists already")]
    Exists {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The rules say no. The event says why.
    #[error("you may not {verb} a {resource} (event {event_id})")]
    Denied {
        /// What was to be done.
        verb: String,
        /// To what.
        resource: String,
        /// For `mezctl explain`.
        event_id: EventId,
    },
    /// This kind of caller does not have this call.
    #[error("a {0} does not have this call")]
    NotForPeer(&'static str),
    /// It cannot be done this way.
    #[error("{0}")]
    Unfit(String),
    /// A certificate cannot be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Somebody would be cut off by the next step of a rotation.
    #[error("{0}; `mezctl ca status` says what each of them needs")]
    NotAdopted(Adoption),
    /// The step of a rotation is not one to take now.
    #[error(transparent)]
    Rotation(RotationError),
    /// Somebody else changed the same thing at the same moment.
    #[error("somebody else changed it at the same moment: try again")]
    Conflict,
    /// There is no rule by which events would go.
    #[error(
        "no retention is configured, so every event is kept: set `audit.retention` in the hub's configuration"
    )]
    NoRetention,
    /// The disk is full.
    #[error(
        "the hub's disk is full: until an administrator has made room there are no new sessions, and only administrators log in"
    )]
    Full,
    /// The hub cannot write to its log, so it does nothing.
    #[error("the hub cannot record this at the moment, so it was not done: try again")]
    Unavailable(#[source] StoreError),
    /// The database holds something that this hub did not write.
    #[error("the hub has an internal error; its log says more")]
    Corrupt(String),
}

impl Error {
    /// The row of the error table.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Parse(_)
            | Self::Document(_)
            | Self::Query(_)
            | Self::Unfit(_)
            | Self::NameOfHub(_) => Kind::Invalid,
            Self::Credentials
            | Self::Anonymous
            | Self::Expired(_)
            | Self::Replaced
            | Self::Gone
            | Self::TokenUnknown => Kind::Unauthenticated,
            Self::Locked { .. }
            | Self::Revoked(_)
            | Self::Uncertifiable(_)
            | Self::TooManyRefusals
            | Self::Denied { .. }
            | Self::NotForPeer(_)
            | Self::TokenName(_) => Kind::Denied,
            Self::ClockSkew { .. }
            | Self::NoRetention
            | Self::TokenExpired(_)
            | Self::TokenUsed
            | Self::NotAdopted(_)
            | Self::Rotation(_) => Kind::Precondition,
            Self::NameTaken(_) | Self::Exists { .. } => Kind::Exists,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Conflict => Kind::Conflict,
            Self::Full
            | Self::Unavailable(_)
            | Self::Recordings
            | Self::HubRuns(_)
            | Self::Stale(_) => Kind::Unavailable,
            Self::Issue(error) => issue_kind(error),
            Self::Corrupt(_) => Kind::Internal,
        }
    }

    pub(crate) fn not_found(kind: &'static str, name: &str) -> Self {
        let name = name
            .chars()
            .take(80)
            .flat_map(char::escape_default)
            .collect();
        Self::NotFound { kind, name }
    }

    pub(crate) fn exists(kind: &'static str, name: &str) -> Self {
        Self::Exists {
            kind,
            name: name.to_string(),
        }
    }
}

impl From<RecordingError> for Error {
    fn from(error: RecordingError) -> Self {
        match error {
            RecordingError::NotFound(id) => Self::not_found("recording", &id.to_string()),
            RecordingError::Query(why) => Self::Query(why),
            RecordingError::Unavailable(why) => {
                tracing::error!(%why, "a recording cannot be read");
                Self::Recordings
            }
        }
    }
}

/// Whose fault it is that a certificate was not issued: a key or name that came with the request, or the hub.
fn issue_kind(error: &IssueError) -> Kind {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "everything else is the hub's fault"
    )]
    match error {
        IssueError::SubjectKey(_)
        | IssueError::SubjectIsAuthority
        | IssueError::NoLife
        | IssueError::Name(_) => Kind::Invalid,
        IssueError::Sign(_) => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

impl From<RotationError> for Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error is about the step itself"
    )]
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::NotAdopted(adoption) => Self::NotAdopted(adoption),
            RotationError::Stored(why) => Self::Corrupt(why.to_owned()),
            other => Self::Rotation(other),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(why) => why.into(),
            OpenError::Issue(why) => Self::Issue(why),
            OpenError::Corrupt(why) => Self::Corrupt(why),
            OpenError::HubRuns(name) => Self::HubRuns(name),
            error @ (OpenError::Seal { .. }
            | OpenError::Reseal { .. }
            | OpenError::Cluster { .. }) => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<StoreError> for Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else a store says, nothing was recorded"
    )]
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Self::Conflict,
            StoreError::Corrupt(why) => Self::Corrupt(why),
            other => Self::Unavailable(other),
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        if let Error::Corrupt(why) = &error {
            tracing::error!(%why, "the database holds something unreadable");
        }
        if let Error::Unavailable(why) = &error {
            tracing::error!(%why, "nothing was done because it could not be recorded");
        }
        error.kind().status(&error)
    }
}

/// Why the auth service did not start. Each is one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The sealing key is another one.
    #[error(
        "the cluster's {kind} key cannot be opened ({source}): start the hub with the sealing key this database was made with"
    )]
    Seal {
        /// The first key that did not open.
        kind: KeyKind,
        /// Why.
        source: SealError,
    },
    /// A key is sealed with neither of two sealing keys.
    #[error(
        "the cluster's {kind} key opens neither with `sealing` nor with `sealing_previous` ({source}): name the key that this database was sealed with as `sealing_previous`"
    )]
    Reseal {
        /// The first key that did not open.
        kind: KeyKind,
        /// Why the previous one did not open it.
        source: SealError,
    },
    /// The database belongs to another cluster.
    #[error(
        "the database belongs to the cluster `{stored}`, not `{configured}`: set `cluster: {stored}` or use another database"
    )]
    Cluster {
        /// Whose it is.
        stored: ClusterName,
        /// What the configuration says.
        configured: ClusterName,
    },
    /// Another process has the name, and lives.
    #[error(
        "another hub runs as `{0}` on this database: give each hub a name of its own (`hub:` in its configuration), or stop the other one"
    )]
    HubRuns(String),
    /// A key does not fit its certificate.
    #[error("the cluster's authorities cannot be used: {0}")]
    Issue(#[from] IssueError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
    /// The database holds something that this hub did not write.
    #[error("the database holds something unreadable: {0}; restore it from a backup")]
    Corrupt(String),
}

impl From<Error> for OpenError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other error can occur at the start"
    )]
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(why) => Self::Store(why),
            Error::Issue(why) => Self::Issue(why),
            Error::Corrupt(why) => Self::Corrupt(why),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
