//! The long texts that lie beside events.

use mezite_api::v1::EventText;
use mezite_audit::overflow;
use mezite_core::event::{Facts, MAX_TEXT_BYTES};
use mezite_core::store::{Commit, Expect, Key, LogQuery, StoredEvent};

use crate::auth::Auth;
use crate::error::Error;
use crate::log::corrupt;

/// Most bytes of texts in one answer that lists events.
pub(crate) const ANSWER_BYTES: usize = 2 * MAX_TEXT_BYTES;

/// Where the texts of an event lie.
fn places(event: &StoredEvent) -> Result<Vec<(String, Key)>, Error> {
    let beside = overflow::of_event(&event.body).map_err(corrupt)?;
    if beside.is_empty() {
        return Ok(Vec::new());
    }
    let id = Facts::parse(&event.body).map_err(corrupt)?.id;
    let place = |found: overflow::Overflow| {
        let key = Key::of_text(id, &found.field);
        (found.field, key)
    };
    Ok(beside.into_iter().map(place).collect())
}

/// Removes the texts of events that are removed with it.
pub(crate) fn removed(mut commit: Commit, events: &[StoredEvent]) -> Result<Commit, Error> {
    for event in events {
        for (_, key) in places(event)? {
            commit = commit.remove(key, Expect::Any);
        }
    }
    Ok(commit)
}

impl Auth {
    /// The texts beside an event as they are stored; `None` when it was removed with them since it was read. One that is
    /// gone without its event is left out: whoever verifies misses it.
    pub(crate) async fn texts_of(
        &self,
        event: &StoredEvent,
    ) -> Result<Option<Vec<EventText>>, Error> {
        let mut texts = Vec::new();
        for (field, key) in places(event)? {
            let Some(stored) = self.store().get(&key).await? else {
                if self.is_removed(event).await? {
                    return Ok(None);
                }
                continue;
            };
            texts.push(EventText {
                sequence: event.sequence,
                field,
                text: String::from_utf8_lossy(&stored.value).into_owned(),
            });
        }
        Ok(Some(texts))
    }

    async fn is_removed(&self, event: &StoredEvent) -> Result<bool, Error> {
        let query = LogQuery {
            before: Some(event.sequence + 1),
            ..LogQuery::after(event.sequence - 1, 1)
        };
        Ok(self.store().log(&query).await?.is_empty())
    }

    /// The texts beside these events, as many as fit into one answer: those of an event all or none.
    pub(crate) async fn texts_of_all(
        &self,
        events: &[StoredEvent],
    ) -> Result<Vec<EventText>, Error> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for event in events {
            let texts = self.texts_of(event).await?.unwrap_or_default();
            let more: usize = texts.iter().map(|text| text.text.len()).sum();
            if bytes + more <= ANSWER_BYTES {
                bytes += more;
                found.extend(texts);
            }
        }
        Ok(found)
    }
}
