//! Where forwards may lead and where a session may listen: the entries of `forward_destinations` and `forward_listen`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mezite_core::address::{embedded, is_guarded};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::options::{Network, NetworkError, Obligations};
use crate::word::excerpt;

/// Longest path of a socket (`sun_path`, unix(7)), without the final NUL.
const MAX_PATH: usize = 107;

/// What one entry permits: `db.internal:5432`, `10.0.0.0/8:*`, `[2001:db8::1]:443`, `*:8080-8090`, `/run/app.sock`,
/// `/run/app/*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination(Kind);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tcp {
        host: Host,
        ports: Ports,
    },
    /// Exactly this socket.
    Socket(String),
    /// Every socket directly in this directory.
    SocketsIn(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Any,
    /// In lower case, without a final dot.
    Name(String),
    Network(Network),
}

/// From the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ports(u16, u16);

const EVERY_PORT: Ports = Ports(1, u16::MAX);

/// Where one forward is to lead, as a client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "what SSH can forward to")]
pub enum Place<'a> {
    /// A host and a port.
    Tcp(&'a str, u32),
    /// The path of a Unix socket.
    Socket(&'a str),
}

/// Who looks at the addresses that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "somebody does or nobody does")]
pub enum Names {
    /// The node's agent: a name never leads it to a guarded address.
    Checked,
    /// Nobody (a stock `sshd`): only names that are listed literally are permitted.
    Unchecked,
}

/// Why a forward is refused. Fit for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ForwardRefusal {
    /// No role allows forwards at all.
    #[error("your roles do not allow port forwarding")]
    NotAllowed,
    /// No entry permits the place.
    #[error("your roles do not list it in forward_destinations")]
    NotListed,
    /// No entry permits to listen there.
    #[error("your roles do not list it in forward_listen")]
    NotListedToListen,
    /// A link-local or metadata address that is not listed literally.
    #[error("a link-local or metadata address has to be listed literally")]
    Guarded,
    /// Neither an address nor a name.
    #[error("it is neither an IP address nor a host name")]
    Malformed,
}

impl Obligations {
    /// Whether a session under these conditions may connect to `place` from its node.
    ///
    /// # Errors
    /// Why not.
    pub fn may_connect(&self, place: Place<'_>, names: Names) -> Result<(), ForwardRefusal> {
        let lists = &self.forward_destinations;
        self.look_up(lists, place, names, ForwardRefusal::NotListed)
    }

    /// Whether a session under these conditions may listen at `place` on its node. The host may be empty, for every
    /// address, and the port 0, for any: the first needs the host `*`, the second the port `*`.
    ///
    /// # Errors
    /// Why not.
    pub fn may_listen(&self, place: Place<'_>) -> Result<(), ForwardRefusal> {
        let refusal = ForwardRefusal::NotListedToListen;
        let Place::Tcp(host, port) = place else {
            return self.look_up(&self.forward_listen, place, Names::Checked, refusal);
        };
        if !self.port_forwarding {
            return Err(ForwardRefusal::NotAllowed);
        }
        let wanted = match host {
            "" | "*" => Wanted::Everywhere,
            host => Wanted::parse(host)?,
        };
        let listed = every(&self.forward_listen, |Destination(kind)| match kind {
            Kind::Tcp { host, ports } => {
                let any = port == 0 && *ports == EVERY_PORT;
                host.listens(&wanted) && (any || ports.hold(port))
            }
            Kind::Socket(_) | Kind::SocketsIn(_) => false,
        });
        if listed { Ok(()) } else { Err(refusal) }
    }

