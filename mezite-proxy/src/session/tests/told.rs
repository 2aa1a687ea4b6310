//! What the log hears of many forwards, and the user of watchers.

use mezite_net::ssh::{Endpoint, Listener};

use super::*;

fn tcp(host: String, port: u32) -> ChannelKind {
    let from = Endpoint {
        host: String::from("127.0.0.1"),
        port: 50_000,
    };
    let to = Endpoint { host, port };
    ChannelKind::DirectTcpip { to, from }
}

fn forwarding() -> Engine {
    let obligations = Obligations {
        port_forwarding: true,
        forward_destinations: [["*:*".parse().unwrap()].into()].into(),
        forward_listen: [["localhost:*".parse().unwrap()].into()].into(),
        ..obligations()
    };
    Engine::new(obligations, EXPIRES, NOW).with_names(Names::Checked)
}

/// Opens a forward, sends a byte each way through it and closes it: what is reported, and how much is recorded.
fn once(engine: &mut Engine, kind: &ChannelKind, says: &'static [u8]) -> (Vec<Fact>, usize) {
    let (number, mut effects) = engine.open(kind, NOW).unwrap();
    for said in [Engine::client_said, Engine::node_said] {
        effects.extend(said(
            engine,
            number,
            Message::Data(Bytes::from_static(says)),
            NOW,
        ));
    }
    effects.extend(engine.closed(number, NOW.plus(Span::from_millis(u64::from(number)))));
    let recorded = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Record(_)));
    let recorded = recorded.count();
    let facts = effects.into_iter().filter_map(|effect| match effect {
        Effect::Report(fact) => Some(fact),
        Effect::Record(_) | Effect::ToClient(_) | Effect::ToNode(_) | Effect::End(_) => None,
    });
    (facts.collect(), recorded)
}

/// Forwards that the facts stand for, and the bytes to the node that they tell.
fn sums(facts: &[Fact]) -> (u64, u64) {
    let mut sums = (0, 0);
    for fact in facts {
        if let Fact::Forward(
            _,
            Step::Closed {
                attempts, to_node, ..
            },
        ) = fact
        {
            sums.0 += attempts;
            sums.1 += to_node;
        }
    }
    sums
}

fn rest(engine: &mut Engine) -> Vec<Fact> {
    let books = engine.close(NOW).into_iter();
    let facts = books.filter_map(|(_, effect)| match effect {
        Effect::Report(fact) => Some(fact),
        Effect::Record(_) | Effect::ToClient(_) | Effect::ToNode(_) | Effect::End(_) => None,
    });
    facts.collect()
}

#[test]
fn attack_54_a_hundred_thousand_forwards_make_few_events_and_none_is_forgotten() {
    const MANY: u32 = 100_000;
    let mut engine = forwarding();
    let mut facts = Vec::new();
    for _ in 0..MANY {
        let (told, recorded) = once(&mut engine, &tcp(String::from("db"), 5432), b"x");
        assert_eq!(recorded, 3, "each stands in the recording");
        facts.extend(told);
    }
    facts.extend(rest(&mut engine));
    // A hundred are told twice, of the others one event tells of a thousand.
    assert_eq!(facts.len(), 200 + 100);
    assert_eq!(sums(&facts), (u64::from(MANY), u64::from(MANY)));
    let Some(Fact::Forward(_, Step::Closed { lasted, .. })) = facts.last() else {
        panic!("{facts:?}")
    };
    assert_eq!(
        *lasted,
        Span::from_millis(u64::from(MANY - 1)),
        "the longest"
    );
}

#[test]
fn attack_54_a_place_is_told_however_many_forwards_went_elsewhere() {
    let mut engine = forwarding();
    for _ in 0..500 {
        drop(once(&mut engine, &tcp(String::from("db"), 5432), b"x"));
    }
    let secret = tcp(String::from("vault"), 443);
    let (told, _) = once(&mut engine, &secret, b"x");
    assert!(
        matches!(
            &told[..],
            [
                Fact::Forward(_, Step::Opened),
                Fact::Forward(_, Step::Closed { attempts: 1, .. })
            ]
        ),
        "{told:?}"
    );
    assert_eq!(once(&mut engine, &secret, b"x").0, [], "once");
    // The places that are remembered have a bound, too.
    let mut events = 0;
    for port in 1..=3000 {
        events += once(&mut engine, &tcp(String::from("many"), port), b"x")
            .0
            .len();
    }
    assert!((1900..2010).contains(&events), "{events}");
}

