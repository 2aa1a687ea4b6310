//! File transfers as the session engine records and reports them: the rows of the coverage table that are about files.

use mezite_core::UnixTime;
use mezite_net::ssh::{ChannelKind, Request};
use mezite_rbac::Obligations;

use super::*;
use crate::session::Engine;

#[path = "../../../../fuzz/corpus.rs"]
#[expect(dead_code, reason = "they are replayed elsewhere")]
mod corpora;

/// Keeps a seed for the fuzz targets, as `fuzz/proxy/targets.rs` reads it, if seeds are to be written.
pub(crate) fn keep_seed<'a>(
    target: &str,
    name: &str,
    head: &[u8],
    said: impl Iterator<Item = (bool, &'a [u8])>,
) {
    let mut seed = head.to_vec();
    for (by_client, bytes) in said {
        seed.push(if by_client { b'c' } else { b'n' });
        seed.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        seed.extend(bytes);
    }
    corpora::Corpora("proxy").keep(target, name, &seed);
}

const NOW: UnixTime = UnixTime::from_secs(1_000_000);

/// A session with one channel, 0, whose role lets it copy files.
fn engine(content: bool) -> Engine {
    let mut obligations = Obligations {
        file_copy: true,
        ..Obligations::default()
    };
    obligations.record.file_content = content;
    let mut engine = Engine::new(obligations, UnixTime::from_secs(2_000_000), NOW);
    assert!(engine.open(&ChannelKind::Session, NOW).is_ok());
    engine
}

fn client(engine: &mut Engine, data: &[u8]) -> Vec<Effect> {
    let data = Bytes::copy_from_slice(data);
    engine.client_said(0, Message::Data(data), NOW)
}

fn node(engine: &mut Engine, data: &[u8]) -> Vec<Effect> {
    let data = Bytes::copy_from_slice(data);
    engine.node_said(0, Message::Data(data), NOW)
}

/// An SFTP channel behind its greetings.
fn sftp(content: bool) -> Engine {
    let mut engine = engine(content);
    let start = Request::Subsystem(String::from("sftp"));
    drop(engine.client_said(0, Message::Request(start), NOW));
    drop(client(&mut engine, b"\0\0\0\x05\x01\0\0\0\x03"));
    drop(node(&mut engine, b"\0\0\0\x05\x02\0\0\0\x03"));
    engine
}

/// A request to remove `f`, and its answer.
const REMOVE: &[u8] = b"\0\0\0\x0a\x0d\0\0\0\x01\0\0\0\x01f";
const DONE: &[u8] = b"\0\0\0\x11\x65\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0";

fn words(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Record(Frame::File { operation, .. }) => format!("record {operation}"),
            Effect::Record(Frame::Content {
                file, offset, data, ..
            }) => {
                format!("record #{file} at {offset}: {}", data.escape_ascii())
            }
            Effect::Record(Frame::Output { stream, .. }) => format!("record {stream:?}"),
            Effect::Record(Frame::Channel { what, .. }) => format!("record {what:?}"),
            Effect::Record(_) => "record".to_owned(),
            Effect::Report(Fact::Files(fact)) => {
                format!(
                    "report {} of {}",
                    fact.attempts,
                    fact.operation.action.as_str()
                )
            }
            Effect::Report(Fact::FilesUnreadable(why)) => format!("report {why}"),
            Effect::Report(_) => "report".to_owned(),
            Effect::ToClient(Message::Data(_)) => "show".to_owned(),
            Effect::ToNode(Message::Data(_)) => "pass on".to_owned(),
            Effect::ToClient(_) | Effect::ToNode(_) | Effect::End(_) => format!("{effect:?}"),
        })
        .collect()
}

#[test]
fn sftp_operations_are_recorded_before_their_answer_is_shown() {
    let mut engine = sftp(false);
    assert_eq!(words(&client(&mut engine, REMOVE)), ["pass on"]);
    let expected = ["record remove `f`: ok", "report 1 of remove", "show"];
    assert_eq!(words(&node(&mut engine, DONE)), expected);
    // The last byte of an answer waits for its record, wherever it is cut.
    assert_eq!(words(&client(&mut engine, REMOVE)), ["pass on"]);
    let (most, last) = DONE.split_at(DONE.len() - 1);
    assert_eq!(words(&node(&mut engine, most)), ["show"]);
    assert_eq!(words(&node(&mut engine, last)), expected);
}