    /// Whether any forward could be permitted at all.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.port_forwarding
            && !(self.forward_destinations.is_empty() && self.forward_listen.is_empty())
    }

    fn look_up(
        &self,
        lists: &Lists,
        place: Place<'_>,
        names: Names,
        refusal: ForwardRefusal,
    ) -> Result<(), ForwardRefusal> {
        if !self.port_forwarding {
            return Err(ForwardRefusal::NotAllowed);
        }
        let listed = match place {
            Place::Socket(path) => is_path(path) && every(lists, |it| it.holds_socket(path)),
            Place::Tcp(host, port) => {
                let wanted = Wanted::parse(host)?;
                let listed = every(lists, |it| it.leads(&wanted, port, names));
                if !listed && wanted.is_guarded() {
                    return Err(ForwardRefusal::Guarded);
                }
                listed
            }
        };
        if listed { Ok(()) } else { Err(refusal) }
    }
}

type Lists = BTreeSet<BTreeSet<Destination>>;

/// Whether there are lists, and each has an entry that `permits`.
fn every(lists: &Lists, permits: impl Fn(&Destination) -> bool) -> bool {
    !lists.is_empty() && lists.iter().all(|list| list.iter().any(&permits))
}

/// A host as it was asked for.
enum Wanted {
    Everywhere,
    Name(String),
    Address(IpAddr),
}

impl Wanted {
    fn parse(host: &str) -> Result<Self, ForwardRefusal> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return Ok(Self::Address(embedded(address)));
        }
        name(host).map(Self::Name).ok_or(ForwardRefusal::Malformed)
    }

    fn is_guarded(&self) -> bool {
        matches!(self, Self::Address(address) if is_guarded(*address))
    }
}

impl Destination {
    fn holds_socket(&self, path: &str) -> bool {
        match &self.0 {
            Kind::Tcp { .. } => false,
            Kind::Socket(own) => own == path,
            Kind::SocketsIn(directory) => path
                .rsplit_once('/')
                .is_some_and(|(parent, file)| parent == directory && !file.is_empty()),
        }
    }

    fn leads(&self, wanted: &Wanted, port: u32, names: Names) -> bool {
        match &self.0 {
            Kind::Tcp { host, ports } => ports.hold(port) && host.leads(wanted, names),
            Kind::Socket(_) | Kind::SocketsIn(_) => false,
        }
    }
}

impl Host {
    fn leads(&self, wanted: &Wanted, names: Names) -> bool {
        match (self, wanted) {
            (Self::Any, Wanted::Name(_)) => names == Names::Checked,
            (Self::Any, Wanted::Address(address)) => !is_guarded(*address),
            (Self::Name(own), Wanted::Name(name)) => own == name,
            (Self::Network(network), Wanted::Address(address)) => {
                network.contains(*address) && (!is_guarded(*address) || network.is_one_address())
            }
            (Self::Any | Self::Name(_) | Self::Network(_), _) => false,
        }
    }

    fn listens(&self, wanted: &Wanted) -> bool {
        match (self, wanted) {
            (Self::Any, _) => true,
            (Self::Name(own), Wanted::Name(name)) => own == name,
            (Self::Network(network), Wanted::Address(address)) => {
                network.contains(*address)
                    && (!address.is_unspecified() || network.is_one_address())
            }
            (Self::Name(_) | Self::Network(_), _) => false,
        }
    }
}

impl Ports {
    fn hold(self, port: u32) -> bool {
        (u32::from(self.0)..=u32::from(self.1)).contains(&port)
    }
}

/// A host name in lower case without its final dot (RFC 1123 section 2.1, and the underscore of many a network). A name
/// whose last label is a number is none: a resolver would take `2852039166` or `0xa9fea9fe` for an address.
fn name(text: &str) -> Option<String> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
    };
    let last = bare.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .get(..2)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    let valid = bare.len() <= 253 && bare.split('.').all(label) && !number;
    valid.then(|| bare.to_ascii_lowercase())
}

/// An absolute path whose text is the whole truth: nothing in it is left out or goes back.
fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH
        && path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
        })
}

