//! Channels that carry somebody else's protocol: what they are to lead to, how much passed, and whether SSH is in them.

use std::fmt;

use bytes::Bytes;
use mezite_core::{Span, UnixTime};
use mezite_net::ssh::{ChannelKind, Endpoint, Listener, Message};
use mezite_rbac::{ForwardRefusal, Names, Obligations, Place};
use mezite_record::{ChannelEvent, Frame};

use super::nested::Scanner;
use super::told::Told;
use super::{Effect, Fact, Nested, Side, add};

/// From where to where a forward leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "each has a word in the catalogue")]
pub enum Direction {
    /// From the client to somewhere behind the node (`-L`, `-W`, `-D`).
    Local,
    /// From the node back to the client (`-R`).
    Remote,
    /// To the client's SSH agent (`-A`).
    Agent,
    /// To the client's display (`-X`).
    X11,
}

impl Direction {
    /// The word of the field `direction`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Agent => "agent",
            Self::X11 => "x11",
        }
    }
}

/// What a forward leads to, in words, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields of the event")]
pub struct Route {
    /// Which way.
    pub direction: Direction,
    /// `host:port` or a path.
    pub destination: String,
    /// Who connected, as far as somebody said.
    pub origin: Option<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.direction.as_str(), self.destination)
    }
}

impl From<&ChannelKind> for Route {
    fn from(kind: &ChannelKind) -> Self {
        let (direction, destination, origin) = match kind {
            ChannelKind::DirectTcpip { to, from } => {
                (Direction::Local, to.to_string(), Some(from.to_string()))
            }
            ChannelKind::DirectStreamlocal { path } => {
                (Direction::Local, path.escape_default().to_string(), None)
            }
            ChannelKind::ForwardedTcpip { at, from } => {
                (Direction::Remote, at.to_string(), Some(from.to_string()))
            }
            ChannelKind::ForwardedStreamlocal { path } => {
                (Direction::Remote, path.escape_default().to_string(), None)
            }
            ChannelKind::Agent => (Direction::Agent, String::from("agent"), None),
            ChannelKind::X11 { from } => (
                Direction::X11,
                String::from("display"),
                Some(from.to_string()),
            ),
            ChannelKind::Session => (Direction::Local, kind.to_string(), None),
        };
        Self {
            direction,
            destination,
            origin,
        }
    }
}

impl From<&Listener> for Route {
    fn from(at: &Listener) -> Self {
        Self {
            direction: Direction::Remote,
            destination: at.to_string(),
            origin: None,
        }
    }
}

/// What happened to a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has a word in the catalogue")]
pub enum Step {
    /// The node may open such channels from now on: it listens, or has an agent or a display to offer.
    Listening,
    /// The node listens no longer.
    Stopped,
    /// It was permitted; the other end is asked to open it.
    Opened,
    /// It is over.
    Closed {
        /// Bytes that passed towards the client.
        to_client: u64,
        /// Bytes that passed towards the node.
        to_node: u64,
        /// Since it was opened; of several, the longest.
        lasted: Span,
        /// Why the other end did not open it, or why it was ended; of several, the last.
        error: Option<String>,
        /// How many forwards this stands for.
        attempts: u64,
    },
    /// It was refused.
    Refused {
        /// Why.
        why: String,
        /// How many refusals this stands for.
        attempts: u64,
    },
}

/// Whether a client may open a channel of this kind, other than a session.
pub(super) fn permitted(
    kind: &ChannelKind,
    obligations: &Obligations,
    names: Names,
) -> Result<(), String> {
    let place = match kind {
        ChannelKind::DirectTcpip { to, .. } => Place::Tcp(&to.host, to.port),
        ChannelKind::DirectStreamlocal { path } => Place::Socket(path),
        ChannelKind::Session
        | ChannelKind::ForwardedTcpip { .. }
        | ChannelKind::ForwardedStreamlocal { .. }
        | ChannelKind::Agent
        | ChannelKind::X11 { .. } => {
            return Err(String::from("a client cannot open such a channel"));
        }
    };
    let answer = obligations.may_connect(place, names);
    answer.map_err(|refusal: ForwardRefusal| refusal.to_string())
}

/// Whether the node may listen there.
pub(super) fn may_listen(at: &Listener, obligations: &Obligations) -> Result<(), String> {
    let place = match at {
        Listener::Tcp(Endpoint { host, port }) => Place::Tcp(host, *port),
        Listener::Socket(path) => Place::Socket(path),
    };
    let answer = obligations.may_listen(place);
    answer.map_err(|refusal| refusal.to_string())
}

