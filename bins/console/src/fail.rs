//! Why a command did not do what it was asked, and the exit code that scripts see. One table for both.

use std::error::Error;
use std::fmt;
use std::io;

use mezite_api::error::Kind;
use mezite_net::tls::TlsError;
use tonic::Status;

use crate::out::{plain, program};

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "only the command lines of this house use it"
)]
pub enum Code {
    /// Nothing to complain about.
    Done,
    /// It was tried and failed.
    Failed,
    /// It was asked in a wrong way.
    Usage,
    /// The hub does not let this caller.
    Denied,
    /// Nobody answers, or not at the moment.
    Unavailable,
}

impl Code {
    /// The number that the shell sees.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::Unavailable => 4,
        }
    }

    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Self::Usage,
            Kind::Unauthenticated | Kind::Denied => Self::Denied,
            Kind::Unavailable => Self::Unavailable,
            Kind::NotFound
            | Kind::Exists
            | Kind::Conflict
            | Kind::Precondition
            | Kind::Exhausted
            | Kind::Internal
            | _ => Self::Failed,
        }
    }
}

/// One clear line and an exit code.
#[derive(Debug)]
pub struct Failure {
    /// What scripts see.
    pub code: Code,
    message: String,
}

impl Failure {
    /// `message` in one line: what was wrong, with which value, what to do next.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { code, message }
    }

    /// Whether others of its kind may still work: neither the way of asking nor a right is missing.
    #[must_use]
    pub fn is_of_the_recording(&self) -> bool {
        matches!(self.code, Code::Failed | Code::Unavailable)
    }

    /// It was tried and failed.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Code::Failed, message)
    }

    /// It was asked in a wrong way.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// The hub, or the system, does not let this caller.
    pub fn denied(message: impl fmt::Display) -> Self {
        Self::new(Code::Denied, message)
    }

    /// Nobody answers, or not at the moment.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The output cannot be written. Whoever reads a pipe may have seen enough.
    #[must_use]
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Code::Done, "");
        }
        Self::failed(format_args!("cannot write the output: {error}"))
    }

    /// What is behind a connection that the hub closed with this alert of TLS (RFC 8446 section 6.2), if it is the
    /// certificate of our login.
    #[must_use]
    pub fn login_refused(text: &str) -> Option<Self> {
        let why = if text.contains("UnknownCA") {
            "the hub does not know the key any more that signed your login: the authorities' keys were replaced"
        } else if text.contains("CertificateRevoked") {
            "your login was revoked"
        } else {
            return None;
        };
        Some(Self::denied(format_args!(
            "{why}; log in again with `{} login`",
            program()
        )))
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

/// The message with everything escaped that a terminal would obey: parts of it come from elsewhere.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.message.trim_end().lines().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", plain(line))?;
        }
        Ok(())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let kind = Kind::of(&status);
        let mut message = status.message().to_owned();
        let mut source = status.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = error.source();
        }
        if message.is_empty() {
            message = format!("the hub answered {:?}", status.code());
        }
        if let Some(refused) = Self::login_refused(&message) {
            return refused;
        }
        if kind == Kind::Unavailable {
            message = format!("the hub is unavailable: {message}");
        }
        Self::new(Code::of(kind), message)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let code = match &error {
            TlsError::Unreachable { .. }
            | TlsError::Handshake { .. }
            | TlsError::Timeout(_)
            | TlsError::Protocol(_) => Code::Unavailable,
            TlsError::Credentials(_) | _ => Code::Failed,
        };
        Self::new(code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_table() {
        for (kind, number) in [
            (Kind::Invalid, 2),
            (Kind::Unauthenticated, 3),
            (Kind::Denied, 3),
            (Kind::Unavailable, 4),
            (Kind::NotFound, 1),
            (Kind::Exists, 1),
            (Kind::Conflict, 1),
            (Kind::Precondition, 1),
            (Kind::Exhausted, 1),
            (Kind::Internal, 1),
        ] {
            let failure = Failure::from(kind.status("x"));
            assert_eq!(failure.code.number(), number, "{kind:?}");
        }
        assert_eq!(Failure::from(Status::unknown("x")).code.number(), 4);
        let timeout = TlsError::Timeout("hub:3080".to_owned());
        assert_eq!(Failure::from(timeout).code.number(), 4);
    }

    #[test]
    fn a_login_that_the_hub_refuses_is_denied_with_what_to_do() {
        for alert in ["UnknownCA", "CertificateRevoked"] {
            let text = format!("transport error: received fatal alert: {alert}");
            let failure = Failure::from(Status::unavailable(text));
            assert_eq!(failure.code.number(), 3);
            assert!(failure.to_string().contains(" login`"), "{failure}");
        }
        assert!(Failure::login_refused("received fatal alert: DecodeError").is_none());
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert!(closed.is_silent());
        assert_eq!(closed.code.number(), 0);
    }

    #[test]
    fn attack_50_an_answer_cannot_write_to_the_terminal() {
        let failure = Failure::from(Kind::Denied.status("no\u{1b}[2J\nreally"));
        assert_eq!(failure.to_string(), "no\\u{1b}[2J\nreally");
    }
}
