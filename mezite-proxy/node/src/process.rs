//! Programs of a login: a shell, a command, or a program of ours, on a terminal or on three pipes.
//!
//! A program leads a session and a process group of its own, inherits nothing but its three standard streams,
//! and is ended (SIGHUP, then SIGKILL) when its [`Control`] goes. It runs as this process's own user; whoever
//! needs another user starts a process as that user first.

mod stream;
mod supervise;

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Pid, geteuid};
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use self::stream::Master;
pub use self::stream::{Input, Output};
use crate::account::Account;
use crate::environment::Environment;
use crate::sys;
use crate::terminal::{Size, Terminal, apply};

/// How long a program that was told to hang up may take before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long after a program's exit its output may be silent before the stream ends, although a background
/// child still holds it open.
pub const QUIET: Duration = Duration::from_millis(200);
/// New files of a login are not writable for others, unless its shell's start files say otherwise.
const UMASK: u32 = 0o022;

/// Why a program could not be started or told something.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The account is not the one this process runs as.
    #[error(
        "programs of `{account}` cannot be started by user id {uid}: only its own account is served"
    )]
    OtherAccount {
        /// The account asked for.
        account: String,
        /// Who this process is.
        uid: u32,
    },
    /// The command has a NUL byte, which no argument can hold.
    #[error("the command contains a NUL byte")]
    Nul,
    /// No terminal could be opened, or it could not be set up.
    #[error("cannot open a terminal: {source}")]
    Terminal {
        /// What the system said.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program's path, escaped.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The name is none of RFC 4254 section 6.9.
    #[error(
        "`{name}` is not a signal: expected ABRT, ALRM, FPE, HUP, ILL, INT, KILL, PIPE, QUIT, SEGV, TERM, USR1 or USR2"
    )]
    UnknownSignal {
        /// The name, escaped, cut to 40 characters.
        name: String,
    },
    /// The signal could not be sent.
    #[error("cannot signal the program: {source}")]
    Signal {
        /// What the system said.
        source: io::Error,
    },
    /// The program has no terminal whose size could change.
    #[error("the program has no terminal")]
    NoTerminal,
    /// How the program ended is not known: the system did not tell.
    #[error("the program's exit status was lost")]
    Lost,
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The login shell, as a login shell (its first argument begins with `-`).
    Shell,
    /// A command line, given to the login shell with `-c`, as `sshd(8)` does.
    Command(OsString),
    /// A program with arguments and no shell in between: subsystems.
    Program(PathBuf, Vec<OsString>),
}

/// A program to start.
#[derive(Clone, Debug)]
pub struct Program {
    account: Account,
    environment: Environment,
    action: Action,
    terminal: Option<Terminal>,
    grace: Duration,
}

impl Program {
    /// `action` for `account` on three pipes.
    #[must_use]
    pub const fn new(account: Account, environment: Environment, action: Action) -> Self {
        Self {
            account,
            environment,
            action,
            terminal: None,
            grace: GRACE,
        }
    }

    /// The same on a terminal.
    #[must_use]
    pub fn on(mut self, terminal: Terminal) -> Self {
        self.terminal = Some(terminal);
        self
    }

    /// The same with another time between SIGHUP and SIGKILL than [`GRACE`].
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The bare command: program, arguments, environment.
    fn command(&self) -> Result<Command, ProcessError> {
        let shell = self.account.shell();
        let name = shell.file_name().unwrap_or(shell.as_os_str());
        let mut command = match &self.action {
            Action::Shell => {
                let mut command = Command::new(shell);
                command.arg0(joined("-", name));
                command
            }
            Action::Command(line) => {
                let mut command = Command::new(shell);
                command.arg0(name).arg("-c").arg(without_nul(line)?);
                command
            }
            Action::Program(path, arguments) => {
                let mut command = Command::new(path);
                for argument in arguments {
                    command.arg(without_nul(argument)?);
                }
                command
            }
        };
        command.env_clear().envs(self.environment.iter());
        command.kill_on_drop(true);
        Ok(command)
    }

