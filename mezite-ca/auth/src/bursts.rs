//! Refusals, so bounded that nobody fills the disk with them. The first few from one source, or of one user, are an
//! event each; the rest of a minute is one event that says how many there were.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mezite_audit::catalogue;
use mezite_core::store::Commit;
use mezite_core::{Event, EventId, Span, UnixTime};

use crate::auth::Auth;
use crate::error::Error;

/// How long a burst is counted together.
const WINDOW: Span = Span::from_secs(60);

/// Attempts of one stranger in a window that are events of their own.
const EACH: u64 = 5;

/// Attempts of all strangers in a window that are events of their own.
const ALL: u64 = 120;

/// The same for somebody who is known, and can be locked.
const EACH_KNOWN: u64 = 60;

/// Strangers and users that are told apart in a window; more are counted together.
const SOURCES: usize = 1000;

/// Claimed names that the event of a burst lists, and most bytes of each.
const NAMES: usize = 16;
const NAME_BYTES: usize = 64;

/// How often ended windows are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// Who was refused what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Attempt {
    /// Somebody unknown, a login.
    Login(Option<IpAddr>),
    /// Somebody unknown, to join as a node.
    Join(Option<IpAddr>),
    /// Somebody unknown, to come in through the gateway.
    Gateway(Option<IpAddr>),
    /// A user, what the rules do not allow.
    User(String),
}

impl Attempt {
    /// With all addresses of one network as one.
    fn narrowed(self) -> Self {
        match self {
            Self::Login(source) => Self::Login(source.map(network)),
            Self::Join(source) => Self::Join(source.map(network)),
            Self::Gateway(source) => Self::Gateway(source.map(network)),
            user @ Self::User(_) => user,
        }
    }

    /// Those for whom there is no room.
    fn others(&self) -> Self {
        match self {
            Self::Login(_) => Self::Login(None),
            Self::Join(_) => Self::Join(None),
            Self::Gateway(_) => Self::Gateway(None),
            Self::User(_) => Self::User(String::new()),
        }
    }
}

#[derive(Default)]
pub(crate) struct Bursts(Mutex<State>);

#[derive(Default)]
struct State {
    counted: BTreeMap<Attempt, Counted>,
    window: Option<UnixTime>,
    strangers: u64,
}

struct Counted {
    began: UnixTime,
    seen: u64,
    repeats: u64,
    names: BTreeSet<String>,
    /// The last of those that were only counted.
    last: Option<Event>,
}

impl Bursts {
    /// Counts a refusal; gives the event back if it is to be recorded by itself.
    fn count(&self, who: Attempt, claimed: &str, now: UnixTime, event: Event) -> Option<Event> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let over = |began: UnixTime| now >= began.plus(WINDOW) || now < began;
        if state.window.is_none_or(over) {
            state.window = Some(now);
            state.strangers = 0;
        }
        let mut who = who.narrowed();
        if !state.counted.contains_key(&who) && state.counted.len() >= SOURCES {
            who = who.others();
        }
        let known = matches!(who, Attempt::User(_));
        let counted = state.counted.entry(who).or_insert_with(|| Counted {
            began: now,
            seen: 0,
            repeats: 0,
            names: BTreeSet::new(),
            last: None,
        });
        counted.seen += 1;
        if known && counted.seen <= EACH_KNOWN {
            return Some(event);
        }
        if !known && counted.seen <= EACH && state.strangers < ALL {
            state.strangers += 1;
            return Some(event);
        }
        counted.repeats += 1;
        if counted.names.len() < NAMES {
            counted
                .names
                .insert(claimed.chars().take(NAME_BYTES).collect());
        }
        counted.last = Some(event);
        None
    }

    /// Ends windows that are over at `now`, or all; gives the events that tell of them.
    fn ended(&self, now: Option<UnixTime>) -> Vec<Event> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |counted: &Counted| {
            now.is_none_or(|now| now >= counted.began.plus(WINDOW) || now < counted.began)
        };
        let all = std::mem::take(&mut state.counted);
        let (ended, running): (BTreeMap<_, _>, _) =
            all.into_iter().partition(|(_, counted)| over(counted));
        state.counted = running;
        let told = |counted: Counted| {
            let names: Vec<String> = counted.names.into_iter().collect();
            counted
                .last
                .map(|last| catalogue::repeated(last, counted.repeats, &names))
        };
        ended.into_values().filter_map(told).collect()
    }
}

