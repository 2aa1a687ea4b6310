//! The environment of a login's programs: built from nothing, never inherited from the agent.
//!
//! A client's own variables enter through a list of names and a check of values, because a variable can be
//! a program (`LD_PRELOAD`, `BASH_ENV`) or a path (`LANG=../../tmp/x`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;

use mezite_core::{SessionId, UserName};
use thiserror::Error;

use crate::account::Account;

/// Most variables that a client may set in one session.
pub const MAX_OFFERED: usize = 64;
/// Longest value of a client's variable, in bytes.
pub const MAX_VALUE: usize = 4096;

const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names a client may set, besides `LC_` and what follows it.
const ALLOWED: [&str; 7] = [
    "COLORTERM",
    "GIT_PROTOCOL",
    "LANG",
    "LANGUAGE",
    "NO_COLOR",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
];

/// Why a client's variable was not taken. None of them ends a session; RFC 4254 section 6.4 lets a server
/// take what it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The name is not on the list.
    #[error(
        "clients may set only LANG, LANGUAGE, LC_*, GIT_PROTOCOL, COLORTERM, NO_COLOR, TERM_PROGRAM and TERM_PROGRAM_VERSION"
    )]
    Name,
    /// The value has a control character, looks like code or a path, or is not text.
    #[error("the value is not plain text")]
    Value,
    /// The value is longer than [`MAX_VALUE`].
    #[error("the value is longer than {MAX_VALUE} bytes")]
    Length,
    /// [`MAX_OFFERED`] variables were taken already.
    #[error("more than {MAX_OFFERED} variables")]
    Count,
}

/// The variables of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    own: BTreeMap<String, OsString>,
    offered: BTreeMap<String, String>,
}

impl Environment {
    /// What every program of `account` gets: `HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH`.
    #[must_use]
    pub fn new(account: &Account) -> Self {
        let path = if account.uid() == 0 {
            ROOT_PATH
        } else {
            USER_PATH
        };
        let own = BTreeMap::from([
            ("HOME".to_owned(), account.home().into()),
            ("USER".to_owned(), account.name().into()),
            ("LOGNAME".to_owned(), account.name().into()),
            ("SHELL".to_owned(), account.shell().into()),
            ("PATH".to_owned(), path.into()),
        ]);
        Self {
            own,
            offered: BTreeMap::new(),
        }
    }

    /// Adds `SSH_CONNECTION` and `SSH_CLIENT` as OpenSSH's `ssh(1)` describes them.
    #[must_use]
    pub fn connection(mut self, client: SocketAddr, server: SocketAddr) -> Self {
        let (from, from_port) = (client.ip().to_canonical(), client.port());
        let (to, to_port) = (server.ip().to_canonical(), server.port());
        self.set(
            "SSH_CONNECTION",
            format!("{from} {from_port} {to} {to_port}"),
        );
        self.set("SSH_CLIENT", format!("{from} {from_port} {to_port}"));
        self
    }

    /// Adds `MEZITE_SESSION_ID` and `MEZITE_USER`, so that a script can say who asked.
    #[must_use]
    pub fn session(mut self, id: &SessionId, user: &UserName) -> Self {
        self.set("MEZITE_SESSION_ID", id.to_string());
        self.set("MEZITE_USER", user.as_str());
        self
    }

    /// Takes a variable that the client asked for, if name, value and count are within bounds. A second
    /// value for a name replaces the first.
    ///
    /// # Errors
    /// A [`Refusal`]; the environment is then as it was.
    pub fn offer(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        if !name_allowed(name) {
            return Err(Refusal::Name);
        }
        if value.len() > MAX_VALUE {
            return Err(Refusal::Length);
        }
        if !value_allowed(name, value) {
            return Err(Refusal::Value);
        }
        if self.offered.len() >= MAX_OFFERED && !self.offered.contains_key(name) {
            return Err(Refusal::Count);
        }
        self.offered.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Adds `SSH_AUTH_SOCK`, where programs reach the client's agent.
    pub(crate) fn set_agent(&mut self, socket: impl Into<OsString>) {
        self.set("SSH_AUTH_SOCK", socket);
    }

    /// Adds `TERM` and `SSH_TTY`. A terminal name that could be a path (terminfo is read by it) becomes `dumb`.
    pub(crate) fn set_terminal(&mut self, name: &str, device: impl Into<OsString>) {
        self.set("TERM", terminal_name(name));
        self.set("SSH_TTY", device);
    }

    /// All variables by name. What the session sets stands above what the client asked for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, OsString)> {
        let own = self
            .own
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        let offered = self.offered.iter();
        offered
            .map(|(name, value)| (name.as_str(), value.into()))
            .filter(|(name, _)| !self.own.contains_key(*name))
            .chain(own)
    }

    fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.own.insert(name.to_owned(), value.into());
    }
}

