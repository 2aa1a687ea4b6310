//! The auth service: who may log in, which nodes may join, what is issued, and every decision about a session, with
//! its event made durable before anybody hears the answer.
//!
//! [`Auth`] stands on the `Store` and `Clock` seams and holds the cluster's keys; [`grpc`] offers it to the network.
//! It knows neither sockets nor TLS, neither how recordings are written nor where they lie.
#![forbid(unsafe_code)]

pub mod grpc;

mod actor;
mod admin;
mod adopt;
mod audit;
mod audit_key;
mod auth;
pub mod backup;
mod break_glass;
mod bursts;
mod error;
mod hubs;
mod join;
mod keys;
mod live;
mod log;
mod log_retention;
mod login;
mod password;
mod question;
mod random;
mod record;
mod recording;
mod reseal;
mod retention;
mod revoked;
mod room;
mod rotate;
mod session;
mod settings;
mod sinks;
mod tell;
mod texts;
mod tiles;
mod watch;

pub use actor::Actor;
pub use admin::{MIN_PASSWORD, NewToken, OpenSshNode, Shown, TOKEN_CEILING, TOKEN_LIFE};
pub use audit::Explained;
pub use audit_key::RotatedAuditKey;
pub use auth::Auth;
pub use break_glass::{BreakGlassReport, MAX_BREAK_GLASS_KEYS};
pub use bursts::Attempt;
pub use error::{Error, MAX_CLOCK_SKEW, OpenError};
pub use join::{NodeIdentity, Presence};
pub use keys::TrustChanges;
pub use live::{Changes, Snapshot};
pub use log_retention::{LogRetention, PrunedEvents};
pub use login::Identity;
pub use question::Answer;
pub use record::{Adopted, Node};
pub use recording::{
    FoundLine, FoundRecording, MayRead, NoRecordings, OpenedRecording, RecordingBytes,
    RecordingError, RecordingFacts, RecordingSearch, RecordingSource, SearchOutcome, Until,
};
pub use reseal::reseal;
pub use retention::{Keep, Pruned, Retention, RetentionRule};
pub use revoked::{MAX_REVOCATIONS, PublishedList};
pub use room::Room;
pub use rotate::{Behind, RotationStatus};
pub use session::{Permit, Refusal, Running, RunningGuard, Standing};
pub use settings::Settings;
pub use sinks::{Export, ExportStanding};
