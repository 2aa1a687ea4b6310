//! Rows of the coverage table about forwards, and SSH inside of a session.

use mezite_net::ssh::{Endpoint, Listener};

use super::*;

fn endpoint(host: &str, port: u32) -> Endpoint {
    let host = host.to_owned();
    Endpoint { host, port }
}

fn tcp(host: &str, port: u32) -> ChannelKind {
    ChannelKind::DirectTcpip {
        to: endpoint(host, port),
        from: endpoint("127.0.0.1", 50_000),
    }
}

fn route(kind: &ChannelKind) -> Route {
    Route::from(kind)
}

fn permits(list: &[&str]) -> Obligations {
    let list = list.iter().map(|text| text.parse().unwrap()).collect();
    Obligations {
        port_forwarding: true,
        forward_destinations: [list].into(),
        ..obligations()
    }
}

fn forwarding(list: &[&str]) -> Engine {
    Engine::new(permits(list), EXPIRES, NOW).with_names(Names::Checked)
}

fn data(text: &str) -> Message {
    Message::Data(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn refuses_forwards_and_reports_them() {
    let kinds = [
        (tcp("169.254.169.254", 80), "169.254.169.254:80"),
        (tcp("::1", 80), "[::1]:80"),
        (
            ChannelKind::DirectStreamlocal {
                path: String::from("/run/docker.sock"),
            },
            "/run/docker.sock",
        ),
    ];
    for (kind, destination) in kinds {
        // Without the option, with it and no list, and with a list of something else.
        for (mut engine, why) in [
            (opened(), "your roles do not allow port forwarding"),
            (
                Engine::new(
                    Obligations {
                        port_forwarding: true,
                        ..obligations()
                    },
                    EXPIRES,
                    NOW,
                ),
                "",
            ),
            (forwarding(&["db:5432"]), ""),
        ] {
            let refusal = engine.open(&kind, NOW).unwrap_err();
            assert_eq!(refusal.failure, OpenFailure::Prohibited);
            assert!(refusal.words.starts_with(destination), "{refusal:?}");
            assert!(refusal.words.contains(why), "{refusal:?}");
            let [Effect::Report(Fact::Forward(told, Step::Refused { attempts: 1, .. }))] =
                refusal.effects.as_slice()
            else {
                panic!("{refusal:?}")
            };
            assert_eq!(told.destination, destination);
        }
    }
}

#[test]
fn a_client_opens_nothing_that_a_node_opens() {
    let mut engine = forwarding(&["*:*", "/run/*"]);
    for kind in [
        ChannelKind::X11 {
            from: endpoint("127.0.0.1", 1),
        },
        ChannelKind::Agent,
        ChannelKind::ForwardedTcpip {
            at: endpoint("localhost", 80),
            from: endpoint("127.0.0.1", 1),
        },
        ChannelKind::ForwardedStreamlocal {
            path: String::from("/x"),
        },
    ] {
        let refusal = engine.open(&kind, NOW).unwrap_err();
        assert_eq!(refusal.failure, OpenFailure::Prohibited);
        assert_eq!(refusal.effects.len(), 1);
    }
}

#[test]
fn attack_54_refused_forwards_cannot_fill_the_log() {
    let mut engine = opened();
    let reported = (0..100_000).filter(|port| {
        let refusal = engine.open(&tcp("db", *port), NOW).unwrap_err();
        assert_eq!(refusal.failure, OpenFailure::Prohibited);
        !refusal.effects.is_empty()
    });
    assert_eq!(reported.count(), 20);
    let books = engine.close(NOW);
    let rest = books.iter().find_map(|(_, effect)| {
        let Effect::Report(Fact::Forward(route, Step::Refused { attempts, .. })) = effect else {
            return None;
        };
        Some((route.destination.as_str(), *attempts))
    });
    assert_eq!(rest, Some(("db:99999", 99_980)), "{books:?}");
}

#[test]
fn a_forward_is_an_event_when_it_opens_and_closes_and_is_counted() {
    let mut engine = forwarding(&["db:5432"]);
    let kind = tcp("db", 5432);
    let (number, effects) = engine.open(&kind, NOW).unwrap();
    let what = ChannelEvent::Opened {
        kind: String::from("direct-tcpip db:5432"),
    };
    assert_eq!(
        effects,
        [
            Effect::Report(Fact::Forward(route(&kind), Step::Opened)),
            happened(what)
        ]
    );
    assert_eq!(
        engine.client_said(number, data("select"), NOW),
        [Effect::ToNode(data("select"))],
        "what is inside is counted, not kept"
    );
    assert_eq!(
        engine.node_said(number, data("row"), NOW),
        [Effect::ToClient(data("row"))]
    );
    for (said, passed) in [
        (Message::Eof, Some(Message::Eof)),
        (Message::ExtendedData(1, Bytes::from_static(b"x")), None),
        (Message::Success, None),
        (Message::Request(Request::ExitStatus(0)), None),
        (Message::Close, Some(Message::Close)),
    ] {
        let by_client = engine.client_said(number, said.clone(), NOW);
        let expected: Vec<_> = passed.clone().map(Effect::ToNode).into_iter().collect();
        assert_eq!(by_client, expected);
        let by_node = engine.node_said(number, said, NOW);
        let expected: Vec<_> = passed.map(Effect::ToClient).into_iter().collect();
        assert_eq!(by_node, expected);
    }
    assert_eq!(
        engine.client_said(number, Message::Request(Request::Shell), NOW),
        refused()
    );
    let tally = engine.tally();
    assert_eq!((tally.to_node, tally.to_client), (6, 3));
    let closed = Step::Closed {
        to_client: 3,
        to_node: 6,
        lasted: Span::from_secs(7),
        error: None,
        attempts: 1,
    };
    let text = String::from("channel 0: local db:5432: 3 bytes to the client, 6 to the node");
    assert_eq!(
        engine.closed(number, NOW.plus(Span::from_secs(7))),
        [
            Effect::Report(Fact::Forward(route(&kind), closed)),
            Effect::Record(Frame::Note { text }),
            happened(ChannelEvent::Closed),
        ]
    );
}

#[test]
fn a_forward_that_the_node_does_not_open_says_why() {
    let mut engine = forwarding(&["db:5432"]);
    let (number, _) = engine.open(&tcp("db", 5432), NOW).unwrap();
    let books = engine.failed(number, "connection refused", NOW);
    let Some(Effect::Report(Fact::Forward(_, Step::Closed { error, .. }))) = books.first() else {
        panic!("{books:?}")
    };
    assert_eq!(error.as_deref(), Some("connection refused"));
    assert_eq!(engine.close(NOW), []);
}

#[test]
fn forwards_are_limited_and_numbers_are_not_used_twice() {
    let mut engine = forwarding(&["*:*"]);
    for port in 1..=MAX_FORWARDS {
        let port = u32::try_from(port).unwrap();
        assert_eq!(engine.open(&tcp("db", port), NOW).unwrap().0, port - 1);
    }
    let refusal = engine.open(&tcp("db", 1), NOW).unwrap_err();
    assert_eq!(refusal.failure, OpenFailure::Shortage);
    drop(engine.closed(0, NOW));
    assert!(engine.open(&tcp("db", 1), NOW).is_ok());
    assert!(engine.open(&ChannelKind::Session, NOW).is_ok());
}

#[test]
fn a_name_that_nobody_looks_at_has_to_be_listed() {
    let list = permits(&["*:443", "db:443"]);
    let mut engine = Engine::new(list, EXPIRES, NOW);
    assert!(engine.open(&tcp("db", 443), NOW).is_ok());
    assert!(engine.open(&tcp("10.0.0.1", 443), NOW).is_ok());
    assert!(engine.open(&tcp("other", 443), NOW).is_err());
}

#[test]
fn a_forward_ends_when_the_role_no_longer_lists_it() {
    let mut engine = forwarding(&["db:5432", "web:80"]);
    drop(engine.open(&tcp("db", 5432), NOW));
    assert_eq!(engine.decided(Ok(permits(&["db:*"]))), []);
    let effects = engine.decided(Ok(permits(&["web:80"])));
    let Some(Effect::End(EndReason::Withdrawn(why))) = effects.last() else {
        panic!("{effects:?}")
    };
    assert!(why.contains("local db:5432"), "{why}");
    let books = engine.close(NOW);
    let closed = |(_, effect): &(u32, Effect)| {
        matches!(
            effect,
            Effect::Report(Fact::Forward(_, Step::Closed { .. }))
        )
    };
    assert!(books.iter().any(closed), "{books:?}");
}

const PIECES: [&str; 3] = ["hello\r\nSS", "H-", "2.0-evil\r\n"];

fn is_nested(effect: &Effect, refused: bool) -> bool {
    matches!(effect, Effect::Report(Fact::Nested(nested)) if nested.refused == refused)
}

#[test]
fn attack_46_ssh_in_a_forward_is_refused_in_either_direction() {
    type Said = fn(&mut Engine, u32, Message, UnixTime) -> Vec<Effect>;
    let both: [Said; 2] = [Engine::client_said, Engine::node_said];
    for said in both {
        let mut engine = forwarding(&["*:*"]);
        let (number, _) = engine.open(&tcp("db", 22), NOW).unwrap();
        for piece in &PIECES[..2] {
            assert_eq!(said(&mut engine, number, data(piece), NOW).len(), 1);
        }
        let effects = said(&mut engine, number, data(PIECES[2]), NOW);
        assert!(is_nested(&effects[0], true), "{effects:?}");
        let Effect::ToClient(Message::Data(words)) = &effects[1] else {
            panic!("{effects:?}")
        };
        assert!(
            words.starts_with(b"mezite: an SSH connection inside this forward (`SSH-2.0-evil`")
        );
        assert_eq!(
            effects[2..],
            [
                Effect::ToClient(Message::Close),
                Effect::ToNode(Message::Close)
            ]
        );
        // Nothing passes any more.
        for message in [data("more"), Message::Eof, Message::Close] {
            assert_eq!(engine.client_said(number, message.clone(), NOW), []);
            assert_eq!(engine.node_said(number, message, NOW), []);
        }
        let books = engine.closed(number, NOW);
        assert!(
            matches!(
                &books[0],
                Effect::Report(Fact::Forward(_, Step::Closed { error: Some(_), .. }))
            ),
            "{books:?}"
        );
    }
}

#[test]
fn attack_46_ssh_in_a_command_or_a_shell_without_a_terminal_is_refused() {
    let starts = [(exec("nc %h 22"), "exec"), (Request::Shell, "shell")];
    for (start, place) in starts {
        let mut engine = opened();
        drop(ask(&mut engine, start));
        drop(engine.node_said(0, Message::Success, NOW));
        let effects = engine.node_said(0, data("SSH-2.0-OpenSSH_9.2\r\n"), NOW);
        assert!(is_nested(&effects[0], true), "{effects:?}");
        let Effect::ToClient(Message::ExtendedData(1, words)) = &effects[2] else {
            panic!("{effects:?}")
        };
        assert_eq!(
            effects[1],
            Effect::Record(Frame::Output {
                channel: 0,
                stream: Stream::Stderr,
                data: words.clone()
            })
        );
        let words = String::from_utf8_lossy(words).into_owned();
        assert!(words.contains(&format!("inside this {place}")), "{words}");
        assert_eq!(engine.node_said(0, data("more"), NOW), []);
        assert_eq!(type_in(&mut engine, "SSH-2.0-x"), []);
    }
}

#[test]
fn a_role_may_allow_ssh_inside_and_a_terminal_shows_what_it_likes() {
    let allowed = Obligations {
        nested_ssh: true,
        ..permits(&["*:*"])
    };
    let mut engine = Engine::new(allowed, EXPIRES, NOW);
    let (number, _) = engine.open(&tcp("10.0.0.1", 22), NOW).unwrap();
    let effects = engine.node_said(number, data("SSH-2.0-x\r\n"), NOW);
    assert!(is_nested(&effects[0], false), "{effects:?}");
    assert_eq!(effects[1], Effect::ToClient(data("SSH-2.0-x\r\n")));
    assert_eq!(
        engine.node_said(number, data("SSH-2.0-x"), NOW).len(),
        1,
        "told once"
    );
    let mut engine = opened();
    drop(ask(&mut engine, pty()));
    drop(ask(&mut engine, Request::Shell));
    let effects = engine.node_said(0, data("SSH-2.0-x\r\n"), NOW);
    assert_eq!(effects.len(), 2, "recorded and shown");
}

fn at(host: &str, port: u32) -> Listener {
    Listener::Tcp(endpoint(host, port))
}

fn listening(list: &[&str]) -> Obligations {
    let list = list.iter().map(|text| text.parse().unwrap()).collect();
    Obligations {
        port_forwarding: true,
        forward_listen: [list].into(),
        ..obligations()
    }
}

fn connected(port: u32) -> ChannelKind {
    ChannelKind::ForwardedTcpip {
        at: endpoint("localhost", port),
        from: endpoint("10.0.0.9", 40_000),
    }
}

#[test]
fn the_node_listens_only_where_the_role_lists_it() {
    let mut engine = Engine::new(listening(&["localhost:8080"]), EXPIRES, NOW);
    for refused in [
        at("localhost", 8081),
        at("localhost", 0),
        at("", 8080),
        Listener::Socket(String::from("/tmp/x")),
    ] {
        let refusal = engine.listen(&refused).unwrap_err();
        assert_eq!(refusal.failure, OpenFailure::Prohibited);
        assert!(refusal.words.contains("forward_listen"), "{refusal:?}");
        assert_eq!(refusal.effects.len(), 1);
    }
    let permitted = at("localhost", 8080);
    let effects = engine.listen(&permitted).unwrap();
    let told = Fact::Forward(Route::from(&permitted), Step::Listening);
    assert_eq!(effects.first(), Some(&Effect::Report(told)));
    assert_eq!(engine.listening(&permitted, Some(8080)), []);
    let stopped = engine.stopped(&permitted);
    let told = Fact::Forward(Route::from(&permitted), Step::Stopped);
    assert_eq!(stopped.first(), Some(&Effect::Report(told)));
    assert_eq!(engine.stopped(&permitted), [], "once");
}

#[test]
fn a_node_opens_only_what_the_client_let_it_open() {
    let mut engine = Engine::new(listening(&["localhost:*", "/run/app/*"]), EXPIRES, NOW);
    let socket = ChannelKind::ForwardedStreamlocal {
        path: String::from("/run/app/x"),
    };
    let display = ChannelKind::X11 {
        from: endpoint("127.0.0.1", 1),
    };
    for kind in [
        connected(8080),
        socket.clone(),
        display,
        ChannelKind::Agent,
        ChannelKind::Session,
        tcp("db", 5432),
    ] {
        let refusal = engine.offered(&kind, NOW).unwrap_err();
        assert_eq!(refusal.failure, OpenFailure::Prohibited, "{kind}");
        assert!(refusal.words.contains("nobody asked for it"));
    }
    let wanted = at("localhost", 0);
    drop(engine.listen(&wanted).unwrap());
    drop(engine.listening(&wanted, Some(8080)));
    let path = Listener::Socket(String::from("/run/app/x"));
    drop(engine.listen(&path).unwrap());
    let (number, effects) = engine.offered(&connected(8080), NOW).unwrap();
    let Some(Effect::Report(Fact::Forward(route, Step::Opened))) = effects.first() else {
        panic!("{effects:?}")
    };
    assert_eq!(route.direction, Direction::Remote);
    assert_eq!(route.origin.as_deref(), Some("10.0.0.9:40000"));
    assert!(engine.offered(&connected(8081), NOW).is_err());
    assert!(engine.offered(&socket, NOW).is_ok());
    let effects = engine.node_said(number, data("GET /"), NOW);
    assert_eq!(effects, [Effect::ToClient(data("GET /"))]);
    // SSH in it is found as in the others.
    let effects = engine.node_said(number, data("\nSSH-2.0-x"), NOW);
    assert!(is_nested(&effects[0], true), "{effects:?}");
}

#[test]
fn a_listener_that_the_node_refuses_is_none() {
    let mut engine = Engine::new(listening(&["localhost:*"]), EXPIRES, NOW);
    let wanted = at("localhost", 80);
    drop(engine.listen(&wanted).unwrap());
    let effects = engine.listening(&wanted, None);
    let told = Fact::Forward(Route::from(&wanted), Step::Stopped);
    assert_eq!(effects.first(), Some(&Effect::Report(told)));
    assert!(engine.offered(&connected(80), NOW).is_err());
}

#[test]
fn listeners_are_limited_and_end_with_the_role_that_lists_them() {
    let mut engine = Engine::new(listening(&["localhost:*"]), EXPIRES, NOW);
    for port in 1..=MAX_LISTENERS {
        drop(
            engine
                .listen(&at("localhost", u32::try_from(port).unwrap()))
                .unwrap(),
        );
    }
    let refusal = engine.listen(&at("localhost", 1000)).unwrap_err();
    assert_eq!(refusal.failure, OpenFailure::Shortage);
    assert_eq!(engine.decided(Ok(listening(&["localhost:1-100"]))), []);
    let effects = engine.decided(Ok(listening(&["localhost:2"])));
    assert!(matches!(
        effects.last(),
        Some(Effect::End(EndReason::Withdrawn(_)))
    ));
}

#[test]
fn agent_and_x11_are_refused_unless_the_role_has_them() {
    let display = ChannelKind::X11 {
        from: endpoint("127.0.0.1", 1),
    };
    for (request, kind, direction) in [
        (Request::AgentForward, ChannelKind::Agent, Direction::Agent),
        (x11(), display, Direction::X11),
    ] {
        let mut engine = opened();
        assert_eq!(ask(&mut engine, request.clone()), refused());
        assert!(engine.offered(&kind, NOW).is_err());
        let allowed = Obligations {
            agent_forwarding: direction == Direction::Agent,
            x11_forwarding: direction == Direction::X11,
            ..obligations()
        };
        let mut engine = opened_with(allowed);
        let effects = ask(&mut engine, request.clone());
        assert_eq!(effects.last(), Some(&passed_on(request)));
        let Some(Effect::Report(Fact::Forward(route, Step::Listening))) = effects.first() else {
            panic!("{effects:?}")
        };
        assert_eq!(route.direction, direction);
        assert!(
            !format!("{effects:?}").contains("5ec7e7"),
            "the cookie shows"
        );
        let (number, effects) = engine.offered(&kind, NOW).unwrap();
        assert_eq!(effects.len(), 2, "told and recorded");
        assert_eq!(engine.node_said(number, data("ask"), NOW).len(), 1);
        let books = engine.closed(number, NOW);
        assert!(matches!(
            &books[0],
            Effect::Report(Fact::Forward(_, Step::Closed { to_client: 3, .. }))
        ));
        let effects = engine.decided(Ok(obligations()));
        assert!(matches!(
            effects.last(),
            Some(Effect::End(EndReason::Withdrawn(_)))
        ));
    }
}
