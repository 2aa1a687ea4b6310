//! What the composition root decides once: names, addresses, limits.

use std::net::IpAddr;

use mezite_core::{ClusterName, Span};

use crate::log_retention::LogRetention;
use crate::retention::Retention;

/// How one hub presents itself and what it grants at most.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root fills it")]
pub struct Settings {
    /// The cluster's name. Keys are sealed to it: it cannot be changed later.
    pub cluster: ClusterName,
    /// This hub's own name: lower-case DNS labels, at most 64 bytes. Part of its TLS certificate and of its events.
    pub hub: String,
    /// Which data directory this hub has, by an id that lies in it. A hub of the same name and another id is refused while
    /// this one runs.
    pub installation: String,
    /// How long a hub goes on without having confirmed roles and locks; then it takes no new sessions and ends those that
    /// run. Default 30 s. Others count it as lost after twice as long.
    pub lock_staleness: Span,
    /// Which services this process runs, as `hub.started` tells it.
    pub services: Vec<String>,
    /// Life of an identity when the user does not ask for one. Default 12 h.
    pub identity_ttl: Span,
    /// Longest life of an identity; roles can only shorten it. Default 12 h, and 24 h in any case.
    pub identity_ceiling: Span,
    /// DNS names and IP addresses under which people reach this hub, for its host and TLS certificates.
    pub gateway_names: Vec<String>,
    /// `host:port` that newcomers are told for login and join.
    pub api_address: String,
    /// `host:port` that users are told for SSH.
    pub gateway_address: String,
    /// `host:port` that agents are told for tunnels.
    pub tunnel_address: String,
    /// Addresses from which hubs reach stock sshds, as the option `source-address` of session certificates. Empty:
    /// from anywhere.
    pub egress: Vec<IpAddr>,
    /// How long recordings are kept. Default: for ever.
    pub retention: Retention,
    /// How long events are kept. Default: for ever.
    pub log_retention: LogRetention,
    /// Whether running sessions end when the disk is full. Default: they do, so that what is left is not
    /// used up by their recordings.
    pub full_ends_sessions: bool,
}

impl Settings {
    /// The defaults for `cluster`, without names and addresses.
    #[must_use]
    pub fn new(cluster: ClusterName) -> Self {
        let twelve_hours = Span::from_secs(12 * 60 * 60);
        Self {
            cluster,
            hub: "hub".to_owned(),
            installation: String::new(),
            lock_staleness: Span::from_secs(30),
            services: vec!["auth".to_owned(), "proxy".to_owned()],
            identity_ttl: twelve_hours,
            identity_ceiling: twelve_hours,
            gateway_names: Vec::new(),
            api_address: String::new(),
            gateway_address: String::new(),
            tunnel_address: String::new(),
            egress: Vec::new(),
            retention: Retention::default(),
            log_retention: LogRetention::default(),
            full_ends_sessions: true,
        }
    }
}
