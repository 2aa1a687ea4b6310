//! kill -9 at random moments, of the hub and of its database, while users log in, administrators change things and sessions
//! run: everything that anybody saw happen has its event, no event claims what did not happen, and the log verifies.
//!
//! `MEZITE_CRASHES` says how often (20 without it); `cargo xtask test --full` says 1,000.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mezite_store_postgres::testing::Server;
use serde_json::Value;

use crate::house::{House, PATIENCE, User, Way, lock, login, run, stock, text, write};

/// Something that somebody saw happen: an event of this type has this value in this field.
type Seen = (&'static str, &'static str, String);

/// How often to kill, by the environment or `otherwise`.
pub(crate) fn times(otherwise: u64) -> u64 {
    match std::env::var("MEZITE_CRASHES") {
        Ok(times) => times.parse().unwrap(),
        Err(_) => otherwise,
    }
}

/// One thing after the other, until one fails or the round is over: what was seen to be done is noted.
struct Driver<'a> {
    house: &'a House,
    seen: Mutex<Vec<Seen>>,
    over: AtomicBool,
}

impl Driver<'_> {
    fn saw(&self, event_type: &'static str, field: &'static str, value: impl Into<String>) {
        lock(&self.seen).push((event_type, field, value.into()));
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// An administrator: users, roles, locks.
    fn administer(&self, round: u64) {
        for turn in (0..).take_while(|_| self.goes_on()) {
            let name = format!("u{round}-{turn}");
            let add = ["users", "add", &name, "--roles", "access", "-o", "json"];
            if self.house.mezctl(&add).code != 0 {
                return;
            }
            self.saw("user.created", "resource_name", &name);
            let role = format!("r{round}-{turn}");
            let file = self.house.path(&format!("{role}.yaml"));
            write(
                &file,
                format!(
                    "kind: role\nversion: v1\nmetadata: {{name: {role}}}\nspec: {{allow: {{node_labels: {{a: b}}, logins: [c]}}}}\n"
                ),
            );
            if self
                .house
                .mezctl(&["apply", "-f", file.to_str().unwrap()])
                .code
                != 0
            {
                return;
            }
            self.saw("role.created", "resource_name", &role);
            if self
                .house
                .mezctl(&["lock", "user", &name, "--reason", "test"])
                .code
                != 0
            {
                return;
            }
            self.saw("lock.created", "target_name", &name);
            if self.house.mezctl(&["rm", "role", &role]).code != 0 {
                return;
            }
            self.saw("role.deleted", "resource_name", &role);
        }
    }

    /// A user: logs in and opens sessions.
    fn work(&self, user: &User<'_>) {
        while self.goes_on() {
            if user.log_in(&[]).code != 0 {
                return;
            }
            self.saw("user.cert.issued", "serial", serial(user));
            let told = run(user.ssh(Way::Proxy, "web").arg("echo seen"));
            if told.out() == "seen\n" {
                // Whatever came through went through a session that was granted, certified and begun.
                for event_type in ["access.granted", "session.cert.issued", "session.start"] {
                    self.saw(event_type, "user_name", &user.name);
                }
            }
            if told.code != 0 {
                return;
            }
        }
    }
}

/// Of the certificate that a login has left.
fn serial(user: &User<'_>) -> String {
    let key = user.key();
    let certificate = format!("{}-cert.pub", key.display());
    let shown = run(stock("ssh-keygen").args(["-L", "-f", &certificate])).ok();
    let line = shown
        .lines()
        .find_map(|line| line.trim().strip_prefix("Serial: "));
    line.unwrap().to_owned()
}

/// The log as it was read so far: reading all of it in each round would take longer than the round.
#[derive(Default)]
struct Log(Vec<Value>);

/// Most events that are asked for at once.
const PAGE: &str = "500";

impl Log {
    fn last(&self) -> u64 {
        self.0.last().map_or(0, sequence)
    }

    /// Reads what is new; all of it if that is more than a page.
    fn read_on(&mut self, house: &House) {
        let newest = house
            .mezctl(&["audit", "ls", "-n", PAGE, "-o", "json"])
            .json();
        let mut newest = newest.as_array().unwrap().clone();
        newest.sort_by_key(sequence);
        if newest.first().map_or(0, sequence) > self.last() + 1 {
            newest = house.events();
        }
        let last = self.last();
        newest.retain(|event| sequence(event) > last);
        self.0.extend(newest);
    }
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_u64().unwrap()
}

