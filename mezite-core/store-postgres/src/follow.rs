//! Wakes watchers when other hubs change something.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mezite_core::store::Key;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Notification;

use crate::error::words;
use crate::session::{self, Listener};
use crate::{Options, Shared};

/// How often the counters are looked at, in case that a notification did not come: a connection that died without a word
/// is found so, and a pooler between that swallows notifications costs no more than this.
const BEAT: Duration = Duration::from_millis(500);

/// The most that a look may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The pause before a second attempt to connect; it doubles, up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const SLOWEST: Duration = Duration::from_secs(2);

/// Follows until it is aborted.
pub(crate) async fn run(first: Listener, options: Arc<Options>, shared: Arc<Shared>) {
    let mut listener = first;
    loop {
        let lost = listen(&mut listener, &shared).await;
        tracing::warn!(database = %options, error = lost, "no news from other hubs; connecting again");
        listener = connect(&options).await;
        tracing::info!(database = %options, "connected again");
        // What was changed meanwhile nobody told.
        let now = changed(&listener).await.unwrap_or_default();
        shared.publish_all(now);
    }
}

async fn connect(options: &Options) -> Listener {
    let mut pause = FASTEST;
    loop {
        match session::listen(options).await {
            Ok(listener) => return listener,
            Err(error) => tracing::debug!(error = words(&error), "the database is away"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(SLOWEST);
    }
}

/// Gives the reason why it ended.
async fn listen(listener: &mut Listener, shared: &Shared) -> String {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = 0;
    loop {
        tokio::select! {
            heard = listener.heard.recv() => match heard {
                Some(notification) => hear(&notification, shared),
                None => return String::from("the connection was lost"),
            },
            _ = beat.tick() => match changed(listener).await {
                Ok(now) => {
                    // Was there a beat ago and still is news.
                    if before > shared.told.load(Ordering::Relaxed) {
                        shared.publish_all(before);
                    }
                    before = now;
                }
                Err(error) => return error,
            },
        }
    }
}

/// The revision that last changed an entry.
async fn changed(listener: &Listener) -> Result<u64, String> {
    let asked = listener
        .client
        .query_one("SELECT changed FROM mezite.counter", &[]);
    let row = timeout(ANSWER, asked)
        .await
        .map_err(|_| String::from("no answer"))?;
    let changed: i64 = row
        .and_then(|row| row.try_get(0))
        .map_err(|error| words(&error))?;
    Ok(changed.unsigned_abs())
}

fn hear(notification: &Notification, shared: &Shared) {
    if notification.channel() != session::CHANNEL
        || notification.process_id() == shared.writer.load(Ordering::Relaxed)
    {
        return;
    }
    shared.hear_others();
    match parse(notification.payload()) {
        Some((revision, keys)) if keys.is_empty() => shared.publish_all(revision),
        Some((revision, keys)) => shared.publish(revision, &keys),
        None => tracing::warn!("a notification that no hub sends was heard"),
    }
}

/// Revision and keys; no keys stand for all.
fn parse(payload: &str) -> Option<(u64, Vec<Key>)> {
    let (revision, keys) = payload.split_once(' ')?;
    let keys = keys.split(' ').filter(|key| !key.is_empty());
    let keys = keys.map(Key::new).collect::<Result<_, _>>().ok()?;
    Some((revision.parse().ok()?, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hub_sends_is_understood_and_nothing_else() {
        let key = |text: &str| Key::new(text).unwrap();
        assert_eq!(
            parse("7 user/a node/b"),
            Some((7, vec![key("user/a"), key("node/b")]))
        );
        assert_eq!(parse("7 "), Some((7, vec![])));
        for strange in [
            "",
            "7",
            "x user/a",
            "7 us\u{e9}r",
            "-1 a",
            "99999999999999999999 a",
        ] {
            assert_eq!(parse(strange), None, "{strange}");
        }
    }
}
