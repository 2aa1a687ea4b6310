//! The session engine: pure. Messages, decisions and timeouts go in; effects come out.
//!
//! [`Effect`] is the complete list of what a session can do to the world. The driver performs effects in the order
//! given and stops at the first that fails: what is shown was recorded first, what is started was reported first.

mod channel;
mod content;
pub mod files;
mod forward;
mod nested;
pub mod scp;
pub mod sftp;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mezite_core::{Span, UnixTime};
use mezite_net::ssh::{ChannelKind, Endpoint, Listener, Message, OpenFailure, Request};
use mezite_rbac::{Action, Names, Obligations, OnFailure};
use mezite_record::{ChannelEvent, Frame, Stream};

use channel::Channel;
use files::FileFact;
use forward::Forward;
pub use forward::{Direction, Route, Step};
use told::Told;

/// Exit status for what Mezite itself could not or would not do, as ssh uses it.
pub(crate) const OWN_FAILURE: u32 = 255;

/// Most session channels that one session has open at a time.
const MAX_CHANNELS: usize = 64;

/// Most forwards that one session has open at a time.
const MAX_FORWARDS: usize = 256;

/// Most places at which the node listens for one session.
const MAX_LISTENERS: usize = 32;

/// Everything a session can do to the world.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[expect(
    clippy::exhaustive_enums,
    reason = "a driver must perform every effect"
)]
pub enum Effect {
    /// Write this into the recording. Nothing that follows may happen before it is written.
    Record(Frame),
    /// Report this as an event. Nothing that follows may happen before it is durable.
    Report(Fact),
    /// Send this message to the client, on the same channel.
    ToClient(Message),
    /// Send this message to the node, on the same channel.
    ToNode(Message),
    /// End the whole session.
    End(EndReason),
}

/// What a session reports besides its start and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every fact has an event in the catalogue"
)]
pub enum Fact {
    /// A command, or a shell if there is none.
    Exec {
        /// The command line, invalid UTF-8 replaced. `None` for a login shell.
        command: Option<String>,
        /// Whether it runs on a terminal.
        pty: bool,
    },
    /// A subsystem.
    Subsystem(String),
    /// Something was done with files.
    Files(FileFact),
    /// A stream of file operations could not be read, and was ended. With the words for the user.
    FilesUnreadable(String),
    /// Something happened to a forward.
    Forward(Route, Step),
    /// Another SSH connection was found inside this one.
    Nested(Nested),
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a relay has two sides")]
pub enum Side {
    /// The user's SSH client.
    Client,
    /// The node's SSH server.
    Node,
}

impl Side {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Node => "node",
        }
    }

    /// Sends what this side said to the other.
    const fn to_other(self, message: Message) -> Effect {
        match self {
            Self::Client => Effect::ToNode(message),
            Self::Node => Effect::ToClient(message),
        }
    }
}

/// An SSH identification string where none belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields of the event")]
pub struct Nested {
    /// `forward`, `exec` or `shell`.
    pub found_in: &'static str,
    /// Who sent it.
    pub by: Side,
    /// The string, escaped and cut.
    pub identification: String,
    /// Whether the channel is closed for it.
    pub refused: bool,
}

/// The words for the user, and for the recording.
impl std::fmt::Display for Nested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            found_in,
            by,
            identification,
            ..
        } = self;
        write!(
            f,
            "an SSH connection inside this {found_in} (`{identification}` from the {}) is not allowed by your roles: \
             connect to that server through Mezite",
            by.as_str()
        )
    }
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The client closed the connection.
    ClientLeft,
    /// The node closed the connection.
    NodeLeft,
    /// The certificate or the longest allowed session time has run out.
    Expired,
    /// The user sent nothing for as long as the role allows.
    Idle(Span),
    /// A lock, a changed role or a deleted user: with the words for the user.
    Withdrawn(String),
    /// The recording could not be written.
    RecordingFailed(String),
    /// An event could not be made durable.
    ReportFailed,
    /// The hub is stopping.
    Shutdown,
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientLeft => f.write_str("the client left"),
            Self::NodeLeft => f.write_str("the node closed the connection"),
            Self::Expired => f.write_str("your certificate has expired: log in again"),
            Self::Idle(span) => write!(f, "there was no input for {span}"),
            Self::Withdrawn(why) => write!(f, "access was withdrawn: {why}"),
            Self::RecordingFailed(why) => write!(f, "the session could not be recorded: {why}"),
            Self::ReportFailed => f.write_str("the audit log is unavailable"),
            Self::Shutdown => f.write_str("the hub is stopping"),
        }
    }
}

