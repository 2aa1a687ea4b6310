//! What a run leaves behind: nothing. Servers end and directories go on return, on panic, and on Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::step::{self, Failure, Stopwatch};

/// Process groups that we started and directories that we made, for the thread that hears signals.
static OURS: Mutex<Ours> = Mutex::new(Ours {
    groups: Vec::new(),
    directories: Vec::new(),
    ending: false,
});

struct Ours {
    groups: Vec<Pid>,
    directories: Vec<PathBuf>,
    /// A signal came; the thread that hears signals ends the program.
    ending: bool,
}

fn ours<T>(change: impl FnOnce(&mut Ours) -> T) -> T {
    change(&mut OURS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Ends everything and the program itself at SIGINT, SIGTERM and SIGHUP.
pub(crate) fn on_signals() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let (groups, directories) = ours(|ours| {
                ours.ending = true;
                (ours.groups.clone(), ours.directories.clone())
            });
            end(&groups);
            for directory in directories {
                let _ = std::fs::remove_dir_all(directory);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// After a signal, failures only say that the servers are gone: wait for the end instead of reporting them.
pub(crate) fn wait_if_ending() {
    if ours(|ours| ours.ending) {
        pause(Duration::from_secs(5));
    }
}

fn end(groups: &[Pid]) {
    let say = |signal| {
        groups
            .iter()
            .filter(|group| killpg(**group, signal).is_ok())
            .count()
    };
    if say(Signal::SIGTERM) > 0 {
        pause(Duration::from_millis(300));
        say(Signal::SIGKILL);
    }
}

#[expect(clippy::disallowed_methods, reason = "real processes need real time")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A private directory for one run.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("mezite-bench-").tempdir();
        let directory = directory
            .map_err(|error| Failure::new(format!("cannot make a scratch directory: {error}")))?;
        ours(|ours| ours.directories.push(directory.path().to_path_buf()));
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A server in a process group of its own; it ends with this value.
pub(crate) struct Server {
    child: Child,
    group: Pid,
    log: PathBuf,
}

impl Server {
    /// Starts a server whose output goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt;
        let failed = |error| Failure::new(format!("cannot write `{}`: {error}", log.display()));
        let file = std::fs::File::create(&log).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        let command = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy);
        let child = command
            .spawn()
            .map_err(|error| step::not_started(command, &error))?;
        let group = i32::try_from(child.id())
            .map(Pid::from_raw)
            .map_err(|_| Failure::new("a process id beyond 2^31"))?;
        ours(|ours| ours.groups.push(group));
        Ok(Self { child, group, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks `ready` until it says yes, for at most 20 s and as long as the server lives.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Failure> {
        let watch = Stopwatch::start();
        while !ready() {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || watch.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let state = if ended { "it ended" } else { "20 s passed" };
                return Err(Failure::new(format!(
                    "{what} did not come up ({state}); it said:\n{log}"
                )));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = killpg(self.group, Signal::SIGTERM);
        let watch = Stopwatch::start();
        while watch.elapsed() < Duration::from_secs(3)
            && self.child.try_wait().is_ok_and(|status| status.is_none())
        {
            pause(Duration::from_millis(10));
        }
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.wait();
        ours(|ours| ours.groups.retain(|group| *group != self.group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_its_children_end_with_the_value() {
        let scratch = Scratch::new().unwrap();
        let log = scratch.path().join("log");
        let mut server = Server::start(
            Command::new("sh").args(["-c", "sleep 600 & echo up; wait"]),
            log.clone(),
        )
        .unwrap();
        server
            .wait_until("a shell", || {
                std::fs::read_to_string(&log).is_ok_and(|text| text.contains("up"))
            })
            .unwrap();
        let group = server.group;
        drop(server);
        let mut tries = 0;
        while killpg(group, None).is_ok() && tries < 100 {
            pause(Duration::from_millis(20));
            tries += 1;
        }
        assert!(killpg(group, None).is_err(), "the group lives on");
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_words() {
        let scratch = Scratch::new().unwrap();
        let mut command = Command::new("sh");
        let mut server = Server::start(
            command.args(["-c", "echo no such port; exit 1"]),
            scratch.path().join("log"),
        )
        .unwrap();
        let failure = server.wait_until("the server", || false).unwrap_err();
        assert!(failure.to_string().contains("no such port"), "{failure}");
    }
}