/// Why a text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{value}` is not a destination: {reason}")]
pub struct DestinationError {
    value: String,
    reason: String,
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        Kind::parse(text)
            .map(Self)
            .map_err(|reason| DestinationError {
                value: excerpt(text),
                reason,
            })
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            let directory = text.strip_suffix("/*");
            let path = directory.unwrap_or(text);
            if path.contains('*') || !is_path(path) {
                return Err(format!(
                    "write an absolute path of at most {MAX_PATH} bytes, or `/*` after a directory for every socket in it"
                ));
            }
            return Ok(match directory {
                Some(directory) => Self::SocketsIn(directory.to_owned()),
                None => Self::Socket(path.to_owned()),
            });
        }
        let (host, ports) = text.rsplit_once(':').ok_or(
            "write HOST:PORT, for example db.internal:5432, 10.0.0.0/8:*, [2001:db8::1]:443, or the path of a socket",
        )?;
        Ok(Self::Tcp {
            host: Host::parse(host)?,
            ports: Ports::parse(ports)?,
        })
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if text.contains(':') && bare.is_none() {
            return Err(String::from("write an IPv6 address in brackets"));
        }
        let text = bare.unwrap_or(text);
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            let network: Network = text
                .parse()
                .map_err(|error: NetworkError| error.to_string())?;
            return Ok(Self::Network(network));
        }
        let name = name(text).filter(|_| bare.is_none());
        name.map(Self::Name)
            .ok_or_else(|| String::from("its host is no name, address or network, and not `*`"))
    }
}

