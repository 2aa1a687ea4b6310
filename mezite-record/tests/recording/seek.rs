//! Seeking by time, in frames and on screens.
use std::io::Cursor;

use crate::common::{at, header, record, seal, signer, whole};
use mezite_core::Span;
use mezite_record::export::{Options, asciicast_v2, asciicast_v3};
use mezite_record::play::Timeline;
use mezite_record::sink::conformance::block_on;
use mezite_record::{ChannelEvent, Frame, Identity, Part, ReadError, Recording, Timed, recover};
use serde_json::Value;

/// Five minutes of output that does not compress, one piece a second.
fn long() -> Vec<Timed> {
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..300)
        .map(|second| {
            let bytes: Vec<u8> = std::iter::repeat_with(&mut noise).take(16_384).collect();
            at(second * 1000, Frame::stdout(0, bytes))
        })
        .collect()
}

#[test]
fn seeking_gives_the_same_frames_without_reading_what_lies_before() {
    let identity = Identity::generate();
    let frames = long();
    let sealed = seal(1, &identity, &frames).0;
    let (sink, _dead) = record(1, &identity, &frames);
    block_on(recover(
        sink.as_ref(),
        header(1).session_id,
        signer().as_ref(),
    ))
    .unwrap();
    let recovered = whole(sink.as_ref(), 1, Part::Sealed);
    for file in [sealed, recovered] {
        let identity = identity.to_secret_text().expose().parse().unwrap();
        let mut recording = Recording::open(Cursor::new(&file), vec![identity]).unwrap();
        for to in [150_000, 0, 299_999, 1_000_000, 1] {
            recording.seek(Span::from_millis(to)).unwrap();
            let found: Vec<Timed> = recording.by_ref().map(Result::unwrap).collect();
            assert!(found.len() <= frames.len());
            assert_eq!(found, frames[frames.len() - found.len()..], "from {to}");
            let early = to.min(299_000).saturating_sub(found[0].at.as_millis());
            assert!(
                found[0].at.as_millis() <= to && early < 150_000,
                "{to}: {early}"
            );
        }
    }
}

#[test]
fn what_is_still_written_has_no_index() {
    let identity = Identity::generate();
    let (sink, _live) = record(1, &identity, &long()[..3]);
    let journal = whole(sink.as_ref(), 1, Part::Journal);
    let mut recording = Recording::open(Cursor::new(&journal), vec![identity]).unwrap();
    let refused = recording.seek(Span::from_secs(1));
    assert!(matches!(refused, Err(ReadError::Decode(_))), "{refused:?}");
}

#[test]
fn attack_51_a_forged_index_leads_to_an_error_not_to_other_content() {
    let identity = Identity::generate();
    let frames = long();
    let file = seal(1, &identity, &frames).0;
    let footer =
        file.len() - u32::from_be_bytes(file[file.len() - 12..][..4].try_into().unwrap()) as usize;
    for place in (footer..file.len()).step_by(3) {
        let mut edited = file.clone();
        edited[place] ^= 0x04;
        let identity = identity.to_secret_text().expose().parse().unwrap();
        let mut recording = Recording::open(Cursor::new(&edited), vec![identity]).unwrap();
        if recording.seek(Span::from_secs(150)).is_ok()
            && let Some(Ok(first)) = recording.next()
        {
            assert_eq!(first, frames[usize::try_from(first.at.as_secs()).unwrap()]);
        }
    }
}

/// A session with an editor, colours, a resize and scrolling.
fn screens() -> Vec<Timed> {
    let pty = ChannelEvent::Pty {
        term: "xterm".into(),
        cols: 60,
        rows: 12,
    };
    let mut frames = vec![at(0, Frame::channel(0, pty))];
    for second in 1..=40_u64 {
        let text = match second {
            10 => "\u{1b}[?1049h\u{1b}[2J\u{1b}[1;1H~\r\n~\u{1b}[5;10Hedit \u{1b}[7mthis\u{1b}[0m"
                .to_owned(),
            20 => "\u{1b}[?1049l".to_owned(),
            // Emulators do not agree on where margins leave the cursor; programs say it.
            30 => "\u{1b}[2J\u{1b}[3;5r\u{1b}[H".to_owned(),
            _ => format!(
                "\u{1b}[3{}mline {second}\u{1b}[0m grün \u{4f60}\r\n",
                second % 8
            ),
        };
        frames.push(at(second * 1000, Frame::stdout(0, text)));
        if second == 25 {
            frames.push(at(
                25_500,
                Frame::Resize {
                    channel: 0,
                    cols: 40,
                    rows: 8,
                },
            ));
        }
    }
    frames
}

/// A terminal that is not the library's.
fn judge(cols: u16, rows: u16) -> vt100::Parser {
    vt100::Parser::new(rows.try_into().unwrap(), cols.try_into().unwrap(), 0)
}

/// Its lines, without blanks behind them.
fn seen(judge: &vt100::Parser) -> Vec<String> {
    let contents = judge.screen().contents();
    let lines = contents.lines().map(|line| line.trim_end().to_owned());
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn cast(version: u8) -> Vec<(u64, String, String)> {
    let mut out = Vec::new();
    let frames = screens().into_iter().map(Ok);
    let options = Options::default();
    match version {
        2 => asciicast_v2(&header(1), frames, options, &mut out).unwrap(),
        _ => asciicast_v3(&header(1), frames, options, &mut out).unwrap(),
    }
    let mut before = 0;
    let lines = std::str::from_utf8(&out).unwrap().lines().skip(1);
    lines
        .map(|line| {
            let event: Vec<Value> = serde_json::from_str(line).unwrap();
            let millis = (event[0].as_f64().unwrap() * 1000.0).round() as u64;
            before = if version == 3 {
                before + millis
            } else {
                millis
            };
            let text = |it: &Value| it.as_str().unwrap().to_owned();
            (before, text(&event[1]), text(&event[2]))
        })
        .collect()
}

/// Player and exports show the same at ten places, on a terminal emulator that neither of them uses.
#[test]
fn player_and_casts_show_the_same_screens() {
    let mut timeline =
        Timeline::collect(screens().into_iter().map(Ok::<_, ReadError>), None).unwrap();
    for to in [
        500, 3_000, 9_999, 10_000, 15_200, 20_000, 25_600, 29_000, 33_333, 40_000,
    ] {
        let (mut cols, mut rows) = (60, 12);
        if to > 25_500 {
            (cols, rows) = (40, 8);
        }
        let mut played = judge(cols, rows);
        played.process(timeline.seek(Span::from_millis(to)).as_bytes());
        for version in [2, 3] {
            let mut shown = judge(60, 12);
            for (at, code, data) in cast(version) {
                if at > to {
                    break;
                }
                match code.as_str() {
                    "o" => shown.process(data.as_bytes()),
                    "r" => {
                        let (cols, rows) = data.split_once('x').unwrap();
                        shown
                            .screen_mut()
                            .set_size(rows.parse().unwrap(), cols.parse().unwrap());
                    }
                    _ => {}
                }
            }
            assert_eq!(seen(&played), seen(&shown), "at {to}, version {version}");
        }
    }
    assert_eq!(timeline.step(), None);
}