/// One session: every channel, request and byte passes through it.
#[derive(Debug)]
pub struct Engine {
    obligations: Obligations,
    expires: UnixTime,
    last_input: UnixTime,
    names: Names,
    channels: BTreeMap<u32, Channel>,
    forwards: BTreeMap<u32, Forward>,
    /// Where the node listens, or is being asked to.
    listeners: BTreeSet<Listener>,
    next_channel: u32,
    tally: Tally,
    told: Told,
    /// Who watches the session, as far as its user was told.
    watchers: BTreeSet<String>,
    ended: bool,
}

/// A channel that is not opened.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[expect(clippy::exhaustive_structs, reason = "a driver must use all of it")]
pub struct Refusal {
    /// For the client's software.
    pub failure: OpenFailure,
    /// For the user.
    pub words: String,
    /// What has to be done before the client hears of it.
    pub effects: Vec<Effect>,
}

impl Refusal {
    fn new(failure: OpenFailure, words: &str) -> Self {
        Self {
            failure,
            words: words.to_owned(),
            effects: Vec::new(),
        }
    }
}

/// What a session has carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Bytes of channel data from the node to the client.
    pub to_client: u64,
    /// Bytes of channel data from the client to the node.
    pub to_node: u64,
    /// The last exit status that the node told.
    pub exit_code: Option<u32>,
}

impl Tally {
    fn count(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::ToClient(Message::Data(data) | Message::ExtendedData(_, data)) => {
                    add(&mut self.to_client, data.len())
                }
                Effect::ToNode(Message::Data(data)) => add(&mut self.to_node, data.len()),
                Effect::ToClient(Message::Request(Request::ExitStatus(status))) => {
                    self.exit_code = Some(*status)
                }
                Effect::Record(_)
                | Effect::Report(_)
                | Effect::ToClient(_)
                | Effect::ToNode(_)
                | Effect::End(_) => {}
            }
        }
    }
}

fn watches(name: &str) -> String {
    format!("{name} watches this session")
}

/// Words of ours on standard error of a channel: recorded, then shown.
fn shown(channel: u32, words: &str) -> [Effect; 2] {
    let data = Bytes::from(format!("\r\nmezite: {words}\r\n"));
    let frame = Frame::Output {
        channel,
        stream: Stream::Stderr,
        data: data.clone(),
    };
    [
        Effect::Record(frame),
        Effect::ToClient(Message::ExtendedData(1, data)),
    ]
}

fn add(sum: &mut u64, length: usize) {
    *sum = sum.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
}

impl Engine {
    /// A session that begins at `now`, may last until `expires`, and is bound by `obligations`.
    #[must_use]
    pub fn new(obligations: Obligations, expires: UnixTime, now: UnixTime) -> Self {
        Self {
            obligations,
            expires,
            last_input: now,
            names: Names::Unchecked,
            channels: BTreeMap::new(),
            forwards: BTreeMap::new(),
            listeners: BTreeSet::new(),
            next_channel: 0,
            tally: Tally::default(),
            told: Told::default(),
            watchers: BTreeSet::new(),
            ended: false,
        }
    }

