//! The keeper of the log: seals new events into the Merkle tree, signs what the tree has become, and gives the whole
//! log out to whoever verifies it.

use std::ops::RangeInclusive;
use std::time::Duration;

use mezite_api::v1::export_log_response::Item;
use mezite_api::v1::{ExportLogResponse, LogKeys, PrunedEvents, StoredEvent};
use mezite_audit::checkpoint::{self, NoteKey};
use mezite_audit::keeper::{CHECKPOINT, HEAD, Head};
use mezite_audit::merkle::{Hash, leaf_hash};
use mezite_audit::tile::{self, Place, Tiles};
use mezite_ca::Signer;
use mezite_core::SessionId;
use mezite_core::store::{self, Commit, Expect, LogQuery, Order, StoreError, Versioned};
use mezite_rbac::{Resource, Verb};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::actor::Actor;
use crate::audit::shown;
use crate::auth::Auth;
use crate::error::Error;
use crate::record;

/// How often the keeper looks: with the time of one round, new events are sealed within a second.
const ROUND: Duration = Duration::from_millis(500);

/// Most events that one commit of the keeper seals.
const BATCH: usize = 1000;

/// Most events without a body that one answer names.
const PRUNED_AT_ONCE: u64 = 4096;

/// How often it is checked that whoever follows the log still may.
const CHECK: Duration = Duration::from_secs(1);

