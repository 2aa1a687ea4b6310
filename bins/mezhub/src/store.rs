//! Which database the hub is on.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use mezite_core::store::Store;
use mezite_store_postgres::{Options, PostgresStore};
use mezite_store_sqlite::SqliteStore;

use crate::config;

/// An open database.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// Keeps a second hub out of the data directory. SQLite has such a lock of its own.
    pub(crate) lock: Option<File>,
}

/// How to reach the database. What only root may read is read.
#[derive(Debug)]
pub(crate) enum Source {
    Sqlite,
    Postgres(Box<Options>),
}

impl Source {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// One sentence: what is wrong and what to do.
    pub(crate) fn read(choice: &config::Store) -> Result<Self, String> {
        match choice {
            config::Store::Sqlite => Ok(Self::Sqlite),
            config::Store::Postgres(postgres) => Ok(Self::Postgres(Box::new(options(postgres)?))),
        }
    }
}

/// Opens the database, after the data directory was made.
///
/// # Errors
/// One sentence: what is wrong and what to do.
pub(crate) async fn open(source: Source, data_dir: &Path) -> Result<Opened, String> {
    match source {
        Source::Sqlite => {
            let store = SqliteStore::open(&data_dir.join("mezhub.db"))
                .map_err(|error| error.to_string())?;
            let (store, lock) = (Arc::new(store), None);
            Ok(Opened { store, lock })
        }
        Source::Postgres(options) => {
            let lock = Some(lock(data_dir)?);
            let store = PostgresStore::open(*options)
                .await
                .map_err(|error| error.to_string())?;
            let store = Arc::new(store);
            Ok(Opened { store, lock })
        }
    }
}

/// Who may use the hub's name without waiting: the id of the data directory, drawn when it is asked for first. SQLite lets
/// one process in, so nobody else can have the name.
///
/// # Errors
/// One sentence: what is wrong and what to do.
pub(crate) fn installation(source: &Source, data_dir: &Path) -> Result<String, String> {
    if matches!(source, Source::Sqlite) {
        return Ok(String::new());
    }
    let path = data_dir.join("installation");
    let failed = |error: std::io::Error| {
        let shown = path.display();
        format!("the id of this data directory, `{shown}`, cannot be kept: {error}")
    };
    match std::fs::read_to_string(&path) {
        Ok(id) if id.trim_end().len() == 32 => return Ok(id.trim_end().to_owned()),
        // Cut off by a full disk: another is as good.
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let id = data_encoding::HEXLOWER.encode(&mezite_net::random::bytes::<16>());
    std::fs::write(&path, format!("{id}\n")).map_err(failed)?;
    Ok(id)
}

/// Says where the database is, after having looked whether it can be used. It is not changed.
///
/// # Errors
/// One sentence: what is wrong and what to do.
pub(crate) async fn check(choice: &config::Store, data_dir: &Path) -> Result<String, String> {
    match choice {
        config::Store::Sqlite => Ok(format!(
            "SQLite in {}",
            data_dir.join("mezhub.db").display()
        )),
        config::Store::Postgres(postgres) => {
            let options = options(postgres)?;
            PostgresStore::check(&options)
                .await
                .map_err(|error| error.to_string())?;
            Ok(format!("PostgreSQL, {options}"))
        }
    }
}

fn options(postgres: &config::Postgres) -> Result<Options, String> {
    let read = |what: &str, path: &Path| {
        let content = std::fs::read(path);
        content.map_err(|error| {
            format!(
                "cannot read store.postgres.{what} `{}`: {error}",
                path.display()
            )
        })
    };
    let password = match &postgres.password_file {
        None => None,
        Some(path) => {
            let text = String::from_utf8(crate::read_secret("password", path)?);
            let text =
                text.map_err(|_| format!("the password in `{}` is not UTF-8", path.display()))?;
            Some(mezite_core::Secret::new(
                text.trim_end_matches(['\r', '\n']).to_owned(),
            ))
        }
    };
    let authorities = postgres
        .ca_file
        .as_deref()
        .map(|path| read("ca_file", path))
        .transpose()?;
    let password = password.as_ref().map(|password| password.expose().as_str());
    Options::parse(&postgres.url.0, password, authorities.as_deref())
        .map_err(|error| format!("store.postgres: {error}"))
}

/// The system frees it when the process ends, however it ends.
fn lock(data_dir: &Path) -> Result<File, String> {
    let path = data_dir.join("hub.lock");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = opened.map_err(|error| format!("cannot use `{}`: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "another hub uses the data directory `{}`: stop it, or give this one a directory of its own",
            data_dir.display()
        )),
        Err(TryLockError::Error(error)) => {
            Err(format!("cannot lock `{}`: {error}", path.display()))
        }
    }
}
