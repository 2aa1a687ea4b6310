//! The options of a role, how those of several roles merge to the strictest, and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use mezite_core::Span;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::budget::{MAX_FORWARDS, MAX_VALUES};
use crate::document::{Bounded, announced};
use crate::forward::Destination;
use crate::word::{excerpt, words};

/// `spec.options`: what is not said is left to the other roles, and then to the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "positive")]
    pub(crate) max_session_ttl: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "positive")]
    pub(crate) idle_timeout: Option<Span>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) port_forwarding: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) file_copy: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) agent_forwarding: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) x11_forwarding: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) nested_ssh: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) forward_destinations: Option<ForwardList>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) forward_listen: Option<ForwardList>,
    #[serde(skip_serializing_if = "Record::says_nothing")]
    pub(crate) record: Record,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) max_sessions: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Factor::is_none")]
    pub(crate) require_session_mfa: Factor,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) source_networks: Option<Bounded<Network, 1, MAX_VALUES>>,
}

type ForwardList = Bounded<Destination, 1, MAX_FORWARDS>;

/// `spec.options.record`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Record {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) input: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) file_content: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) announce_watchers: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "announced"
    )]
    pub(crate) on_failure: Option<OnFailure>,
}

impl Record {
    fn says_nothing(&self) -> bool {
        *self == Self::default()
    }
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    let span = Span::deserialize(deserializer)?;
    if span.as_millis() == 0 {
        return Err(serde::de::Error::custom(
            "a limit of no time at all would end every session: leave the option out for no limit",
        ));
    }
    Ok(Some(span))
}

/// The name of a second factor; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Factor(String);

impl Factor {
    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for Factor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let valid = text.len() <= 32
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if valid {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is not a second factor: at most 32 of a-z 0-9 -, or \"\" for none",
            excerpt(&text)
        ))
    }
}

impl From<Factor> for String {
    fn from(factor: Factor) -> Self {
        factor.0
    }
}

/// What to do with a session whose recording cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new way must be handled by whoever enforces it"
)]
pub enum OnFailure {
    /// Hold the session until the recorder is back.
    Suspend,
    /// End the session. Stricter, and the default.
    Terminate,
}

/// What has to be recorded. Output always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordObligation {
    /// What the user types, too.
    pub input: bool,
    /// What files hold that are copied by SFTP or scp, too.
    pub file_content: bool,
    /// Whether the user is told who watches the session, and who does no longer.
    pub announce_watchers: bool,
    /// What happens when the recording cannot be written.
    pub on_failure: OnFailure,
}

/// The conditions of a yes: the options of every role that allowed this target, merged to the strictest (SPEC.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligations {
    /// Most time from the start of the session to its end.
    pub max_session_ttl: Option<Span>,
    /// Most time without input.
    pub idle_timeout: Option<Span>,
    /// Whether anything may be forwarded; where to, the two lists say.
    pub port_forwarding: bool,
    /// Where forwards may lead: to what every one of these lists permits; without a list, nowhere.
    pub forward_destinations: BTreeSet<BTreeSet<Destination>>,
    /// Where a session may listen on its node, for forwards back to the client: likewise.
    pub forward_listen: BTreeSet<BTreeSet<Destination>>,
    /// Whether files may be copied (SFTP, `scp`).
    pub file_copy: bool,
    /// Whether the SSH agent may be forwarded.
    pub agent_forwarding: bool,
    /// Whether X11 may be forwarded.
    pub x11_forwarding: bool,
    /// Whether another SSH connection may lie inside a forward or a command's stream.
    pub nested_ssh: bool,
    /// What has to be recorded.
    pub record: RecordObligation,
    /// Most sessions of this user at the same time; at least 1.
    pub max_sessions: Option<u32>,
    /// Names of the second factors that have to be shown for this session, all of them. Whoever enforces this
    /// refuses a name that it does not know.
    pub require_session_mfa: BTreeSet<String>,
    /// Where the session may come from: anywhere when none is said, nowhere when the list is empty.
    pub source_networks: Option<Vec<Network>>,
}

/// What holds where no role says anything: no limits, nothing extra allowed.
impl Default for Obligations {
    fn default() -> Self {
        Merged::default().finish()
    }
}

impl Obligations {
    /// Whether a session under these conditions may do `action`.
    #[must_use]
    pub fn permits(&self, action: Action) -> bool {
        match action {
            Action::Shell | Action::Exec => true,
            Action::Sftp => self.file_copy,
            Action::PortForwarding => self.port_forwarding,
            Action::AgentForwarding => self.agent_forwarding,
            Action::X11Forwarding => self.x11_forwarding,
        }
    }

    /// Whether a session may come from `source`. An unknown source is in no network.
    #[must_use]
    pub fn admits(&self, source: Option<IpAddr>) -> bool {
        match (&self.source_networks, source) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(networks), Some(source)) => {
                networks.iter().any(|network| network.contains(source))
            }
        }
    }
}

