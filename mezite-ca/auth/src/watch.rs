//! Who watches running sessions. `watched/<session>/<watch>` is written with the event of the beginning and goes with that
//! of the end, so that the hub where the session runs knows of it, whichever hub shows it.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::HEXLOWER;
use mezite_core::SessionId;
use mezite_core::store::{Commit, Expect, Key};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::live::all;
use crate::random;
use crate::record::{self, prefix};

/// How long a failed look or note waits to be tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the end of somebody's watching is tried to be noted.
const ATTEMPTS: usize = 600;

/// `watched/<session>/<watch>`: somebody watches the session through a hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watcher {
    watcher: String,
    hub: String,
}

/// Keeps somebody among the watchers of a session for as long as they watch it.
#[derive(Debug)]
#[must_use = "it is over when this is dropped"]
pub(crate) struct Watching {
    auth: Auth,
    actor: Actor,
    session_id: SessionId,
    whose: String,
    key: Key,
}

impl Watching {
    /// Nobody watches unseen: where the other hubs counted this one as lost, they took its watchers off the list.
    pub(crate) async fn confirm(&self) -> Result<(), Error> {
        match self.auth.store().get(&self.key).await? {
            Some(_) => Ok(()),
            None => Err(Error::Conflict),
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let (auth, actor, id) = (self.auth.clone(), self.actor.clone(), self.session_id);
        let (whose, key) = (std::mem::take(&mut self.whose), self.key.clone());
        tokio::spawn(async move {
            for _ in 0..ATTEMPTS {
                let event = auth.tell().recording_read(&actor, id, &whose, "leave");
                let left = Commit::new(event).remove(key.clone(), Expect::Any);
                match auth.commit(left).await {
                    Ok(_) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the end of watching could not be noted; trying on");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        });
    }
}

impl Auth {
    /// Makes durable that somebody watches a session, before they get its first byte.
    pub(crate) async fn begin_watching(
        &self,
        actor: &Actor,
        session_id: SessionId,
        whose: &str,
    ) -> Result<Watching, Error> {
        let name = HEXLOWER.encode(&random::bytes::<8>());
        let key = record::key(prefix::WATCHED, &format!("{session_id}/{name}"))?;
        let watcher = Watcher {
            watcher: actor.name().to_owned(),
            hub: self.settings().hub.clone(),
        };
        let event = self.tell().recording_read(actor, session_id, whose, "join");
        let began = Commit::new(event).put(key.clone(), Expect::Absent, record::write(&watcher)?);
        self.commit(began).await?;
        Ok(Watching {
            auth: self.clone(),
            actor: actor.clone(),
            session_id,
            whose: whose.to_owned(),
            key,
        })
    }

    /// Who watches a session, at any hub: changes when others do, until the receiver is dropped. Call it inside a tokio
    /// runtime.
    #[must_use]
    pub fn watchers(&self, session_id: SessionId) -> watch::Receiver<BTreeSet<String>> {
        let (sender, receiver) = watch::channel(BTreeSet::new());
        let below = format!("{}{session_id}/", prefix::WATCHED);
        let mut changes = self.store().watch(&below);
        let auth = self.clone();
        tokio::spawn(async move {
            let following = async {
                loop {
                    match auth.watchers_below(&below).await {
                        Ok(found) => {
                            sender.send_if_modified(|known| {
                                let others = *known != found;
                                *known = found;
                                others
                            });
                            changes.changed().await;
                        }
                        Err(error) => {
                            tracing::error!(%error, "who watches a session could not be read; trying on");
                            tokio::time::sleep(AGAIN).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = following => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }

    async fn watchers_below(&self, below: &str) -> Result<BTreeSet<String>, Error> {
        let found = all(self.store(), below).await?;
        let read = found
            .iter()
            .map(|(key, stored)| Ok(record::read::<Watcher>(key, stored)?.watcher));
        read.collect()
    }

    /// Adds to a commit that nobody watches through the hub called `hub` any more: it has just started, or is lost.
    pub(crate) async fn without_watchers(
        &self,
        commit: Commit,
        hub: &str,
    ) -> Result<Commit, Error> {
        let mut commit = commit;
        for (key, stored) in all(self.store(), prefix::WATCHED).await? {
            if record::read::<Watcher>(&key, &stored)?.hub == hub {
                commit = commit.remove(key, Expect::Any);
            }
        }
        Ok(commit)
    }
}
