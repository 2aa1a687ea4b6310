//! What happens when the disk is full: no new sessions, administrators only, and everything has its event.

use std::sync::atomic::Ordering;

use mezite_audit::catalogue::{DiskFull, DiskLow, DiskRecovered};
use mezite_core::store::Commit;
use mezite_rbac::{Resource, Subject, Verb, allows};

use crate::auth::Auth;
use crate::error::Error;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every state has its event")]
pub enum Room {
    /// Enough.
    Enough,
    /// A warning is due.
    Low,
    /// None but what was reserved.
    Full,
}

impl Auth {
    /// Acts on a change of the room on the disk that holds `path`, where `free_bytes` are left.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it is in force, but not recorded yet.
    pub async fn set_room(&self, room: Room, path: &str, free_bytes: u64) -> Result<(), Error> {
        let full = room == Room::Full;
        let was_full = self.full().swap(full, Ordering::SeqCst);
        if was_full != full {
            // Running sessions are decided again.
            self.look_again().await?;
        }
        let hub_id = &self.settings().hub;
        let sessions = u64::try_from(self.running().len()).unwrap_or(u64::MAX);
        let event = self.tell().event(|stamp| match room {
            Room::Low => DiskLow {
                hub_id,
                path,
                free_bytes,
            }
            .event(stamp),
            Room::Full => DiskFull {
                hub_id,
                path,
                free_bytes,
                sessions,
            }
            .event(stamp),
            Room::Enough => DiskRecovered {
                hub_id,
                path,
                free_bytes,
            }
            .event(stamp),
        });
        self.commit(Commit::new(event)).await?;
        Ok(())
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full().load(Ordering::SeqCst)
    }

    /// While the disk is full, only who can make room may log in.
    pub(crate) fn check_room(&self, subject: &Subject) -> Result<(), Error> {
        let helps = || {
            let snapshot = self.snapshot();
            allows(
                snapshot.policy(),
                subject,
                Resource::Audit,
                Verb::Delete,
                None,
            )
        };
        if self.is_full() && !helps() {
            return Err(Error::Full);
        }
        Ok(())
    }
}
