//! One test per row of the coverage table in README.md, then what holds for every session.

use bytes::Bytes;
use mezite_net::ssh::{ChannelKind, Message, OpenFailure, Request, WindowSize, X11};
use mezite_rbac::{Obligations, OnFailure, RecordObligation};
use mezite_record::{ChannelEvent, Frame, Stream};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

mod forwards;
mod told;

const NOW: UnixTime = UnixTime::from_secs(1_000_000);
const EXPIRES: UnixTime = UnixTime::from_secs(1_003_600);
const SIZE: WindowSize = WindowSize {
    cols: 80,
    rows: 24,
    width: 0,
    height: 0,
};

fn obligations() -> Obligations {
    Obligations::default()
}

/// A session with one open channel, which has the number 0.
fn opened_with(obligations: Obligations) -> Engine {
    let mut engine = Engine::new(obligations, EXPIRES, NOW);
    let (number, _) = engine.open(&ChannelKind::Session, NOW).unwrap();
    assert_eq!(number, 0);
    engine
}

fn opened() -> Engine {
    opened_with(obligations())
}

fn ask(engine: &mut Engine, request: Request) -> Vec<Effect> {
    engine.client_said(0, Message::Request(request), NOW)
}

fn type_in(engine: &mut Engine, data: impl Into<Bytes>) -> Vec<Effect> {
    engine.client_said(0, Message::Data(data.into()), NOW)
}

fn pty() -> Request {
    Request::Pty {
        term: String::from("xterm"),
        size: SIZE,
        modes: vec![(53, 1)],
    }
}

fn exec(command: &str) -> Request {
    Request::Exec(command.as_bytes().to_vec())
}

fn x11() -> Request {
    Request::X11(X11 {
        single: false,
        protocol: String::from("MIT-MAGIC-COOKIE-1"),
        cookie: String::from("5ec7e7"),
        screen: 0,
    })
}

fn happened(what: ChannelEvent) -> Effect {
    Effect::Record(Frame::Channel { channel: 0, what })
}

fn passed_on(request: Request) -> Effect {
    Effect::ToNode(Message::Request(request))
}

fn refused() -> Vec<Effect> {
    vec![Effect::ToClient(Message::Failure)]
}

#[test]
fn opens_a_session_channel() {
    let mut engine = Engine::new(obligations(), EXPIRES, NOW);
    for expected in 0..2 {
        let (number, effects) = engine.open(&ChannelKind::Session, NOW).unwrap();
        assert_eq!(number, expected);
        let what = ChannelEvent::Opened {
            kind: String::from("session"),
        };
        let frame = Frame::Channel {
            channel: number,
            what,
        };
        assert_eq!(effects, [Effect::Record(frame)]);
    }
}

#[test]
fn attack_30_channels_are_limited_and_numbers_are_not_used_twice() {
    let mut engine = Engine::new(obligations(), EXPIRES, NOW);
    for _ in 0..MAX_CHANNELS {
        assert!(engine.open(&ChannelKind::Session, NOW).is_ok());
    }
    assert_eq!(
        engine.open(&ChannelKind::Session, NOW).unwrap_err(),
        Refusal::new(OpenFailure::Shortage, "too many channels")
    );
    drop(engine.closed(0, NOW));
    let (number, _) = engine.open(&ChannelKind::Session, NOW).unwrap();
    assert_eq!(usize::try_from(number), Ok(MAX_CHANNELS));
}

#[test]
fn a_terminal_is_recorded() {
    let mut engine = opened();
    let event = ChannelEvent::Pty {
        term: String::from("xterm"),
        cols: 80,
        rows: 24,
    };
    assert_eq!(ask(&mut engine, pty()), [happened(event), passed_on(pty())]);
    drop(engine.node_said(0, Message::Success, NOW));
    drop(ask(&mut engine, Request::Shell));
    drop(engine.node_said(0, Message::Success, NOW));
    assert_eq!(ask(&mut engine, pty()), refused(), "too late");
}

