//! What must be true of every row.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mezite_core::event::MAX_BYTES;
use mezite_core::{
    Event, Labels, Login, NodeId, NodeName, RoleName, Serial, SessionId, UnixTime, UserName,
};
use serde_json::Value;

use super::table::samples;
use super::*;

/// Values for every type that a field can have.
pub(crate) struct Pool {
    text: String,
    texts: Vec<String>,
    labels: Labels,
    login: Login,
    node_id: NodeId,
    node_name: NodeName,
    role: RoleName,
    roles: Vec<RoleName>,
    user: UserName,
}

impl Pool {
    /// Every text is `text`; every other value is as long as its type lets it be.
    fn of(text: &str) -> Self {
        let role: RoleName = "r".repeat(63).parse().unwrap();
        let labels = (0..64).map(|n| (format!("{}{n}", "k".repeat(60)), "\"".repeat(255)));
        Self {
            text: text.into(),
            texts: vec![text.into(); 2000],
            labels: Labels::new(labels.collect()).unwrap(),
            login: "l".repeat(32).parse().unwrap(),
            node_id: NodeId::new([7; 16]),
            node_name: "n".repeat(63).parse().unwrap(),
            roles: vec![role.clone(); 2000],
            role,
            user: "u".repeat(64).parse().unwrap(),
        }
    }
}

pub(crate) trait Sample<'a> {
    fn sample(pool: &'a Pool) -> Self;
}

macro_rules! sample {
    ($($type:ty, $value:expr;)+) => {$(
        impl<'a> Sample<'a> for $type {
            fn sample(pool: &'a Pool) -> Self {
                let value: fn(&'a Pool) -> Self = $value;
                value(pool)
            }
        }
    )+};
}

sample! {
    &'a str, |pool| &pool.text;
    &'a [String], |pool| &pool.texts;
    &'a [RoleName], |pool| &pool.roles;
    &'a Labels, |pool| &pool.labels;
    &'a Login, |pool| &pool.login;
    &'a NodeId, |pool| &pool.node_id;
    &'a NodeName, |pool| &pool.node_name;
    &'a RoleName, |pool| &pool.role;
    &'a UserName, |pool| &pool.user;
    Json, |pool| Json::of(&pool.text);
    IpAddr, |_| [0xffff_u16; 8].into();
    Serial, |_| Serial::from_u64(u64::MAX);
    SessionId, |_| SessionId::from_bytes([9; 16]);
    UnixTime, |_| UnixTime::from_secs(253_402_300_799);
    bool, |_| false;
    u32, |_| u32::MAX;
    u64, |_| u64::MAX;
}

impl<'a, T: Sample<'a>> Sample<'a> for Option<T> {
    fn sample(pool: &'a Pool) -> Self {
        Some(T::sample(pool))
    }
}

fn stamp(cluster: &ClusterName) -> Stamp<'_> {
    Stamp {
        now: UnixTime::from_secs(1_769_846_400),
        random: [[1; 16], [2; 16]],
        cluster,
    }
}

fn sampled(text: &str) -> Vec<Event> {
    samples(&Pool::of(text), &stamp(&"example".parse().unwrap()))
}

#[test]
fn types_and_codes_are_unique_and_well_formed() {
    let types: BTreeSet<_> = all().iter().map(|entry| entry.event_type).collect();
    let codes: BTreeSet<_> = all().iter().map(|entry| entry.event_code).collect();
    assert_eq!((types.len(), codes.len()), (all().len(), all().len()));
    for entry in all() {
        let (letters, digits) = entry.event_code.split_at(2);
        assert!(letters == "MZ" && digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()));
        assert!(entry.event_type.contains('.') && entry.description.trim().ends_with('.'));
        assert!(find(entry.event_type).is_some());
    }
    assert!(find("user.").is_none());
}

