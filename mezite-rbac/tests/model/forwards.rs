//! SPEC.md 7.3 to 7.7 in naive Rust: entries of `forward_destinations` and `forward_listen`, and what is asked of them.

use mezite_rbac::{Names, Obligations, Place};

use crate::spec::{Model, merge};

/// What is asked: one forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward {
    pub(crate) asked: Asked,
    /// To listen there, and not to connect.
    pub(crate) listen: bool,
    pub(crate) names: Names,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// One of [`ASKED_HOSTS`], and a port.
    Tcp((&'static str, Means), u32),
    Socket(&'static str),
}

/// What the text of a host means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    Name(&'static str),
    Address(&'static str),
    Guarded(&'static str),
    /// Every address of the node.
    Unspecified(&'static str),
    /// Neither an address nor a name; `""` and `"*"` are every address to listen on.
    Neither,
}

pub(crate) const ASKED_HOSTS: [(&str, Means); 14] = [
    ("db", Means::Name("db")),
    ("DB.", Means::Name("db")),
    ("other.example", Means::Name("other.example")),
    ("10.1.2.3", Means::Address("10.1.2.3")),
    ("::ffff:10.1.2.3", Means::Address("10.1.2.3")),
    ("[2001:db8::1]", Means::Address("2001:db8::1")),
    ("192.0.2.1", Means::Address("192.0.2.1")),
    ("169.254.169.254", Means::Guarded("169.254.169.254")),
    ("64:ff9b::a9fe:a9fe", Means::Guarded("169.254.169.254")),
    ("0.0.0.0", Means::Unspecified("0.0.0.0")),
    ("::", Means::Unspecified("::")),
    ("2852039166", Means::Neither),
    ("", Means::Neither),
    ("*", Means::Neither),
];
pub(crate) const ASKED_PORTS: [u32; 6] = [0, 80, 99, 5432, 65_535, 65_536];
pub(crate) const ASKED_SOCKETS: [&str; 7] = [
    "/run/app.sock",
    "/run/app/x",
    "/run/app/x/y",
    "/run/app/",
    "/run/app/..",
    "/run/app",
    "run/app.sock",
];

/// An entry of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// One of [`HOSTS`] and one of [`PORTS`].
    Tcp((&'static str, Holds), (&'static str, u32, u32)),
    Socket(&'static str),
    Directory(&'static str),
}

/// What an entry's host stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holds {
    Everything,
    Name(&'static str),
    Address(&'static str),
    /// Whether an address lies in the network, seen from its text.
    Network(fn(&str) -> bool),
}

pub(crate) const HOSTS: [(&str, Holds); 9] = [
    ("*", Holds::Everything),
    ("db", Holds::Name("db")),
    ("10.1.2.3", Holds::Address("10.1.2.3")),
    ("169.254.169.254", Holds::Address("169.254.169.254")),
    ("0.0.0.0", Holds::Address("0.0.0.0")),
    (
        "10.0.0.0/8",
        Holds::Network(|address| address.starts_with("10.")),
    ),
    (
        "169.254.0.0/16",
        Holds::Network(|address| address.starts_with("169.254.")),
    ),
    ("0.0.0.0/0", Holds::Network(|address| address.contains('.'))),
    ("[::/0]", Holds::Network(|address| address.contains(':'))),
];
pub(crate) const PORTS: [(&str, u32, u32); 4] = [
    ("*", 1, 65_535),
    ("80", 80, 80),
    ("70-99", 70, 99),
    ("1-5432", 1, 5432),
];
pub(crate) const SOCKETS: [Entry; 2] =
    [Entry::Socket("/run/app.sock"), Entry::Directory("/run/app")];

impl Entry {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Tcp((host, _), (ports, ..)) => format!("{host}:{ports}"),
            Self::Socket(path) => (*path).to_owned(),
            Self::Directory(path) => format!("{path}/*"),
        }
    }
}

/// 7.7
pub(crate) fn permitted(roles: &[&Model], forward: &Forward) -> bool {
    let lists: Vec<&Vec<Entry>> = roles
        .iter()
        .filter_map(|role| match forward.listen {
            false => role.options.destinations.as_ref(),
            true => role.options.listen.as_ref(),
        })
        .collect();
    merge(roles).port_forwarding
        && !lists.is_empty()
        && lists
            .iter()
            .all(|list| list.iter().any(|entry| permits(entry, forward)))
}

fn permits(entry: &Entry, forward: &Forward) -> bool {
    match (entry, forward.asked) {
        (Entry::Tcp((_, holds), ports), Asked::Tcp((text, means), port)) => {
            if forward.listen {
                listens(*holds, text, means) && may_bind(*ports, port)
            } else {
                leads(*holds, means, forward.names) && (ports.1..=ports.2).contains(&port)
            }
        }
        // 7.3: the path, byte for byte.
        (Entry::Socket(path), Asked::Socket(asked)) => *path == asked,
        (Entry::Directory(path), Asked::Socket(asked)) => asked
            .strip_prefix(&format!("{path}/"))
            .is_some_and(|file| !file.contains('/') && !["", ".", ".."].contains(&file)),
        _ => false,
    }
}

/// 7.3, 7.4, 7.5
fn leads(holds: Holds, means: Means, names: Names) -> bool {
    match (holds, means) {
        (_, Means::Neither) => false,
        (Holds::Name(own), Means::Name(name)) => own == name,
        (Holds::Everything, Means::Name(_)) => names == Names::Checked,
        (Holds::Address(own), Means::Guarded(address)) => own == address,
        (_, Means::Guarded(_) | Means::Name(_)) => false,
        (_, Means::Address(address) | Means::Unspecified(address)) => has(holds, address),
    }
}

/// 7.6
fn listens(holds: Holds, text: &str, means: Means) -> bool {
    match (holds, means) {
        (Holds::Everything, Means::Neither) => text.is_empty() || text == "*",
        (Holds::Everything, _) => true,
        (_, Means::Neither) => false,
        (Holds::Name(own), Means::Name(name)) => own == name,
        (_, Means::Name(_)) => false,
        (Holds::Address(own), Means::Unspecified(address)) => own == address,
        (_, Means::Unspecified(_)) => false,
        (_, Means::Address(address) | Means::Guarded(address)) => has(holds, address),
    }
}

/// 7.6
fn may_bind((text, first, last): (&str, u32, u32), port: u32) -> bool {
    (first..=last).contains(&port) || (port == 0 && text == "*")
}

fn has(holds: Holds, address: &str) -> bool {
    match holds {
        Holds::Everything => true,
        Holds::Name(_) => false,
        Holds::Address(own) => own == address,
        Holds::Network(contains) => contains(address),
    }
}

/// What the engine answers.
pub(crate) fn engine(obligations: &Obligations, forward: &Forward) -> bool {
    let place = match forward.asked {
        Asked::Tcp((host, _), port) => Place::Tcp(host, port),
        Asked::Socket(path) => Place::Socket(path),
    };
    if forward.listen {
        obligations.may_listen(place).is_ok()
    } else {
        obligations.may_connect(place, forward.names).is_ok()
    }
}
