//! The exports of one small session, and of hostile ones.

use bytes::Bytes;
use mezite_core::{NodeId, SessionId, Span, UnixTime};
use serde_json::{Value, json as value};

use super::*;
use crate::file::tests::upload;
use crate::file::{FileAction, FileOperation, Outcome};
use crate::format::Header;
use crate::frame::{ChannelEvent, Frame, Timed};

fn header() -> Header {
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

fn at(millis: u64, frame: Frame) -> Timed {
    Timed {
        at: Span::from_millis(millis),
        frame,
    }
}

fn pty(cols: u32, rows: u32) -> Frame {
    let term = "xterm-256color".into();
    Frame::channel(0, ChannelEvent::Pty { term, cols, rows })
}

fn cast(frames: Vec<Timed>, options: Options) -> Vec<Value> {
    let mut out = Vec::new();
    asciicast_v2(&header(), frames.into_iter().map(Ok), options, &mut out).unwrap();
    let lines = std::str::from_utf8(&out).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn transcript(frames: Vec<Timed>) -> String {
    let mut out = Vec::new();
    text(
        &header(),
        frames.into_iter().map(Ok),
        Options::default(),
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn asciicast_of_a_terminal() {
    let frames = vec![
        at(0, pty(120, 40)),
        at(5, Frame::channel(0, ChannelEvent::Shell)),
        at(10, Frame::stdout(0, b"h\xc3".to_vec())),
        at(20, Frame::input(0, "secret")),
        at(1030, Frame::stdout(0, b"\xa4\r\n\xff".to_vec())),
        at(
            61_500,
            Frame::Resize {
                channel: 0,
                cols: 80,
                rows: 24,
            },
        ),
        at(62_000, Frame::stdout(1, "of another channel")),
        at(62_001, Frame::stdout(0, b"\xe2\x82".to_vec())),
    ];
    let expected = vec![
        value!({"version": 2, "width": 120, "height": 40, "timestamp": 1_700_000_000, "title": "alice as root@db-1",
            "env": {"TERM": "xterm-256color"}}),
        value!([0.01, "o", "h"]),
        value!([1.03, "o", "ä\r\n\u{fffd}"]),
        value!([61.5, "r", "80x24"]),
        value!([62.001, "o", "\u{fffd}"]),
    ];
    assert_eq!(cast(frames, Options::default()), expected);
}

#[test]
fn asciicast_of_a_command_without_terminal_gets_carriage_returns() {
    let exec = ChannelEvent::Exec {
        command: "ls".into(),
    };
    let frames = vec![
        at(0, Frame::channel(3, exec)),
        at(1, Frame::stdout(3, "a\nb\r")),
        at(2, Frame::stderr(3, "\nc\n")),
    ];
    let found = cast(frames, Options::default());
    assert_eq!(found[0]["command"], "ls");
    assert_eq!(
        (&found[0]["width"], &found[0]["height"]),
        (&value!(80), &value!(24))
    );
    assert_eq!(
        found[1..],
        [
            value!([0.0, "m", "ls"]),
            value!([0.001, "o", "a\r\nb\r"]),
            value!([0.002, "o", "\nc\r\n"])
        ]
    );
}

#[test]
fn asciicast_of_nothing_has_a_header() {
    assert_eq!(cast(vec![], Options::default()).len(), 1);
}

#[test]
fn asciicast_v3_counts_from_the_event_before() {
    let exec = ChannelEvent::Exec {
        command: "make".into(),
    };
    let frames = vec![
        at(0, Frame::note("a remark before there is a size")),
        at(5, pty(120, 40)),
        at(5, Frame::channel(0, exec)),
        at(1000, Frame::stdout(0, "a")),
        at(1500, Frame::stdout(0, "b")),
        at(61_500, Frame::channel(0, ChannelEvent::Exit { status: 2 })),
    ];
    let mut out = Vec::new();
    let options = Options::default();
    asciicast_v3(&header(), frames.into_iter().map(Ok), options, &mut out).unwrap();
    let lines = std::str::from_utf8(&out).unwrap().lines();
    let found: Vec<Value> = lines.map(|it| serde_json::from_str(it).unwrap()).collect();
    let expected = [
        value!({"version": 3, "term": {"cols": 120, "rows": 40, "type": "xterm-256color"},
            "timestamp": 1_700_000_000, "command": "make", "title": "alice as root@db-1"}),
        value!([0.0, "m", "a remark before there is a size"]),
        value!([0.005, "m", "make"]),
        value!([0.995, "o", "a"]),
        value!([0.5, "o", "b"]),
        value!([60.0, "x", "2"]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn asciicast_gives_the_channel_that_is_asked_for() {
    let frames = vec![at(0, Frame::stdout(0, "a")), at(1, Frame::stdout(1, "b"))];
    let options = Options {
        channel: Some(1),
        verbatim: false,
    };
    assert_eq!(cast(frames, options)[1..], [value!([0.001, "o", "b"])]);
}

#[test]
fn attack_47_sizes_are_ones_a_player_can_hold() {
    let resize = |cols, rows| Frame::Resize {
        channel: 0,
        cols,
        rows,
    };
    let frames = vec![
        at(0, pty(0, 0)),
        at(1, resize(65_535, u32::MAX)),
        at(2, resize(0, 10)),
    ];
    let found = cast(frames, Options::default());
    assert_eq!(
        (&found[0]["width"], &found[0]["height"]),
        (&value!(80), &value!(24))
    );
    assert_eq!(found[1..], [value!([0.001, "r", "1000x1000"])]);
}

#[test]
fn attack_50_an_export_does_not_command_the_terminal_unless_asked() {
    let hostile = "a\u{1b}]52;c;eA==\u{7}\u{1b}[6nb";
    let frames = || vec![at(0, pty(80, 24)), at(1, Frame::stdout(0, hostile))];
    assert_eq!(cast(frames(), Options::default())[1][2], "ab");
    let verbatim = Options {
        channel: None,
        verbatim: true,
    };
    assert_eq!(cast(frames(), verbatim)[1][2], hostile);
    assert!(!transcript(frames()).contains('\u{1b}'));
}

#[test]
fn transcript_shows_events_and_plain_text() {
    let exec = ChannelEvent::Exec {
        command: "ls\n\u{1b}[2J".into(),
    };
    let frames = vec![
        at(0, Frame::channel(0, exec)),
        at(1500, Frame::stdout(0, "one\r\ntw\u{1b}[1mo\u{1b}[0m\r")),
        at(1600, Frame::stdout(0, "over")),
        at(1700, Frame::stderr(0, "oops\n")),
        at(
            3_723_004,
            Frame::channel(0, ChannelEvent::Exit { status: 2 }),
        ),
        at(3_723_005, Frame::note("ended")),
    ];
    let id = header().session_id;
    let expected = format!(
        "session {id} of alice as root@db-1 from 2023-11-14T22:13:20.000Z\n\
         00:00:00.000 channel 0: exec `ls\\n\\u{{1b}}[2J`\n    one\n  ! oops\n    over\n\
         01:02:03.004 channel 0: exit status 2\n01:02:03.005 ended\n"
    );
    assert_eq!(transcript(frames), expected);
}

#[test]
fn attack_56_output_cannot_pose_as_a_mark() {
    let fake = "00:00:00.000 channel 0: exit status 0\n";
    let found = transcript(vec![at(0, Frame::stdout(0, format!("\n{fake}")))]);
    assert!(
        found.lines().skip(1).all(|line| line.starts_with("    ")),
        "{found}"
    );
}

#[test]
fn json_lines_are_exact() {
    let frames = vec![
        at(0, pty(80, 24)),
        at(1, Frame::stdout(0, "ä")),
        at(2, Frame::stderr(0, b"\xff".to_vec())),
        at(
            3,
            Frame::channel(
                0,
                ChannelEvent::Exec {
                    command: b"\xff".to_vec().into(),
                },
            ),
        ),
        at(4, Frame::note("n")),
    ];
    let mut out = Vec::new();
    json(
        &header(),
        frames.into_iter().map(Ok),
        Options::default(),
        &mut out,
    )
    .unwrap();
    let lines: Vec<Value> = std::str::from_utf8(&out)
        .unwrap()
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(lines[0]["type"], "header");
    assert_eq!(lines[0]["started"], "2023-11-14T22:13:20.000Z");
    assert_eq!(
        lines[2],
        value!({"type": "output", "stream": "stdout", "channel": 0, "at_ms": 1, "text": "ä"})
    );
    assert_eq!(
        lines[3],
        value!({"type": "output", "stream": "stderr", "channel": 0, "at_ms": 2, "base64": "/w=="})
    );
    assert_eq!(
        lines[4],
        value!({"type": "exec", "channel": 0, "at_ms": 3, "command_base64": "/w=="})
    );
    assert_eq!(lines[5], value!({"type": "note", "at_ms": 4, "text": "n"}));
}

/// A file that was written, its content, and a name that is not UTF-8.
fn file_frames() -> Vec<Timed> {
    let upload = upload();
    let odd = FileOperation {
        action: FileAction::Open,
        path: Bytes::from_static(b"\xff"),
        flags: 1,
        written: None,
        outcome: Outcome::Unanswered,
        ..upload.clone()
    };
    let operation = |operation| Frame::File {
        channel: 0,
        operation: Box::new(operation),
    };
    let content = Frame::Content {
        channel: 0,
        file: 1,
        to_node: true,
        offset: 7,
        data: Bytes::from_static(b"abc"),
    };
    let name = "sftp".into();
    vec![
        at(0, Frame::channel(0, ChannelEvent::Subsystem { name })),
        at(1, content),
        at(2, operation(upload)),
        at(3, operation(odd)),
    ]
}

#[test]
fn json_of_file_operations_is_exact() {
    let mut out = Vec::new();
    json(
        &header(),
        file_frames().into_iter().map(Ok),
        Options::default(),
        &mut out,
    )
    .unwrap();
    let lines = std::str::from_utf8(&out).unwrap().lines().skip(2);
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let digest = "ab".repeat(32);
    assert_eq!(
        lines,
        [
            value!({ "at_ms": 1, "channel": 0, "type": "content", "file": 1, "direction": "written", "offset": 7, "text": "abc" }),
            value!({ "at_ms": 2, "channel": 0, "type": "file", "protocol": "sftp", "action": "close", "file": 1,
                "path": "/srv/new\nname", "status": 0,
                "written": { "bytes": 3, "whole": true, "sha256": digest, "ranges": [[0, 3]], "more_ranges": false } }),
            value!({ "at_ms": 3, "channel": 0, "type": "file", "protocol": "sftp", "action": "open", "file": 1,
                "path_base64": "/w==", "flags": ["read"] }),
        ]
    );
}

#[test]
fn transcript_and_cast_tell_file_operations() {
    let text = transcript(file_frames());
    let digest = "ab".repeat(32);
    let line = format!("close #1 `/srv/new\\nname`, wrote 3 bytes SHA-256 {digest}: ok");
    assert!(
        text.contains(&format!("00:00:00.002 channel 0: {line}\n")),
        "{text}"
    );
    assert!(
        text.contains("open #1 `\u{fffd}` read: not answered\n"),
        "{text}"
    );
    let shown = cast(file_frames(), Options::default());
    assert_eq!(
        shown[2],
        value!([0.002, "o", format!("[{line}]\r\n")]),
        "{shown:?}"
    );
}
