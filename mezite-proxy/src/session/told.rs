//! Which forwards of a session are events of their own, and which share one: a client cannot fill the log with them.
//! In the recording each stands by itself.

use std::collections::{BTreeMap, BTreeSet};

use mezite_core::Span;
use sha2::{Digest, Sha256};

use super::{Direction, Fact, Route, Step};

/// Refused forwards that are an event each.
const REFUSED_EACH: u64 = 20;

/// Opened forwards that are events of their own, whatever they lead to.
const OPENED_EACH: u64 = 100;

/// Places to which the first forward is told, however many went elsewhere before.
const PLACES: usize = 1000;

/// Of the others, how many of a kind make one event.
const BURST: u64 = 1000;

/// How often a client may have the node listen.
const LISTENED: u32 = 1000;

/// What the log was told of a session's forwards.
#[derive(Debug, Default)]
pub(super) struct Told {
    refused: u64,
    /// The last of those refused that were only counted, with why, and how many they are.
    refused_rest: Option<(Route, String, u64)>,
    opened: u64,
    places: BTreeSet<(Direction, [u8; 32])>,
    /// Ended forwards that are no event yet, by their way and whether they worked.
    rest: BTreeMap<(Direction, bool), (Route, Sum)>,
    listened: u32,
}

/// What forwards that share an event have carried.
#[derive(Debug, Default)]
struct Sum {
    to_client: u64,
    to_node: u64,
    longest: Span,
    error: Option<String>,
    forwards: u64,
}

impl Sum {
    fn step(self) -> Step {
        Step::Closed {
            to_client: self.to_client,
            to_node: self.to_node,
            lasted: self.longest,
            error: self.error,
            attempts: self.forwards,
        }
    }
}

impl Told {
    /// One was refused: the event to make now, if any.
    pub(super) fn refused(&mut self, route: Route, why: String) -> Option<Fact> {
        self.refused = self.refused.saturating_add(1);
        if self.refused <= REFUSED_EACH {
            return Some(Fact::Forward(route, Step::Refused { why, attempts: 1 }));
        }
        let rest = self.refused.saturating_sub(REFUSED_EACH);
        self.refused_rest = Some((route, why, rest));
        None
    }

    /// Whether a forward that is opened now has events of its own.
    pub(super) fn opened(&mut self, route: &Route) -> bool {
        self.opened = self.opened.saturating_add(1);
        let place = Sha256::digest(&route.destination).into();
        let is_new = self.places.len() < PLACES && self.places.insert((route.direction, place));
        is_new || self.opened <= OPENED_EACH
    }

    /// One that shares its event has ended: the event to make now, if any.
    pub(super) fn ended(&mut self, route: Route, step: Step) -> Option<Fact> {
        let Step::Closed {
            to_client,
            to_node,
            lasted,
            error,
            attempts,
        } = step
        else {
            return Some(Fact::Forward(route, step));
        };
        let key = (route.direction, error.is_none());
        let (_, mut sum) = self
            .rest
            .remove(&key)
            .unwrap_or_else(|| (route.clone(), Sum::default()));
        sum.to_client = sum.to_client.saturating_add(to_client);
        sum.to_node = sum.to_node.saturating_add(to_node);
        sum.longest = sum.longest.max(lasted);
        sum.forwards = sum.forwards.saturating_add(attempts);
        sum.error = error;
        if sum.forwards >= BURST {
            return Some(Fact::Forward(route, sum.step()));
        }
        self.rest.insert(key, (route, sum));
        None
    }

    /// Whether the client may have the node listen once more.
    pub(super) const fn may_listen(&mut self) -> bool {
        self.listened = self.listened.saturating_add(1);
        self.listened <= LISTENED
    }

    /// The session is over: what was only counted so far.
    pub(super) fn rest(&mut self) -> Vec<Fact> {
        let refused = self.refused_rest.take();
        let refused = refused
            .map(|(route, why, attempts)| Fact::Forward(route, Step::Refused { why, attempts }));
        let ended = std::mem::take(&mut self.rest).into_values();
        let ended = ended.map(|(route, sum)| Fact::Forward(route, sum.step()));
        ended.chain(refused).collect()
    }
}
