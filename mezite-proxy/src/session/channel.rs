//! What is decided and remembered of one channel. The coverage table in README.md is this file in words.

use std::collections::VecDeque;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use mezite_net::ssh::{Message, Request};
use mezite_rbac::{Action, Obligations};
use mezite_record::{ChannelEvent, Frame, Stream};
use sha2::{Digest, Sha256};

use super::files::Files;
use super::nested::Scanner;
use super::scp::Command;
use super::{Direction, Effect, Fact, Nested, OWN_FAILURE, Route, Side, Step};

/// Input that is recorded in full; beyond it, its length and digest are.
const INPUT_IN_FULL: u64 = 1024 * 1024;

/// Requests that may wait for the node's answer; a client that does not wait for them gets no further.
const MAX_OWED: usize = 64;

/// One channel of a session.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// Answers that the client waits for, oldest first.
    owed: VecDeque<Owed>,
    pty: bool,
    started: Option<Started>,
    input: Input,
    /// Where files are copied by a protocol that is understood, and so recorded by operations.
    files: Option<Files>,
    by_client: Scanner,
    by_node: Scanner,
    /// Whether the node was let ask the client's agent.
    agent: bool,
    /// Whether the node was let connect to the client's display.
    display: bool,
    /// Whether the node has said how what runs has ended.
    exited: bool,
    /// The node's EOF, which the client has not been told yet.
    holds_eof: bool,
    /// SSH was found in it. Nothing passes any more.
    refused: bool,
}

/// What became of data that was looked at for SSH.
enum Scanned {
    /// It passes; where SSH in it is allowed, that is told first.
    Passed(Option<Effect>),
    Refused(Vec<Effect>),
}

/// What runs on the channel. A second start on the same channel is refused (RFC 4254 section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    Shell,
    Command,
    Subsystem,
}

/// An answer that the client waits for. Answers have no names: only their order says which request they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// By the node.
    Node,
    /// By us: so many times no, once everything older is answered.
    Refusals(u32),
}

/// Input: its beginning is recorded in full, of all of it the length and the digest.
#[derive(Debug, Default)]
struct Input {
    kept: u64,
    skipped: u64,
    hash: Sha256,
}

impl Channel {
    pub(super) fn client_said(
        &mut self,
        channel: u32,
        message: Message,
        obligations: &Obligations,
    ) -> Vec<Effect> {
        if self.is_over() {
            return Vec::new();
        }
        match message {
            Message::Data(data) => match self.scan(Side::Client, channel, &data, obligations) {
                Scanned::Refused(effects) => effects,
                Scanned::Passed(told) => {
                    let mut effects: Vec<Effect> = told.into_iter().collect();
                    effects.extend(self.input(channel, data, obligations));
                    effects
                }
            },
            Message::ExtendedData(..) => Vec::new(),
            Message::Eof => vec![
                record(channel, ChannelEvent::Eof),
                Effect::ToNode(Message::Eof),
            ],
            Message::Close => vec![Effect::ToNode(Message::Close)],
            Message::Request(request) => self.asked(channel, request, obligations),
            // Answers to requests that we never send.
            Message::Success | Message::Failure => Vec::new(),
        }
    }

