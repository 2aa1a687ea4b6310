//! `backup` and `restore`.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mezite_api::v1::BackupRequest;
use mezite_api::v1::hub_client::HubClient;
use mezite_audit::catalogue;
use mezite_auth::backup::{self, Header, Reader, Restoring};
use mezite_core::Clock;
use mezite_net::clock::SystemClock;
use mezite_net::grpc;
use serde_json::Value;
use tokio_stream::StreamExt;

use crate::config::{self, Config};
use crate::store::{self, Source};

/// Most bytes of one message of the hub.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))
}

fn load(config: &Path) -> Result<Config, String> {
    Config::load(config, &crate::environment()).map_err(|error| error.to_string())
}

/// Writes the backup; the file appears when everything is in it and is checked.
pub(crate) fn backup(config: &Path, file: &Path) -> Result<(), String> {
    let config = load(config)?;
    if file.exists() {
        return Err(format!(
            "`{}` is there already, and nothing is overwritten: choose another name",
            file.display()
        ));
    }
    let mut output = New::create(file)?;
    let runtime = runtime()?;
    runtime.block_on(fill(&config, &mut output))?;
    let header = output.finish()?;
    println!(
        "{}: cluster {}, {} events, as of {}",
        file.display(),
        header.cluster,
        header.sequence,
        header.created
    );
    Ok(())
}

/// From the hub that runs, or from the database of one that does not.
async fn fill(config: &Config, output: &mut New) -> Result<(), String> {
    let socket = config.data_dir.join("mezctl.sock");
    let channel = match grpc::connect_local(socket.clone()).await {
        Ok(channel) => channel,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return fill_from_database(config, output).await;
        }
        Err(error) => {
            return Err(format!(
                "the hub's socket `{}` cannot be used: {error}",
                socket.display()
            ));
        }
    };
    let mut hub = HubClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let refused = |status: tonic::Status| format!("the hub made no backup: {}", status.message());
    let mut parts = hub
        .backup(BackupRequest {})
        .await
        .map_err(refused)?
        .into_inner();
    while let Some(part) = parts.message().await.map_err(refused)? {
        output.write(&part.data)?;
    }
    Ok(())
}

async fn fill_from_database(config: &Config, output: &mut New) -> Result<(), String> {
    if let Some(path) = file_of(config).filter(|path| !path.exists()) {
        return Err(format!(
            "there is no database `{}`: is `data_dir` another one?",
            path.display()
        ));
    }
    let opened = store::open(Source::read(&config.store)?, &config.data_dir).await?;
    let made = backup::of_store(&*opened.store, &config.cluster, SystemClock.now(), &who()).await;
    let mut parts = made.map_err(|error| error.to_string())?;
    while let Some(part) = parts.next().await {
        output.write(&part.map_err(|error| error.to_string())?)?;
    }
    Ok(())
}

/// The database's file, if it is one.
fn file_of(config: &Config) -> Option<PathBuf> {
    match config.store {
        config::Store::Sqlite => Some(config.data_dir.join("mezhub.db")),
        config::Store::Postgres(_) => None,
    }
}

/// As events name whoever sits at the hub's own host.
fn who() -> String {
    format!("local:{}", nix::unistd::getuid().as_raw())
}

