//! The suite that every [`Sink`] runs, the fake included: plain async functions that take a fresh, empty sink. And a sink that
//! fails, for whoever records.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mezite_core::{SessionId, UnixTime};

pub use super::faulty::{FaultySink, Obstacle, Step};
use super::{Part, Sink, SinkError};

/// Runs every case, each on a fresh sink from `fresh`.
///
/// # Panics
/// When the sink does not keep the contract, naming the case.
pub async fn all<S: Sink, F: AsyncFn() -> S>(fresh: F) {
    reads_back_what_was_appended(&fresh().await).await;
    attack_52_a_session_is_opened_once(&fresh().await).await;
    attack_52_a_finished_recording_is_never_touched(&fresh().await).await;
    finish_replaces_the_journal_at_once(&fresh().await).await;
    a_second_attempt_of_sealing_begins_anew(&fresh().await).await;
    reads_pieces_and_nothing_behind_the_end(&fresh().await).await;
    lists_by_part_oldest_first(&fresh().await).await;
    misses_what_is_not_there(&fresh().await).await;
    an_index_is_replaced_and_goes_with_its_recording(&fresh().await).await;
    a_live_recording_cannot_be_removed(&fresh().await).await;
}

/// Drives a future that needs no runtime to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

fn id(number: u8) -> SessionId {
    SessionId::new(
        UnixTime::from_secs(1_700_000_000 + u64::from(number)),
        [number; 16],
    )
}

async fn whole(sink: &impl Sink, id: &SessionId, part: Part) -> Result<Vec<u8>, SinkError> {
    sink.read(id, part, 0, 1000).await
}

async fn reads_back_what_was_appended(sink: &impl Sink) {
    sink.open(&id(1), b"head ").await.expect("open");
    sink.append(&id(1), b"one ").await.expect("append");
    sink.append(&id(1), b"two").await.expect("append");
    sink.sync(&id(1)).await.expect("sync");
    let found = whole(sink, &id(1), Part::Journal).await;
    assert_eq!(found, Ok(b"head one two".to_vec()), "all, in order");
}

async fn attack_52_a_session_is_opened_once(sink: &impl Sink) {
    sink.open(&id(1), b"first").await.expect("open");
    let again = sink.open(&id(1), b"second").await;
    assert_eq!(again, Err(SinkError::Exists(id(1))), "two recorders");
    let found = whole(sink, &id(1), Part::Journal).await;
    assert_eq!(found, Ok(b"first".to_vec()), "the first one stays");
}

async fn attack_52_a_finished_recording_is_never_touched(sink: &impl Sink) {
    sink.open(&id(1), b"live").await.expect("open");
    sink.stage(&id(1), 0, b"sealed").await.expect("stage");
    sink.finish(&id(1)).await.expect("finish");
    let exists = Err(SinkError::Exists(id(1)));
    assert_eq!(sink.open(&id(1), b"forged").await, exists, "opened again");
    assert_eq!(sink.stage(&id(1), 0, b"forged").await, exists, "staged");
    assert!(sink.append(&id(1), b"forged").await.is_err(), "appended to");
    assert!(sink.finish(&id(1)).await.is_err(), "finished twice");
    let found = whole(sink, &id(1), Part::Sealed).await;
    assert_eq!(found, Ok(b"sealed".to_vec()), "the first one stays");
}

async fn finish_replaces_the_journal_at_once(sink: &impl Sink) {
    sink.open(&id(1), b"live").await.expect("open");
    let early = sink.finish(&id(1)).await;
    assert_eq!(early, Err(SinkError::Missing(id(1))), "nothing staged");
    sink.stage(&id(1), 0, b"sea").await.expect("stage");
    sink.stage(&id(1), 3, b"led").await.expect("stage");
    let unseen = whole(sink, &id(1), Part::Sealed).await;
    assert_eq!(unseen, Err(SinkError::Missing(id(1))), "seen too early");
    assert_eq!(sink.list(Part::Sealed).await, Ok(vec![]), "listed early");
    sink.finish(&id(1)).await.expect("finish");
    let found = whole(sink, &id(1), Part::Sealed).await;
    assert_eq!(found, Ok(b"sealed".to_vec()), "all pieces");
    let journal = whole(sink, &id(1), Part::Journal).await;
    assert_eq!(journal, Err(SinkError::Missing(id(1))), "journal is gone");
}

async fn a_second_attempt_of_sealing_begins_anew(sink: &impl Sink) {
    sink.open(&id(1), b"live").await.expect("open");
    sink.stage(&id(1), 0, b"a long first attempt")
        .await
        .expect("stage");
    sink.stage(&id(1), 0, b"second").await.expect("stage");
    let gap = sink.stage(&id(1), 99, b"gap").await;
    assert!(gap.is_err(), "a gap between pieces");
    sink.finish(&id(1)).await.expect("finish");
    let found = whole(sink, &id(1), Part::Sealed).await;
    assert_eq!(found, Ok(b"second".to_vec()), "only the second attempt");
}

