//! Search indexes: built in the background, or by the first search that misses one, and looked through.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use mezite_auth::{
    FoundLine, FoundRecording, MayRead, RecordingError, RecordingSearch, SearchOutcome,
};
use mezite_core::SessionId;
use mezite_record::search::{self, Query};
use mezite_record::{Identity, Part, ReadError, Sink};
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
    fn list(&self, part: Part) -> Result<Vec<SessionId>, RecordingError> {
        self.runtime
            .block_on(self.sink.list(part))
            .map_err(unavailable)
    }

    /// The sessions whose recordings could not be indexed.
    fn build_missing(
        &self,
        given_up: &BTreeSet<SessionId>,
    ) -> Result<Vec<SessionId>, RecordingError> {
        let indexed: BTreeSet<_> = self.list(Part::Index)?.into_iter().collect();
        let mut failed = Vec::new();
        for id in self.list(Part::Sealed)? {
            if indexed.contains(&id) || given_up.contains(&id) {
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
        let indexed: BTreeSet<_> = self.list(Part::Index)?.into_iter().collect();
        let mut outcome = SearchOutcome::default();
        for id in self.list(Part::Sealed)?.into_iter().rev() {
            match self.look(id, indexed.contains(&id), wanted, query, may) {
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
        id: SessionId,
        indexed: bool,
        wanted: &RecordingSearch,
        query: &Query,
        may: &MayRead,
    ) -> Result<Looked, RecordingError> {
        let read = |part, most| {
            let piece = self.runtime.block_on(self.sink.read(&id, part, 0, most));
            piece.map_err(unavailable)
        };
        let (index, header) = if indexed {
            let index = read(Part::Index, usize::MAX)?;
            let header = search::facts(&index).map_err(unavailable)?;
            (Some(index), header)
        } else {
            let start = read(Part::Sealed, super::HEAD)?;
            (
                None,
                mezite_record::decode::facts(&start).map_err(unavailable)?,
            )
        };
        let length = self.runtime.block_on(self.sink.length(&id, Part::Sealed));
        let facts = facts_of(&header, id, Part::Sealed, length.map_err(unavailable)?)?;
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
