//! Files, locks and connections.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::OpenError;

/// Takes the lock that one process at a time can hold; the system frees it when the process ends, however it ends.
/// It lies beside the database, as SQLite's own locks would be lost when any descriptor of that file is closed.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock =
        own_file(&PathBuf::from(name)).map_err(|error| OpenError::not_writable(path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(OpenError::not_writable(path, &error)),
    }
}

/// The connection that writes. The file is made if it is not there.
pub(crate) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let is_new = !path.exists();
    own_file(path).map_err(|error| OpenError::not_writable(path, &error))?;
    if is_new {
        sync_directory(path).map_err(|error| OpenError::not_writable(path, &error))?;
    }
    open(path).map_err(|error| OpenError::from_sqlite(path, &error))
}

/// A connection that cannot write.
pub(crate) fn connect_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let connect = || {
        let connection = open(path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    connect().map_err(|error| OpenError::from_sqlite(path, &error))
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    // No URI: a path that begins with `file:` is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // What is overwritten is gone: keys that were sealed anew would lie on in free pages.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // What was pruned or removed is overwritten, not only forgotten.
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(connection)
}

/// Sealed keys lie in it: nobody else reads it. SQLite gives its WAL the same mode.
fn own_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_on_the_disk_before_it_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let mut connection = connect(&path).unwrap();
        crate::schema::prepare(&mut connection, &path).unwrap();
        let pragma = |name: &str| -> String {
            connection
                .query_row(
                    &format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"),
                    [],
                    |row| row.get(0),
                )
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2", "FULL");
    }

    #[test]
    fn a_reading_connection_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let mut connection = connect(&path).unwrap();
        crate::schema::prepare(&mut connection, &path).unwrap();
        let reading = connect_for_reading(&path).unwrap();
        assert!(reading.execute("DELETE FROM event", []).is_err());
        assert!(connection.execute("DELETE FROM event", []).is_ok());
    }
}
