//! Hands sealed events over to receivers outside. Each receiver has a durable cursor in the store, which moves only
//! after it took a batch: at least once, in order, without a gap. One that is dead stops nothing and loses nothing.

use std::sync::Arc;
use std::time::Duration;

use mezite_audit::catalogue::{LogRolledBack, SinkFailed, SinkRecovered};
use mezite_audit::keeper::HEAD;
use mezite_audit::{Batch, Sink, SinkError};
use mezite_core::store::{Commit, Expect, LogQuery, Revision, StoreError, StoredEvent};
use mezite_core::{Span, UnixTime};
use serde::{Deserialize, Serialize};

use crate::auth::Auth;
use crate::error::Error;
use crate::live;
use crate::record;

/// Most events that are handed over at once, and most bytes of them.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;

/// How often it looks without being told.
const IDLE: Duration = Duration::from_secs(5);

/// After a failure it waits a second, then twice as long each time, up to a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// So many failures in a row are an event; fewer may be a restart of the receiver.
const PATIENCE: u32 = 3;

/// How long one hub keeps a shared receiver for itself after it last did something.
const LEASE: Span = Span::from_secs(90);

/// A receiver of the log.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct Export {
    /// As the configuration calls it.
    pub name: String,
    /// Where it goes.
    pub sink: Arc<dyn Sink>,
    /// Whether all hubs mean the same receiver by this name: then one of them serves it at a time. A file is each
    /// hub's own.
    pub shared: bool,
}

/// How far a receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportStanding {
    /// As the configuration calls it.
    pub name: String,
    /// The sequence of the last event it has.
    pub delivered: u64,
    /// How many sealed events it has not yet.
    pub waiting: u64,
    /// Why it takes none, if it does not.
    pub trouble: Option<String>,
}

/// `log/sink/<name>`, or `log/sink/<hub>/<name>` for a hub's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    delivered: u64,
    /// Which hub serves a shared receiver, and until when.
    #[serde(default)]
    holder: String,
    #[serde(default)]
    until_ms: u64,
    /// No longer configured: nobody waits for it.
    #[serde(default)]
    gone: bool,
}

const PREFIX: &str = "sink/";

enum Round {
    More,
    Idle,
}

/// One receiver while it is served.
struct Run<'a> {
    auth: &'a Auth,
    export: &'a Export,
    /// The receiver was asked since the start or the last failure.
    asked: bool,
    /// It was told once that the log is behind the receiver.
    rolled_back: bool,
    noted: Option<String>,
    failures: u32,
    failing_since: Option<UnixTime>,
}

