//! Recording, sealing and recovery through the public interface.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{
    START, at, bulk, decode, header, record, seal, session, signer, trusted, whole,
};
use async_trait::async_trait;
use bytes::Bytes;
use mezite_core::{SessionId, Span};
use mezite_record::sink::conformance::{FaultySink, Obstacle, Step, block_on};
use mezite_record::{
    Ending, Frame, Identity, MemorySink, Part, RecordError, Recorder, Recording, SignError, Signer,
    Sink, SinkError, Timed, recover, verify,
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

#[test]
fn a_sealed_recording_reads_back_and_verifies() {
    let identity = Identity::generate();
    let (file, summary) = seal(1, &identity, &session());
    let (frames, ending) = decode(&file, &identity, 7);
    assert_eq!(frames, session());
    let Ok(Ending::Sealed { duration, index }) = ending else {
        panic!("{ending:?}");
    };
    assert_eq!(duration, Span::from_secs(2));
    assert_eq!(index.len(), 1);
    let verified = verify(&file[..], &[[0; 32], trusted()]).unwrap();
    assert_eq!(verified.header, header(1));
    assert_eq!(verified.digest, summary.digest);
    assert_eq!(
        summary.digest,
        data_encoding::HEXLOWER.encode(&Sha256::digest(&file))
    );
    assert_eq!((summary.bytes, summary.frames), (file.len() as u64, 8));
    assert_eq!((summary.recovered, summary.duration), (false, duration));
}

#[test]
fn a_recording_of_nothing_reads_back() {
    let identity = Identity::generate();
    let (file, _) = seal(1, &identity, &[]);
    assert!(
        matches!(decode(&file, &identity, 100), (frames, Ok(Ending::Sealed { .. })) if frames.is_empty())
    );
    assert!(verify(&file[..], &[trusted()]).is_ok());
}

#[test]
fn nobody_else_reads_it_and_the_facts_stay_readable() {
    let (file, _) = seal(1, &Identity::generate(), &session());
    assert!(Recording::open(&file[..], vec![Identity::generate()]).is_err());
    assert!(
        !file.windows(5).any(|it| it == b"hello"),
        "content is sealed"
    );
    assert!(
        file.windows(5).any(|it| it == b"alice"),
        "facts are readable"
    );
}

#[test]
fn a_journal_is_readable_while_it_grows() {
    let identity = Identity::generate();
    let (sink, _recorder) = record(1, &identity, &session());
    let journal = whole(sink.as_ref(), 1, Part::Journal);
    let (frames, ending) = decode(&journal, &identity, 1);
    assert_eq!((frames, ending), (session(), Ok(Ending::Open { left: 0 })));
}

#[test]
fn large_frames_are_packed_while_the_session_runs_and_stay_packed_at_its_end() {
    let identity = Identity::generate();
    let (sink, recorder) = record(1, &identity, &bulk());
    let journal = whole(sink.as_ref(), 1, Part::Journal);
    assert!(journal.len() < 2000, "{} bytes", journal.len());
    assert_eq!(decode(&journal, &identity, 100).0, bulk());
    let summary = block_on(recorder.finish(START.plus(Span::from_millis(50)))).unwrap();
    assert_eq!((summary.frames, summary.duration.as_millis()), (7, 50));
    let file = whole(sink.as_ref(), 1, Part::Sealed);
    assert!(file.len() < 2000, "{} bytes", file.len());
    assert!(verify(&file[..], &[trusted()]).is_ok());
    // Each frame has its own time, whichever way it went.
    assert_eq!(decode(&file, &identity, 100).0, bulk());
}

/// Small and large frames in turn must not end as chunks that are smaller than the journal's.
#[test]
fn frames_of_mixed_sizes_end_in_large_chunks() {
    let identity = Identity::generate();
    let large = "a line of a large file\r\n".repeat(1000);
    let frames: Vec<_> = (0..200)
        .map(|number| match number % 2 {
            0 => at(number, Frame::stdout(0, large.clone())),
            _ => at(number, Frame::stderr(0, "x")),
        })
        .collect();
    let (sink, recorder) = record(1, &identity, &frames);
    let journal = whole(sink.as_ref(), 1, Part::Journal).len();
    block_on(recorder.finish(START)).unwrap();
    let file = whole(sink.as_ref(), 1, Part::Sealed);
    assert_eq!(decode(&file, &identity, 4096).0, frames);
    assert!(
        file.len() < journal * 3 / 4,
        "{} of {journal} bytes",
        file.len()
    );
}

#[test]
fn attack_48_a_clock_that_jumps_back_does_not_break_the_order() {
    let identity = Identity::generate();
    let frames = [
        at(5000, Frame::stdout(0, "a")),
        at(10, Frame::stdout(0, "b")),
        at(6000, Frame::stdout(0, "c")),
    ];
    let (sink, recorder) = record(1, &identity, &frames);
    block_on(recorder.finish(START)).unwrap();
    let (found, _) = decode(&whole(sink.as_ref(), 1, Part::Sealed), &identity, 100);
    let times: Vec<_> = found.iter().map(|timed| timed.at.as_millis()).collect();
    assert_eq!(times, [5000, 5000, 6000]);
}

#[test]
fn attack_47_a_huge_single_write_is_recorded_whole() {
    let identity = Identity::generate();
    let bulk: Vec<u8> = (0..3_500_000_u32)
        .flat_map(|it| it.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(3_500_000)
        .collect();
    let (file, summary) = seal(1, &identity, &[at(1, Frame::stdout(0, bulk.clone()))]);
    let recording = Recording::open(&file[..], vec![identity]).unwrap();
    let mut joined = Vec::new();
    for timed in recording {
        if let Frame::Output { data, .. } = timed.unwrap().frame {
            joined.extend_from_slice(&data);
        }
    }
    assert!(joined == bulk);
    assert_eq!(summary.frames, 4);
    assert!(
        summary.bytes * 100 <= 101 * bulk.len() as u64,
        "at most 1.01 bytes a byte shown"
    );
}

#[test]
fn repetitive_output_shrinks_and_is_indexed() {
    let identity = Identity::generate();
    let mut rng = 1_u32;
    let mut frames = Vec::new();
    for number in 0..300 {
        let noise = std::iter::repeat_with(|| {
            rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            [b'a', b'b', b'c', b'd', b'e', b'f', b'g', b'h'][(rng >> 24) as usize % 8]
        });
        frames.push(at(
            number * 10,
            Frame::stdout(0, noise.take(16_384).collect::<Vec<_>>()),
        ));
    }
    let (file, summary) = seal(1, &identity, &frames);
    assert!(summary.bytes < 300 * 16_384 / 2, "{}", summary.bytes);
    let (found, ending) = decode(&file, &identity, 10_000);
    assert_eq!(found, frames);
    let Ok(Ending::Sealed { index, .. }) = ending else {
        panic!("{ending:?}");
    };
    assert!(index.len() > 1 && index.is_sorted_by_key(|it| (it.offset, it.number, it.at)));
    for entry in index {
        assert_eq!(file[entry.offset as usize], 1, "a chunk begins there");
    }
}

#[test]
fn attack_48_a_dead_recorder_loses_no_whole_chunk_at_any_cut() {
    for session in [session(), bulk()] {
        dead_at_any_cut(&session);
    }
}

fn dead_at_any_cut(session: &[Timed]) {
    let identity = Identity::generate();
    let (sink, _dead) = record(1, &identity, session);
    let journal = whole(sink.as_ref(), 1, Part::Journal);
    let id = header(1).session_id;
    let mut most = 0;
    for cut in 0..=journal.len() {
        let (before, _) = decode(&journal[..cut], &identity, 4096);
        let sink = MemorySink::new();
        block_on(sink.open(&id, &journal[..cut])).unwrap();
        match block_on(recover(&sink, id, signer().as_ref())) {
            Err(RecordError::Journal(_)) => assert!(before.is_empty(), "{cut}"),
            other => {
                let summary = other.unwrap();
                let file = whole(&sink, 1, Part::Sealed);
                let (after, ending) = decode(&file, &identity, 4096);
                assert!(after == before, "{cut}");
                assert!(
                    matches!(ending, Ok(Ending::Recovered { dropped, .. }) if dropped == summary.dropped)
                );
                let verified = verify(&file[..], &[trusted()]).unwrap();
                assert!(verified.recovered && verified.digest == summary.digest);
                assert_eq!(block_on(sink.list(Part::Journal)), Ok(vec![]));
                most = most.max(after.len());
            }
        }
    }
    assert_eq!(most, session.len());
}

#[test]
fn attack_48_rubbish_behind_a_torn_journal_is_counted_not_kept() {
    let identity = Identity::generate();
    let (sink, _dead) = record(1, &identity, &session());
    let id = header(1).session_id;
    block_on(sink.append(&id, &[0; 3_000_000])).unwrap();
    let summary = block_on(recover(sink.as_ref(), id, signer().as_ref())).unwrap();
    assert_eq!((summary.dropped, summary.frames), (3_000_000, 8));
    let (frames, _) = decode(&whole(sink.as_ref(), 1, Part::Sealed), &identity, 4096);
    assert_eq!(frames, session());
}

#[derive(Debug, Default)]
struct Fault {
    fail: AtomicBool,
    lose: AtomicBool,
    /// Half of what is appended arrives all the same where it fails.
    arrives: AtomicBool,
}

#[async_trait]
impl Obstacle for Fault {
    async fn meet(
        &self,
        id: &SessionId,
        step: Step<'_>,
        kept: &MemorySink,
    ) -> Result<bool, SinkError> {
        let Step::Append(bytes) = step else {
            return self.check().map(|()| true);
        };
        if let Err(error) = self.check() {
            if self.arrives.load(Ordering::Relaxed) {
                kept.append(id, &bytes[..bytes.len() / 2]).await?;
            }
            return Err(error);
        }
        Ok(!self.lose.load(Ordering::Relaxed))
    }

    /// Small pieces, so that chunks are cut between reads.
    fn piece(&self) -> usize {
        10
    }
}

impl Fault {
    fn check(&self) -> Result<(), SinkError> {
        if self.fail.load(Ordering::Relaxed) {
            return Err(SinkError::Unavailable("no space left on device".into()));
        }
        Ok(())
    }
}

fn failing() -> (Arc<FaultySink<Fault>>, Recorder) {
    let sink = Arc::new(FaultySink::new(Fault::default()));
    let recipients = [Identity::generate().recipient()];
    let mut rng = StdRng::seed_from_u64(1);
    let opened = Recorder::open(sink.clone(), &header(1), &recipients, signer(), &mut rng);
    (sink, block_on(opened).unwrap())
}

#[test]
fn attack_48_after_a_failed_write_nothing_is_recorded_as_if_nothing_had_been() {
    let (sink, mut recorder) = failing();
    sink.obstacle().fail.store(true, Ordering::Relaxed);
    let failed = block_on(recorder.record(START, Frame::note("lost")));
    assert!(matches!(
        failed,
        Err(RecordError::Sink(SinkError::Unavailable(_)))
    ));
    sink.obstacle().fail.store(false, Ordering::Relaxed);
    let later = block_on(recorder.record(START, Frame::note("later")));
    assert_eq!(later, Err(RecordError::Broken));
    assert_eq!(block_on(recorder.finish(START)), Err(RecordError::Broken));
    assert_eq!(
        block_on(sink.list(Part::Journal)),
        Ok(vec![header(1).session_id])
    );
}

#[test]
fn attack_48_what_could_not_be_written_is_written_again_and_once() {
    // Nothing of it has arrived, or half.
    for arrives in [false, true] {
        let (sink, mut recorder) = failing();
        block_on(recorder.record(START, Frame::note("before"))).unwrap();
        assert_eq!(block_on(recorder.retry()), Ok(()), "nothing to do");
        sink.obstacle().fail.store(true, Ordering::Relaxed);
        sink.obstacle().arrives.store(arrives, Ordering::Relaxed);
        let failed = block_on(recorder.record(START, Frame::note("held")));
        assert!(matches!(failed, Err(RecordError::Sink(_))));
        if !arrives {
            let failed = block_on(recorder.retry());
            assert!(matches!(failed, Err(RecordError::Sink(_))));
        }
        sink.obstacle().fail.store(false, Ordering::Relaxed);
        block_on(recorder.retry()).unwrap();
        block_on(recorder.record(START, Frame::note("after"))).unwrap();
        assert_eq!(recorder.frames(), 3);
        // It reads back with as many frames as were written, or there would be no summary.
        block_on(recorder.finish(START)).unwrap();
    }
}

#[test]
fn attack_49_a_sink_that_loses_frames_is_noticed_at_the_end() {
    let (sink, mut recorder) = failing();
    block_on(recorder.record(START, Frame::note("kept"))).unwrap();
    sink.obstacle().lose.store(true, Ordering::Relaxed);
    block_on(recorder.record(START, Frame::note("lost"))).unwrap();
    let lost = block_on(recorder.finish(START));
    assert_eq!(
        lost,
        Err(RecordError::Lost {
            written: 2,
            found: 1
        })
    );
    assert_eq!(block_on(sink.list(Part::Sealed)), Ok(vec![]));
}

#[test]
fn attack_49_two_recorders_of_one_session_are_refused() {
    let identity = Identity::generate();
    let (sink, _first) = record(1, &identity, &session());
    let mut rng = StdRng::seed_from_u64(2);
    let second = Recorder::open(
        sink,
        &header(1),
        &[identity.recipient()],
        signer(),
        &mut rng,
    );
    let refused = block_on(second).err();
    assert_eq!(
        refused,
        Some(RecordError::Sink(SinkError::Exists(header(1).session_id)))
    );
}

#[derive(Debug)]
struct Refusing;

impl Signer for Refusing {
    fn public_key(&self) -> [u8; 32] {
        [0; 32]
    }
    fn sign(&self, _message: &[u8]) -> Result<[u8; 64], SignError> {
        Err(SignError("the key is locked".into()))
    }
}

#[test]
fn without_a_signature_the_journal_stays_and_can_be_closed_later() {
    let identity = Identity::generate();
    let (sink, _dead) = record(1, &identity, &session());
    let id = header(1).session_id;
    assert!(matches!(
        block_on(recover(sink.as_ref(), id, &Refusing)),
        Err(RecordError::Sign(_))
    ));
    assert!(block_on(recover(sink.as_ref(), id, signer().as_ref())).is_ok());
}

#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: &T) {}
    let identity = Identity::generate();
    let (sink, mut recorder) = record(1, &identity, &[]);
    is_send(&recorder.record(START, Frame::note("")));
    let id = header(1).session_id;
    let signer = signer();
    is_send(&recover(sink.as_ref(), id, signer.as_ref()));
    is_send(&recorder.finish(START));
    let mut rng = StdRng::seed_from_u64(1);
    is_send(&Recorder::open(sink, &header(1), &[], signer, &mut rng));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_output_survives_live_and_sealed(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20)) {
        let identity = Identity::generate();
        let frames: Vec<_> = pieces.into_iter().zip(0_u64..).map(|(data, time)| at(time, Frame::stdout(0, Bytes::from(data)))).collect();
        let (file, _) = seal(1, &identity, &frames);
        let (found, _) = decode(&file, &identity, 333);
        prop_assert_eq!(found, frames);
    }
}