#[test]
fn a_command_is_an_event_first() {
    let mut engine = opened();
    let fact = Fact::Exec {
        command: Some(String::from("rm \u{fffd}")),
        pty: false,
    };
    let command = b"rm \xff".to_vec();
    let event = ChannelEvent::Exec {
        command: Bytes::from(command.clone()),
    };
    assert_eq!(
        ask(&mut engine, Request::Exec(command.clone())),
        [
            Effect::Report(fact),
            happened(event),
            passed_on(Request::Exec(command))
        ]
    );
    let mut engine = opened();
    drop(ask(&mut engine, pty()));
    let fact = Fact::Exec {
        command: None,
        pty: true,
    };
    assert_eq!(
        ask(&mut engine, Request::Shell),
        [
            Effect::Report(fact),
            happened(ChannelEvent::Shell),
            passed_on(Request::Shell)
        ]
    );
}

#[test]
fn a_second_start_is_refused() {
    let starts = [
        Request::Shell,
        exec("id"),
        Request::Subsystem(String::from("sftp")),
    ];
    for first in &starts {
        for second in &starts {
            let mut engine = opened_with(Obligations {
                file_copy: true,
                ..obligations()
            });
            assert!(ask(&mut engine, first.clone()).contains(&passed_on(first.clone())));
            drop(engine.node_said(0, Message::Success, NOW));
            assert_eq!(ask(&mut engine, second.clone()), refused());
        }
    }
}

#[test]
fn sftp_needs_file_copy() {
    let sftp = || Request::Subsystem(String::from("sftp"));
    let mut without = opened();
    let effects = ask(&mut without, sftp());
    assert!(matches!(
        effects.as_slice(),
        [
            Effect::Record(Frame::Note { .. }),
            Effect::ToClient(Message::Failure)
        ]
    ));
    let mut with = opened_with(Obligations {
        file_copy: true,
        ..obligations()
    });
    let event = ChannelEvent::Subsystem {
        name: String::from("sftp"),
    };
    assert_eq!(
        ask(&mut with, sftp()),
        [
            Effect::Report(Fact::Subsystem(String::from("sftp"))),
            happened(event),
            passed_on(sftp())
        ]
    );
}

#[test]
fn other_subsystems_are_refused() {
    let mut engine = opened_with(Obligations {
        file_copy: true,
        ..obligations()
    });
    for name in ["netconf", "", "sftp\0", "SFTP"] {
        let effects = ask(&mut engine, Request::Subsystem(String::from(name)));
        assert!(
            matches!(
                effects.as_slice(),
                [
                    Effect::Record(Frame::Note { .. }),
                    Effect::ToClient(Message::Failure)
                ]
            ),
            "{name:?}: {effects:?}"
        );
    }
}

#[test]
fn environment_is_recorded() {
    let mut engine = opened();
    let env = Request::Env {
        name: String::from("LANG"),
        value: String::from("C"),
    };
    let event = ChannelEvent::Env {
        name: String::from("LANG"),
        value: Bytes::from_static(b"C"),
    };
    assert_eq!(
        ask(&mut engine, env.clone()),
        [happened(event), passed_on(env.clone())]
    );
    drop(ask(&mut engine, Request::Shell));
    assert_eq!(ask(&mut engine, env), [], "after the start it says nothing");
}

#[test]
fn a_resize_is_recorded() {
    let mut engine = opened();
    let resize = Request::WindowChange(SIZE);
    assert_eq!(ask(&mut engine, resize.clone()), [], "there is no terminal");
    drop(ask(&mut engine, pty()));
    let frame = Frame::Resize {
        channel: 0,
        cols: 80,
        rows: 24,
    };
    assert_eq!(
        ask(&mut engine, resize.clone()),
        [Effect::Record(frame), passed_on(resize)]
    );
}

#[test]
fn a_signal_is_recorded() {
    let mut engine = opened();
    let signal = Request::Signal(String::from("INT"));
    let event = ChannelEvent::Signal {
        name: String::from("INT"),
    };
    assert_eq!(
        ask(&mut engine, signal.clone()),
        [happened(event), passed_on(signal)]
    );
}

