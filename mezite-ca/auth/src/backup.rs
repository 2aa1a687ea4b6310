//! Everything a store holds, as one portable file, and a store made from such a file.
//!
//! JSON lines: a header, one line a key, one line an event, and a last line with the SHA-256 of all before, so that a
//! damaged or cut file is refused. It is the same for every backend. Private keys in it are sealed as they are in the database;
//! it holds hashes of passwords, so keep it as you keep the database. Recordings are files of their own and not in it.

use std::io::{BufRead, Read};

use async_trait::async_trait;
use data_encoding::{BASE64, HEXLOWER};
use mezite_audit::Stamp;
use mezite_audit::catalogue::{BackupCreated, BackupRestored};
use mezite_core::store::{
    Commit, Counters, Dump, Key, Piece, Pieces, Revision, Store, StoreError, StoredEvent, Versioned,
};
use mezite_core::{ClusterName, Event, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::hubs;
use crate::random;
use crate::record::prefix;

/// The version of the format.
const VERSION: u32 = 1;

/// Longest line: the base64 of the longest value that is believed.
const LINE_BYTES: u64 = 256 * 1024 * 1024;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "the first line of the format")]
pub struct Header {
    /// The version of the format.
    pub mezite_backup: u32,
    /// Whose it is.
    pub cluster: ClusterName,
    /// When it was made: RFC 3339.
    pub created: String,
    /// The store's newest revision at that moment.
    pub revision: u64,
    /// The sequence of the last event at that moment.
    pub sequence: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Entry {
        key: String,
        revision: u64,
        value: String,
    },
    Event {
        sequence: u64,
        body: String,
    },
    End {
        entries: u64,
        events: u64,
        sha256: String,
    },
}

/// Writes the lines.
struct Writer {
    hash: Sha256,
    entries: u64,
    events: u64,
}

impl Writer {
    fn begin(header: &Header) -> Result<(Self, Vec<u8>), Error> {
        let mut writer = Self {
            hash: Sha256::new(),
            entries: 0,
            events: 0,
        };
        let mut text = Vec::new();
        writer.line(header, &mut text)?;
        Ok((writer, text))
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Result<Vec<u8>, Error> {
        let mut text = Vec::new();
        for piece in pieces {
            let line = match piece {
                Piece::Entry(key, versioned) => {
                    self.entries += 1;
                    Line::Entry {
                        key: key.to_string(),
                        revision: versioned.revision.0,
                        value: BASE64.encode(&versioned.value),
                    }
                }
                Piece::Event(event) => {
                    self.events += 1;
                    Line::Event {
                        sequence: event.sequence,
                        body: BASE64.encode(&event.body),
                    }
                }
            };
            self.line(&line, &mut text)?;
        }
        Ok(text)
    }

    fn end(mut self) -> Result<Vec<u8>, Error> {
        let line = Line::End {
            entries: self.entries,
            events: self.events,
            sha256: HEXLOWER.encode(&self.hash.clone().finalize()),
        };
        let mut text = Vec::new();
        self.line(&line, &mut text)?;
        Ok(text)
    }

    fn line(&mut self, line: &impl Serialize, text: &mut Vec<u8>) -> Result<(), Error> {
        let mut bytes =
            serde_json::to_vec(line).map_err(|error| Error::Corrupt(error.to_string()))?;
        bytes.push(b'\n');
        self.hash.update(&bytes);
        text.extend(bytes);
        Ok(())
    }
}

/// Bytes of a backup in order.
pub type Bytes = ReceiverStream<Result<Vec<u8>, Error>>;

impl Auth {
    /// Everything as of now. Whoever gets it gets the cluster, save for the sealing key: only the administrator on the
    /// hub's own host does, and an event says so first.
    ///
    /// # Errors
    /// [`Error::NotForPeer`], [`Error::Unavailable`].
    pub async fn backup(&self, actor: &Actor) -> Result<Bytes, Error> {
        if !actor.is_local() {
            return Err(Error::NotForPeer("user"));
        }
        let made = created(
            self.cluster(),
            self.now(),
            actor.name(),
            self.last_sequence().await?,
        );
        self.commit(Commit::new(made)).await?;
        let dump = self.store().dump().await?;
        Ok(written(dump, self.cluster().clone(), self.now()))
    }
}

fn created(cluster: &ClusterName, now: UnixTime, who: &str, events: u64) -> Event {
    let event = BackupCreated {
        user_name: who,
        events,
    };
    event.event(&stamp(cluster, now))
}

fn stamp(cluster: &ClusterName, now: UnixTime) -> Stamp<'_> {
    Stamp {
        now,
        random: [random::bytes(), random::bytes()],
        cluster,
    }
}