    pub(super) fn node_said(
        &mut self,
        channel: u32,
        message: Message,
        obligations: &Obligations,
    ) -> Vec<Effect> {
        if self.is_over() {
            return Vec::new();
        }
        match message {
            Message::Data(data) => match self.scan(Side::Node, channel, &data, obligations) {
                Scanned::Refused(effects) => effects,
                Scanned::Passed(told) => {
                    let mut effects: Vec<Effect> = told.into_iter().collect();
                    let message = Message::Data(data.clone());
                    effects.extend(self.output(channel, Stream::Stdout, data, message));
                    effects
                }
            },
            Message::ExtendedData(1, data) => self.output(
                channel,
                Stream::Stderr,
                data.clone(),
                Message::ExtendedData(1, data),
            ),
            // RFC 4254 section 5.2 defines type 1 only: nothing passes that has no row.
            Message::ExtendedData(..) => Vec::new(),
            // A client that has sent its own EOF closes when it gets this one, and what comes later is lost to it.
            Message::Eof if !self.exited => {
                self.holds_eof = true;
                Vec::new()
            }
            Message::Eof => vec![Effect::ToClient(Message::Eof)],
            Message::Close => self
                .held_eof()
                .chain([Effect::ToClient(Message::Close)])
                .collect(),
            Message::Success | Message::Failure => self.answered(message),
            Message::Request(Request::ExitStatus(status)) => {
                let exit = Message::Request(Request::ExitStatus(status));
                self.exited(record(channel, ChannelEvent::Exit { status }), exit)
            }
            Message::Request(Request::ExitSignal {
                signal,
                core_dumped,
                message,
            }) => {
                let event = ChannelEvent::Signal {
                    name: signal.clone(),
                };
                let exit = Message::Request(Request::ExitSignal {
                    signal,
                    core_dumped,
                    message,
                });
                self.exited(record(channel, event), exit)
            }
            // A server has nothing else to ask of a client.
            Message::Request(_) => Vec::new(),
        }
    }

    /// The exit, and the EOF that waited for it.
    fn exited(&mut self, recorded: Effect, exit: Message) -> Vec<Effect> {
        self.exited = true;
        [recorded, Effect::ToClient(exit)]
            .into_iter()
            .chain(self.held_eof())
            .collect()
    }

    fn held_eof(&mut self) -> impl Iterator<Item = Effect> + use<> {
        let held = std::mem::take(&mut self.holds_eof);
        held.then_some(Effect::ToClient(Message::Eof)).into_iter()
    }

    fn is_over(&self) -> bool {
        self.refused || self.files.as_ref().is_some_and(Files::is_over)
    }

    /// Looks for SSH in what `by` said. Not on a terminal: a person may look at any text there, and what is shown is
    /// recorded. Nor in a file transfer, which is read by its own protocol.
    fn scan(&mut self, by: Side, channel: u32, data: &[u8], obligations: &Obligations) -> Scanned {
        let scanner = match by {
            _ if self.pty || self.files.is_some() => return Scanned::Passed(None),
            Side::Client => &mut self.by_client,
            Side::Node => &mut self.by_node,
        };
        let Some(identification) = scanner.feed(data) else {
            return Scanned::Passed(None);
        };
        let nested = Nested {
            found_in: match self.started {
                Some(Started::Command) => "exec",
                Some(Started::Shell | Started::Subsystem) | None => "shell",
            },
            by,
            identification,
            refused: !obligations.nested_ssh,
        };
        if !nested.refused {
            return Scanned::Passed(Some(Effect::Report(Fact::Nested(nested))));
        }
        self.refused = true;
        let words = nested.to_string();
        Scanned::Refused(cut_off(channel, Fact::Nested(nested), &words))
    }

    pub(super) const fn offers_agent(&self) -> bool {
        self.agent
    }

    pub(super) const fn offers_display(&self) -> bool {
        self.display
    }

    /// Whether files are being copied on it.
    pub(super) fn copies_files(&self) -> bool {
        self.files.as_ref().is_some_and(Files::is_sftp)
    }

    /// Keeps the answers to requests in the order of the requests.
    fn asked(&mut self, channel: u32, request: Request, obligations: &Obligations) -> Vec<Effect> {
        let is_answered = request.is_answered();
        let mut effects = if is_answered && self.owed.len() >= MAX_OWED {
            vec![Effect::ToClient(Message::Failure)]
        } else {
            self.request(channel, request, obligations)
        };
        if effects.last() == Some(&Effect::ToClient(Message::Failure)) {
            if !self.owed.is_empty() {
                effects.pop();
                self.refuse_later();
            }
        } else if is_answered {
            self.owed.push_back(Owed::Node);
        }
        effects
    }

    fn refuse_later(&mut self) {
        if let Some(Owed::Refusals(count)) = self.owed.back_mut() {
            *count = count.saturating_add(1);
        } else {
            self.owed.push_back(Owed::Refusals(1));
        }
    }