/// Every session that began has an end, or a recording that was recovered; the hub sees to what is owed within seconds.
fn sessions_end(house: &House, log: &mut Log) {
    let open = |log: &Log| -> BTreeSet<String> {
        let of_type = |types: &[&str]| -> BTreeSet<String> {
            let found = log
                .0
                .iter()
                .filter(|event| types.contains(&text(event, "event_type").as_str()));
            found.map(|event| text(event, "session_id")).collect()
        };
        let begun = of_type(&["session.start"]);
        let ended = of_type(&["session.end", "session.recording.recovered"]);
        begun.difference(&ended).cloned().collect()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        log.read_on(house);
        let open = open(log);
        if open.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "sessions without an end: {open:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Holds everything against everything. What stands after `known` is of this round.
fn judge(house: &House, seen: &[Seen], log: &mut Log, known: u64) {
    log.read_on(house);
    let events = &log.0;
    let sequences = events.iter().map(sequence);
    assert!(
        sequences.eq(1..=u64::try_from(events.len()).unwrap()),
        "gap-free"
    );
    let fresh: Vec<&Value> = events
        .iter()
        .filter(|event| sequence(event) > known)
        .collect();
    for (event_type, field, value) in seen {
        let found = fresh.iter().filter(|event| {
            text(event, "event_type") == *event_type && text(event, field) == *value
        });
        let wanted = seen
            .iter()
            .filter(|other| *other == &(*event_type, *field, value.clone()))
            .count();
        assert!(
            found.count() >= wanted,
            "{event_type} of {value} was seen {wanted} times and is not in the log so often"
        );
    }
    // What the log says of users and roles is how they are.
    for (kind, made, gone) in [
        ("users", "user.created", "user.deleted"),
        ("roles", "role.created", "role.deleted"),
    ] {
        let names = |event_type: &str| -> Vec<String> {
            let of_type = events
                .iter()
                .filter(|event| text(event, "event_type") == event_type);
            of_type.map(|event| text(event, "resource_name")).collect()
        };
        let mut told: BTreeSet<String> = names(made).into_iter().collect();
        for name in names(gone) {
            told.remove(&name);
        }
        let listed = house.mezctl(&["get", kind, "-o", "json"]).json();
        let listed = listed.as_array().unwrap().iter();
        let listed: BTreeSet<String> = listed.map(|one| text(&one["metadata"], "name")).collect();
        assert_eq!(told, listed, "{kind} by the log and by the store");
    }
    house.mezctl(&["audit", "verify"]).ok();
}

/// Which process is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Hub,
    Database,
}

fn crash_often(house: &House, times: u64, victim: impl Fn(u64) -> Victim, server: Option<&Server>) {
    house.agent("web");
    let users = ["alice", "bob"].map(|name| house.user_with(name, "access", &login(), &[]));
    let mut log = Log::default();
    judge(house, &[], &mut log, 0);
    // Different on each run, and told.
    let seed = u64::from(std::process::id());
    for round in 0..times {
        let known = log.last();
        let driver = Driver {
            house,
            seen: Mutex::default(),
            over: AtomicBool::new(false),
        };
        let hash = (seed ^ round).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let moment = Duration::from_millis(20 + hash % 900);
        let victim = victim(round);
        std::thread::scope(|scope| {
            for user in &users {
                scope.spawn(|| driver.work(user));
            }
            scope.spawn(|| driver.administer(round));
            std::thread::sleep(moment);
            match (victim, server) {
                (Victim::Database, Some(server)) => {
                    server.crash();
                    server.restart();
                }
                (Victim::Hub | Victim::Database, _) => {
                    house.crash_hub();
                    house.start_hub();
                }
            }
            driver.over.store(true, Ordering::SeqCst);
        });
        crate::house::until("the hub", || house.mezctl(&["status"]).code == 0);
        settle(house);
        let seen = std::mem::take(&mut *lock(&driver.seen));
        eprintln!(
            "round {round}: {victim:?} killed after {moment:?}, {} things seen",
            seen.len()
        );
        sessions_end(house, &mut log);
        judge(house, &seen, &mut log, known);
        crate::house::until("the node", || house.is_online("web"));
    }
    // What was read in pieces is what stands there.
    let whole = house.events();
    assert_eq!(whole.get(..log.0.len()), Some(log.0.as_slice()));
}

/// A hub that lives on ends its sessions in their own time.
fn settle(house: &House) {
    crate::house::until("the sessions' ends", || {
        let listed = house.mezctl(&["sessions", "ls", "-o", "json"]);
        listed.code == 0 && listed.json().as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn attack_54_a_hub_on_sqlite_that_is_killed_at_any_moment_tells_the_truth() {
    crash_often(&House::start(), times(20), |_| Victim::Hub, None);
}

#[test]
fn attack_54_a_hub_on_postgresql_and_its_database_killed_at_any_moment_tell_the_truth() {
    let server = Server::start(&[]);
    let string = server.database();
    let house = House::start_with(|_| format!("store:\n  postgres:\n    url: {string}\n"));
    let victim = |round| {
        if round % 2 == 0 {
            Victim::Hub
        } else {
            Victim::Database
        }
    };
    crash_often(&house, times(20), victim, Some(&server));
}