/// One open forward.
#[derive(Debug)]
pub(super) struct Forward {
    kind: ChannelKind,
    opened: UnixTime,
    to_client: u64,
    to_node: u64,
    by_client: Scanner,
    by_node: Scanner,
    /// Why it is over before its ends said so. Nothing passes any more.
    over: Option<String>,
    /// Whether it has events of its own.
    told: bool,
}

impl Forward {
    pub(super) fn open(
        kind: ChannelKind,
        channel: u32,
        now: UnixTime,
        told: bool,
    ) -> (Self, Vec<Effect>) {
        let event = told.then(|| Fact::Forward(Route::from(&kind), Step::Opened));
        let opened = Frame::Channel {
            channel,
            what: ChannelEvent::Opened {
                kind: kind.to_string(),
            },
        };
        let effects = event.map(Effect::Report).into_iter();
        let effects = effects.chain([Effect::Record(opened)]).collect();
        let forward = Self {
            kind,
            opened: now,
            to_client: 0,
            to_node: 0,
            by_client: Scanner::default(),
            by_node: Scanner::default(),
            over: None,
            told,
        };
        (forward, effects)
    }

    pub(super) const fn kind(&self) -> &ChannelKind {
        &self.kind
    }

    /// The other end could not be reached.
    pub(super) fn fail(&mut self, why: String) {
        self.over.get_or_insert(why);
    }

    pub(super) fn said(
        &mut self,
        by: Side,
        message: Message,
        obligations: &Obligations,
    ) -> Vec<Effect> {
        if self.over.is_some() {
            return Vec::new();
        }
        match message {
            Message::Data(data) => self.data(by, data, obligations),
            Message::Eof | Message::Close => vec![by.to_other(message)],
            // The library acknowledges what wants an answer only when somebody answers.
            Message::Request(request) if by == Side::Client && request.is_answered() => {
                vec![Effect::ToClient(Message::Failure)]
            }
            Message::ExtendedData(..)
            | Message::Request(_)
            | Message::Success
            | Message::Failure => Vec::new(),
        }
    }

    fn data(&mut self, by: Side, data: Bytes, obligations: &Obligations) -> Vec<Effect> {
        let (scanner, sum) = match by {
            Side::Client => (&mut self.by_client, &mut self.to_node),
            Side::Node => (&mut self.by_node, &mut self.to_client),
        };
        let found = scanner.feed(&data).map(|identification| Nested {
            found_in: "forward",
            by,
            identification,
            refused: !obligations.nested_ssh,
        });
        let Some(nested) = found else {
            add(sum, data.len());
            return vec![by.to_other(Message::Data(data))];
        };
        let words = nested.to_string();
        let refused = nested.refused;
        let fact = match self.told {
            true => Effect::Report(Fact::Nested(nested)),
            false => Effect::Record(Frame::Note {
                text: format!(
                    "SSH inside of {}: {}",
                    Route::from(&self.kind),
                    nested.identification
                ),
            }),
        };
        if !refused {
            add(sum, data.len());
            return vec![fact, by.to_other(Message::Data(data))];
        }
        self.over = Some(words.clone());
        vec![
            fact,
            // Whoever waits for a server's identification shows, or logs, the lines before it.
            Effect::ToClient(Message::Data(format!("mezite: {words}\r\n").into())),
            Effect::ToClient(Message::Close),
            Effect::ToNode(Message::Close),
        ]
    }

    pub(super) fn finish(self, channel: u32, now: UnixTime, told: &mut Told) -> Vec<Effect> {
        let route = Route::from(&self.kind);
        let text = format!(
            "channel {channel}: {route}: {} bytes to the client, {} to the node{}",
            self.to_client,
            self.to_node,
            self.over
                .as_ref()
                .map_or(String::new(), |why| format!("; {why}"))
        );
        let step = Step::Closed {
            to_client: self.to_client,
            to_node: self.to_node,
            lasted: now.since(self.opened),
            error: self.over,
            attempts: 1,
        };
        let event = if self.told {
            Some(Fact::Forward(route, step))
        } else {
            told.ended(route, step)
        };
        let what = ChannelEvent::Closed;
        let frames = [Frame::Note { text }, Frame::Channel { channel, what }];
        let event = event.map(Effect::Report).into_iter();
        event.chain(frames.map(Effect::Record)).collect()
    }
}