words!(
    /// What is asked for within a session.
    Action, "action",
    /// Forward the SSH agent.
    AgentForwarding => "agent-forwarding",
    /// Run a command.
    Exec => "exec",
    /// Forward ports.
    PortForwarding => "port-forwarding",
    /// Copy files by the subsystem `sftp`, which `scp` uses, too.
    Sftp => "sftp",
    /// Work at a prompt.
    Shell => "shell",
    /// Forward X11.
    X11Forwarding => "x11-forwarding",
);

impl Obligations {
    /// Names and values, with those of `record` beside the others: `record.input`.
    pub(crate) fn to_fields(&self) -> BTreeMap<String, Value> {
        // Maps, lists, flags, numbers and strings always have a JSON form.
        let json = serde_json::to_value(self).unwrap_or_default();
        let Value::Object(fields) = json else {
            return BTreeMap::new();
        };
        let mut flat = BTreeMap::new();
        for (name, value) in fields {
            if let Value::Object(inner) = value {
                let parts = inner.into_iter();
                flat.extend(parts.map(|(part, value)| (format!("{name}.{part}"), value)));
            } else {
                flat.insert(name, value);
            }
        }
        flat
    }
}

/// The options of several roles on their way to [`Obligations`]. Merging is commutative, associative and idempotent.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    said: Options,
    factors: BTreeSet<String>,
    networks: Option<Vec<Network>>,
    destinations: BTreeSet<BTreeSet<Destination>>,
    listen: BTreeSet<BTreeSet<Destination>>,
}

impl Merged {
    pub(crate) fn add(&mut self, options: &Options) {
        let said = &mut self.said;
        said.max_session_ttl = strictest(said.max_session_ttl, options.max_session_ttl, Ord::min);
        said.idle_timeout = strictest(said.idle_timeout, options.idle_timeout, Ord::min);
        said.port_forwarding = strictest(said.port_forwarding, options.port_forwarding, Ord::min);
        said.file_copy = strictest(said.file_copy, options.file_copy, Ord::min);
        said.agent_forwarding =
            strictest(said.agent_forwarding, options.agent_forwarding, Ord::min);
        said.x11_forwarding = strictest(said.x11_forwarding, options.x11_forwarding, Ord::min);
        said.nested_ssh = strictest(said.nested_ssh, options.nested_ssh, Ord::min);
        said.record.input = strictest(said.record.input, options.record.input, Ord::max);
        said.record.file_content = strictest(
            said.record.file_content,
            options.record.file_content,
            Ord::max,
        );
        said.record.announce_watchers = strictest(
            said.record.announce_watchers,
            options.record.announce_watchers,
            Ord::max,
        );
        said.record.on_failure =
            strictest(said.record.on_failure, options.record.on_failure, Ord::max);
        said.max_sessions = strictest(said.max_sessions, options.max_sessions, Ord::min);
        if !options.require_session_mfa.is_none() {
            self.factors.insert(options.require_session_mfa.0.clone());
        }
        if let Some(networks) = &options.source_networks {
            self.networks = Some(match self.networks.take() {
                None => sorted(networks.iter().copied()),
                Some(before) => common(&before, networks),
            });
        }
        let list = |said: &ForwardList| said.iter().cloned().collect::<BTreeSet<_>>();
        self.destinations
            .extend(options.forward_destinations.as_ref().map(list));
        self.listen
            .extend(options.forward_listen.as_ref().map(list));
    }

    pub(crate) fn max_session_ttl(&self) -> Option<Span> {
        self.said.max_session_ttl
    }

    pub(crate) fn finish(self) -> Obligations {
        let said = self.said;
        Obligations {
            max_session_ttl: said.max_session_ttl,
            idle_timeout: said.idle_timeout,
            port_forwarding: said.port_forwarding.unwrap_or(false),
            file_copy: said.file_copy.unwrap_or(false),
            forward_destinations: self.destinations,
            forward_listen: self.listen,
            agent_forwarding: said.agent_forwarding.unwrap_or(false),
            x11_forwarding: said.x11_forwarding.unwrap_or(false),
            nested_ssh: said.nested_ssh.unwrap_or(false),
            record: RecordObligation {
                input: said.record.input.unwrap_or(false),
                file_content: said.record.file_content.unwrap_or(false),
                announce_watchers: said.record.announce_watchers.unwrap_or(false),
                on_failure: said.record.on_failure.unwrap_or(OnFailure::Terminate),
            },
            max_sessions: said.max_sessions.map(NonZeroU32::get),
            require_session_mfa: self.factors,
            source_networks: self.networks,
        }
    }
}

fn strictest<T: Copy>(one: Option<T>, other: Option<T>, pick: fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(pick(one, other)),
        (one, other) => one.or(other),
    }
}