#[test]
fn keystrokes_are_recorded_only_where_the_role_says_so() {
    for (input, recorded) in [(false, false), (true, true)] {
        let mut engine = opened_with(Obligations {
            record: RecordObligation {
                input,
                file_content: false,
                announce_watchers: false,
                on_failure: OnFailure::Terminate,
            },
            ..obligations()
        });
        drop(ask(&mut engine, pty()));
        drop(ask(&mut engine, Request::Shell));
        let effects = type_in(&mut engine, "secret");
        let frame = Effect::Record(Frame::Input {
            channel: 0,
            data: Bytes::from_static(b"secret"),
        });
        assert_eq!(effects.contains(&frame), recorded);
        let data = Message::Data(Bytes::from_static(b"secret"));
        assert_eq!(effects.last(), Some(&Effect::ToNode(data)));
        assert_eq!(engine.tally().to_node, 6);
    }
}

#[test]
fn piped_input_is_recorded_up_to_the_limit() {
    let mut engine = opened();
    drop(ask(&mut engine, exec("sh")));
    let half = Bytes::from(vec![b'x'; 512 * 1024]);
    for _ in 0..2 {
        let frame = Frame::Input {
            channel: 0,
            data: half.clone(),
        };
        assert_eq!(
            type_in(&mut engine, half.clone()),
            [
                Effect::Record(frame),
                Effect::ToNode(Message::Data(half.clone()))
            ]
        );
    }
    for more in ["more", "!"] {
        let data = Message::Data(Bytes::from_static(more.as_bytes()));
        assert_eq!(type_in(&mut engine, more), [Effect::ToNode(data)]);
    }
    let all = [vec![b'x'; 1024 * 1024], b"more!".to_vec()].concat();
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&all));
    let text = format!(
        "channel 0: the first 1048576 of 1048581 bytes of input were kept; SHA-256 of all: {digest}"
    );
    assert_eq!(
        engine.closed(0, NOW),
        [
            Effect::Record(Frame::Note { text }),
            happened(ChannelEvent::Closed)
        ]
    );
}

#[test]
fn a_client_has_no_extended_data() {
    let mut engine = opened();
    let message = Message::ExtendedData(1, Bytes::from_static(b"x"));
    assert_eq!(engine.client_said(0, message, NOW), []);
}

#[test]
fn eof_and_close_pass() {
    let mut engine = opened();
    assert_eq!(
        engine.client_said(0, Message::Eof, NOW),
        [happened(ChannelEvent::Eof), Effect::ToNode(Message::Eof)]
    );
    assert_eq!(
        engine.client_said(0, Message::Close, NOW),
        [Effect::ToNode(Message::Close)]
    );
    assert_eq!(engine.node_said(0, Message::Eof, NOW), []);
    assert_eq!(
        engine.node_said(0, Message::Close, NOW),
        [
            Effect::ToClient(Message::Eof),
            Effect::ToClient(Message::Close)
        ]
    );
    assert_eq!(engine.closed(0, NOW), [happened(ChannelEvent::Closed)]);
}

/// A client that has sent its own EOF closes when it gets the node's, and hears of no exit after that.
#[test]
fn attack_26_eof_waits_for_the_exit() {
    let exit = || Message::Request(Request::ExitStatus(7));
    let shown = [
        happened(ChannelEvent::Exit { status: 7 }),
        Effect::ToClient(exit()),
    ];
    let eof = Effect::ToClient(Message::Eof);
    let mut engine = opened();
    assert_eq!(engine.node_said(0, Message::Eof, NOW), []);
    let with_eof: Vec<Effect> = shown.iter().cloned().chain([eof.clone()]).collect();
    assert_eq!(engine.node_said(0, exit(), NOW), with_eof);
    assert_eq!(
        engine.node_said(0, Message::Close, NOW),
        [Effect::ToClient(Message::Close)]
    );
    let mut engine = opened();
    assert_eq!(engine.node_said(0, exit(), NOW), shown);
    assert_eq!(engine.node_said(0, Message::Eof, NOW), [eof]);
}