    /// What is said to have failed to start.
    fn path(&self) -> String {
        let path = match &self.action {
            Action::Shell | Action::Command(_) => self.account.shell(),
            Action::Program(path, _) => path,
        };
        path.to_string_lossy().escape_default().to_string()
    }

    fn start(&self, mut command: Command) -> Result<Child, ProcessError> {
        let directory = CString::new(self.account.home().as_os_str().as_bytes())
            .map_err(|_| ProcessError::Nul)?;
        sys::prepare(
            &mut command,
            sys::Child {
                terminal: self.terminal.is_some(),
                directory,
                umask: UMASK,
            },
        );
        command.spawn().map_err(|source| ProcessError::Start {
            program: self.path(),
            source,
        })
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It returned this, 0 to 255.
    Status(u32),
    /// A signal ended it.
    Signal {
        /// The signal's name without `SIG`, for example `TERM`.
        name: String,
        /// Whether a core file was written.
        core_dumped: bool,
        /// The same in words.
        message: String,
    },
}

/// A started program: its streams, and what steers it.
///
/// Bytes are pumped by the caller, best in pieces of 32 KiB or more. [`Output`] ends when all output was read: at
/// end of file, or [`QUIET`] after the exit. So whoever reads the outputs to their end and then calls
/// [`Control::wait`] reports the exit after the last byte.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "taken apart by its callers, one task per stream"
)]
pub struct Process {
    /// What the program reads. Shutting it down is end of file; on a terminal it changes nothing, as with `sshd(8)`.
    pub stdin: Input,
    /// What the program writes.
    pub stdout: Output,
    /// What the program writes as errors; on a terminal there is no second stream.
    pub stderr: Option<Output>,
    /// Signals, size, exit. Dropping it ends the program.
    pub control: Control,
}

impl Process {
    /// Starts `program`. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ProcessError::OtherAccount`], [`ProcessError::Nul`], [`ProcessError::Terminal`] or [`ProcessError::Start`].
    pub fn spawn(program: Program) -> Result<Self, ProcessError> {
        let own = geteuid().as_raw();
        if program.account.uid() != own {
            return Err(ProcessError::OtherAccount {
                account: program.account.name().to_owned(),
                uid: own,
            });
        }
        match program.terminal.clone() {
            Some(terminal) => Self::on_terminal(program, &terminal),
            None => Self::on_pipes(&program),
        }
    }

    fn on_pipes(program: &Program) -> Result<Self, ProcessError> {
        let mut command = program.command()?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = program.start(command)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(ProcessError::Start {
                program: program.path(),
                source: io::Error::other("a pipe is missing"),
            });
        };
        let control = Control::over(child, None, program.grace)?;
        Ok(Self {
            stdin: Input::pipe(stdin),
            stdout: Output::stdout(stdout, control.exit.clone()),
            stderr: Some(Output::stderr(stderr, control.exit.clone())),
            control,
        })
    }

    fn on_terminal(mut program: Program, terminal: &Terminal) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Terminal { source };
        let pty = sys::open_pty().map_err(failed)?;
        let mut termios = tcgetattr(&pty.slave).map_err(|errno| failed(errno.into()))?;
        apply(&mut termios, &terminal.modes);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &termios).map_err(|errno| failed(errno.into()))?;
        sys::set_window(&pty.master, terminal.size.into()).map_err(failed)?;
        program.environment.set_terminal(&terminal.name, pty.path);

        let mut command = program.command()?;
        command
            .stdin(pty.slave.try_clone().map_err(failed)?)
            .stdout(pty.slave.try_clone().map_err(failed)?)
            .stderr(pty.slave);
        let master = Arc::new(Master::new(pty.master).map_err(failed)?);
        // The command, and with it our copies of the slave, is gone when this returns: else no end would be seen.
        let child = program.start(command)?;
        let control = Control::over(child, Some(Arc::clone(&master)), program.grace)?;
        Ok(Self {
            stdin: Input::terminal(Arc::clone(&master)),
            stdout: Output::terminal(master, control.exit.clone()),
            stderr: None,
            control,
        })
    }
}