impl Auth {
    /// Serves one receiver until the future is dropped.
    pub async fn run_sink(&self, export: Export) {
        // Watching begins before reading: what is sealed in between is read again.
        let mut sealed = self.store().watch(&format!("log/{HEAD}"));
        let mut run = Run {
            auth: self,
            export: &export,
            asked: false,
            rolled_back: false,
            noted: None,
            failures: 0,
            failing_since: None,
        };
        self.stand(&export.name, |_| {});
        loop {
            match run.round().await {
                Ok(Round::More) => {}
                Ok(Round::Idle) => {
                    tokio::select! {
                        _ = sealed.changed() => {}
                        () = tokio::time::sleep(IDLE) => {}
                    }
                }
                Err(error) => {
                    let pause = run.failed(&error).await;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// How far each receiver of this hub is.
    #[must_use]
    pub fn sinks(&self) -> Vec<ExportStanding> {
        self.standings().values().cloned().collect()
    }

    fn stand(&self, name: &str, change: impl FnOnce(&mut ExportStanding)) {
        let mut standings = self.standings();
        let standing = standings
            .entry(name.to_owned())
            .or_insert_with(|| ExportStanding {
                name: name.to_owned(),
                delivered: 0,
                waiting: 0,
                trouble: None,
            });
        change(standing);
    }

    /// Says which receivers there are from now on: events wait in the log for these, and for no other of this hub.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn name_sinks(&self, exports: &[Export]) -> Result<(), Error> {
        let own = format!("{PREFIX}{}/", self.settings().hub);
        let names: Vec<String> = exports
            .iter()
            .map(|export| self.cursor_name(export))
            .collect();
        for (key, stored) in live::all(self.store(), &format!("log/{PREFIX}")).await? {
            let name = key.as_str().trim_start_matches("log/");
            let of_another_hub = name.matches('/').count() == 2 && !name.starts_with(&own);
            let mut cursor: Cursor = record::read(&key, &stored)?;
            if of_another_hub || names.iter().any(|own| own == name) || cursor.gone {
                continue;
            }
            cursor.gone = true;
            let expect = Expect::Revision(stored.revision);
            match self.write_cursor(name, expect, &cursor).await {
                // Another hub says the same at this moment.
                Ok(_) | Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The sequence up to which every receiver has the log; none: there is no receiver.
    pub(crate) async fn delivered_to_all(&self) -> Result<Option<u64>, Error> {
        let mut least = None;
        for (key, stored) in live::all(self.store(), &format!("log/{PREFIX}")).await? {
            let cursor: Cursor = record::read(&key, &stored)?;
            if !cursor.gone {
                least = Some(least.unwrap_or(u64::MAX).min(cursor.delivered));
            }
        }
        Ok(least)
    }

    fn cursor_name(&self, export: &Export) -> String {
        if export.shared {
            format!("{PREFIX}{}", export.name)
        } else {
            format!("{PREFIX}{}/{}", self.settings().hub, export.name)
        }
    }

    async fn write_cursor(
        &self,
        name: &str,
        expect: Expect,
        cursor: &Cursor,
    ) -> Result<Revision, Error> {
        let commit = Commit::for_log_keeping(name, expect, record::write(cursor)?)
            .map_err(|error| Error::Corrupt(error.to_string()))?;
        Ok(self.commit(commit).await?.revision)
    }
}

impl Run<'_> {
    /// Hands over the next batch, if there is one and it is this hub's to hand over.
    async fn round(&mut self) -> Result<Round, SinkError> {
        let (mut expect, mut cursor) = self.cursor().await?;
        let now = self.auth.now();
        let hub = &self.auth.settings().hub;
        let held = UnixTime::from_millis(cursor.until_ms) > now;
        if self.export.shared && held && cursor.holder != *hub {
            self.asked = false;
            self.stand(&cursor, cursor.delivered);
            return Ok(Round::Idle);
        }
        let sealed = self.auth.sealed_events().await.map_err(unread)?;
        if !self.asked {
            self.ask(&mut cursor, sealed).await?;
        }
        let events = self.page(&cursor, sealed).await?;
        let note = self.auth.checkpoint().await.map_err(unread)?;
        self.stand(&cursor, sealed);
        if events.is_empty() && note == self.noted {
            return Ok(Round::Idle);
        }
        if self.export.shared {
            hub.clone_into(&mut cursor.holder);
            cursor.until_ms = now.plus(LEASE).as_millis();
            expect = self.write(expect, &cursor).await?;
        }
        let batch = Batch {
            events: &events,
            checkpoint: note.as_deref(),
        };
        self.export.sink.deliver(&batch).await?;
        if let Some(last) = batch.last() {
            cursor.delivered = last;
            self.write(expect, &cursor).await?;
        }
        self.noted = note;
        self.stand(&cursor, sealed);
        self.worked().await;
        Ok(Round::More)
    }

    async fn cursor(&self) -> Result<(Expect, Cursor), SinkError> {
        let key = record::key("log/", &self.auth.cursor_name(self.export)).map_err(unread)?;
        let stored = self.auth.store().get(&key).await.map_err(unread)?;
        let Some(stored) = stored else {
            return Ok((Expect::Absent, Cursor::default()));
        };
        let mut cursor: Cursor = record::read(&key, &stored).map_err(unread)?;
        cursor.gone = false;
        Ok((Expect::Revision(stored.revision), cursor))
    }

    async fn write(&self, expect: Expect, cursor: &Cursor) -> Result<Expect, SinkError> {
        let name = self.auth.cursor_name(self.export);
        let written = self.auth.write_cursor(&name, expect, cursor).await;
        written.map(Expect::Revision).map_err(unread)
    }

    /// Asks the receiver how much it has. It may be ahead of the cursor, but never of the log.
    async fn ask(&mut self, cursor: &mut Cursor, sealed: u64) -> Result<(), SinkError> {
        let known = self.export.sink.acknowledged().await?;
        self.asked = true;
        if known <= sealed {
            cursor.delivered = cursor.delivered.max(known);
            return Ok(());
        }
        if !self.rolled_back {
            let reported = self.auth.report(|stamp| {
                LogRolledBack {
                    hub_id: &self.auth.settings().hub,
                    resource_name: &self.export.name,
                    delivered: known,
                    events: sealed,
                }
                .event(stamp)
            });
            reported.await.map_err(unread)?;
            tracing::error!(
                sink = self.export.name,
                delivered = known,
                events = sealed,
                "a receiver has events that the log does not have: the database was rolled back"
            );
            self.rolled_back = true;
        }
        Ok(())
    }

    /// Sealed events after the cursor, not too many bytes of them.
    async fn page(&self, cursor: &Cursor, sealed: u64) -> Result<Vec<StoredEvent>, SinkError> {
        let query = LogQuery {
            before: Some(sealed.saturating_add(1)),
            ..LogQuery::after(cursor.delivered, BATCH)
        };
        let mut events = self.auth.store().log(&query).await.map_err(unread)?;
        let mut bytes = 0;
        let fit = events.iter().take_while(|event| {
            let first = bytes == 0;
            bytes += event.body.len();
            first || bytes <= BATCH_BYTES
        });
        events.truncate(fit.count());
        Ok(events)
    }

    fn stand(&self, cursor: &Cursor, sealed: u64) {
        self.auth.stand(&self.export.name, |standing| {
            standing.delivered = cursor.delivered;
            standing.waiting = sealed.saturating_sub(cursor.delivered);
        });
    }

    /// Tells of trouble once it lasts, and says how long to wait.
    async fn failed(&mut self, error: &SinkError) -> Duration {
        self.asked = false;
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert_with(|| self.auth.now());
        let mut standing = None;
        self.auth.stand(&self.export.name, |found| {
            found.trouble = Some(error.to_string());
            standing = Some(found.clone());
        });
        if self.failures == PATIENCE {
            let (delivered, waiting) =
                standing.map_or((0, 0), |found| (found.delivered, found.waiting));
            tracing::error!(sink = self.export.name, %error, waiting, "a receiver of the log takes nothing; trying on");
            let reported = self.auth.report(|stamp| {
                SinkFailed {
                    hub_id: &self.auth.settings().hub,
                    resource_name: &self.export.name,
                    error_message: &error.to_string(),
                    delivered,
                    count: waiting,
                }
                .event(stamp)
            });
            if let Err(error) = reported.await {
                tracing::error!(%error, "that could not be recorded");
            }
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        doubled.min(LONGEST_PAUSE)
    }

    async fn worked(&mut self) {
        let since = self.failing_since.take();
        let failures = std::mem::take(&mut self.failures);
        self.auth
            .stand(&self.export.name, |standing| standing.trouble = None);
        let Some(since) = since.filter(|_| failures >= PATIENCE) else {
            return;
        };
        let reported = self.auth.report(|stamp| {
            SinkRecovered {
                hub_id: &self.auth.settings().hub,
                resource_name: &self.export.name,
                duration_ms: self.auth.now().since(since).as_millis(),
            }
            .event(stamp)
        });
        if let Err(error) = reported.await {
            tracing::error!(%error, "that a receiver works again could not be recorded");
        }
    }
}

/// The store is at fault, not the receiver.
fn unread(error: impl Into<Error>) -> SinkError {
    let error = error.into();
    let why = if let Error::Unavailable(StoreError::Unavailable(why)) | Error::Corrupt(why) = &error
    {
        why.clone()
    } else {
        error.to_string()
    };
    SinkError(format!(
        "the hub's own log cannot be read or its cursor written: {why}"
    ))
}