async fn reads_pieces_and_nothing_behind_the_end(sink: &impl Sink) {
    sink.open(&id(1), b"0123456789").await.expect("open");
    for (offset, limit, expected) in [
        (0, 4, &b"0123"[..]),
        (4, 100, b"456789"),
        (10, 4, b""),
        (u64::MAX, 4, b""),
    ] {
        let found = sink.read(&id(1), Part::Journal, offset, limit).await;
        assert_eq!(found, Ok(expected.to_vec()), "{limit} from {offset}");
    }
}

async fn lists_by_part_oldest_first(sink: &impl Sink) {
    for number in [3, 1, 2] {
        sink.open(&id(number), b"live").await.expect("open");
    }
    let journals = sink.list(Part::Journal).await;
    assert_eq!(journals, Ok(vec![id(1), id(2), id(3)]), "oldest first");
    sink.stage(&id(2), 0, b"sealed").await.expect("stage");
    sink.finish(&id(2)).await.expect("finish");
    let journals = sink.list(Part::Journal).await;
    assert_eq!(journals, Ok(vec![id(1), id(3)]), "journals");
    assert_eq!(sink.list(Part::Sealed).await, Ok(vec![id(2)]), "sealed");
}

async fn misses_what_is_not_there(sink: &impl Sink) {
    let missing = Err(SinkError::Missing(id(9)));
    assert_eq!(sink.append(&id(9), b"x").await, missing, "append");
    assert_eq!(sink.sync(&id(9)).await, missing, "sync");
    assert_eq!(sink.stage(&id(9), 0, b"x").await, missing, "stage");
    assert_eq!(sink.finish(&id(9)).await, missing, "finish");
    assert_eq!(sink.put_index(&id(9), b"x").await, missing, "put_index");
    assert_eq!(sink.remove(&id(9)).await, missing, "remove");
    for part in [Part::Journal, Part::Sealed, Part::Index] {
        let read = whole(sink, &id(9), part).await;
        assert_eq!(read, Err(SinkError::Missing(id(9))), "read {part:?}");
        assert_eq!(sink.list(part).await, Ok(vec![]), "list {part:?}");
    }
}

async fn an_index_is_replaced_and_goes_with_its_recording(sink: &impl Sink) {
    for number in [1, 2] {
        sink.open(&id(number), b"live").await.expect("open");
        let early = sink.put_index(&id(number), b"early").await;
        assert_eq!(early, Err(SinkError::Missing(id(number))), "no sealed file");
        sink.stage(&id(number), 0, b"sealed").await.expect("stage");
        sink.finish(&id(number)).await.expect("finish");
    }
    assert_eq!(sink.list(Part::Index).await, Ok(vec![]), "none yet");
    sink.put_index(&id(1), b"a long first").await.expect("put");
    sink.put_index(&id(1), b"second").await.expect("put again");
    let found = whole(sink, &id(1), Part::Index).await;
    assert_eq!(found, Ok(b"second".to_vec()), "replaced");
    assert_eq!(sink.length(&id(1), Part::Index).await, Ok(6), "length");
    assert_eq!(sink.list(Part::Index).await, Ok(vec![id(1)]), "listed");
    let surveyed = sink.survey(Part::Index).await.expect("survey");
    let facts = surveyed.iter().map(|it| (it.id, it.bytes));
    assert!(facts.eq([(id(1), 6)]), "surveyed {surveyed:?}");
    let one = surveyed.first().expect("one index");
    sink.put_index(&id(1), b"the third").await.expect("put");
    let read = sink.read_stored(one, Part::Index).await;
    assert_eq!(read, Ok(b"the third".to_vec()), "what came in its place");
    let surveyed = sink.survey(Part::Index).await.expect("survey again");
    for one in &surveyed {
        for time in ["first", "second"] {
            let read = sink.read_stored(one, Part::Index).await;
            assert_eq!(read, Ok(b"the third".to_vec()), "the {time} time");
        }
    }
    let sealed = sink.survey(Part::Sealed).await.expect("survey");
    let sealed: Vec<_> = sealed.iter().map(|it| (it.id, it.bytes)).collect();
    assert_eq!(sealed, [(id(1), 6), (id(2), 6)], "survey of the sealed");
    sink.remove(&id(1)).await.expect("remove");
    let missing = Err(SinkError::Missing(id(1)));
    for part in [Part::Sealed, Part::Index] {
        assert_eq!(whole(sink, &id(1), part).await, missing, "{part:?} is gone");
    }
    assert_eq!(
        sink.list(Part::Sealed).await,
        Ok(vec![id(2)]),
        "others stay"
    );
    for one in &surveyed {
        let read = sink.read_stored(one, Part::Index).await;
        assert_eq!(read, missing, "a copy is gone, too");
    }
    let again = sink.remove(&id(1)).await;
    assert_eq!(again, Err(SinkError::Missing(id(1))), "removed twice");
}

async fn a_live_recording_cannot_be_removed(sink: &impl Sink) {
    sink.open(&id(1), b"live").await.expect("open");
    let removed = sink.remove(&id(1)).await;
    assert_eq!(removed, Err(SinkError::Missing(id(1))), "not finished");
    let found = whole(sink, &id(1), Part::Journal).await;
    assert_eq!(found, Ok(b"live".to_vec()), "it goes on");
}
