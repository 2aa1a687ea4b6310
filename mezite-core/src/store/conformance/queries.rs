//! Every combination of a query's filters, on a log of several blocks whose times do not rise with the sequence.

use async_trait::async_trait;

use super::event;
use crate::event::{Event, Facts};
use crate::store::{
    BLOCK, Counters, Dump, LogQuery, Order, Piece, Pieces, Revision, Store, StoreError, StoredEvent,
};
use crate::time::UnixTime;

/// A bit more than two blocks.
const EVENTS: u64 = BLOCK * 2 + 100;

/// One event a second, told by several clocks.
const BEGAN: u64 = 1_700_000_000;

pub(super) async fn finds_by_every_combination(store: &impl Store) {
    let mut log: Vec<(u64, Facts)> = (1..=EVENTS)
        .map(|sequence| (sequence, Facts::from(&made(sequence))))
        .collect();
    log.push((EVENTS + 1, Facts::from(&event(1))));
    let dump = Dump {
        counters: Counters {
            revision: Revision(1),
            sequence: EVENTS,
        },
        pieces: Box::new(Made(1..=EVENTS)),
    };
    store.restore(dump, event(1)).await.expect("restore");
    for number in 0..240 {
        let query = question(number);
        let found = store.log(&query).await.expect("log");
        let found: Vec<u64> = found.iter().map(|event| event.sequence).collect();
        let matching = |(sequence, facts): &&(u64, Facts)| query.matches(*sequence, facts);
        let mut wanted: Vec<u64> = log
            .iter()
            .filter(matching)
            .map(|(sequence, _)| *sequence)
            .collect();
        if query.order == Order::NewestFirst {
            wanted.reverse();
        }
        wanted.truncate(query.limit);
        assert_eq!(found, wanted, "{query:?}");
    }
}

fn made(sequence: u64) -> Event {
    let mix = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let time = match sequence {
        // A clock that is wrong by months, one that is late, and one that is right.
        _ if sequence.is_multiple_of(2999) => BEGAN - 10_000_000,
        _ if mix.is_multiple_of(7) => BEGAN + sequence - 40,
        _ => BEGAN + sequence,
    };
    let types = [
        "user.login",
        "user.logout",
        "session.start",
        "session.end",
        "lock.created",
    ];
    let kind = usize::try_from(mix % 5).expect("small");
    let mut random = [0; 16];
    random
        .split_at_mut(8)
        .1
        .copy_from_slice(&sequence.to_be_bytes());
    let event_type = types.get(kind).expect("one of them");
    let mut event = Event::new(event_type, "MZ0000", UnixTime::from_secs(time), [random; 2]);
    if !mix.is_multiple_of(3) {
        event = event.with("user_name", format!("user{}", (mix >> 4) % 4));
    }
    if !mix.is_multiple_of(4) {
        event = event.with("server_hostname", format!("node{}", (mix >> 8) % 3));
    }
    if kind > 1 {
        event = event.with("session_id", format!("session{}", sequence / 200));
    }
    if !mix.is_multiple_of(11) {
        event = event.with("success", !mix.is_multiple_of(5));
    }
    event
}

/// Each filter set or not, as the number's digits say.
fn question(number: u64) -> LogQuery {
    let mut rest = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let mut draw = |choices: u64| {
        let drawn = rest % choices;
        rest /= choices;
        drawn
    };
    let text = |text: &str| Some(text.to_owned());
    let time = |seconds| Some(UnixTime::from_secs(BEGAN + seconds));
    LogQuery {
        after: [0, 0, 3, EVENTS]
            .into_iter()
            .nth(index(draw(4)))
            .unwrap_or_default()
            / 2,
        before: (draw(3) == 0).then_some(EVENTS - 500),
        id: None,
        event_type: match draw(5) {
            0 => text("user.login"),
            1 => text("session."),
            2 => text("lock."),
            _ => None,
        },
        user_name: (draw(3) == 0).then(|| "user2".to_owned()),
        server_hostname: (draw(3) == 0).then(|| "node1".to_owned()),
        session_id: (draw(4) == 0).then(|| "session17".to_owned()),
        success: match draw(4) {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        },
        since: match draw(4) {
            0 => time(BLOCK),
            1 => time(100),
            _ => None,
        },
        until: match draw(4) {
            0 => time(BLOCK + 50),
            1 => time(1),
            2 => time(BLOCK * 2),
            _ => None,
        },
        limit: index(
            [0, 1, 10, 1_000_000]
                .into_iter()
                .nth(index(draw(4)))
                .unwrap_or_default(),
        ),
        order: match draw(2) {
            0 => Order::OldestFirst,
            _ => Order::NewestFirst,
        },
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

struct Made(std::ops::RangeInclusive<u64>);

#[async_trait]
impl Pieces for Made {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        let next = self.0.by_ref().take(500);
        let piece = |sequence| {
            Piece::Event(StoredEvent {
                sequence,
                body: made(sequence).render(sequence),
            })
        };
        Ok(next.map(piece).collect())
    }
}