#[test]
fn examples_have_the_shape_of_real_events() {
    let cluster = "example".parse().unwrap();
    for (entry, real) in all().iter().zip(sampled("x")) {
        let example = entry.example(&stamp(&cluster));
        let names = entry.constants.iter().map(|(name, _)| *name);
        let names: Vec<_> = names
            .chain(entry.fields.iter().map(|field| field.name))
            .collect();
        for name in &names {
            let (shown, made) = (example.field(name).unwrap(), real.field(name).unwrap());
            assert_eq!(
                std::mem::discriminant(shown),
                std::mem::discriminant(made),
                "{}: {name} = {shown}",
                entry.event_type
            );
        }
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{}", entry.event_type);
    }
}

#[test]
fn a_field_is_never_named_like_a_note_on_another() {
    let names: BTreeSet<_> = all()
        .iter()
        .flat_map(|entry| entry.fields.iter().map(|field| field.name))
        .collect();
    for name in &names {
        for note in ["_bytes", "_count", "_escaped"] {
            assert!(
                !names.contains(format!("{name}{note}").as_str()),
                "{name}{note}"
            );
        }
    }
}

#[test]
fn attack_54_no_text_makes_an_event_too_long_for_the_log() {
    for text in ["\"", "\\", "\u{1b}", "\u{e0001}", "日", "\n\"", "a"] {
        for event in sampled(&text.repeat(40_000)) {
            let bytes = event.render(u64::MAX).len();
            assert!(
                bytes <= MAX_BYTES,
                "{}: {bytes} bytes of {text:?}",
                event.event_type
            );
        }
    }
}

#[test]
fn attack_56_no_event_carries_odd_characters_or_breaks_its_line() {
    let evil = "x\r\n\u{1b}]0;\u{7}\",\"sequence\":1,\u{202e}\u{2028}\u{0}\u{9b}31m\u{feff}";
    for event in sampled(evil) {
        let body = String::from_utf8(event.render(1)).unwrap();
        assert!(
            !body
                .chars()
                .any(|c| c.is_control() || "\u{202e}\u{2028}\u{feff}".contains(c))
        );
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["sequence"], 1);
    }
}

#[test]
fn attack_56_what_was_cut_is_said() {
    let command = "x".repeat(LONG_TEXT_BYTES + 1);
    let exec = sampled(&command)
        .into_iter()
        .find(|event| event.event_type == SessionExec::TYPE)
        .unwrap();
    assert_eq!(exec.text("command").unwrap().len(), LONG_TEXT_BYTES);
    assert_eq!(
        exec.field("command_bytes"),
        Some(&Value::from(LONG_TEXT_BYTES + 1))
    );
    assert_eq!(exec.texts().collect::<Vec<_>>(), [("command", &*command)]);
    let attempt = sampled(&command)
        .into_iter()
        .find(|event| event.event_type == UserLoginFailed::TYPE)
        .unwrap();
    assert_eq!(
        attempt.texts().count(),
        0,
        "of strangers only the beginning"
    );
    let login = sampled("a\nb").remove(0);
    assert_eq!(login.text("method"), Some("a\\nb"));
    assert_eq!(login.field("method_escaped"), Some(&Value::from(true)));
    assert_eq!(login.field("method_bytes"), None);
    assert_eq!(login.field("user_roles_count"), Some(&Value::from(2000)));
}

#[test]
fn attack_57_refusals_failures_and_reads_are_in_the_catalogue() {
    for event_type in [
        "user.login.failed",
        "auth.attempt.failed",
        "authz.denied",
        "node.join.failed",
        "session.recording.failed",
        "audit.pruned",
        "audit.sink.failed",
        "audit.read",
        "recording.read",
        "policy.read",
    ] {
        assert!(find(event_type).is_some(), "{event_type}");
    }
}

#[test]
fn no_field_is_named_like_a_secret() {
    for entry in all() {
        for field in entry.fields {
            for word in ["password", "secret", "private", "seed"] {
                assert!(
                    !field.name.contains(word),
                    "{}: {}",
                    entry.event_type,
                    field.name
                );
            }
            assert_ne!(field.name, "token");
        }
    }
}