impl Ports {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(EVERY_PORT);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|port| plain && *port > 0)
        };
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            _ => Err(String::from(
                "its port is no number from 1 to 65535, no range like 8080-8090, and not `*`",
            )),
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp { host, ports } => write!(f, "{host}:{ports}"),
            Kind::Socket(path) => f.write_str(path),
            Kind::SocketsIn(directory) => write!(f, "{directory}/*"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Network(network) => {
                let address = network.address();
                let inner = if network.is_one_address() {
                    address.to_string()
                } else {
                    network.to_string()
                };
                match address {
                    IpAddr::V4(_) => f.write_str(&inner),
                    IpAddr::V6(_) => write!(f, "[{inner}]"),
                }
            }
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EVERY_PORT => f.write_str("*"),
            Self(first, last) if first == last => write!(f, "{first}"),
            Self(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obligations(destinations: &[&str], listen: &[&str]) -> Obligations {
        let list =
            |texts: &[&str]| BTreeSet::from([texts.iter().map(|it| it.parse().unwrap()).collect()]);
        Obligations {
            port_forwarding: true,
            forward_destinations: list(destinations),
            forward_listen: list(listen),
            ..Obligations::default()
        }
    }

    fn connects(list: &[&str], host: &str, port: u32) -> Result<(), ForwardRefusal> {
        obligations(list, &[]).may_connect(Place::Tcp(host, port), Names::Checked)
    }

    #[test]
    fn destinations_read_as_they_are_written() {
        for (text, canonical) in [
            ("db.internal:5432", "db.internal:5432"),
            ("DB.Internal.:5432", "db.internal:5432"),
            ("my-db_1.internal:5432", "my-db_1.internal:5432"),
            ("10.0.0.0/8:*", "10.0.0.0/8:*"),
            ("10.1.2.3:1-65535", "10.1.2.3:*"),
            ("10.1.2.3/32:80-80", "10.1.2.3:80"),
            ("localhost:8080-8090", "localhost:8080-8090"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("*:443", "*:443"),
            ("/run/app.sock", "/run/app.sock"),
            ("/run/app/*", "/run/app/*"),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(destination));
        }
        for bad in [
            "",
            "db",
            "db:",
            "db:0",
            "db:65536",
            "db:+1",
            "db:9-8",
            "db:http",
            ":80",
            "-db:80",
            "a b:80",
            "*.internal:80",
            "2852039166:80",
            "0xa9fea9fe:80",
            "127.1:80",
            "10.0.0.1/8:80",
            "2001:db8::1:443",
            "[db]:80",
            "fe80::1%eth0:80",
            "run/app.sock",
            "/run/../app.sock",
            "/run//app.sock",
            "/run/*/app.sock",
            "/",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_forward_leads_only_where_the_list_says() {
        for (list, host, port) in [
            ("db:5432", "db", 5432),
            ("db:5432", "DB.", 5432),
            ("10.0.0.0/8:*", "10.9.9.9", 1),
            ("10.0.0.0/8:*", "::ffff:10.9.9.9", 1),
            ("*:443", "example.com", 443),
            ("*:443", "2001:db8::1", 443),
            ("[2001:db8::/32]:443", "[2001:db8::7]", 443),
            ("10.0.0.0/8:80-90", "10.0.0.1", 90),
        ] {
            assert_eq!(
                connects(&[list], host, port),
                Ok(()),
                "{list} {host} {port}"
            );
        }
        for (list, host, port) in [
            ("db:5432", "db", 5433),
            ("db:5432", "db.evil", 5432),
            ("10.0.0.0/8:*", "11.0.0.1", 1),
            ("10.0.0.0/8:*", "ten.example", 1),
            ("10.0.0.0/8:80-90", "10.0.0.1", 91),
            ("*:*", "db", 0),
            ("*:*", "db", 65_536),
            ("/run/app.sock", "db", 80),
        ] {
            let refused = Err(ForwardRefusal::NotListed);
            assert_eq!(
                connects(&[list], host, port),
                refused,
                "{list} {host} {port}"
            );
        }
        assert_eq!(connects(&[], "db", 80), Err(ForwardRefusal::NotListed));
        let off = Obligations {
            port_forwarding: false,
            ..obligations(&["*:*"], &["*:*"])
        };
        let refused = Err(ForwardRefusal::NotAllowed);
        assert_eq!(
            off.may_connect(Place::Tcp("db", 80), Names::Checked),
            refused
        );
        assert_eq!(off.may_listen(Place::Tcp("localhost", 80)), refused);
        assert!(!off.forwards() && obligations(&["*:*"], &[]).forwards());
        let to_listen = Obligations {
            forward_destinations: BTreeSet::new(),
            ..obligations(&[], &["*:*"])
        };
        assert!(to_listen.forwards());
        assert!(
            !Obligations {
                port_forwarding: true,
                ..Obligations::default()
            }
            .forwards()
        );
    }

    #[test]
    fn attack_61_a_forward_reaches_no_metadata_service_by_accident() {
        let wide = ["*:*", "0.0.0.0/0:*", "[::/0]:*", "169.254.0.0/16:*"];
        for host in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::ffff:a9fe:a9fe",
            "[::ffff:a9fe:a9fe]",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert_eq!(
                connects(&wide, host, 80),
                Err(ForwardRefusal::Guarded),
                "{host}"
            );
        }
        // Forms that a resolver reads as addresses, and those with a scope.
        for host in [
            "2852039166",
            "0xa9fea9fe",
            "169.254.43518",
            "0251.0376.0251.0376",
            "fe80::1%eth0",
            "a\0b",
            "",
        ] {
            assert_eq!(
                connects(&wide, host, 80),
                Err(ForwardRefusal::Malformed),
                "{host:?}"
            );
        }
        let literal = ["169.254.169.254:80"];
        assert_eq!(connects(&literal, "169.254.169.254", 80), Ok(()));
        assert_eq!(connects(&literal, "::ffff:169.254.169.254", 80), Ok(()));
        assert_eq!(
            connects(&literal, "169.254.169.254", 81),
            Err(ForwardRefusal::Guarded)
        );
    }

    #[test]
    fn a_name_that_nobody_checks_has_to_be_listed_literally() {
        let one = obligations(&["*:443", "db:443"], &[]);
        for (host, names, permitted) in [
            ("db", Names::Unchecked, true),
            ("10.0.0.1", Names::Unchecked, true),
            ("other", Names::Unchecked, false),
            ("other", Names::Checked, true),
        ] {
            let answer = one.may_connect(Place::Tcp(host, 443), names);
            assert_eq!(answer.is_ok(), permitted, "{host} {names:?}");
        }
    }

    #[test]
    fn sockets_are_permitted_by_their_whole_path() {
        let one = obligations(&["/run/app.sock", "/run/app/*"], &["/tmp/*"]);
        let connect = |path| one.may_connect(Place::Socket(path), Names::Checked).is_ok();
        assert!(connect("/run/app.sock") && connect("/run/app/x"));
        for path in [
            "/run/app",
            "/run/app/",
            "/run/app/x/y",
            "/run/app/../x",
            "/run/app.sock.x",
            "run/app.sock",
            "/tmp/x",
        ] {
            assert!(!connect(path), "{path}");
        }
        assert!(one.may_listen(Place::Socket("/tmp/x")).is_ok());
        assert!(one.may_listen(Place::Socket("/run/app.sock")).is_err());
    }

    #[test]
    fn to_listen_is_permitted_by_a_list_of_its_own() {
        let one = obligations(&["*:*"], &["localhost:8080-8090", "127.0.0.1:*"]);
        let listen = |host, port| one.may_listen(Place::Tcp(host, port)).is_ok();
        assert!(listen("localhost", 8080) && listen("127.0.0.1", 0) && listen("127.0.0.1", 1));
        for (host, port) in [
            ("localhost", 0),
            ("localhost", 8091),
            ("", 8080),
            ("*", 8080),
            ("0.0.0.0", 8080),
            ("::1", 8080),
        ] {
            assert!(!listen(host, port), "{host} {port}");
        }
        let all = obligations(&[], &["*:8080"]);
        for host in ["", "*", "localhost", "0.0.0.0"] {
            assert!(all.may_listen(Place::Tcp(host, 8080)).is_ok(), "{host}");
        }
        // 0.0.0.0 and :: are every address, whatever network they lie in.
        let wide = obligations(&[], &["0.0.0.0/0:*", "[::/0]:*"]);
        for (host, port, permitted) in [
            ("10.1.2.3", 65_535, true),
            ("10.1.2.3", 0, true),
            ("10.1.2.3", 65_536, false),
            ("0.0.0.0", 8080, false),
            ("::", 8080, false),
            ("::ffff:0.0.0.0", 8080, false),
        ] {
            let answer = wide.may_listen(Place::Tcp(host, port));
            assert_eq!(answer.is_ok(), permitted, "{host} {port}");
        }
        let literal = obligations(&[], &["0.0.0.0:8080"]);
        assert!(literal.may_listen(Place::Tcp("0.0.0.0", 8080)).is_ok());
        assert!(literal.may_listen(Place::Tcp("", 8080)).is_err());
    }

    #[test]
    fn of_several_lists_each_has_to_permit() {
        let mut one = obligations(&["10.0.0.0/8:80-90", "db:5432", "169.254.169.254:80"], &[]);
        let more = ["10.1.0.0/16:85-99", "db:*", "169.254.0.0/16:*", "*:80"];
        let more = more.iter().map(|text| text.parse().unwrap()).collect();
        one.forward_destinations.insert(more);
        for (host, port, permitted) in [
            ("db", 5432, true),
            ("10.1.0.1", 85, true),
            ("10.2.0.1", 80, true),
            ("10.2.0.1", 85, false),
            ("10.1.0.1", 91, false),
            ("db", 80, false),
            // Listed literally by one role only.
            ("169.254.169.254", 80, false),
        ] {
            let answer = one.may_connect(Place::Tcp(host, port), Names::Checked);
            assert_eq!(answer.is_ok(), permitted, "{host} {port}");
        }
    }
}
