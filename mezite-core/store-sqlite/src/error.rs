//! Why a database is not opened, and what SQLite's errors mean to a caller of the store.

use std::path::{Path, PathBuf};

use mezite_core::store::StoreError;
use rusqlite::ErrorCode;
use thiserror::Error;

/// Why a database was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// SQLite finds the file damaged, or the log in it does not end where it says.
    #[error("the database `{path}` is damaged ({reason}): restore it from a backup", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file belongs to another program, or is no database at all.
    #[error("`{path}` is not a database of Mezite ({reason}): choose another path", path = path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// Another process has it open.
    #[error("another hub has the database `{path}` open: stop it first", path = path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// A later version of Mezite has written it.
    #[error("the database `{path}` has schema {found}, this program knows up to {known}: use the newer program again", path = path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The file or its directory is not there or cannot be written.
    #[error("the database `{path}` cannot be written ({reason}): check that its directory exists and belongs to this user", path = path.display())]
    NotWritable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The system gives no thread.
    #[error("no thread could be started for the database")]
    Thread(#[from] std::io::Error),
}

impl OpenError {
    pub(crate) fn not_writable(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self::NotWritable {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn foreign(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self::Foreign {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::foreign(path, error),
            Some(ErrorCode::DatabaseCorrupt) => Self::corrupt(path, error),
            _ => Self::not_writable(path, error),
        }
    }
}

pub(crate) fn from_sqlite(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

pub(crate) fn thread_ended() -> StoreError {
    StoreError::Unavailable("the database thread has ended".into())
}