/// Steers a running program. Dropping it hangs the program up: SIGHUP to its group and to the terminal's
/// foreground group, SIGKILL after the grace time. What the program put into other groups lives on, as after
/// `nohup(1)`.
#[derive(Debug)]
pub struct Control {
    leader: Pid,
    master: Option<Arc<Master>>,
    closing: watch::Sender<bool>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Control {
    fn over(
        child: Child,
        master: Option<Arc<Master>>,
        grace: Duration,
    ) -> Result<Self, ProcessError> {
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw)
            .ok_or(ProcessError::Lost)?;
        let (closing, closed) = watch::channel(false);
        let (report, exit) = watch::channel(None);
        let group = supervise::Group::new(leader, master.clone());
        tokio::spawn(supervise::run(child, group, closed, report, grace));
        Ok(Self {
            leader,
            master,
            closing,
            exit,
        })
    }

    /// The program's process id, which is also that of its group and session.
    #[must_use]
    pub fn id(&self) -> u32 {
        u32::try_from(self.leader.as_raw()).unwrap_or_default()
    }

    /// Sends the signal `name` (RFC 4254 section 6.9, without `SIG`) to the program's group. After the exit
    /// nothing happens.
    ///
    /// # Errors
    /// [`ProcessError::UnknownSignal`] for other names, [`ProcessError::Signal`] if the system refuses.
    pub fn signal(&self, name: &str) -> Result<(), ProcessError> {
        let signal = signal_named(name).ok_or_else(|| ProcessError::UnknownSignal {
            name: name
                .chars()
                .take(40)
                .flat_map(char::escape_default)
                .collect(),
        })?;
        if self.exit.borrow().is_some() {
            return Ok(());
        }
        match killpg(self.leader, signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(errno) => Err(ProcessError::Signal {
                source: errno.into(),
            }),
        }
    }

    /// Changes the terminal's size; the foreground program gets SIGWINCH.
    ///
    /// # Errors
    /// [`ProcessError::NoTerminal`] on pipes, [`ProcessError::Terminal`] if the system refuses.
    pub fn resize(&self, size: Size) -> Result<(), ProcessError> {
        let master = self.master.as_deref().ok_or(ProcessError::NoTerminal)?;
        sys::set_window(master, size.into()).map_err(|source| ProcessError::Terminal { source })
    }

    /// Ends the program as dropping this does, and lets [`wait`](Self::wait) be called for the outcome.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits for the exit. May be called from several tasks, and again afterwards; cancelling it changes nothing.
    ///
    /// # Errors
    /// [`ProcessError::Lost`] if the system did not tell how the program ended.
    pub async fn wait(&self) -> Result<Exit, ProcessError> {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await;
        exit.ok()
            .and_then(|exit| exit.clone())
            .ok_or(ProcessError::Lost)
    }
}

/// The names of RFC 4254 section 6.9.
fn signal_named(name: &str) -> Option<Signal> {
    Some(match name {
        "ABRT" => Signal::SIGABRT,
        "ALRM" => Signal::SIGALRM,
        "FPE" => Signal::SIGFPE,
        "HUP" => Signal::SIGHUP,
        "ILL" => Signal::SIGILL,
        "INT" => Signal::SIGINT,
        "KILL" => Signal::SIGKILL,
        "PIPE" => Signal::SIGPIPE,
        "QUIT" => Signal::SIGQUIT,
        "SEGV" => Signal::SIGSEGV,
        "TERM" => Signal::SIGTERM,
        "USR1" => Signal::SIGUSR1,
        "USR2" => Signal::SIGUSR2,
        _ => return None,
    })
}

fn joined(prefix: &str, name: &OsStr) -> OsString {
    let mut joined = OsString::from(prefix);
    joined.push(name);
    joined
}

fn without_nul(text: &OsStr) -> Result<&OsStr, ProcessError> {
    if text.as_bytes().contains(&0) {
        return Err(ProcessError::Nul);
    }
    Ok(text)
}

impl From<Vec<u8>> for Action {
    /// The command line of an `exec` request, which is bytes (RFC 4254 section 6.5).
    fn from(line: Vec<u8>) -> Self {
        Self::Command(OsString::from_vec(line))
    }
}
