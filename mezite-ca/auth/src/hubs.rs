//! The hubs of the cluster, so that every agent can keep a connection to each of them.

use mezite_core::store::{Commit, Expect, Watch};
use serde::{Deserialize, Serialize};

use crate::auth::Auth;
use crate::error::Error;
use crate::live::all;
use crate::record::{self, prefix};

/// `hub/<name>`: a hub that has started and did not stop in order. One that was killed stays until it starts again under
/// its name: agents go on trying to reach it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hub {
    /// `host:port` for agents.
    tunnel: String,
}

impl Auth {
    /// Adds to the commit that tells of the start where agents reach this hub.
    pub(crate) fn enter(&self, started: Commit) -> Result<Commit, Error> {
        let settings = self.settings();
        let hub = Hub {
            tunnel: settings.tunnel_address.clone(),
        };
        let key = record::key(prefix::HUB, &settings.hub)?;
        Ok(started.put(key, Expect::Any, record::write(&hub)?))
    }

    /// Adds to the commit that tells of the stop that agents need not look for this hub.
    pub(crate) fn leave(&self, stopped: Commit) -> Result<Commit, Error> {
        let key = record::key(prefix::HUB, &self.settings().hub)?;
        Ok(stopped.remove(key, Expect::Any))
    }

    /// Where agents reach the hubs: `host:port` of each one's tunnel port.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn tunnels(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for (key, stored) in all(self.store(), prefix::HUB).await? {
            found.push(record::read::<Hub>(&key, &stored)?.tunnel);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Tells when [`Auth::tunnels`] may be others.
    #[must_use]
    pub fn tunnel_changes(&self) -> Watch {
        self.store().watch(prefix::HUB)
    }
}
