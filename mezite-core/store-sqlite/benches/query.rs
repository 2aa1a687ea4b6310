//! Questions to a long log. `MEZITE_BENCH_EVENTS=10000000 cargo bench -p mezite-store-sqlite --bench query` asks them of
//! ten million events; the default is 200,000. With `MEZITE_BENCH_DATABASE=FILE` the log is kept there for the next time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench")]

use std::hint::black_box;

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_executor::block_on;
use mezite_core::store::{
    Counters, Dump, LogQuery, Order, Piece, Pieces, Revision, Store, StoreError, StoredEvent,
};
use mezite_core::{Event, UnixTime};
use mezite_store_sqlite::SqliteStore;

const USERS: u64 = 1000;

/// One event: every type, user and node comes again and again, one login in a hundred fails.
fn event(sequence: u64) -> StoredEvent {
    let mix = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let types = [
        "session.start",
        "session.exec",
        "session.end",
        "access.granted",
        "session.cert.issued",
        "user.login",
        "user.cert.issued",
        "node.connected",
    ];
    let kind = usize::try_from(mix >> 61).unwrap();
    let event_type = if sequence.is_multiple_of(100_000) {
        "lock.created"
    } else {
        types[kind]
    };
    let mut random = [0; 16];
    random[..8].copy_from_slice(&mix.to_be_bytes());
    let event = Event::new(
        event_type,
        "MZ0000",
        UnixTime::from_millis(1_700_000_000_000 + sequence * 700),
        [random; 2],
    )
    .with("user_name", format!("user{}", (mix >> 20) % USERS))
    .with("server_hostname", format!("node{}", (mix >> 30) % 300))
    .with(
        "session_id",
        format!("018bcfe5-6800-7fff-bfff-{:012x}", sequence / 5),
    )
    .with("success", !(mix >> 10).is_multiple_of(100))
    .with("client_ip", "203.0.113.7")
    .with(
        "command",
        "systemctl status postgresql.service --no-pager --lines 50",
    )
    .with(
        "obligations",
        "{\"port_forwarding\":false,\"agent_forwarding\":false,\"record\":{\"input\":false}}",
    );
    StoredEvent {
        sequence,
        body: event.render(sequence),
    }
}

struct Generated(std::ops::RangeInclusive<u64>);

#[async_trait]
impl Pieces for Generated {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        let next = self.0.by_ref().take(1000);
        Ok(next.map(|sequence| Piece::Event(event(sequence))).collect())
    }
}

fn fill(store: &SqliteStore, count: u64) {
    let dump = Dump {
        counters: Counters {
            revision: Revision(1),
            sequence: count,
        },
        pieces: Box::new(Generated(1..=count)),
    };
    let last = Event::new(
        "backup.restored",
        "MZ0000",
        UnixTime::from_secs(1),
        [[0; 16]; 2],
    );
    block_on(store.restore(dump, last)).unwrap();
}

fn bench(criterion: &mut Criterion) {
    let count = std::env::var("MEZITE_BENCH_EVENTS").ok();
    let count: u64 = count.map_or(200_000, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = std::env::var_os("MEZITE_BENCH_DATABASE")
        .map_or_else(|| directory.path().join("db"), Into::into);
    let store = SqliteStore::open(&path).unwrap();
    let there = block_on(store.log(&LogQuery::after(count, 1))).unwrap();
    if there.is_empty() {
        fill(&store, count);
    }

    let newest = LogQuery {
        limit: 100,
        order: Order::NewestFirst,
        ..LogQuery::default()
    };
    let text = |text: &str| Some(text.to_owned());
    let middle = UnixTime::from_millis(1_700_000_000_000 + count * 350);
    let questions = [
        ("the newest", newest.clone()),
        (
            "one user",
            LogQuery {
                user_name: text("user42"),
                ..newest.clone()
            },
        ),
        (
            "one user who is not there",
            LogQuery {
                user_name: text("nobody"),
                ..newest.clone()
            },
        ),
        (
            "one node",
            LogQuery {
                server_hostname: text("node7"),
                ..newest.clone()
            },
        ),
        (
            "one session",
            LogQuery {
                session_id: text("018bcfe5-6800-7fff-bfff-00000000002a"),
                ..newest.clone()
            },
        ),
        (
            "a rare type",
            LogQuery {
                event_type: text("lock."),
                ..newest.clone()
            },
        ),
        (
            "a common type",
            LogQuery {
                event_type: text("session."),
                ..newest.clone()
            },
        ),
        (
            "failures",
            LogQuery {
                success: Some(false),
                ..newest.clone()
            },
        ),
        (
            "one user's failures in sessions",
            LogQuery {
                user_name: text("user42"),
                event_type: text("session."),
                success: Some(false),
                ..newest.clone()
            },
        ),
        (
            "one user on one node",
            LogQuery {
                user_name: text("user42"),
                server_hostname: text("node7"),
                ..newest.clone()
            },
        ),
        (
            "before a time",
            LogQuery {
                until: Some(middle),
                ..newest.clone()
            },
        ),
        (
            "long ago",
            LogQuery {
                until: Some(UnixTime::from_millis(1_700_000_000_000 + 350_000)),
                ..newest.clone()
            },
        ),
        (
            "one user, long ago",
            LogQuery {
                user_name: text("user42"),
                until: Some(UnixTime::from_millis(1_700_000_000_000 + 350_000)),
                ..newest.clone()
            },
        ),
        (
            "one user, from a time on",
            LogQuery {
                user_name: text("user42"),
                since: Some(middle),
                order: Order::OldestFirst,
                ..newest.clone()
            },
        ),
        (
            "an hour",
            LogQuery {
                since: Some(middle),
                until: Some(middle.plus(mezite_core::Span::from_secs(3600))),
                ..newest
            },
        ),
    ];
    let mut group = criterion.benchmark_group(format!("the last 100 of {count} events"));
    group.sample_size(20);
    for (name, query) in questions {
        group.bench_function(name, |bencher| {
            bencher.iter(|| block_on(store.log(black_box(&query))).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