    /// An answer of the node, and the refusals that waited behind it. One that nobody waits for is dropped: it would
    /// be taken for the answer to the client's next request.
    fn answered(&mut self, answer: Message) -> Vec<Effect> {
        if self.owed.pop_front().is_none() {
            return Vec::new();
        }
        let mut effects = vec![Effect::ToClient(answer)];
        if let Some(Owed::Refusals(count)) = self.owed.front().copied() {
            self.owed.pop_front();
            effects.extend((0..count).map(|_| Effect::ToClient(Message::Failure)));
        }
        effects
    }

    /// What was counted and not recorded is said at the end.
    pub(super) fn finish(self, channel: u32) -> Vec<Effect> {
        let files = self.files.map(|files| files.finish(channel));
        let mut effects = files.unwrap_or_default();
        if let Some(text) = self.input.told() {
            let text = format!("channel {channel}: {text}");
            effects.push(Effect::Record(Frame::Note { text }));
        }
        effects.push(record(channel, ChannelEvent::Closed));
        effects
    }

    fn request(
        &mut self,
        channel: u32,
        request: Request,
        obligations: &Obligations,
    ) -> Vec<Effect> {
        match request {
            Request::Pty { ref term, size, .. } if self.started.is_none() => {
                self.pty = true;
                let event = ChannelEvent::Pty {
                    term: term.clone(),
                    cols: size.cols,
                    rows: size.rows,
                };
                vec![record(channel, event), to_node(request)]
            }
            Request::Shell if self.started.is_none() => {
                self.started = Some(Started::Shell);
                let fact = Fact::Exec {
                    command: None,
                    pty: self.pty,
                };
                vec![
                    Effect::Report(fact),
                    record(channel, ChannelEvent::Shell),
                    to_node(request),
                ]
            }
            Request::Exec(ref command) if self.started.is_none() => {
                self.started = Some(Started::Command);
                // What a terminal changes in it is no protocol any more.
                let copies = Command::read(command).filter(|_| !self.pty);
                self.files = copies.map(|it| Files::scp(it, obligations.record.file_content));
                let text = String::from_utf8_lossy(command).into_owned();
                let fact = Fact::Exec {
                    command: Some(text),
                    pty: self.pty,
                };
                let event = ChannelEvent::Exec {
                    command: Bytes::from(command.clone()),
                };
                vec![
                    Effect::Report(fact),
                    record(channel, event),
                    to_node(request),
                ]
            }
            Request::Subsystem(ref name) if self.started.is_none() => {
                self.subsystem(channel, name.clone(), obligations)
            }
            Request::Env {
                ref name,
                ref value,
            } if self.started.is_none() => {
                let event = ChannelEvent::Env {
                    name: name.clone(),
                    value: Bytes::from(value.clone()),
                };
                vec![record(channel, event), to_node(request)]
            }
            Request::Env { .. } => Vec::new(),
            Request::WindowChange(size) if self.pty => {
                let resize = Frame::Resize {
                    channel,
                    cols: size.cols,
                    rows: size.rows,
                };
                vec![Effect::Record(resize), to_node(request)]
            }
            Request::WindowChange(_) => Vec::new(),
            Request::Signal(ref name) => {
                vec![
                    record(channel, ChannelEvent::Signal { name: name.clone() }),
                    to_node(request),
                ]
            }
            // Once a channel, so that nobody fills the log with offers.
            Request::AgentForward
                if !self.agent && obligations.permits(Action::AgentForwarding) =>
            {
                self.agent = true;
                let told = offer(channel, Direction::Agent, "agent");
                told.into_iter().chain([to_node(request)]).collect()
            }
            Request::X11(_) if !self.display && obligations.permits(Action::X11Forwarding) => {
                self.display = true;
                let told = offer(channel, Direction::X11, "display");
                told.into_iter().chain([to_node(request)]).collect()
            }
            // Not permitted, or in the wrong place, or a server's to send: refused.
            Request::Pty { .. }
            | Request::Shell
            | Request::Exec(_)
            | Request::Subsystem(_)
            | Request::AgentForward
            | Request::X11(_) => vec![Effect::ToClient(Message::Failure)],
            Request::ExitStatus(_) | Request::ExitSignal { .. } => Vec::new(),
        }
    }

