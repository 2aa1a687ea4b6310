//! Why a database is not opened, and what PostgreSQL's errors mean to a caller of the store.

use std::error::Error as _;

use mezite_core::store::StoreError;
use thiserror::Error;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::Options;

/// Why a database was not opened. No message holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The log in it does not end where it says, or a table is not what was made.
    #[error("the {place} is damaged ({reason}): restore it from a backup")]
    Corrupt {
        /// Which database.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server says no: wrong password, unknown user or database, a right that is missing.
    #[error("the {place} refuses: {reason}")]
    Denied {
        /// Which database.
        place: String,
        /// In the server's words, and what helps.
        reason: String,
    },
    /// The schema `mezite` belongs to another program.
    #[error(
        "the schema `mezite` in the {place} was not made by Mezite ({reason}): choose another database"
    )]
    Foreign {
        /// Which database.
        place: String,
        /// What it holds instead.
        reason: String,
    },
    /// A later version of Mezite has written it.
    #[error(
        "the {place} has schema {found}, this program knows up to {known}: use the newer program again"
    )]
    Newer {
        /// Which database.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The server forgets what it has promised when the power fails.
    #[error(
        "the server of the {place} runs with `fsync = off`, so a power cut loses what it has confirmed: turn it on"
    )]
    NotDurable {
        /// Which database.
        place: String,
    },
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
    /// There is no connection.
    #[error(
        "cannot connect to the {place} ({reason}): is the server running, and are host and port right?"
    )]
    Unreachable {
        /// Which database.
        place: String,
        /// What went wrong.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn from_connect(options: &Options, error: &Error) -> Self {
        let (place, reason) = (options.to_string(), words(error));
        let advice = match error.code() {
            Some(&SqlState::INVALID_CATALOG_NAME) => "make it with `createdb`",
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                "the hub's user needs the right CREATE on the database"
            }
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                "check the user, the password and the server's pg_hba.conf"
            }
            _ => return Self::Unreachable { place, reason },
        };
        let reason = format!("{reason}; {advice}");
        Self::Denied { place, reason }
    }

    pub(crate) fn corrupt(options: &Options, reason: &str) -> Self {
        let (place, reason) = (options.to_string(), reason.to_owned());
        Self::Corrupt { place, reason }
    }
}

/// What went wrong, down to its cause.
pub(crate) fn words(error: &Error) -> String {
    if let Some(told) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", told.message(), told.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

pub(crate) fn unavailable(error: &Error) -> StoreError {
    StoreError::Unavailable(words(error))
}

/// What an error says about the connection and the transaction on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The connection is of no more use, or the server is not the one that writes any more.
    Lost,
    /// The transaction lost against another and may be tried again.
    Again,
    /// The statement will never do.
    Never,
}

pub(crate) fn meaning(error: &Error) -> Meaning {
    let Some(code) = error.code() else {
        return Meaning::Lost;
    };
    match (code.code(), code.code().get(..2)) {
        // Shut down, crashed, starting; idle for too long in a transaction; became a standby.
        ("25P03" | "25006", _) | (_, Some("08" | "57")) => Meaning::Lost,
        // Serialisation, deadlock, lock not available, too many connections or locks.
        ("40001" | "40P01" | "55P03" | "53300" | "53200", _) => Meaning::Again,
        _ => Meaning::Never,
    }
}