/// The same for a store that no hub serves at the moment.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_store(
    store: &dyn Store,
    cluster: &ClusterName,
    now: UnixTime,
    who: &str,
) -> Result<Bytes, Error> {
    let before = store.dump().await?.counters.sequence;
    store
        .commit(Commit::new(created(cluster, now, who, before)))
        .await?;
    Ok(written(store.dump().await?, cluster.clone(), now))
}

fn written(dump: Dump, cluster: ClusterName, now: UnixTime) -> Bytes {
    let header = Header {
        mezite_backup: VERSION,
        cluster,
        created: now.to_string(),
        revision: dump.counters.revision.0,
        sequence: dump.counters.sequence,
    };
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = write_all(dump, &header, &sender).await {
            // Whoever asked may be gone, and then nobody needs to know.
            let _ = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn write_all(
    mut dump: Dump,
    header: &Header,
    out: &mpsc::Sender<Result<Vec<u8>, Error>>,
) -> Result<(), Error> {
    let (mut writer, first) = Writer::begin(header)?;
    let mut wanted = out.send(Ok(first)).await.is_ok();
    while wanted {
        let pieces = dump.pieces.next().await?;
        if pieces.is_empty() {
            let _ = out.send(Ok(writer.end()?)).await;
            return Ok(());
        }
        wanted = out.send(Ok(writer.pieces(pieces)?)).await.is_ok();
    }
    Ok(())
}

/// A backup as it is read.
pub struct Reader<R> {
    input: R,
    header: Header,
    hash: Sha256,
    entries: u64,
    events: u64,
    /// Join tokens are left out: one that was used after the backup would be good again.
    tokens: u64,
    ended: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

fn broken(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("the backup is damaged: {what}"))
}

impl<R: BufRead + Send> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] says what is wrong.
    pub fn open(input: R) -> Result<Self, StoreError> {
        let header = Header {
            mezite_backup: 0,
            cluster: "none".parse().map_err(|_| broken("it has no cluster"))?,
            created: String::new(),
            revision: 0,
            sequence: 0,
        };
        let mut reader = Self {
            input,
            header,
            hash: Sha256::new(),
            entries: 0,
            events: 0,
            tokens: 0,
            ended: false,
        };
        let line = reader.line()?;
        reader.hash.update(&line);
        reader.header = serde_json::from_slice(&line).map_err(|error| {
            broken(format_args!("its first line is none of a backup ({error})"))
        })?;
        if reader.header.mezite_backup != VERSION {
            return Err(broken(format_args!(
                "it has version {}, and this program reads {VERSION}",
                reader.header.mezite_backup
            )));
        }
        Ok(reader)
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads to the end, to see whether it is whole.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] says what is wrong.
    pub fn check(&mut self) -> Result<(), StoreError> {
        while self.piece()?.is_some() {}
        Ok(())
    }

    fn line(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.input).take(LINE_BYTES);
        bounded.read_until(b'\n', &mut line).map_err(broken)?;
        if line.ends_with(b"\n") {
            Ok(line)
        } else {
            Err(broken("it ends too early"))
        }
    }

    /// The next piece; `None` at the end, when everything was as its last line says.
    fn piece(&mut self) -> Result<Option<Piece>, StoreError> {
        let bytes = self.line()?;
        let at = self.entries + self.events + 2;
        let bad = |what: &dyn std::fmt::Display| broken(format_args!("line {at}: {what}"));
        let line: Line = serde_json::from_slice(&bytes).map_err(|error| bad(&error))?;
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map_err(|error| bad(&error));
        let piece = match line {
            Line::Entry {
                key,
                revision,
                value,
            } => {
                self.entries += 1;
                let versioned = Versioned {
                    value: decode(&value)?,
                    revision: Revision(revision),
                };
                Piece::Entry(Key::new(key).map_err(|error| bad(&error))?, versioned)
            }
            Line::Event { sequence, body } => {
                self.events += 1;
                if sequence > self.header.sequence {
                    return Err(bad(&"an event comes after the last"));
                }
                Piece::Event(StoredEvent {
                    sequence,
                    body: decode(&body)?,
                })
            }
            Line::End {
                entries,
                events,
                sha256,
            } => {
                let found = HEXLOWER.encode(&self.hash.clone().finalize());
                if (entries, events, &sha256) != (self.entries, self.events, &found) {
                    return Err(broken("its last line does not fit what is before"));
                }
                return Ok(None);
            }
        };
        self.hash.update(&bytes);
        Ok(Some(piece))
    }
}

