//! What the store promises, against a real server: the suites of the seam, several hubs, databases that are not to be
//! opened, connections that break, servers that die.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod breaks;
mod conforms;
mod hubs;
mod opens;
mod wire;

use mezite_core::store::{Key, LogQuery, Store};
use mezite_core::{Event, UnixTime};
use mezite_store_postgres::{Options, PostgresStore};

/// An event that no other number gives.
fn event(number: u64) -> Event {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&number.to_be_bytes());
    Event::new("test.event", "MZ0000", UnixTime::from_secs(1), [random; 2])
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn options(string: &str) -> Options {
    Options::parse(string, None, None).unwrap()
}

async fn open(string: &str) -> PostgresStore {
    PostgresStore::open(options(string)).await.unwrap()
}

/// Every sequence in the log.
async fn sequences(store: &PostgresStore) -> Vec<u64> {
    let log = store.log(&LogQuery::after(0, usize::MAX)).await.unwrap();
    log.iter().map(|stored| stored.sequence).collect()
}