#[test]
fn questions_are_recorded_and_not_reported() {
    let mut engine = sftp(false);
    let stat = REMOVE
        .iter()
        .enumerate()
        .map(|(at, byte)| if at == 4 { 17 } else { *byte });
    assert_eq!(
        words(&client(&mut engine, &stat.collect::<Vec<u8>>())),
        ["pass on"]
    );
    let mut missing = DONE.to_vec();
    missing[12] = 2;
    let expected = ["record stat `f`: no such file", "show"];
    assert_eq!(words(&node(&mut engine, &missing)), expected);
}

#[test]
fn attack_54_file_operations_cannot_fill_the_log() {
    let mut engine = sftp(false);
    let mut recorded = 0;
    let mut reported = Vec::new();
    let count = 10_000;
    for _ in 0..count {
        drop(client(&mut engine, REMOVE));
        for effect in node(&mut engine, DONE) {
            recorded += u64::from(matches!(effect, Effect::Record(Frame::File { .. })));
            if let Effect::Report(Fact::Files(fact)) = effect {
                reported.push(fact.attempts);
            }
        }
    }
    assert_eq!(recorded, count, "the recording has each");
    for effect in engine.closed(0, NOW) {
        if let Effect::Report(Fact::Files(fact)) = effect {
            reported.push(fact.attempts);
        }
    }
    assert_eq!(reported.len(), 100 + 9 + 1);
    assert_eq!(reported.iter().sum::<u64>(), count, "nothing is lost");
}

#[test]
fn attack_70_a_stream_that_cannot_be_read_ends_its_channel() {
    for by_client in [true, false] {
        let mut engine = sftp(false);
        let bad = b"\xff\xff\xff\xff";
        let effects = if by_client {
            client(&mut engine, bad)
        } else {
            node(&mut engine, bad)
        };
        let why = "the SFTP stream cannot be recorded and was ended: a packet of 4294967295 bytes: expected 1 to 262144";
        let shown = words(&effects);
        assert_eq!(
            shown[..2],
            [format!("report {why}"), "record Stderr".to_owned()]
        );
        let passed = effects.iter().any(|it| {
            matches!(
                it,
                Effect::ToNode(Message::Data(_)) | Effect::ToClient(Message::Data(_))
            )
        });
        assert!(!passed, "{shown:?}");
        assert!(effects.contains(&Effect::ToNode(Message::Close)));
        assert!(effects.contains(&Effect::ToClient(Message::Close)));
        assert_eq!(client(&mut engine, REMOVE), []);
        assert_eq!(node(&mut engine, DONE), []);
        assert_eq!(engine.client_said(0, Message::Close, NOW), []);
        assert_eq!(
            words(&engine.closed(0, NOW)).last().map(String::as_str),
            Some("record Closed")
        );
    }
}

#[test]
fn scp_is_recorded_by_its_operations() {
    for content in [false, true] {
        let mut engine = engine(content);
        let start = Request::Exec(b"scp -t /srv".to_vec());
        let started = engine.client_said(0, Message::Request(start), NOW);
        assert_eq!(
            started.len(),
            3,
            "the command is an event, recorded and passed on"
        );
        assert_eq!(words(&node(&mut engine, b"\0")), ["show"]);
        assert_eq!(words(&client(&mut engine, b"C0644 2 f\n")), ["pass on"]);
        assert_eq!(words(&node(&mut engine, b"\0")), ["show"]);
        let kept = ["record #1 at 0: hi", "pass on"];
        let kept = if content { &kept[..] } else { &kept[1..] };
        assert_eq!(words(&client(&mut engine, b"hi")), kept);
        assert_eq!(words(&client(&mut engine, b"\0")), ["pass on"]);
        let effects = words(&node(&mut engine, b"\0"));
        assert!(
            effects[0].starts_with("record copy #1 `f` -> `/srv`"),
            "{effects:?}"
        );
        assert_eq!(effects[1..], ["report 1 of copy", "show"]);
    }
}

#[test]
fn attack_45_a_command_that_only_looks_like_scp_is_recorded_in_full() {
    for (line, pty) in [("scp -t x; bash", false), ("scp -t x", true)] {
        let mut engine = engine(false);
        if pty {
            let request = Request::Pty {
                term: String::new(),
                size: mezite_net::ssh::WindowSize {
                    cols: 80,
                    rows: 24,
                    width: 0,
                    height: 0,
                },
                modes: Vec::new(),
            };
            drop(engine.client_said(0, Message::Request(request), NOW));
        }
        let start = Request::Exec(line.as_bytes().to_vec());
        drop(engine.client_said(0, Message::Request(start), NOW));
        assert_eq!(
            words(&node(&mut engine, b"root# ")),
            ["record Stdout", "show"]
        );
    }
}
