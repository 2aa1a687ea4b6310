//! What each fuzz target does with its input. The tests of mezite-record include this file too and feed it the corpora,
//! so that what was found once is found again without a fuzzer.

use std::io::Cursor;

use mezite_core::{NodeId, SessionId, Span, UnixTime};
use mezite_record::export::{self, Options};
use mezite_record::play::{Filter, Timeline};
use mezite_record::search::{self, Query};
use mezite_record::{
    ChannelEvent, Decoded, Decoder, Frame, Header, Identity, ReadError, Recording, Timed, decode,
    verify,
};

/// A published test key of the age project: the corpora are sealed to it.
pub(crate) const IDENTITY: &str =
    "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

pub(crate) fn identity() -> Identity {
    IDENTITY.parse().unwrap()
}

/// Any bytes as a recording: decoded in pieces of two sizes with the same outcome, verified, sought in, indexed.
pub(crate) fn decode(data: &[u8]) {
    let read = |step: usize| {
        let mut decoder = Decoder::new(vec![identity()]);
        let mut frames = Vec::new();
        for piece in data.chunks(step) {
            decoder.feed(piece);
            loop {
                match decoder.next() {
                    Ok(Some(Decoded::Frame(timed))) => frames.push(timed),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        (frames, Ok(decoder.ending()))
    };
    let (whole, in_pieces) = (read(usize::MAX), read(7));
    assert_eq!(whole.0, in_pieces.0, "pieces change what is read");
    assert!(
        whole.0.is_sorted_by_key(|timed| timed.at),
        "time runs forward"
    );
    assert!(
        verify(data, &[[0; 32]]).is_err(),
        "a key that signed nothing"
    );
    if let Ok(mut recording) = Recording::open(Cursor::new(data), vec![identity()])
        && recording.seek(Span::from_millis(500)).is_ok()
    {
        let _any_verdict = recording.by_ref().map_while(Result::ok).count();
    }
}

/// Any bytes as the beginning of a recording, with the wrapped key in it: what a hub reads before it knows anything.
pub(crate) fn head(data: &[u8]) {
    let facts = decode::facts(data);
    let unlocked = decode::unlock(data, &[identity()]);
    if let Ok((header, _)) = unlocked {
        assert_eq!(facts, Ok(header));
    }
}

/// Any bytes as a search index.
pub(crate) fn index(data: &[u8]) {
    let query = Query::new("e", true).unwrap();
    let _any_verdict = search::facts(data);
    if let Ok(found) = search::search(data, &[identity()], &query, 5) {
        assert!(found.hits.len() <= 5);
        assert!(
            found
                .hits
                .iter()
                .all(|hit| hit.line.to_lowercase().contains('e'))
        );
    }
}

/// Any bytes as what a program wrote: exports, player and reader take it, and nothing that commands a terminal comes out.
pub(crate) fn export(data: &[u8]) {
    let frames = session(data);
    let read = || frames.iter().cloned().map(Ok::<_, ReadError>);
    let options = Options::default();
    let [mut two, mut three, mut text, mut lines]: [Vec<u8>; 4] = Default::default();
    export::asciicast_v2(&header(), read(), options, &mut two).unwrap();
    export::asciicast_v3(&header(), read(), options, &mut three).unwrap();
    export::text(&header(), read(), options, &mut text).unwrap();
    export::json(&header(), read(), options, &mut lines).unwrap();
    let text = String::from_utf8(text).unwrap();
    let kept = |it: char| it == '\n' || !it.is_control();
    assert!(text.chars().all(kept), "a transcript has no controls");
    for cast in [two, three] {
        let cast = String::from_utf8(cast).unwrap();
        assert!(
            !cast.contains("\\u001b]") && !cast.contains("\\u001bP"),
            "{cast}"
        );
    }
    let mut timeline = Timeline::collect(read(), None).unwrap();
    for to in [5, 0, 20, 3] {
        let painted = timeline.seek(Span::from_millis(to));
        assert_eq!(Filter::new().push(&painted), painted, "only what paints");
    }
}

/// A session on a terminal that writes the input in pieces.
fn session(data: &[u8]) -> Vec<Timed> {
    let (shape, output) = data.split_at(data.len().min(4));
    let at = |index: usize| u32::from(shape.get(index).copied().unwrap_or(1));
    let at_time = |millis: usize, frame| Timed {
        at: Span::from_millis(u64::try_from(millis).unwrap()),
        frame,
    };
    let mut frames = Vec::new();
    if at(0) % 4 != 0 {
        let pty = ChannelEvent::Pty {
            term: "xterm".to_owned(),
            cols: at(1),
            rows: at(2),
        };
        frames.push(at_time(0, Frame::channel(0, pty)));
    }
    let step = usize::try_from(at(3)).unwrap().max(1);
    for (number, piece) in output.chunks(step).enumerate() {
        frames.push(at_time(number, Frame::stdout(0, piece.to_vec())));
        if number % 5 == 4 {
            let (cols, rows) = (at(2) * 3, at(1));
            let size = Frame::Resize {
                channel: 0,
                cols,
                rows,
            };
            frames.push(at_time(number, size));
        }
    }
    frames
}

pub(crate) fn header() -> Header {
    let started = UnixTime::from_secs(1_700_000_000);
    Header {
        session_id: SessionId::new(started, [1; 16]),
        cluster: "example".parse().unwrap(),
        user: "alice".parse().unwrap(),
        node_id: NodeId::new([2; 16]),
        node: "db-1".parse().unwrap(),
        login: "root".parse().unwrap(),
        started,
        source: None,
    }
}
