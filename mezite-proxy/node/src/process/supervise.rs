//! One task per program: learns of its exit, and ends it when told or left alone.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::Exit;
use super::stream::Master;

/// How often it is looked whether a group that was hung up is gone.
const POLL: Duration = Duration::from_millis(20);

/// The program's group. Killed when dropped while it may still run, which is when the runtime ends.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
    master: Option<Arc<Master>>,
    armed: bool,
}

impl Group {
    pub(super) const fn new(leader: Pid, master: Option<Arc<Master>>) -> Self {
        Self {
            leader,
            master,
            armed: true,
        }
    }

    /// The leader's group and, on a terminal, the one in the foreground. A group's number is not given away
    /// while a member lives, so these stay ours until they are empty.
    fn all(&self) -> Vec<Pid> {
        let foreground = self.master.as_ref().and_then(|master| master.foreground());
        let mut groups = vec![self.leader];
        groups.extend(foreground.filter(|group| *group != self.leader));
        groups
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.armed {
            send(&self.all(), Signal::SIGKILL);
        }
    }
}

/// Reports the exit; hangs up when `closing` says so or its sender is gone.
pub(super) async fn run(
    mut child: Child,
    mut group: Group,
    mut closing: watch::Receiver<bool>,
    report: watch::Sender<Option<Exit>>,
    grace: Duration,
) {
    let status = tokio::select! {
        status = child.wait() => Some(status),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    if let Some(status) = status {
        group.armed = false;
        return tell(&report, status);
    }
    let groups = group.all();
    send(&groups, Signal::SIGHUP);
    send(&groups, Signal::SIGCONT);
    group.master = None;
    let deadline = Instant::now() + grace;
    if let Ok(status) = timeout_at(deadline, child.wait()).await {
        tell(&report, status);
    }
    while Instant::now() < deadline && !all_gone(&groups) {
        sleep(POLL).await;
    }
    send(&groups, Signal::SIGKILL);
    group.armed = false;
    if report.borrow().is_none() {
        tell(&report, child.wait().await);
    }
}

fn tell(report: &watch::Sender<Option<Exit>>, status: std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => drop(report.send_replace(Some(Exit::from(status)))),
        Err(error) => tracing::warn!(%error, "a program's exit status was lost"),
    }
}

/// Groups that are gone already are no fault.
fn send(groups: &[Pid], signal: Signal) {
    for group in groups {
        if let Err(errno) = killpg(*group, signal)
            && errno != nix::Error::ESRCH
        {
            tracing::warn!(%group, %signal, %errno, "cannot signal a program");
        }
    }
}

fn all_gone(groups: &[Pid]) -> bool {
    groups
        .iter()
        .all(|group| killpg(*group, None) == Err(nix::Error::ESRCH))
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let Some(number) = status.signal() else {
            let code = status.code().and_then(|code| u32::try_from(code).ok());
            return Self::Status(code.unwrap_or(255));
        };
        let name = Signal::try_from(number).map_or_else(
            |_| format!("RT{number}"),
            |signal| signal.as_str().trim_start_matches("SIG").to_owned(),
        );
        let core_dumped = status.core_dumped();
        let core = if core_dumped { ", core dumped" } else { "" };
        Self::Signal {
            message: format!("ended by signal {number} ({name}{core})"),
            name,
            core_dumped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_signals_have_their_ssh_names() {
        assert_eq!(Exit::from(ExitStatus::from_raw(3 << 8)), Exit::Status(3));
        let signal = |raw| Exit::from(ExitStatus::from_raw(raw));
        assert!(
            matches!(signal(15), Exit::Signal { name, core_dumped: false, .. } if name == "TERM")
        );
        assert!(
            matches!(signal(11 | 0x80), Exit::Signal { name, core_dumped: true, .. } if name == "SEGV")
        );
        assert!(matches!(signal(40), Exit::Signal { name, .. } if name == "RT40"));
    }
}