    fn subsystem(&mut self, channel: u32, name: String, obligations: &Obligations) -> Vec<Effect> {
        if name != "sftp" || !obligations.permits(Action::Sftp) {
            let text = format!(
                "channel {channel}: subsystem `{}` refused",
                name.escape_default()
            );
            return vec![
                Effect::Record(Frame::Note { text }),
                Effect::ToClient(Message::Failure),
            ];
        }
        self.started = Some(Started::Subsystem);
        self.files = Some(Files::sftp(obligations.record.file_content));
        vec![
            Effect::Report(Fact::Subsystem(name.clone())),
            record(channel, ChannelEvent::Subsystem { name: name.clone() }),
            to_node(Request::Subsystem(name)),
        ]
    }

    fn input(&mut self, channel: u32, data: Bytes, obligations: &Obligations) -> Vec<Effect> {
        if let Some(files) = &mut self.files {
            return files.client_said(channel, data);
        }
        let forward = Effect::ToNode(Message::Data(data.clone()));
        // Keystrokes may hold passwords: only where the role says so.
        let wanted = !self.pty || obligations.record.input;
        if wanted && self.input.take(&data) {
            vec![Effect::Record(Frame::Input { channel, data }), forward]
        } else {
            vec![forward]
        }
    }

    fn output(
        &mut self,
        channel: u32,
        stream: Stream,
        data: Bytes,
        message: Message,
    ) -> Vec<Effect> {
        if let Some(files) = &mut self.files
            && stream == Stream::Stdout
        {
            return files.node_said(channel, data);
        }
        vec![
            Effect::Record(Frame::Output {
                channel,
                stream,
                data,
            }),
            Effect::ToClient(message),
        ]
    }
}

impl Input {
    /// Counts `data`, and says whether it still belongs to what is kept in full.
    fn take(&mut self, data: &[u8]) -> bool {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.hash.update(data);
        let kept = self.kept.saturating_add(length);
        if self.skipped == 0 && kept <= INPUT_IN_FULL {
            self.kept = kept;
            return true;
        }
        self.skipped = self.skipped.saturating_add(length);
        false
    }

    /// What to say at the end of what was not kept.
    fn told(&self) -> Option<String> {
        (self.skipped > 0).then(|| {
            let all = self.kept.saturating_add(self.skipped);
            let digest = HEXLOWER.encode(&self.hash.clone().finalize());
            format!(
                "the first {} of {all} bytes of input were kept; SHA-256 of all: {digest}",
                self.kept
            )
        })
    }
}

/// Ends a channel for a reason that the log is told first: the user reads `words`, and nothing more passes.
pub(super) fn cut_off(channel: u32, fact: Fact, words: &str) -> Vec<Effect> {
    let words = Bytes::from(format!("mezite: {words}\r\n"));
    let shown = Frame::Output {
        channel,
        stream: Stream::Stderr,
        data: words.clone(),
    };
    let status = OWN_FAILURE;
    vec![
        Effect::Report(fact),
        Effect::Record(shown),
        Effect::ToClient(Message::ExtendedData(1, words)),
        record(channel, ChannelEvent::Exit { status }),
        Effect::ToClient(Message::Request(Request::ExitStatus(status))),
        Effect::ToClient(Message::Close),
        Effect::ToNode(Message::Close),
    ]
}

/// What is told and recorded of a client that lets the node ask its agent or use its display.
fn offer(channel: u32, direction: Direction, destination: &str) -> [Effect; 2] {
    let route = Route {
        direction,
        destination: destination.to_owned(),
        origin: None,
    };
    let text = format!("channel {channel}: the client's {destination} is offered to the node");
    [
        Effect::Report(Fact::Forward(route, Step::Listening)),
        Effect::Record(Frame::Note { text }),
    ]
}

fn record(channel: u32, what: ChannelEvent) -> Effect {
    Effect::Record(Frame::Channel { channel, what })
}

fn to_node(request: Request) -> Effect {
    Effect::ToNode(Message::Request(request))
}