/// A file that gets its name when it is whole.
struct New {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl New {
    fn create(path: &Path) -> Result<Self, String> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".part");
        let temporary = PathBuf::from(temporary);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary);
        let file =
            opened.map_err(|error| format!("cannot write `{}`: {error}", temporary.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            temporary,
            path: path.to_owned(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file
            .write_all(bytes)
            .map_err(|error| format!("cannot write `{}`: {error}", self.temporary.display()))
    }

    /// Reads it back whole before it counts.
    fn finish(mut self) -> Result<Header, String> {
        let failed =
            |error: std::io::Error| format!("cannot write `{}`: {error}", self.path.display());
        self.file.flush().map_err(failed)?;
        self.file.get_ref().sync_all().map_err(failed)?;
        let header = checked(&self.temporary)?;
        std::fs::hard_link(&self.temporary, &self.path).map_err(failed)?;
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        Ok(header)
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // What is whole has its other name.
        drop(std::fs::remove_file(&self.temporary));
    }
}

fn open(file: &Path) -> Result<Reader<BufReader<File>>, String> {
    let shown = file.display();
    let input = File::open(file).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
    Reader::open(BufReader::new(input)).map_err(|error| format!("`{shown}`: {error}"))
}

/// The header of a backup that is whole.
fn checked(file: &Path) -> Result<Header, String> {
    let mut reader = open(file)?;
    reader
        .check()
        .map_err(|error| format!("`{}`: {error}", file.display()))?;
    Ok(reader.header().clone())
}

/// Makes the database.
pub(crate) fn restore(config: &Path, log: Option<&Path>, file: &Path) -> Result<(), String> {
    let config = load(config)?;
    let reader = open(file)?;
    let header = reader.header().clone();
    if header.cluster != config.cluster {
        return Err(format!(
            "the backup is of the cluster `{}`, and the configuration says `{}`: restore it with its own configuration",
            header.cluster, config.cluster
        ));
    }
    let lost = log.map(|log| lost(log, header.sequence)).transpose()?;
    let path = file_of(&config);
    if let Some(path) = path.as_deref().filter(|path| path.exists()) {
        return Err(format!(
            "there is a database `{}` already, and nothing is overwritten: move it away first",
            path.display()
        ));
    }
    crate::hub::prepare_directory(&config.data_dir)?;
    let restored = runtime()?.block_on(fill_store(&config, reader, file));
    if let Err(error) = restored {
        // It is empty, and would be in the way of the next attempt.
        if let Some(path) = &path {
            remove_database(path);
        }
        return Err(format!("`{}`: {error}", file.display()));
    }
    println!(
        "cluster {} restored to {}, {} events; event {} says so",
        header.cluster,
        header.created,
        header.sequence,
        header.sequence + 1
    );
    println!("join tokens were not restored: make new ones with `mezctl tokens add`");
    match lost {
        None => println!(
            "what happened after the backup is gone, locks and removed users among it: a copy of the log shows it (--log)"
        ),
        Some(lost) if lost.is_empty() => println!("nothing was administered after the backup"),
        Some(lost) => {
            println!("administered after the backup, and to be done again:");
            for line in lost {
                println!("  {line}");
            }
        }
    }
    Ok(())
}

/// A database on a server has to be there and empty.
async fn fill_store(
    config: &Config,
    reader: Reader<BufReader<File>>,
    file: &Path,
) -> Result<(), String> {
    let opened = store::open(Source::read(&config.store)?, &config.data_dir).await?;
    let made = Restoring {
        hub: &config.hub,
        who: &who(),
        path: &file.display().to_string(),
        now: SystemClock.now(),
    };
    let restored = backup::restore(&*opened.store, reader, &made).await;
    restored.map(|_| ()).map_err(|error| error.to_string())
}

fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // Some are not there.
        drop(std::fs::remove_file(PathBuf::from(name)));
    }
}

/// Types of events that tell of something an administrator did, by their start.
const ADMINISTERED: [&str; 8] = [
    "user.created",
    "user.updated",
    "user.deleted",
    "role.",
    "lock.",
    "node.",
    "ca.",
    "audit.key.",
];

/// What a copy of the log says was administered after `sequence`.
fn lost(log: &Path, sequence: u64) -> Result<Vec<String>, String> {
    let shown = log.display();
    let bad = |what: &dyn std::fmt::Display| format!("`{shown}` is no copy of the log: {what}");
    let input = File::open(log).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
    let mut lost = Vec::new();
    let mut seen = BTreeSet::new();
    for line in BufReader::new(input).lines() {
        let line = line.map_err(|error| bad(&error))?;
        let event: Value = serde_json::from_str(&line).map_err(|error| bad(&error))?;
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = event.get("sequence").and_then(Value::as_u64);
        let number = number.ok_or_else(|| bad(&"a line has no `sequence`"))?;
        let told = text("event_type");
        let by_hand = ADMINISTERED.iter().any(|start| told.starts_with(start));
        if number <= sequence || !by_hand || !seen.insert(number) {
            continue;
        }
        let known = catalogue::find(told).is_some();
        let what = [
            text("resource_name"),
            text("target_type"),
            text("target_name"),
            text("server_hostname"),
        ];
        let what: Vec<&str> = what.into_iter().filter(|word| !word.is_empty()).collect();
        lost.push(format!(
            "event {number}, {}: {told} {} by {}{}",
            text("timestamp"),
            what.join(" "),
            text("user_name").escape_debug(),
            if known { "" } else { " (of a newer version)" }
        ));
    }
    Ok(lost)
}
