//! The system's clock, for drivers.

use std::time::UNIX_EPOCH;

use mezite_core::{Clock, UnixTime};

/// Reads the wall clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the wall clock"
        )]
        let now = std::time::SystemTime::now();
        let millis = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        UnixTime::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}
