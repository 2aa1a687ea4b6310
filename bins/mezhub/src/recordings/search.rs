//! Search indexes: built in the background, or by the first search that misses one, and looked through.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use mezite_auth::{
    FoundLine, FoundRecording, MayRead, RecordingError, RecordingSearch, SearchOutcome,
};
use mezite_core::SessionId;
use mezite_record::search::{self, Query};
use mezite_record::{Identity, Part, ReadError, Sink, Stored};
use tokio::runtime::Handle;

use super::{PIECE, Recorded, facts_of, unavailable};

/// How often recordings that were finished meanwhile get their index.
const ROUND: Duration = Duration::from_secs(300);

impl Recorded {
    /// Builds missing indexes, until the future is dropped.
    pub(crate) async fn keep_indexed(&self) {
        let mut given_up = BTreeSet::new();
        loop {
            tokio::time::sleep(ROUND).await;
            let searcher = self.searcher();
            let known = given_up.clone();
            let round = tokio::task::spawn_blocking(move || searcher.build_missing(&known)).await;
            match round {
                Ok(Ok(failed)) => given_up.extend(failed),
                Ok(Err(error)) => tracing::error!(%error, "recordings could not be indexed"),
                Err(error) => tracing::error!(%error, "indexing recordings stopped"),
            }
        }
    }

    pub(super) async fn search_all(
        &self,
        wanted: RecordingSearch,
        may: MayRead,
    ) -> Result<SearchOutcome, RecordingError> {
        let query = Query::new(&wanted.text, wanted.ignore_case)
            .map_err(|error| RecordingError::Query(error.to_string()))?;
        let searcher = self.searcher();
        tokio::task::spawn_blocking(move || searcher.search(&wanted, &query, &may))
            .await
            .map_err(unavailable)?
    }

    fn searcher(&self) -> Searcher {
        Searcher {
            sink: Arc::clone(&self.sink),
            identity: Arc::clone(&self.identity),
            runtime: Handle::current(),
        }
    }
}

/// Works on a thread that may block.
struct Searcher {
    sink: Arc<dyn Sink>,
    identity: Arc<Identity>,
    runtime: Handle,
}

/// What became of one recording.
enum Looked {
    /// Not among those that were asked for, or not for whoever asks.
    Passed,
    /// Only its recipients can open it.
    Closed,
    Searched(Option<FoundRecording>),
}

impl Searcher {
    fn survey(&self, part: Part) -> Result<Vec<Stored>, RecordingError> {
        self.runtime
            .block_on(self.sink.survey(part))
            .map_err(unavailable)
    }

    fn indexes(&self) -> Result<BTreeMap<SessionId, Stored>, RecordingError> {
        let found = self.survey(Part::Index)?;
        Ok(found.into_iter().map(|it| (it.id, it)).collect())
    }

    /// The sessions whose recordings could not be indexed.
    fn build_missing(
        &self,
        given_up: &BTreeSet<SessionId>,
    ) -> Result<Vec<SessionId>, RecordingError> {
        let indexed = self.indexes()?;
        let mut failed = Vec::new();
        for Stored { id, .. } in self.survey(Part::Sealed)? {
            if indexed.contains_key(&id) || given_up.contains(&id) {
                continue;
            }
            if let Err(error) = self.build(id) {
                tracing::warn!(session = %id, %error, "a recording has no search index");
                failed.push(id);
            }
        }
        Ok(failed)
    }

    fn build(&self, id: SessionId) -> Result<Vec<u8>, ReadError> {
        let file = File {
            searcher: self,
            id,
            offset: 0,
        };
        let own = std::slice::from_ref(&*self.identity);
        let index = search::build(file, own, &mut mezite_net::random::rng())?;
        let put = self.runtime.block_on(self.sink.put_index(&id, &index));
        put.map_err(io::Error::other)?;
        Ok(index)
    }

    fn search(
        &self,
        wanted: &RecordingSearch,
        query: &Query,
        may: &MayRead,
    ) -> Result<SearchOutcome, RecordingError> {
        let indexed = self.indexes()?;
        let mut outcome = SearchOutcome::default();
        for sealed in self.survey(Part::Sealed)?.into_iter().rev() {
            let id = sealed.id;
            match self.look(&sealed, indexed.get(&id), wanted, query, may) {
                Ok(Looked::Passed) => {}
                Ok(Looked::Closed) => outcome.closed += 1,
                Ok(Looked::Searched(found)) => {
                    outcome.searched += 1;
                    outcome.found.extend(found);
                }
                Err(error) => {
                    tracing::error!(session = %id, %error, "a recording could not be searched");
                    outcome.failed += 1;
                }
            }
            if outcome.found.len() > wanted.limit {
                outcome.found.truncate(wanted.limit);
                outcome.more = true;
                break;
            }
        }
        Ok(outcome)
    }

    fn look(
        &self,
        sealed: &Stored,
        indexed: Option<&Stored>,
        wanted: &RecordingSearch,
        query: &Query,
        may: &MayRead,
    ) -> Result<Looked, RecordingError> {
        let id = sealed.id;
        // A question for each recording would be a way to the store for each.
        let (index, header) = if let Some(indexed) = indexed {
            let read = self.sink.read_stored(indexed, Part::Index);
            let index = self.runtime.block_on(read).map_err(unavailable)?;
            let header = search::facts(&index).map_err(unavailable)?;
            (Some(index), header)
        } else {
            let read = self.sink.read(&id, Part::Sealed, 0, super::HEAD);
            let start = self.runtime.block_on(read).map_err(unavailable)?;
            let header = mezite_record::decode::facts(&start).map_err(unavailable)?;
            (None, header)
        };
        let facts = facts_of(&header, id, Part::Sealed, sealed.bytes)?;
        let asked = wanted.user.as_ref().is_none_or(|user| *user == facts.user)
            && wanted.since.is_none_or(|since| facts.started >= since)
            && wanted.until.is_none_or(|until| facts.started < until);
        if !asked || !may(&facts.user) {
            return Ok(Looked::Passed);
        }
        let index = match index.map_or_else(|| self.build(id), Ok) {
            Ok(index) => index,
            Err(ReadError::Decode(error)) if error.is_not_for_us() => return Ok(Looked::Closed),
            Err(error) => return Err(unavailable(error)),
        };
        let own = std::slice::from_ref(&*self.identity);
        let found = match search::search(&index, own, query, wanted.lines) {
            Ok(found) => found,
            Err(error) if error.is_not_for_us() => return Ok(Looked::Closed),
            Err(error) => return Err(unavailable(error)),
        };
        let lines = found.hits.into_iter().map(|hit| FoundLine {
            at: hit.at,
            channel: hit.channel,
            kind: hit.kind.as_str(),
            line: hit.line,
        });
        let lines: Vec<_> = lines.collect();
        Ok(Looked::Searched((!lines.is_empty()).then_some(
            FoundRecording {
                facts,
                lines,
                more: found.more,
                clipped: found.clipped,
            },
        )))
    }
}

/// A sealed file as [`Read`].
struct File<'a> {
    searcher: &'a Searcher,
    id: SessionId,
    offset: u64,
}

impl Read for File<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(PIECE);
        let read = self
            .searcher
            .sink
            .read(&self.id, Part::Sealed, self.offset, most);
        let piece = self
            .searcher
            .runtime
            .block_on(read)
            .map_err(io::Error::other)?;
        let count = piece.len();
        buffer
            .get_mut(..count)
            .ok_or_else(|| io::Error::other("the store gave more than was asked for"))?
            .copy_from_slice(&piece);
        self.offset += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}
