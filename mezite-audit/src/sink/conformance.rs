//! The suite that every [`Sink`] runs, the fake included.

use async_trait::async_trait;
use mezite_core::event::MAX_BYTES;
use mezite_core::store::StoredEvent;
use mezite_core::{Event, UnixTime};

use super::{Batch, Sink};

/// A receiver under test, and how to look at it from the other side.
#[async_trait]
pub trait Receiver: Send + Sync {
    /// A sink towards it, as after a start of the program. What an earlier one delivered is still there.
    async fn sink(&self) -> Box<dyn Sink>;

    /// The bytes of every event that arrived, in the order in which they came.
    async fn received(&self) -> Vec<Vec<u8>>;

    /// The newest checkpoint that arrived.
    async fn checkpoint(&self) -> Option<String>;

    /// Makes it fail, or work again.
    async fn set_dead(&self, dead: bool);
}

/// Runs every case, each on a fresh receiver from `fresh`.
///
/// # Panics
/// When the sink does not keep the contract, naming the case.
pub async fn all<R: Receiver, F: AsyncFn() -> R>(fresh: F) {
    hands_over_exact_bytes_in_order(&fresh().await).await;
    carries_the_longest_event(&fresh().await).await;
    a_checkpoint_may_come_alone(&fresh().await).await;
    a_dead_receiver_is_told_and_loses_nothing(&fresh().await).await;
    a_restart_repeats_at_most_and_leaves_no_gap(&fresh().await).await;
}

fn event(sequence: u64, text: &str) -> StoredEvent {
    let event = Event::new(
        "session.exec",
        "MZ2010",
        UnixTime::from_secs(sequence),
        [[7; 16]; 2],
    );
    StoredEvent {
        sequence,
        body: event.with("command", text).render(sequence),
    }
}

fn events(range: std::ops::RangeInclusive<u64>) -> Vec<StoredEvent> {
    range
        .map(|sequence| event(sequence, "ls \u{1f980} \"q\" \\ %s <14>1"))
        .collect()
}

async fn hand_over(sink: &dyn Sink, events: &[StoredEvent], note: Option<&str>) {
    let batch = Batch {
        events,
        checkpoint: note,
    };
    sink.deliver(&batch).await.expect("deliver");
}

fn bodies(events: &[StoredEvent]) -> Vec<Vec<u8>> {
    events.iter().map(|event| event.body.clone()).collect()
}

/// The order of first arrivals.
fn firsts(received: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    for body in received {
        if !seen.contains(&body) {
            seen.push(body);
        }
    }
    seen
}

async fn hands_over_exact_bytes_in_order(receiver: &impl Receiver) {
    let sink = receiver.sink().await;
    let log = events(1..=30);
    for part in log.chunks(11) {
        hand_over(&*sink, part, Some("note\n")).await;
    }
    assert_eq!(receiver.received().await, bodies(&log));
    assert_eq!(receiver.checkpoint().await.as_deref(), Some("note\n"));
    let known = sink.acknowledged().await.expect("acknowledged");
    assert!(known == 0 || known == 30, "{known}");
}

async fn carries_the_longest_event(receiver: &impl Receiver) {
    let room = MAX_BYTES - event(1, "").body.len();
    let long = [event(1, &"x".repeat(room)), event(2, "y")];
    hand_over(&*receiver.sink().await, &long, None).await;
    assert_eq!(receiver.received().await, bodies(&long));
}

async fn a_checkpoint_may_come_alone(receiver: &impl Receiver) {
    let sink = receiver.sink().await;
    hand_over(&*sink, &events(1..=1), Some("old\n")).await;
    hand_over(&*sink, &[], Some("new\n\n\u{2014} x y\n")).await;
    assert_eq!(
        receiver.checkpoint().await.as_deref(),
        Some("new\n\n\u{2014} x y\n")
    );
    assert_eq!(receiver.received().await.len(), 1);
}

async fn a_dead_receiver_is_told_and_loses_nothing(receiver: &impl Receiver) {
    let sink = receiver.sink().await;
    let log = events(1..=20);
    let (before, after) = log.split_at(8);
    hand_over(&*sink, before, None).await;
    receiver.set_dead(true).await;
    let batch = Batch {
        events: after,
        checkpoint: None,
    };
    let error = sink.deliver(&batch).await.expect_err("a dead receiver");
    assert!(!error.to_string().is_empty());
    receiver.set_dead(false).await;
    let known = sink.acknowledged().await.expect("acknowledged");
    assert!(
        known == 0 || (8..=20).contains(&known),
        "what was acknowledged stays so: {known}"
    );
    hand_over(&*sink, after, None).await;
    assert_eq!(firsts(receiver.received().await), bodies(&log));
}

async fn a_restart_repeats_at_most_and_leaves_no_gap(receiver: &impl Receiver) {
    let log = events(1..=20);
    let (before, after) = log.split_at(8);
    hand_over(&*receiver.sink().await, before, None).await;
    let sink = receiver.sink().await;
    // The driver's cursor was at 4 when it was killed.
    let known = sink.acknowledged().await.expect("acknowledged").max(4);
    let again = usize::try_from(known).expect("small");
    hand_over(&*sink, before.get(again..).unwrap_or_default(), None).await;
    hand_over(&*sink, after, None).await;
    assert_eq!(firsts(receiver.received().await), bodies(&log));
}

#[cfg(test)]
mod tests {
    use super::super::MemorySink;
    use super::*;

    #[async_trait]
    impl Receiver for MemorySink {
        async fn sink(&self) -> Box<dyn Sink> {
            Box::new(self.clone())
        }

        async fn received(&self) -> Vec<Vec<u8>> {
            bodies(&Self::received(self))
        }

        async fn checkpoint(&self) -> Option<String> {
            Self::checkpoint(self)
        }

        async fn set_dead(&self, dead: bool) {
            Self::set_dead(self, dead);
        }
    }

    #[test]
    fn the_fake_conforms() {
        let mut run = std::pin::pin!(all(async || MemorySink::new()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_ready(), "it never waits");
    }
}