/// One customer of a provider has a /64 of IPv6, not an address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl Auth {
    /// Records a refusal: durably now, or within about a minute together with more of the kind. Gives the event's id if
    /// it has one of its own.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn report_refused(
        &self,
        who: Attempt,
        claimed: &str,
        event: Event,
    ) -> Result<Option<EventId>, Error> {
        let counted = self.bursts().count(who, claimed, self.now(), event);
        let Some(event) = counted else {
            return Ok(None);
        };
        let id = event.id;
        self.commit(Commit::new(event)).await?;
        Ok(Some(id))
    }

    /// Records the bursts that are over, until the future is dropped.
    pub async fn run_bursts(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.report_bursts(Some(self.now())).await;
        }
    }

    /// Records what was counted in windows that are over at `now`; without it, all.
    pub async fn report_bursts(&self, now: Option<UnixTime>) {
        let mut events = self.bursts().ended(now).into_iter();
        let Some(first) = events.next() else { return };
        let commit = events.fold(Commit::new(first), Commit::and_event);
        if let Err(error) = self.commit(commit).await {
            tracing::error!(%error, "counted refusals could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_000_000);

    fn event() -> Event {
        Event::new("test.event", "MZ0000", START, [[1; 16]; 2])
    }

    fn count(bursts: &Bursts, address: [u8; 4], claimed: &str, now: UnixTime) -> bool {
        let who = Attempt::Login(Some(IpAddr::from(address)));
        bursts.count(who, claimed, now, event()).is_some()
    }

    fn attempts(event: &Event) -> u64 {
        event.field("attempts").unwrap().as_u64().unwrap()
    }

    #[test]
    fn attack_54_a_burst_from_one_source_is_a_few_events_and_a_count() {
        let bursts = Bursts::default();
        let own = (0..100_000).filter(|n| {
            let name = format!("user{}", n % 40);
            count(&bursts, [203, 0, 113, 7], &name, START)
        });
        assert_eq!(own.count(), 5);
        assert!(
            bursts
                .ended(Some(START.plus(Span::from_secs(59))))
                .is_empty()
        );
        let ended = bursts.ended(Some(START.plus(WINDOW)));
        assert_eq!(ended.len(), 1);
        assert_eq!(attempts(&ended[0]), 99_995);
        let names = ended[0].field("claimed_users").unwrap();
        assert_eq!(names.as_array().unwrap().len(), NAMES);
        assert!(bursts.ended(None).is_empty(), "told once");
        assert!(count(&bursts, [203, 0, 113, 7], "a", START.plus(WINDOW)));
    }

    #[test]
    fn attack_54_many_sources_cannot_fill_the_disk_either() {
        let bursts = Bursts::default();
        let mut own = 0_u64;
        for n in 0_u32..50_000 {
            own += u64::from(count(&bursts, n.to_be_bytes(), "a", START));
        }
        assert_eq!(own, ALL);
        let ended = bursts.ended(None);
        assert!(ended.len() <= SOURCES + 1, "{}", ended.len());
        let rest: u64 = ended.iter().map(attempts).sum();
        assert_eq!(own + rest, 50_000, "none is lost");
    }

    #[test]
    fn attack_54_a_user_who_is_refused_again_and_again_is_counted_and_nobody_else() {
        let bursts = Bursts::default();
        let refuse = |name: &str| {
            let who = Attempt::User(name.to_owned());
            bursts.count(who, name, START, event()).is_some()
        };
        let own = (0..10_000).filter(|_| refuse("mallory")).count();
        assert_eq!(own, 60);
        assert!(refuse("alice"), "everybody has a limit of their own");
        assert!(count(&bursts, [203, 0, 113, 7], "x", START));
        assert_eq!(attempts(&bursts.ended(None)[0]), 9_940);
    }

    #[test]
    fn attack_54_one_network_is_one_source() {
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8::ffff:0:0:1".parse().unwrap())
        );
        assert_eq!(
            network("::ffff:203.0.113.7".parse().unwrap()),
            network("203.0.113.7".parse().unwrap())
        );
    }
}