#[test]
fn attack_54_ssh_in_many_forwards_makes_few_events() {
    let mut engine = forwarding();
    let mut facts = Vec::new();
    for _ in 0..5000 {
        let ssh = tcp(String::from("db"), 22);
        let (told, recorded) = once(&mut engine, &ssh, b"SSH-2.0-x\r\n");
        assert!(recorded >= 3);
        facts.extend(told);
    }
    facts.extend(rest(&mut engine));
    let nested = facts.iter().filter(|fact| matches!(fact, Fact::Nested(_)));
    assert_eq!(nested.count(), 100);
    assert!(facts.len() < 310, "{}", facts.len());
    // Those that share an event say so, and why.
    let Some(Fact::Forward(
        _,
        Step::Closed {
            error, attempts, ..
        },
    )) = facts.last()
    else {
        panic!("{facts:?}")
    };
    assert_eq!(*attempts, 900);
    assert!(error.as_ref().unwrap().contains("SSH-2.0-x"), "{error:?}");
}

#[test]
fn attack_54_nobody_has_the_node_listen_without_end() {
    let mut engine = forwarding();
    let listener = Listener::Tcp(Endpoint {
        host: String::from("localhost"),
        port: 8080,
    });
    let mut granted = 0;
    while engine.listen(&listener).is_ok() {
        assert_eq!(engine.stopped(&listener).len(), 2);
        granted += 1;
        assert!(granted < 10_000, "no end");
    }
    assert_eq!(granted, 1000);
}

#[test]
fn attack_54_an_agent_and_a_display_are_offered_once_a_channel() {
    let mut engine = opened_with(Obligations {
        agent_forwarding: true,
        x11_forwarding: true,
        ..obligations()
    });
    for request in [Request::AgentForward, x11()] {
        let first = ask(&mut engine, request.clone());
        assert!(matches!(first[0], Effect::Report(_)), "{first:?}");
        drop(engine.node_said(0, Message::Success, NOW));
        assert_eq!(ask(&mut engine, request), refused());
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What a channel shows, which must have been recorded just before.
fn shown(effects: &[(u32, Effect)]) -> Vec<(u32, String)> {
    let pairs = effects.chunks(2).map(|pair| {
        let [
            (
                channel,
                Effect::Record(Frame::Output {
                    stream: Stream::Stderr,
                    data,
                    channel: recorded,
                }),
            ),
            (same, Effect::ToClient(Message::ExtendedData(1, shown))),
        ] = pair
        else {
            panic!("{pair:?}")
        };
        assert_eq!((channel, data, channel), (same, shown, recorded));
        (*channel, String::from_utf8(data.to_vec()).unwrap())
    });
    pairs.collect()
}

#[test]
fn watchers_are_recorded_and_shown_on_every_channel_where_the_role_says_so() {
    let mut announced = obligations();
    announced.record.announce_watchers = true;
    let mut engine = opened_with(announced);
    drop(engine.open(&ChannelKind::Session, NOW));
    let came = |name: &str| format!("\r\nmezite: {name} watches this session\r\n");
    let told = shown(&engine.watched(&names(&["carol"])));
    assert_eq!(told, [(0, came("carol")), (1, came("carol"))]);
    assert_eq!(engine.watched(&names(&["carol"])), [], "nothing new");
    // A terminal that is opened later is told, too.
    let (third, _) = engine.open(&ChannelKind::Session, NOW).unwrap();
    let greeting = engine.greeting(third).into_iter();
    let greeting: Vec<_> = greeting.map(|effect| (third, effect)).collect();
    assert_eq!(shown(&greeting), [(2, came("carol"))]);
    drop(engine.closed(1, NOW));
    drop(engine.closed(2, NOW));
    let left = String::from("\r\nmezite: carol no longer watches this session\r\n");
    let told = shown(&engine.watched(&names(&["dave"])));
    assert_eq!(told, [(0, came("dave")), (0, left)]);
    // Without a channel there is nobody to show it to.
    drop(engine.closed(0, NOW));
    let text = String::from("dave no longer watches this session");
    let note = Effect::Record(Frame::Note { text });
    assert_eq!(engine.watched(&names(&[])), [(0, note)]);
}

#[test]
fn watchers_are_nobodys_business_unless_the_role_says_so() {
    let mut engine = opened();
    assert!(!engine.announces_watchers());
    assert_eq!(engine.watched(&names(&["carol"])), []);
    assert_eq!(engine.greeting(0), []);
    // From the moment when it does, whoever watches is told.
    let mut announced = obligations();
    announced.record.announce_watchers = true;
    assert_eq!(engine.decided(Ok(announced)), []);
    assert_eq!(shown(&engine.watched(&names(&["carol"]))).len(), 1);
}