#[test]
fn output_is_recorded_before_it_is_shown() {
    let mut engine = opened();
    drop(ask(&mut engine, Request::Shell));
    let data = Bytes::from_static(b"\xffout");
    for (stream, message) in [
        (Stream::Stdout, Message::Data(data.clone())),
        (Stream::Stderr, Message::ExtendedData(1, data.clone())),
    ] {
        let frame = Frame::Output {
            channel: 0,
            stream,
            data: data.clone(),
        };
        assert_eq!(
            engine.node_said(0, message.clone(), NOW),
            [Effect::Record(frame), Effect::ToClient(message)]
        );
    }
    assert_eq!(engine.tally().to_client, 8);
}

#[test]
fn unknown_extended_data_is_dropped() {
    let mut engine = opened();
    for code in [0, 2, u32::MAX] {
        let message = Message::ExtendedData(code, Bytes::from_static(b"x"));
        assert_eq!(engine.node_said(0, message, NOW), []);
    }
}

#[test]
fn the_exit_is_recorded() {
    let mut engine = opened();
    let status = Message::Request(Request::ExitStatus(3));
    assert_eq!(
        engine.node_said(0, status.clone(), NOW),
        [
            happened(ChannelEvent::Exit { status: 3 }),
            Effect::ToClient(status)
        ]
    );
    assert_eq!(engine.tally().exit_code, Some(3));
    let signal = Message::Request(Request::ExitSignal {
        signal: String::from("KILL"),
        core_dumped: false,
        message: String::from("killed"),
    });
    let event = ChannelEvent::Signal {
        name: String::from("KILL"),
    };
    assert_eq!(
        engine.node_said(0, signal.clone(), NOW),
        [happened(event), Effect::ToClient(signal)]
    );
}

#[test]
fn a_client_cannot_say_an_exit() {
    let mut engine = opened();
    assert_eq!(ask(&mut engine, Request::ExitStatus(0)), []);
    let signal = Request::ExitSignal {
        signal: String::from("KILL"),
        core_dumped: false,
        message: String::new(),
    };
    assert_eq!(ask(&mut engine, signal), []);
}

#[test]
fn a_node_cannot_request_a_shell() {
    let mut engine = opened();
    let requests = [
        Request::Shell,
        exec("id"),
        pty(),
        Request::Subsystem(String::from("sftp")),
        Request::AgentForward,
        x11(),
        Request::WindowChange(SIZE),
        Request::Signal(String::from("INT")),
    ];
    for request in requests {
        assert_eq!(engine.node_said(0, Message::Request(request), NOW), []);
    }
}

#[test]
fn answers_keep_their_order() {
    let mut engine = opened();
    drop(ask(&mut engine, pty()));
    assert_eq!(
        ask(&mut engine, Request::AgentForward),
        [],
        "the terminal is not answered yet"
    );
    drop(ask(&mut engine, Request::Shell));
    assert_eq!(
        engine.node_said(0, Message::Success, NOW),
        [
            Effect::ToClient(Message::Success),
            Effect::ToClient(Message::Failure)
        ]
    );
    assert_eq!(
        engine.node_said(0, Message::Failure, NOW),
        [Effect::ToClient(Message::Failure)]
    );
}

#[test]
fn an_unasked_answer_is_dropped() {
    let mut engine = opened();
    assert_eq!(engine.node_said(0, Message::Success, NOW), []);
    assert_eq!(engine.client_said(0, Message::Success, NOW), []);
    assert_eq!(
        ask(&mut engine, Request::AgentForward),
        refused(),
        "an answer from before is not the answer to this"
    );
}

#[test]
fn attack_27_requests_that_nobody_answers_are_bounded() {
    let mut engine = opened();
    let passed: usize = (0..1000).map(|_| ask(&mut engine, pty()).len()).sum();
    assert_eq!(passed, 64 * 2, "each is recorded and passed on");
    let mut answers = 0;
    for _ in 0..64 {
        answers += engine.node_said(0, Message::Success, NOW).len();
    }
    assert_eq!(answers, 1000, "each is answered, the late ones with no");
    assert_eq!(engine.node_said(0, Message::Success, NOW), []);
}

#[test]
fn attack_25_a_channel_that_is_not_open_says_nothing() {
    let mut engine = opened();
    drop(engine.closed(0, NOW));
    for channel in [0, 1, u32::MAX] {
        let data = Message::Data(Bytes::from_static(b"x"));
        assert_eq!(engine.client_said(channel, data.clone(), NOW), []);
        assert_eq!(engine.node_said(channel, data, NOW), []);
    }
    assert_eq!(engine.closed(0, NOW), []);
}

