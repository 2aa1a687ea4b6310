//! Change notification: level-triggered and bounded. A watcher learns *that* something under its prefix changed
//! and reads it again; a slow watcher costs one number, not a queue.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use super::{Key, Revision};

/// The watching end of a [`Feed`].
#[derive(Debug)]
pub struct Watch(Arc<Watcher>);

impl Watch {
    /// Waits until something under the prefix has changed since the last return, and says up to which revision.
    pub async fn changed(&mut self) -> Revision {
        poll_fn(|context| {
            let mut state = self.0.state();
            match state.pending.take() {
                Some(revision) => Poll::Ready(revision),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The publishing end, which a store implementation keeps.
#[derive(Debug, Default)]
pub struct Feed(Mutex<Vec<Weak<Watcher>>>);

impl Feed {
    /// A new watcher of keys that start with `prefix`.
    pub fn watch(&self, prefix: &str) -> Watch {
        let watcher = Arc::new(Watcher {
            prefix: prefix.to_owned(),
            state: Mutex::default(),
        });
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(&watcher));
        Watch(watcher)
    }

    /// Wakes every watcher with a prefix of one of `keys`. Call it after the commit is durable.
    pub fn publish<'a>(&self, revision: Revision, keys: impl IntoIterator<Item = &'a Key>) {
        let keys: Vec<&Key> = keys.into_iter().collect();
        let watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            if keys
                .iter()
                .any(|key| key.as_str().starts_with(&watcher.prefix))
            {
                watcher.wake(revision);
            }
        }
    }

    /// Wakes every watcher: after a time in which changes may have been missed.
    pub fn publish_all(&self, revision: Revision) {
        let watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.wake(revision);
        }
    }
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: Option<Revision>,
    waker: Option<Waker>,
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, revision: Revision) {
        let waker = {
            let mut state = self.state();
            state.pending = state.pending.max(Some(revision));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