/// The networks inside both lists: of two networks one lies in the other, or they share nothing.
fn common(one: &[Network], other: &[Network]) -> Vec<Network> {
    let narrower = |a: Network, b: Network| match (a.covers(b), b.covers(a)) {
        (true, _) => Some(b),
        (false, true) => Some(a),
        (false, false) => None,
    };
    sorted(
        one.iter()
            .flat_map(|a| other.iter().filter_map(move |b| narrower(*a, *b))),
    )
}

/// Sorted and each once, so that the order of merging cannot be seen.
fn sorted(networks: impl Iterator<Item = Network>) -> Vec<Network> {
    let all: BTreeSet<Network> = networks.collect();
    all.into_iter().collect()
}

/// An IP network in CIDR notation (RFC 4632, RFC 4291 section 2.3); an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{value}` is not a network: {reason}")]
pub struct NetworkError {
    value: String,
    reason: &'static str,
}

impl Network {
    /// The first address in it.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether `address` lies in it. An IPv4 address inside IPv6 (`::ffff:…`) counts as the IPv4 address it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, width) = bits(address.to_canonical());
        let (own, own_width) = bits_of(self);
        width == own_width && host_part_removed(bits, width, self.prefix) == own
    }

    /// Whether it is one address alone.
    pub(crate) fn is_one_address(&self) -> bool {
        self.prefix == bits_of(self).1
    }

    /// Whether every address of `other` lies in it.
    fn covers(&self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

fn bits_of(network: &Network) -> (u128, u8) {
    bits(network.address)
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn host_part_removed(bits: u128, width: u8, prefix: u8) -> u128 {
    let host = u32::from(width.saturating_sub(prefix));
    bits.checked_shr(host)
        .and_then(|high| high.checked_shl(host))
        .unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = |reason| NetworkError {
            value: excerpt(text),
            reason,
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| error("write for example 10.0.0.0/8 or 2001:db8::/32"))?;
        if address.to_canonical() != address {
            return Err(error("write the IPv4 address itself"));
        }
        let (bits, width) = bits(address);
        let prefix = match prefix {
            None => width,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width && !digits.starts_with('+'))
                .ok_or_else(|| error("the prefix is at most 32 for IPv4 and 128 for IPv6"))?,
        };
        if host_part_removed(bits, width, prefix) != bits {
            return Err(error("bits behind the prefix are set"));
        }
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_what_they_say() {
        for (net, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.7", "2001:db8::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ] {
            assert!(
                network(net).contains(inside.parse().unwrap()),
                "{net} {inside}"
            );
            assert!(
                !network(net).contains(outside.parse().unwrap()),
                "{net} {outside}"
            );
        }
    }

    #[test]
    fn networks_refuse_other_forms() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.0/104",
            "example.com",
            "10.0.0.0/-1",
            " 10.0.0.0/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
        assert_eq!(network("10.0.0.1").to_string(), "10.0.0.1/32");
        assert_eq!(network("10.0.0.1/32"), network("10.0.0.1"));
    }

    #[test]
    fn each_action_has_its_obligation() {
        let strict = Obligations::default();
        let permitted = |obligations: &Obligations| {
            let all = Action::ALL.iter().copied();
            let permitted = all.filter(|action| obligations.permits(*action));
            permitted.map(Action::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(permitted(&strict), "exec shell");
        for (obligations, more) in [
            (
                Obligations {
                    file_copy: true,
                    ..strict.clone()
                },
                "exec sftp shell",
            ),
            (
                Obligations {
                    port_forwarding: true,
                    ..strict.clone()
                },
                "exec port-forwarding shell",
            ),
            (
                Obligations {
                    agent_forwarding: true,
                    ..strict.clone()
                },
                "agent-forwarding exec shell",
            ),
            (
                Obligations {
                    x11_forwarding: true,
                    ..strict
                },
                "exec shell x11-forwarding",
            ),
        ] {
            assert_eq!(permitted(&obligations), more);
        }
    }

    #[test]
    fn a_factor_has_a_bound() {
        let of = |length: usize| Factor::try_from("a".repeat(length));
        assert!(of(32).is_ok() && of(33).is_err());
    }

    #[test]
    fn common_networks_are_those_inside_both() {
        let one = [network("10.0.0.0/8"), network("192.0.2.0/24")];
        let other = [
            network("10.1.0.0/16"),
            network("10.2.0.0/16"),
            network("192.0.0.0/16"),
        ];
        let both = vec![
            network("10.1.0.0/16"),
            network("10.2.0.0/16"),
            network("192.0.2.0/24"),
        ];
        assert_eq!(common(&one, &other), both);
        assert_eq!(common(&other, &one), both);
        assert_eq!(common(&one, &one), one);
        assert_eq!(common(&one, &[network("172.16.0.0/12")]), []);
    }
}