#[test]
fn a_session_ends_when_its_certificate_does() {
    let mut engine = opened();
    assert_eq!(engine.deadline(), EXPIRES);
    assert_eq!(engine.timeout(EXPIRES.minus(Span::from_millis(1))), []);
    let effects = engine.timeout(EXPIRES);
    assert_eq!(effects.last(), Some(&Effect::End(EndReason::Expired)));
    assert!(matches!(effects.first(), Some(Effect::Record(_))));
}

#[test]
fn a_session_without_input_ends() {
    let idle = Span::from_secs(60);
    let mut engine = opened_with(Obligations {
        idle_timeout: Some(idle),
        ..obligations()
    });
    assert_eq!(engine.deadline(), NOW.plus(idle));
    let later = NOW.plus(Span::from_secs(30));
    drop(engine.client_said(0, Message::Eof, later));
    assert_eq!(engine.deadline(), later.plus(idle));
    let output = Message::Data(Bytes::from_static(b"tick"));
    drop(engine.node_said(0, output, later.plus(Span::from_secs(30))));
    assert_eq!(engine.deadline(), later.plus(idle), "output is no input");
    assert_eq!(engine.timeout(NOW.plus(idle)), []);
    assert_eq!(
        engine.timeout(later.plus(idle)).last(),
        Some(&Effect::End(EndReason::Idle(idle)))
    );
}

#[test]
fn the_earlier_deadline_counts() {
    let engine = opened_with(Obligations {
        idle_timeout: Some(Span::from_secs(100_000)),
        ..obligations()
    });
    assert_eq!(engine.deadline(), EXPIRES);
}

#[test]
fn a_new_decision_binds_at_once() {
    let mut engine = opened();
    let idle = Span::from_secs(5);
    let stricter = Obligations {
        idle_timeout: Some(idle),
        ..obligations()
    };
    assert_eq!(engine.decided(Ok(stricter)), []);
    assert_eq!(engine.deadline(), NOW.plus(idle));
    let effects = engine.decided(Err(String::from("you are locked")));
    let reason = EndReason::Withdrawn(String::from("you are locked"));
    let text = reason.to_string();
    assert_eq!(
        effects,
        [Effect::Record(Frame::Note { text }), Effect::End(reason)]
    );
}

#[test]
fn a_file_copy_ends_when_the_role_no_longer_has_it() {
    let copying = Obligations {
        file_copy: true,
        ..obligations()
    };
    let mut engine = opened_with(copying.clone());
    assert_eq!(engine.decided(Ok(obligations())), [], "nothing is copied");
    drop(engine.decided(Ok(copying)));
    drop(ask(&mut engine, Request::Subsystem(String::from("sftp"))));
    let effects = engine.decided(Ok(obligations()));
    assert!(matches!(
        effects.last(),
        Some(Effect::End(EndReason::Withdrawn(_)))
    ));
}

#[test]
fn a_session_ends_only_once_and_then_says_nothing() {
    let mut engine = opened();
    drop(engine.decided(Err(String::from("no"))));
    assert_eq!(engine.timeout(EXPIRES), []);
    assert_eq!(engine.decided(Err(String::from("still no"))), []);
    let data = Message::Data(Bytes::from_static(b"late"));
    assert_eq!(engine.node_said(0, data.clone(), NOW), []);
    assert_eq!(engine.client_said(0, data, NOW), []);
    assert_eq!(
        engine.open(&ChannelKind::Session, NOW),
        Err(Refusal::new(OpenFailure::Prohibited, "the session is over"))
    );
}