impl Auth {
    /// Seals new events as they come, at most a second behind, until the future is dropped. Any number of hubs may run
    /// it on one store: the head is replaced only by whoever read it last.
    pub async fn run_keeper(&self) {
        loop {
            if let Err(error) = self.keep_log().await {
                tracing::error!(%error, detail = ?error, "new events could not be sealed; trying on");
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Seals every event there is now.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Corrupt`] for a log with a gap.
    pub async fn keep_log(&self) -> Result<(), Error> {
        loop {
            match self.seal_batch().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Another hub was faster: go on from where it came to.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Seals the next events; `false` when there are none.
    async fn seal_batch(&self) -> Result<bool, Error> {
        let (stored, head) = self.head().await?;
        let events = self
            .store()
            .log(&LogQuery::after(head.size(), BATCH))
            .await?;
        if events.is_empty() {
            return Ok(false);
        }
        let mut tiles = self.edge(head.size()).await?;
        for event in &events {
            tiles.append(leaf_hash(&event.body));
        }
        let head = head.advance(&events).map_err(corrupt)?;
        let note = self.sign(&head).await?;
        let expect = stored.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
        let mut commit = Commit::for_log_keeping(HEAD, expect, head.write())
            .and_then(|commit| commit.and_log_keeping(CHECKPOINT, Expect::Any, note.into_bytes()))
            .map_err(corrupt)?;
        for (place, content) in tiles.take_changed() {
            commit = commit
                .and_log_keeping(&place.name(), Expect::Any, content)
                .map_err(corrupt)?;
        }
        self.store().commit(commit).await?;
        Ok(true)
    }

    /// The right edge of the tree of `size` leaves.
    async fn edge(&self, size: u64) -> Result<Tiles, Error> {
        let mut contents = Vec::new();
        for (place, width) in Tiles::edge(size) {
            contents.push(match width {
                0 => None,
                _ => self.tile(place).await?,
            });
        }
        Tiles::load(size, &contents).map_err(corrupt)
    }

    pub(crate) async fn tile(&self, place: Place) -> Result<Option<Vec<u8>>, Error> {
        let key = record::key("log/", &place.name())?;
        Ok(self.store().get(&key).await?.map(|stored| stored.value))
    }

    /// The hashes of the leaves `range`, which are sealed.
    async fn leaves(&self, range: RangeInclusive<u64>) -> Result<Vec<Hash>, Error> {
        let mut found = Vec::new();
        let mut next = *range.start();
        while next <= *range.end() {
            let place = Place::of_event(next);
            let skipped = (next - 1) % tile::WIDTH;
            let wanted = (range.end() - next + 1).min(tile::WIDTH - skipped);
            let content = self.tile(place).await?.unwrap_or_default();
            let hashes = tile::read(place, skipped + wanted, &content).map_err(corrupt)?;
            let (skip, take) = (usize::try_from(skipped), usize::try_from(wanted));
            let (skip, take) = (skip.unwrap_or(usize::MAX), take.unwrap_or(0));
            found.extend(hashes.into_iter().skip(skip).take(take));
            next += wanted;
        }
        Ok(found)
    }

    pub(crate) async fn head(&self) -> Result<(Option<Versioned>, Head), Error> {
        let stored = self.store().get(&record::key("log/", HEAD)?).await?;
        let head =
            Head::read(stored.as_ref().map(|stored| stored.value.as_slice())).map_err(corrupt)?;
        Ok((stored, head))
    }

    /// Whoever calls it has read the head before: a rotation of the key in between makes the commit a conflict.
    async fn sign(&self, head: &Head) -> Result<String, Error> {
        let checkpoint = head.checkpoint(self.log_origin());
        let signer = self.audit_key().await?.key;
        let signature = signed(&*signer, &checkpoint.body())?;
        let key = self.note_key(&signer.public_key())?;
        checkpoint::finish(&checkpoint, &key, &signature).map_err(corrupt)
    }

    /// A key of this log, as auditors know it.
    pub(crate) fn note_key(&self, public_key: &[u8; 32]) -> Result<NoteKey, Error> {
        NoteKey::new(self.log_origin(), public_key).map_err(corrupt)
    }

    /// The origin line of this cluster's checkpoints.
    #[must_use]
    pub fn log_origin(&self) -> String {
        checkpoint::origin(self.cluster())
    }

    /// How many events the newest checkpoint vouches for.
    pub(crate) async fn sealed_events(&self) -> Result<u64, Error> {
        let (_, head) = self.head().await?;
        Ok(head.size())
    }

    /// The newest signed checkpoint, as it is stored.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn checkpoint(&self) -> Result<Option<String>, Error> {
        let stored = self.store().get(&record::key("log/", CHECKPOINT)?).await?;
        stored
            .map(|stored| String::from_utf8(stored.value).map_err(corrupt))
            .transpose()
    }

    /// The keys, the newest checkpoint over all that happened before the call, then every event above `after` in order.
    pub(crate) async fn export_log(
        &self,
        actor: &Actor,
        after: u64,
    ) -> Result<ReceiverStream<Result<ExportLogResponse, Error>>, Error> {
        self.guard(actor, Resource::Audit, Verb::Read, None).await?;
        let last = self.last_sequence().await?;
        let count = usize::try_from(last.saturating_sub(after)).unwrap_or(usize::MAX);
        let query = json!({ "after": after, "before": last + 1 });
        let event = self.tell().audit_read(actor, "export", &query, count);
        self.commit(Commit::new(event)).await?;
        self.keep_log().await?;
        let (sender, receiver) = mpsc::channel(64);
        let (auth, actor) = (self.clone(), actor.clone());
        tokio::spawn(async move {
            if let Err(error) = auth.send_log(&actor, after, &sender).await {
                // Whoever asked may be gone, and then nobody needs to know.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// Who signs this log and did, and the notes with which retired keys named their successors.
    pub(crate) async fn log_keys(&self) -> Result<(LogKeys, Vec<String>), Error> {
        let (public, handovers) = self.audit_keys().await?;
        let keys = LogKeys {
            cluster: self.cluster().to_string(),
            origin: self.log_origin(),
            keys: public.iter().map(|key| key.to_vec()).collect(),
        };
        Ok((keys, handovers))
    }

    async fn send_log(
        &self,
        actor: &Actor,
        mut after: u64,
        out: &mpsc::Sender<Result<ExportLogResponse, Error>>,
    ) -> Result<(), Error> {
        let mut wanted = true;
        // The note is read before the keys, so whoever signed it is among them; and before the events, so it covers
        // none that is not sent.
        let note = self.checkpoint().await?;
        let (keys, handovers) = self.log_keys().await?;
        wanted &= send(out, Item::Keys(keys)).await;
        for note in handovers.into_iter().chain(note) {
            wanted &= send(out, Item::Checkpoint(note)).await;
        }
        let mut end = self.last_sequence().await?;
        while wanted && after < end {
            // A lock or a removed role ends a long answer too.
            if let Some(subject) = actor.subject() {
                self.user(&subject.user)?;
            }
            let query = LogQuery {
                before: Some(end + 1),
                ..LogQuery::after(after, BATCH)
            };
            let page = self.store().log(&query).await?;
            let mut has_gap = page.is_empty();
            if has_gap {
                wanted = self.send_pruned(after + 1..=end, out).await?;
                after = end;
            }
            for event in page {
                // Removed since the page was read: the next page is without it.
                let Some(texts) = self.texts_of(&event).await? else {
                    break;
                };
                if event.sequence > after + 1 {
                    has_gap = true;
                    let pruned = after + 1..=event.sequence - 1;
                    wanted = wanted && self.send_pruned(pruned, out).await?;
                }
                after = event.sequence;
                let item = Item::Event(StoredEvent {
                    sequence: event.sequence,
                    body: event.body,
                });
                wanted = wanted && send(out, item).await;
                for text in texts {
                    wanted = wanted && send(out, Item::Text(text)).await;
                }
            }
            if has_gap {
                // The event that says why may be newer than the end was.
                end = self.last_sequence().await?;
            }
        }
        Ok(())
    }

    /// What is left of events that were removed.
    async fn send_pruned(
        &self,
        range: RangeInclusive<u64>,
        out: &mpsc::Sender<Result<ExportLogResponse, Error>>,
    ) -> Result<bool, Error> {
        let mut first = *range.start();
        while first <= *range.end() {
            let last = (*range.end()).min(first + PRUNED_AT_ONCE - 1);
            let item = Item::Pruned(PrunedEvents {
                first,
                leaf_hashes: self.leaves(first..=last).await?.concat(),
            });
            if !send(out, item).await {
                return Ok(false);
            }
            first = last + 1;
        }
        Ok(true)
    }

    /// Events as they come: first the newest `past` that match, then every one that matches, once it is sealed. That
    /// somebody follows is one event.
    pub(crate) async fn follow_log(
        &self,
        actor: &Actor,
        mut query: LogQuery,
    ) -> Result<ReceiverStream<Result<StoredEvent, Error>>, Error> {
        self.restrict(actor, &mut query).await?;
        let sealed = self.store().watch(&format!("log/{HEAD}"));
        let last = self.last_sequence().await?;
        let past = LogQuery {
            before: Some(last + 1),
            order: Order::NewestFirst,
            ..query.clone()
        };
        let mut found = self.store().log(&past).await?;
        found.reverse();
        let event = self
            .tell()
            .audit_read(actor, "follow", &shown(&query), found.len());
        self.commit(Commit::new(event)).await?;
        query.after = last;
        let (sender, receiver) = mpsc::channel(64);
        let (auth, actor) = (self.clone(), actor.clone());
        tokio::spawn(async move {
            let followed = auth.send_following(&actor, query, found, sealed, &sender);
            if let Err(error) = followed.await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    async fn send_following(
        &self,
        actor: &Actor,
        mut query: LogQuery,
        mut found: Vec<store::StoredEvent>,
        mut sealed: store::Watch,
        out: &mpsc::Sender<Result<StoredEvent, Error>>,
    ) -> Result<(), Error> {
        query.order = Order::OldestFirst;
        query.limit = BATCH;
        loop {
            for event in found.drain(..) {
                query.after = query.after.max(event.sequence);
                let event = StoredEvent {
                    sequence: event.sequence,
                    body: event.body,
                };
                if out.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
            // A lock or a removed role ends it.
            if let Some(subject) = actor.subject() {
                self.user(&subject.user)?;
                self.restrict(actor, &mut query.clone()).await?;
            }
            let end = self.sealed_events().await?;
            query.before = Some(end.saturating_add(1));
            found = self.store().log(&query).await?;
            if !found.is_empty() {
                continue;
            }
            tokio::select! {
                _ = sealed.changed() => {}
                () = tokio::time::sleep(CHECK) => {}
                () = out.closed() => return Ok(()),
            }
        }
    }

    /// Makes durable that somebody reads a recording, before they get its first byte.
    pub(crate) async fn recording_is_read(
        &self,
        actor: &Actor,
        id: SessionId,
        whose: &str,
    ) -> Result<(), Error> {
        let event = self.tell().recording_read(actor, id, whose, "read");
        self.commit(Commit::new(event)).await?;
        Ok(())
    }
}

/// `false` when nobody listens any more.
async fn send(out: &mpsc::Sender<Result<ExportLogResponse, Error>>, item: Item) -> bool {
    out.send(Ok(ExportLogResponse { item: Some(item) }))
        .await
        .is_ok()
}

pub(crate) fn signed(signer: &dyn Signer, text: &str) -> Result<[u8; 64], Error> {
    signer
        .sign(text.as_bytes())
        .map_err(|error| Error::Unavailable(StoreError::Unavailable(error.to_string())))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
pub(crate) fn corrupt(error: impl ToString) -> Error {
    Error::Corrupt(error.to_string())
}
