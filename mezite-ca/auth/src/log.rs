//! The keeper of the log: seals new events into the Merkle tree, signs what the tree has become, and gives the whole
//! log out to whoever verifies it.

use std::time::Duration;

use mezite_api::v1::export_log_response::Item;
use mezite_api::v1::{ExportLogResponse, LogKeys, StoredEvent};
use mezite_audit::checkpoint::{self, NoteKey};
use mezite_audit::keeper::{CHECKPOINT, HEAD, Head};
use mezite_ca::Signer;
use mezite_core::SessionId;
use mezite_core::store::{Commit, Expect, LogQuery, StoreError, Versioned};
use mezite_rbac::{Resource, Verb};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::record;

/// How often the keeper looks: with the time of one round, new events are sealed within a second.
const ROUND: Duration = Duration::from_millis(500);

/// Most events that one commit of the keeper seals.
const BATCH: usize = 1000;

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
        let head = head.advance(&events).map_err(corrupt)?;
        let note = self.sign(&head)?;
        let expect = stored.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
        let commit = Commit::for_log_keeping(HEAD, expect, head.write())
            .and_then(|commit| commit.and_log_keeping(CHECKPOINT, Expect::Any, note.into_bytes()))
            .map_err(corrupt)?;
        self.store().commit(commit).await?;
        Ok(true)
    }

    async fn head(&self) -> Result<(Option<Versioned>, Head), Error> {
        let stored = self.store().get(&record::key("log/", HEAD)?).await?;
        let head =
            Head::read(stored.as_ref().map(|stored| stored.value.as_slice())).map_err(corrupt)?;
        Ok((stored, head))
    }

    fn sign(&self, head: &Head) -> Result<String, Error> {
        let checkpoint = head.checkpoint(self.log_origin());
        let signer = &self.fixed_keys().audit;
        let signature = signer
            .sign(checkpoint.body().as_bytes())
            .map_err(|error| Error::Unavailable(StoreError::Unavailable(error.to_string())))?;
        let key = NoteKey::new(self.log_origin(), &signer.public_key()).map_err(corrupt)?;
        checkpoint::finish(&checkpoint, &key, &signature).map_err(corrupt)
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

    /// The keys, the newest checkpoint over all that happened before the call, then every event in order.
    pub(crate) async fn export_log(
        &self,
        actor: &Actor,
    ) -> Result<ReceiverStream<Result<ExportLogResponse, Error>>, Error> {
        self.guard(actor, Resource::Audit, Verb::Read, None).await?;
        let last = self.last_sequence().await?;
        let count = usize::try_from(last).unwrap_or(usize::MAX);
        let event = self
            .tell()
            .audit_read(actor, "export", &json!({ "before": last + 1 }), count);
        self.commit(Commit::new(event)).await?;
        self.keep_log().await?;
        let (sender, receiver) = mpsc::channel(64);
        let (auth, actor) = (self.clone(), actor.clone());
        tokio::spawn(async move {
            if let Err(error) = auth.send_log(&actor, &sender).await {
                // Whoever asked may be gone, and then nobody needs to know.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    async fn send_log(
        &self,
        actor: &Actor,
        out: &mpsc::Sender<Result<ExportLogResponse, Error>>,
    ) -> Result<(), Error> {
        let mut wanted = true;
        let keys = LogKeys {
            cluster: self.cluster().to_string(),
            origin: self.log_origin(),
            keys: vec![self.fixed_keys().audit.public_key().to_vec()],
        };
        wanted &= send(out, Item::Keys(keys)).await;
        // The note is read before the events, so it covers no event that is not sent.
        if let Some(note) = self.checkpoint().await? {
            wanted &= send(out, Item::Checkpoint(note)).await;
        }
        let end = self.last_sequence().await?;
        let mut after = 0;
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
            let Some(last) = page.last() else { break };
            after = last.sequence;
            for event in page {
                let item = Item::Event(StoredEvent {
                    sequence: event.sequence,
                    body: event.body,
                });
                wanted = wanted && send(out, item).await;
            }
        }
        Ok(())
    }

    /// Makes durable that somebody reads a recording, before they get its first byte.
    pub(crate) async fn recording_is_read(
        &self,
        actor: &Actor,
        id: SessionId,
        whose: &str,
    ) -> Result<(), Error> {
        let event = self.tell().recording_read(actor, id, whose);
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

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn corrupt(error: impl ToString) -> Error {
    Error::Corrupt(error.to_string())
}