#[async_trait]
impl<R: BufRead + Send> Pieces for Reader<R> {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        let mut pieces = Vec::new();
        while pieces.len() < 500 && !self.ended {
            match self.piece()? {
                Some(Piece::Entry(key, _)) if key.as_str().starts_with(prefix::TOKEN) => {
                    self.tokens += 1;
                }
                // Of the hubs that ran then none runs on the new database.
                Some(Piece::Entry(key, _)) if hubs::is_of_running_hubs(&key) => {}
                Some(piece) => pieces.push(piece),
                None => self.ended = true,
            }
        }
        Ok(pieces)
    }
}

/// Makes the empty `store` what the backup holds, without its join tokens, and says so in the log: everything, or
/// nothing.
///
/// # Errors
/// [`StoreError::NotEmpty`], [`StoreError::Corrupt`] for a damaged backup, [`StoreError::Unavailable`].
pub async fn restore<R: BufRead + Send + 'static>(
    store: &dyn Store,
    reader: Reader<R>,
    made: &Restoring<'_>,
) -> Result<u64, StoreError> {
    let header = reader.header().clone();
    let event = BackupRestored {
        hub_id: made.hub,
        user_name: made.who,
        events: header.sequence,
        path: made.path,
    };
    let event = event.event(&stamp(&header.cluster, made.now));
    let dump = Dump {
        counters: Counters {
            revision: Revision(header.revision),
            sequence: header.sequence,
        },
        pieces: Box::new(reader),
    };
    Ok(store.restore(dump, event).await?.sequence)
}

/// What the event of a restore tells.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the composition root fills it")]
pub struct Restoring<'a> {
    /// The hub that does it.
    pub hub: &'a str,
    /// Who does it.
    pub who: &'a str,
    /// The backup's file.
    pub path: &'a str,
    /// When.
    pub now: UnixTime,
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use mezite_core::store::{Expect, LogQuery, MemoryStore};
    use tokio_stream::StreamExt;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_769_846_400);

    async fn backup() -> Vec<u8> {
        let store = MemoryStore::new();
        let cluster: ClusterName = "example".parse().unwrap();
        for (number, key) in ["user/alice", "token/abc", "log/head"].iter().enumerate() {
            let commit = Commit::new(created(&cluster, NOW, "x", 0)).put(
                Key::new(*key).unwrap(),
                Expect::Absent,
                vec![u8::try_from(number).unwrap(); 3],
            );
            store.commit(commit).await.unwrap();
        }
        let bytes = of_store(&store, &cluster, NOW, "local:0").await.unwrap();
        let parts: Vec<_> = bytes.map(Result::unwrap).collect().await;
        parts.concat()
    }

    async fn restored(bytes: Vec<u8>) -> Result<MemoryStore, StoreError> {
        let store = MemoryStore::new();
        let made = Restoring {
            hub: "h",
            who: "local:0",
            path: "/b",
            now: NOW,
        };
        restore(&store, Reader::open(Cursor::new(bytes))?, &made).await?;
        Ok(store)
    }

    #[tokio::test]
    async fn a_backup_becomes_a_store_again_without_its_tokens() {
        let store = restored(backup().await).await.unwrap();
        let keys = store.list("", None, 9).await.unwrap();
        let keys: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["log/head", "user/alice"]);
        let log = store.log(&LogQuery::after(0, 9)).await.unwrap();
        assert_eq!(log.len(), 5);
        let last = String::from_utf8(log[4].body.clone()).unwrap();
        assert!(
            last.contains("backup.restored") && last.contains("\"events\":4"),
            "{last}"
        );
    }

    #[tokio::test]
    async fn a_backup_that_was_cut_or_changed_restores_nothing() {
        let whole = backup().await;
        for end in 0..whole.len() {
            assert!(
                restored(whole[..end].to_vec()).await.is_err(),
                "cut at {end}"
            );
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(restored(changed).await.is_err(), "changed at {at}");
        }
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        for line in 0..lines.len() {
            let mut kept = lines.clone();
            kept.remove(line);
            assert!(
                restored(kept.concat()).await.is_err(),
                "without line {line}"
            );
        }
    }
}
