//! The session engine: pure. Messages, decisions and timeouts go in; effects come out.
//!
//! [`Effect`] is the complete list of what a session can do to the world. The driver performs effects in the order
//! given and stops at the first that fails: what is shown was recorded first, what is started was reported first.

mod channel;
mod content;
pub mod files;
pub mod scp;
pub mod sftp;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mezite_core::{Span, UnixTime};
use mezite_net::ssh::{ChannelKind, Message, OpenFailure, Request};
use mezite_rbac::{Action, Obligations};
use mezite_record::{ChannelEvent, Frame};

use channel::Channel;
use files::FileFact;

/// Most channels that one session has open at a time.
const MAX_CHANNELS: usize = 64;

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
    /// A forward was asked for and refused.
    ForwardRefused {
        /// Where it was to lead; the last of several.
        destination: String,
        /// How many refusals it stands for.
        attempts: u64,
    },
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
    channels: BTreeMap<u32, Channel>,
    next_channel: u32,
    tally: Tally,
    refused: Refused,
    ended: bool,
}

/// Refused forwards: each of the first few is reported by itself, so that a client cannot fill the log with them.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    /// The last of those that were only counted, and how many they are.
    rest: Option<(String, u64)>,
}

/// Refused forwards of one session that are reported one by one.
const REFUSED_EACH: u64 = 20;

impl Refused {
    fn note(&mut self, destination: String) -> Option<Fact> {
        self.count = self.count.saturating_add(1);
        if self.count <= REFUSED_EACH {
            return Some(Fact::ForwardRefused {
                destination,
                attempts: 1,
            });
        }
        self.rest = Some((destination, self.count - REFUSED_EACH));
        None
    }

    fn rest(&mut self) -> Option<Fact> {
        let (destination, attempts) = self.rest.take()?;
        Some(Fact::ForwardRefused {
            destination,
            attempts,
        })
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
            channels: BTreeMap::new(),
            next_channel: 0,
            tally: Tally::default(),
            refused: Refused::default(),
            ended: false,
        }
    }

    /// The client wants to open a channel.
    ///
    /// # Errors
    /// Why not, with what has to be done before the client hears of it.
    pub fn open(
        &mut self,
        kind: &ChannelKind,
    ) -> Result<(u32, Vec<Effect>), (OpenFailure, Vec<Effect>)> {
        if self.ended {
            return Err((OpenFailure::Prohibited, Vec::new()));
        }
        match kind {
            ChannelKind::Session if self.channels.len() < MAX_CHANNELS => {
                let number = self.next_channel;
                self.next_channel += 1;
                self.channels.insert(number, Channel::default());
                let what = ChannelEvent::Opened {
                    kind: kind.to_string(),
                };
                Ok((
                    number,
                    vec![Effect::Record(Frame::Channel {
                        channel: number,
                        what,
                    })],
                ))
            }
            ChannelKind::Session => Err((OpenFailure::Shortage, Vec::new())),
            // Not carried yet, so not allowed: what is in a forward could not be recorded (coverage table).
            ChannelKind::DirectTcpip { .. }
            | ChannelKind::DirectStreamlocal { .. }
            | ChannelKind::Other(_) => {
                let refused = self.refused.note(kind.to_string());
                let told = refused.map(Effect::Report).into_iter();
                Err((OpenFailure::Prohibited, told.collect()))
            }
        }
    }

    /// The client said `message` on `channel`.
    pub fn client_said(&mut self, channel: u32, message: Message, now: UnixTime) -> Vec<Effect> {
        self.last_input = now;
        let Some(state) = self.channels.get_mut(&channel).filter(|_| !self.ended) else {
            return Vec::new();
        };
        let effects = state.client_said(channel, message, &self.obligations);
        self.tally.count(&effects);
        effects
    }

    /// The node said `message` on `channel`.
    pub fn node_said(&mut self, channel: u32, message: Message, _now: UnixTime) -> Vec<Effect> {
        let Some(state) = self.channels.get_mut(&channel).filter(|_| !self.ended) else {
            return Vec::new();
        };
        let effects = state.node_said(channel, message);
        self.tally.count(&effects);
        effects
    }

    /// Both sides are done with `channel`. The effects close its books.
    pub fn closed(&mut self, channel: u32) -> Vec<Effect> {
        self.channels
            .remove(&channel)
            .map_or_else(Vec::new, |state| state.finish(channel))
    }

    /// The session is over: closes the books of every channel that is still open.
    pub fn close(&mut self) -> Vec<Effect> {
        self.ended = true;
        let channels = std::mem::take(&mut self.channels);
        let refused = self.refused.rest().map(Effect::Report);
        channels
            .into_iter()
            .flat_map(|(channel, state)| state.finish(channel))
            .chain(refused)
            .collect()
    }

    /// The decision was taken again: `Err` carries the words for the user.
    pub fn decided(&mut self, decision: Result<Obligations, String>) -> Vec<Effect> {
        match decision {
            Ok(obligations) => {
                self.obligations = obligations;
                let copying = self.channels.values().any(Channel::copies_files);
                if copying && !self.obligations.permits(Action::Sftp) {
                    let why = String::from("your roles no longer allow to copy files");
                    return self.end(EndReason::Withdrawn(why));
                }
                Vec::new()
            }
            Err(why) => self.end(EndReason::Withdrawn(why)),
        }
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
