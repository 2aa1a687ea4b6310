//! Room on the disk. A file of some size is kept for the day when there is no other: then it is removed, the auth
//! service takes no new sessions, and administrators can log in and make room.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mezite_auth::{Auth, Room};
use nix::sys::statvfs::statvfs;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

/// The file that is removed when the disk is full.
const RESERVE: &str = "reserve";

/// How much is reserved, and when to warn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes that are kept for administrators; 0: none.
    pub(crate) reserve: u64,
    /// Fewer bytes than this are told.
    pub(crate) warn_below: u64,
}

impl Plan {
    /// What `free` bytes are, after it was `before`. What is left again must be clearly more, so that it does not flap.
    fn judge(self, before: Room, free: u64) -> Room {
        let full = match before {
            // The reserve has to fit again, and something beside it.
            Room::Full => free < self.reserve.saturating_mul(2),
            Room::Enough | Room::Low => free < self.reserve / 4,
        };
        let low = match before {
            Room::Low => free < self.warn_below.saturating_add(self.warn_below / 10),
            Room::Enough | Room::Full => free < self.warn_below,
        };
        match (full, low) {
            (true, _) => Room::Full,
            (false, true) => Room::Low,
            (false, false) => Room::Enough,
        }
    }
}

/// Watches the disk that holds one directory.
#[derive(Debug)]
pub(crate) struct Guard {
    directory: PathBuf,
    plan: Plan,
    room: Room,
    /// Whether the auth service knows.
    told: bool,
}

impl Guard {
    /// Reserves what is to be reserved. On a disk that is full already, a reserve that is there is released, so that
    /// what comes next can write.
    pub(crate) fn new(directory: &Path, plan: Plan) -> Result<Self, String> {
        let mut guard = Self {
            directory: directory.to_owned(),
            plan,
            room: Room::Enough,
            told: true,
        };
        let reserved = match plan.judge(Room::Enough, guard.free()?) {
            Room::Full => Err(std::io::ErrorKind::StorageFull.into()),
            Room::Low | Room::Enough => guard.reserve(),
        };
        if let Err(error) = reserved {
            tracing::error!(%error, path = %directory.display(), "no room can be reserved: the disk is full");
            guard.release();
            guard.room = Room::Full;
            guard.told = false;
        }
        Ok(guard)
    }

    /// Looks again and again, and tells the auth service of each change, until the future is dropped.
    pub(crate) async fn watch(mut self, auth: Auth) {
        loop {
            if let Err(error) = self.look(&auth).await {
                tracing::error!(error, path = %self.directory.display(), "the room on the disk is not known");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&mut self, auth: &Auth) -> Result<(), String> {
        let free = self.free()?;
        let room = self.plan.judge(self.room, free);
        if room == self.room && self.told {
            return Ok(());
        }
        match room {
            Room::Full => self.release(),
            Room::Low | Room::Enough => self.reserve().map_err(|error| error.to_string())?,
        }
        let path = self.directory.display().to_string();
        match room {
            Room::Full => tracing::error!(path, free, "the disk is full: no new sessions"),
            Room::Low => tracing::warn!(path, free, "the disk is filling up"),
            Room::Enough => tracing::info!(path, free, "there is room on the disk"),
        }
        let told = auth.set_room(room, &path, free).await;
        told.map_err(|error| error.to_string())?;
        (self.room, self.told) = (room, true);
        Ok(())
    }

    /// Bytes that the hub's account can still write.
    fn free(&self) -> Result<u64, String> {
        let found = statvfs(&self.directory).map_err(|error| error.to_string())?;
        Ok(found
            .blocks_available()
            .saturating_mul(found.fragment_size()))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(RESERVE)
    }

    fn reserve(&self) -> std::io::Result<()> {
        let length = i64::try_from(self.plan.reserve).unwrap_or(i64::MAX);
        if length == 0 {
            return Ok(());
        }
        let file: File = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path())?;
        match nix::fcntl::posix_fallocate(&file, 0, length) {
            Err(nix::Error::EOPNOTSUPP) => fill(&file, self.plan.reserve)?,
            allocated => allocated?,
        }
        file.set_len(self.plan.reserve)?;
        file.sync_all()
    }

    fn release(&self) {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(%error, path = %self.path().display(), "the reserve could not be released");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// For file systems that cannot reserve without writing.
fn fill(mut file: &File, length: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::repeat(0).take(length), &mut file).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        reserve: 64,
        warn_below: 1000,
    };

    #[test]
    fn room_is_judged_without_flapping() {
        for (before, free, after) in [
            (Room::Enough, 1000, Room::Enough),
            (Room::Enough, 999, Room::Low),
            (Room::Low, 1099, Room::Low),
            (Room::Low, 1100, Room::Enough),
            (Room::Low, 16, Room::Low),
            (Room::Low, 15, Room::Full),
            (Room::Enough, 0, Room::Full),
            // The reserve was released, which alone is not enough.
            (Room::Full, 79, Room::Full),
            (Room::Full, 127, Room::Full),
            (Room::Full, 128, Room::Low),
            (Room::Full, 5000, Room::Enough),
        ] {
            assert_eq!(PLAN.judge(before, free), after, "{before:?}, {free} free");
        }
    }

    #[test]
    fn the_reserve_takes_its_room_and_gives_it_back() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan {
            reserve: 1 << 20,
            warn_below: 0,
        };
        let guard = Guard::new(directory.path(), plan).unwrap();
        let blocks = guard.path().metadata().unwrap().blocks();
        assert!(blocks * 512 >= 1 << 20, "{blocks} blocks are not a hole");
        guard.release();
        guard.release();
        assert!(!guard.path().exists());
        let file = File::create(directory.path().join("other")).unwrap();
        fill(&file, 3 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 << 20);
    }
}