fn name_allowed(name: &str) -> bool {
    let category = |rest: &str| {
        (1..=32).contains(&rest.len())
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    ALLOWED.contains(&name) || name.strip_prefix("LC_").is_some_and(category)
}

/// No control characters; nothing that old shells read as a function; for locales nothing the C library
/// would read as a path.
fn value_allowed(name: &str, value: &str) -> bool {
    let locale = name.starts_with("LANG") || name.starts_with("LC_");
    let control = value.chars().any(char::is_control);
    let path = locale && value.contains('/');
    !(control || path || value.starts_with("()"))
}

fn terminal_name(name: &str) -> &str {
    let plain = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    if plain { name } else { "dumb" }
}

#[cfg(test)]
mod tests {
    use mezite_core::UnixTime;

    use super::*;

    fn fresh() -> Environment {
        let passwd = b"alice:x:1000:1000::/home/alice:/bin/zsh\n";
        let account = Account::find(&"alice".parse().unwrap(), passwd, b"").unwrap();
        Environment::new(&account)
    }

    fn get(environment: &Environment, name: &str) -> Option<String> {
        environment
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.into_string().unwrap())
    }

    #[test]
    fn holds_the_login_and_the_session_and_nothing_of_the_agent() {
        let id = SessionId::new(UnixTime::from_millis(1), [3; 16]);
        let mut environment = fresh()
            .connection(
                "[::ffff:10.0.0.9]:50000".parse().unwrap(),
                "10.0.0.1:22".parse().unwrap(),
            )
            .session(&id, &"bob".parse().unwrap());
        environment.set_terminal("xterm-256color", "/dev/pts/3");
        let all: BTreeMap<_, _> = environment.iter().collect();
        let names: Vec<_> = all.keys().copied().collect();
        assert_eq!(
            names,
            [
                "HOME",
                "LOGNAME",
                "MEZITE_SESSION_ID",
                "MEZITE_USER",
                "PATH",
                "SHELL",
                "SSH_CLIENT",
                "SSH_CONNECTION",
                "SSH_TTY",
                "TERM",
                "USER"
            ]
        );
        assert_eq!(get(&environment, "HOME").unwrap(), "/home/alice");
        assert_eq!(get(&environment, "PATH").unwrap(), USER_PATH);
        assert_eq!(
            get(&environment, "SSH_CONNECTION").unwrap(),
            "10.0.0.9 50000 10.0.0.1 22"
        );
        assert_eq!(
            get(&environment, "SSH_CLIENT").unwrap(),
            "10.0.0.9 50000 22"
        );
        assert_eq!(
            get(&environment, "MEZITE_SESSION_ID").unwrap(),
            id.to_string()
        );
    }

    #[test]
    fn takes_locale_colours_and_git() {
        let mut environment = fresh();
        for (name, value) in [
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "C"),
            ("LC_TIME", "en_GB.UTF-8@euro"),
            ("GIT_PROTOCOL", "version=2"),
            ("COLORTERM", "truecolor"),
            ("NO_COLOR", ""),
        ] {
            assert_eq!(environment.offer(name, value), Ok(()), "{name}");
            assert_eq!(get(&environment, name).as_deref(), Some(value));
        }
    }

    #[test]
    fn attack_67_variables_that_are_programs_or_paths() {
        let mut environment = fresh();
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PATH",
            "HOME",
            "SHELL",
            "SHELLOPTS",
            "BASHOPTS",
            "PS4",
            "PYTHONPATH",
            "PERL5LIB",
            "GCONV_PATH",
            "LOCPATH",
            "NLSPATH",
            "TERMINFO",
            "MALLOC_CHECK_",
            "SSH_AUTH_SOCK",
            "MEZITE_USER",
            "MEZITE_SESSION_ID",
            "TERM",
            "",
            "LC_",
            "LC_a",
            "LC_A=B",
            "LC_A\0",
            "lang",
            "LANG=x\0LD_PRELOAD",
            "BASH_FUNC_ls%%",
            "LC_ÄÖ",
        ] {
            assert_eq!(environment.offer(name, "x"), Err(Refusal::Name), "{name}");
        }
        for (name, value) in [
            ("LANG", "../../tmp/evil"),
            ("LC_ALL", "/tmp/evil"),
            ("LC_ALL", "C\0LD_PRELOAD=x"),
            ("LC_ALL", "C\nLD_PRELOAD=x"),
            ("LC_X", "() { :; }; id"),
            ("COLORTERM", "\u{1b}[2J"),
        ] {
            assert_eq!(
                environment.offer(name, value),
                Err(Refusal::Value),
                "{value:?}"
            );
        }
        assert_eq!(environment, fresh());
    }

    #[test]
    fn attack_67_count_and_size_are_bounded() {
        let mut environment = fresh();
        let long = "x".repeat(MAX_VALUE + 1);
        assert_eq!(environment.offer("LANG", &long), Err(Refusal::Length));
        let taken = (0..100_000)
            .filter(|n| environment.offer(&format!("LC_{n}"), "x").is_ok())
            .count();
        assert_eq!(taken, MAX_OFFERED);
        assert_eq!(environment.offer("LC_NEW", "x"), Err(Refusal::Count));
        assert_eq!(environment.offer("LC_0", "y"), Ok(()));
        assert_eq!(environment.iter().count(), MAX_OFFERED + 5);
    }

    #[test]
    fn attack_67_a_terminal_name_is_no_path() {
        for bad in [
            "",
            "../../tmp/x",
            "/tmp/x",
            "a b",
            "xterm\n",
            "..",
            &"x".repeat(65),
        ] {
            assert_eq!(terminal_name(bad), "dumb", "{bad:?}");
        }
        for good in [
            "xterm-256color",
            "screen.xterm-new",
            "vt100",
            "rxvt-unicode",
            "a+b",
        ] {
            assert_eq!(terminal_name(good), good);
        }
    }
}