#[test]
fn the_books_of_open_channels_are_closed_with_the_session() {
    let mut engine = opened_with(Obligations {
        file_copy: true,
        ..obligations()
    });
    drop(ask(&mut engine, Request::Subsystem(String::from("sftp"))));
    drop(type_in(&mut engine, "\0\0"));
    drop(engine.decided(Err(String::from("no"))));
    let text = String::from("channel 0: the SFTP stream of the client ended within a packet");
    assert_eq!(
        engine.close(NOW),
        [
            (0, Effect::Record(Frame::Note { text })),
            (0, happened(ChannelEvent::Closed))
        ]
    );
    assert_eq!(engine.close(NOW), []);
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(pty()),
        Just(Request::Shell),
        Just(exec("id")),
        Just(Request::Subsystem(String::from("sftp"))),
        Just(Request::Subsystem(String::from("other"))),
        Just(Request::Env {
            name: String::from("A"),
            value: String::from("b"),
        }),
        Just(Request::Signal(String::from("INT"))),
        Just(Request::WindowChange(SIZE)),
        Just(Request::AgentForward),
        Just(x11()),
        any::<u32>().prop_map(Request::ExitStatus),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let data = proptest::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
    prop_oneof![
        data.clone().prop_map(Message::Data),
        (0..3_u32, data).prop_map(|(code, data)| Message::ExtendedData(code, data)),
        Just(Message::Eof),
        Just(Message::Success),
        Just(Message::Failure),
        any_request().prop_map(Message::Request),
    ]
}

/// What the recording must hold before `effect` may be performed, if anything.
fn owed_record(effect: &Effect) -> Option<Frame> {
    let output = |stream, data: &Bytes| {
        Some(Frame::Output {
            channel: 0,
            stream,
            data: data.clone(),
        })
    };
    match effect {
        Effect::ToClient(Message::Data(data)) => output(Stream::Stdout, data),
        Effect::ToClient(Message::ExtendedData(1, data)) => output(Stream::Stderr, data),
        Effect::ToClient(Message::Request(Request::ExitStatus(status))) => Some(Frame::Channel {
            channel: 0,
            what: ChannelEvent::Exit { status: *status },
        }),
        Effect::ToClient(_)
        | Effect::ToNode(_)
        | Effect::Record(_)
        | Effect::Report(_)
        | Effect::End(_) => None,
    }
}

proptest! {
    /// With file copies counted by design and off here, whatever both sides say in whatever order: all that the
    /// client is shown stands in the recording directly before it, and starts are reported before they reach the node.
    #[test]
    fn nothing_unrecorded_is_shown(said in proptest::collection::vec((any::<bool>(), any_message()), 0..60)) {
        let mut engine = opened();
        for (by_client, message) in said {
            let effects = if by_client {
                engine.client_said(0, message, NOW)
            } else {
                engine.node_said(0, message, NOW)
            };
            for (at, effect) in effects.iter().enumerate() {
                if let Some(frame) = owed_record(effect) {
                    prop_assert_eq!(at.checked_sub(1).map(|before| &effects[before]), Some(&Effect::Record(frame)));
                }
                let starts = matches!(effect, Effect::ToNode(Message::Request(Request::Shell | Request::Exec(_) | Request::Subsystem(_))));
                if starts {
                    prop_assert!(matches!(effects.first(), Some(Effect::Report(_))));
                }
                if let Effect::ToClient(message) = effect {
                    let passes = matches!(message, Message::Data(_) | Message::ExtendedData(1, _) | Message::Eof | Message::Close
                        | Message::Success | Message::Failure | Message::Request(Request::ExitStatus(_) | Request::ExitSignal { .. }));
                    prop_assert!(passes, "{:?} has no row", message);
                }
            }
        }
    }

    /// A client gets exactly one answer for each request that wants one, once the node has given its own.
    #[test]
    fn every_request_is_answered_once(requests in proptest::collection::vec(any_request(), 0..40)) {
        let mut engine = opened();
        let wanted = requests.iter().filter(|request| request.is_answered()).count();
        let count = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::ToClient(Message::Success | Message::Failure))).count();
        let mut answers = 0;
        let mut asked = 0;
        for request in requests {
            let effects = ask(&mut engine, request);
            answers += count(&effects);
            asked += effects.iter().filter(|effect| matches!(effect, Effect::ToNode(Message::Request(request)) if request.is_answered())).count();
        }
        for _ in 0..asked {
            answers += count(&engine.node_said(0, Message::Success, NOW));
        }
        prop_assert_eq!(answers, wanted);
    }
}