    /// Who looks at the addresses of names that forwards lead to. Nobody, unless it is said.
    #[must_use]
    pub const fn with_names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// The client wants to open a channel.
    ///
    /// # Errors
    /// Why not, with what has to be done before the client hears of it.
    pub fn open(
        &mut self,
        kind: &ChannelKind,
        now: UnixTime,
    ) -> Result<(u32, Vec<Effect>), Refusal> {
        if self.ended {
            return Err(Refusal::new(OpenFailure::Prohibited, "the session is over"));
        }
        if *kind == ChannelKind::Session {
            return self.open_session();
        }
        if let Err(why) = forward::permitted(kind, &self.obligations, self.names) {
            return Err(self.refuse(Route::from(kind), why));
        }
        self.last_input = now;
        self.open_forward(kind, now)
    }

    /// The node wants to open a channel towards the client.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn offered(
        &mut self,
        kind: &ChannelKind,
        now: UnixTime,
    ) -> Result<(u32, Vec<Effect>), Refusal> {
        if self.ended {
            return Err(Refusal::new(OpenFailure::Prohibited, "the session is over"));
        }
        if !self.is_expected(kind) {
            return Err(self.refuse(Route::from(kind), String::from("nobody asked for it")));
        }
        self.open_forward(kind, now)
    }

    /// Whether the client has let the node open such a channel.
    fn is_expected(&self, kind: &ChannelKind) -> bool {
        match kind {
            // The node tells the address as it likes; the client compares it with what it asked for.
            ChannelKind::ForwardedTcpip { at, .. } => self
                .listeners
                .iter()
                .any(|listener| matches!(listener, Listener::Tcp(own) if own.port == at.port)),
            ChannelKind::ForwardedStreamlocal { path } => {
                self.listeners.contains(&Listener::Socket(path.clone()))
            }
            ChannelKind::Agent => self.channels.values().any(Channel::offers_agent),
            ChannelKind::X11 { .. } => self.channels.values().any(Channel::offers_display),
            ChannelKind::Session
            | ChannelKind::DirectTcpip { .. }
            | ChannelKind::DirectStreamlocal { .. } => false,
        }
    }

    /// The client wants the node to listen at `at`. Once the node does, [`Engine::listening`] has to know.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn listen(&mut self, at: &Listener) -> Result<Vec<Effect>, Refusal> {
        if self.ended {
            return Err(Refusal::new(OpenFailure::Prohibited, "the session is over"));
        }
        if let Err(why) = forward::may_listen(at, &self.obligations) {
            return Err(self.refuse(Route::from(at), why));
        }
        if self.listeners.len() >= MAX_LISTENERS || !self.told.may_listen() {
            return Err(Refusal::new(OpenFailure::Shortage, "too many listeners"));
        }
        // Before it listens: whoever connects at once is not to be refused.
        self.listeners.insert(at.clone());
        let text = format!("the node is asked to listen at {at}");
        Ok(vec![
            Effect::Report(Fact::Forward(Route::from(at), Step::Listening)),
            Effect::Record(Frame::Note { text }),
        ])
    }

    /// The node listens at `at`, at `port` if that was left open; or it does not.
    pub fn listening(&mut self, at: &Listener, port: Option<u32>) -> Vec<Effect> {
        match (at, port) {
            (Listener::Tcp(Endpoint { host, port: 0 }), Some(port)) => {
                self.listeners.remove(at);
                let host = host.clone();
                self.listeners
                    .insert(Listener::Tcp(Endpoint { host, port }));
                let text = format!("the node listens at port {port}");
                vec![Effect::Record(Frame::Note { text })]
            }
            (_, Some(_)) => Vec::new(),
            (_, None) => self.stopped(at),
        }
    }

    /// The client wants the node to listen there no longer. Nothing if it does not.
    pub fn stopped(&mut self, at: &Listener) -> Vec<Effect> {
        if !self.listeners.remove(at) {
            return Vec::new();
        }
        let text = format!("the node listens no longer at {at}");
        vec![
            Effect::Report(Fact::Forward(Route::from(at), Step::Stopped)),
            Effect::Record(Frame::Note { text }),
        ]
    }

    fn refuse(&mut self, route: Route, why: String) -> Refusal {
        let words = format!("{}: {why}", route.destination);
        let told = self.told.refused(route, why).map(Effect::Report);
        Refusal {
            effects: told.into_iter().collect(),
            ..Refusal::new(OpenFailure::Prohibited, &words)
        }
    }

    fn open_forward(
        &mut self,
        kind: &ChannelKind,
        now: UnixTime,
    ) -> Result<(u32, Vec<Effect>), Refusal> {
        if self.forwards.len() >= MAX_FORWARDS {
            return Err(Refusal::new(OpenFailure::Shortage, "too many forwards"));
        }
        let number = self.number();
        let told = self.told.opened(&Route::from(kind));
        let (forward, effects) = Forward::open(kind.clone(), number, now, told);
        self.forwards.insert(number, forward);
        Ok((number, effects))
    }

    fn open_session(&mut self) -> Result<(u32, Vec<Effect>), Refusal> {
        if self.channels.len() >= MAX_CHANNELS {
            return Err(Refusal::new(OpenFailure::Shortage, "too many channels"));
        }
        let number = self.number();
        self.channels.insert(number, Channel::default());
        let what = ChannelEvent::Opened {
            kind: ChannelKind::Session.to_string(),
        };
        let opened = Frame::Channel {
            channel: number,
            what,
        };
        Ok((number, vec![Effect::Record(opened)]))
    }

    const fn number(&mut self) -> u32 {
        let number = self.next_channel;
        self.next_channel = number.wrapping_add(1);
        number
    }

    /// The other side did not open its end of `channel`. The effects close its books.
    pub fn failed(&mut self, channel: u32, why: &str, now: UnixTime) -> Vec<Effect> {
        if let Some(forward) = self.forwards.get_mut(&channel) {
            forward.fail(why.to_owned());
        }
        self.closed(channel, now)
    }

    /// The client said `message` on `channel`.
    pub fn client_said(&mut self, channel: u32, message: Message, now: UnixTime) -> Vec<Effect> {
        self.last_input = now;
        self.said(Side::Client, channel, message)
    }

    /// The node said `message` on `channel`.
    pub fn node_said(&mut self, channel: u32, message: Message, _now: UnixTime) -> Vec<Effect> {
        self.said(Side::Node, channel, message)
    }

    fn said(&mut self, by: Side, channel: u32, message: Message) -> Vec<Effect> {
        if self.ended {
            return Vec::new();
        }
        let effects = if let Some(state) = self.channels.get_mut(&channel) {
            match by {
                Side::Client => state.client_said(channel, message, &self.obligations),
                Side::Node => state.node_said(channel, message, &self.obligations),
            }
        } else if let Some(forward) = self.forwards.get_mut(&channel) {
            forward.said(by, message, &self.obligations)
        } else {
            return Vec::new();
        };
        self.tally.count(&effects);
        effects
    }

    /// Both sides are done with `channel`. The effects close its books.
    pub fn closed(&mut self, channel: u32, now: UnixTime) -> Vec<Effect> {
        if let Some(forward) = self.forwards.remove(&channel) {
            return forward.finish(channel, now, &mut self.told);
        }
        self.channels
            .remove(&channel)
            .map_or_else(Vec::new, |state| state.finish(channel))
    }

    /// The session is over: closes the books of every channel that is still open. Each effect comes with its channel.
    pub fn close(&mut self, now: UnixTime) -> Vec<(u32, Effect)> {
        self.ended = true;
        let open: Vec<u32> = self
            .channels
            .keys()
            .chain(self.forwards.keys())
            .copied()
            .collect();
        let mut books = Vec::new();
        for channel in open {
            let closed = self.closed(channel, now);
            books.extend(closed.into_iter().map(|effect| (channel, effect)));
        }
        let rest = self.told.rest().into_iter();
        books.extend(rest.map(|fact| (0, Effect::Report(fact))));
        books
    }

    /// The decision was taken again: `Err` carries the words for the user.
    pub fn decided(&mut self, decision: Result<Obligations, String>) -> Vec<Effect> {
        match decision {
            Ok(obligations) => {
                self.obligations = obligations;
                match self.no_longer_permitted() {
                    Some(why) => self.end(EndReason::Withdrawn(why)),
                    None => Vec::new(),
                }
            }
            Err(why) => self.end(EndReason::Withdrawn(why)),
        }
    }

    /// Something that is going on and that the obligations do not permit any more.
    fn no_longer_permitted(&self) -> Option<String> {
        let copying = self.channels.values().any(Channel::copies_files);
        if copying && !self.obligations.permits(Action::Sftp) {
            return Some(String::from("your roles no longer allow to copy files"));
        }
        let agent = self.channels.values().any(Channel::offers_agent);
        if agent && !self.obligations.permits(Action::AgentForwarding) {
            return Some(String::from(
                "your roles no longer allow to forward an agent",
            ));
        }
        let display = self.channels.values().any(Channel::offers_display);
        if display && !self.obligations.permits(Action::X11Forwarding) {
            return Some(String::from("your roles no longer allow to forward X11"));
        }
        let listener = self.listeners.iter().find_map(|at| {
            let refused = forward::may_listen(at, &self.obligations).err()?;
            Some(format!("listening at {at}: {refused}"))
        });
        listener.or_else(|| {
            self.forwards.values().find_map(|forward| {
                let kind = forward.kind();
                // What the node opens goes with what it was let by, which was looked at above.
                if Route::from(kind).direction != Direction::Local {
                    return None;
                }
                let refused = forward::permitted(kind, &self.obligations, self.names).err()?;
                Some(format!("the forward {}: {refused}", Route::from(kind)))
            })
        })
    }

    /// Whether the session waits while it cannot be recorded; otherwise it ends.
    #[must_use]
    pub fn suspends(&self) -> bool {
        self.obligations.record.on_failure == OnFailure::Suspend
    }

    /// Whether the user is told who watches.
    #[must_use]
    pub const fn announces_watchers(&self) -> bool {
        self.obligations.record.announce_watchers
    }

    /// These watch the session now: what to record and to show, on each channel that can show it.
    pub fn watched(&mut self, by: &BTreeSet<String>) -> Vec<(u32, Effect)> {
        if self.ended || !self.announces_watchers() {
            return Vec::new();
        }
        let came = by.difference(&self.watchers).map(|name| watches(name));
        let left = self.watchers.difference(by);
        let left = left.map(|name| format!("{name} no longer watches this session"));
        let words: Vec<String> = came.chain(left).collect();
        self.watchers.clone_from(by);
        if self.channels.is_empty() {
            let notes = words.into_iter().map(|text| Frame::Note { text });
            return notes.map(|note| (0, Effect::Record(note))).collect();
        }
        let mut effects = Vec::new();
        for channel in self.channels.keys() {
            let each = words.iter().flat_map(|words| shown(*channel, words));
            effects.extend(each.map(|effect| (*channel, effect)));
        }
        effects
    }

    /// What a channel that has just been opened shows first: who watches already.
    #[must_use]
    pub fn greeting(&self, channel: u32) -> Vec<Effect> {
        let watchers = self.watchers.iter();
        let words = watchers.map(|name| watches(name));
        words.flat_map(|words| shown(channel, &words)).collect()
    }

    /// What has passed so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// When [`Engine::timeout`] wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> UnixTime {
        let idle = self
            .obligations
            .idle_timeout
            .map(|span| self.last_input.plus(span));
        idle.map_or(self.expires, |idle| idle.min(self.expires))
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: UnixTime) -> Vec<Effect> {
        if now >= self.expires {
            return self.end(EndReason::Expired);
        }
        match self.obligations.idle_timeout {
            Some(span) if now >= self.last_input.plus(span) => self.end(EndReason::Idle(span)),
            Some(_) | None => Vec::new(),
        }
    }

    fn end(&mut self, reason: EndReason) -> Vec<Effect> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        vec![
            Effect::Record(Frame::Note {
                text: reason.to_string(),
            }),
            Effect::End(reason),
        ]
    }
}
