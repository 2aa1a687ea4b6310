//! The operations guide, command by command: our packages on a new Debian that its own systemd has booted, in a container without a
//! network. Nothing stands for anything there: credentials are sealed, units confined, sessions end at Debian's `sshd`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::made::{artefact, target, version};

const GUIDE: &str = include_str!("../../../mezhub/OPERATIONS.md");

/// Booting, the whole guide and shutting down take a quarter of a minute.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the guide when the system is up, and switches it off.
const UNIT: &str = "
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=HOME=/root
WorkingDirectory=/guide
ExecStart=-/bin/bash -c '(set -eux; . ./guide.sh) > said 2>&1; echo $? > code; journalctl --no-pager > journal; systemctl poweroff'
";

/// What the guide leaves to its reader: there is an account, the password goes from the screen into a file, somebody opens a session.
const SESSION: &str = "
msh ssh alice@web 'id -un; echo recorded' > answer
";

/// What an agent renews is in force at the sshd without anybody's help: the guide's own reload is the first.
const RENEWED: &str = "
mezctl ca rotate --begin --authority user
timeout 60 sh -c 'until [ $(journalctl -u ssh.service | grep -c \"Received SIGHUP\") -ge 2 ]; do sleep 0.2; done'
msh ssh alice@web 'echo once more' >> answer
mezctl ca rotate --rollback --authority user
";

/// Removed, nothing runs any more, and what is evidence is there.
const REMOVED: &str = "
systemctl is-active mezhub.service
systemctl is-active mezhub.socket
systemctl is-active mezd-sshd.path
dpkg --purge mezhub mezd
[ $(systemctl is-active mezhub.service mezhub.socket mezd.service mezd-sshd.path | grep -c -x inactive) = 4 ]
[ ! -e /usr/bin/mezhub ] && [ -e /var/lib/mezite/mezhub.db ] && [ -e /var/lib/mezite-node/node.json ]
";

#[test]
fn every_command_of_the_operations_guide_works_on_a_new_debian() {
    assert!(
        Uid::effective().is_root(),
        "a system is booted by root alone: run the tests of a release as root"
    );
    let guide = tempfile::tempdir().unwrap();
    let place = guide.path();
    for name in ["mezhub", "mezd"] {
        let package = artefact(&format!("{name}_{}_amd64.deb", version()));
        fs::copy(&package, place.join(package.file_name().unwrap())).unwrap();
    }
    fs::write(place.join("guide.sh"), script()).unwrap();
    fs::write(place.join("guide.service"), UNIT).unwrap();
    boot(place);
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    let (said, journal) = (read("said"), read("journal"));
    assert_eq!(
        read("code"),
        "0\n",
        "{said}\n{journal}\n{}",
        read("console")
    );
    assert_eq!(read("answer"), "alice\nrecorded\nonce more\n");
    assert!(
        !journal.contains("Scheduled restart job"),
        "something had to be started again\n{journal}"
    );
    confined(&journal);
}

/// Every start says that all of it is in force, and nothing misses what was taken.
fn confined(journal: &str) {
    let hardened: Vec<&str> = journal
        .lines()
        .filter(|line| line.contains("hardened"))
        .collect();
    assert!(
        hardened.len() > 5 && hardened.iter().any(|line| line.contains(" mezd[")),
        "{journal}"
    );
    for line in hardened {
        assert!(
            line.contains("memory, files, ports, signals, system calls")
                && !line.contains("lacks")
                && !line.contains("in part"),
            "{line}"
        );
    }
    for bad in [
        "Operation not permitted",
        "Function not implemented",
        "Permission denied",
        "panicked",
        "core-dump",
    ] {
        let line = journal
            .lines()
            .find(|line| line.contains(" mez") && line.contains(bad));
        assert_eq!(line, None);
    }
}

/// The blocks of the guide, one after another, with what their reader does in between.
fn script() -> String {
    let blocks: Vec<&str> = GUIDE
        .split("```sh\n")
        .skip(1)
        .map(|part| part.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() > 12);
    let mut script = String::new();
    let mut users = 0;
    for block in blocks {
        if let Some((first, rest)) = block.split_once('\n')
            && first.starts_with("mezctl users add alice")
        {
            users += 1;
            let password =
                "sed -n 's/.*\"password\": *\"\\([^\"]*\\)\".*/\\1/p' alice.json > alice.password";
            script += &format!(
                "useradd --create-home alice\n{first}\n{password}\n{rest}{SESSION}{RENEWED}"
            );
        } else {
            script += block;
        }
    }
    assert_eq!(users, 1);
    script + REMOVED
}

/// Boots Debian, and returns when it has switched itself off. What it writes is gone then, but for what is in `guide`.
fn boot(guide: &Path) {
    let console = fs::File::create(guide.join("console")).unwrap();
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn
        .arg("--boot")
        .arg("--directory")
        .arg(target().join("tools/debian/root"))
        .arg(format!("--machine=mezite-{}", std::process::id()))
        .args([
            "--volatile=overlay",
            "--private-network",
            "--register=no",
            "--keep-unit",
            "--kill-signal=SIGRTMIN+3",
            // What a machine grants and this container, by default, does not.
            "--system-call-filter=@memlock landlock_create_ruleset landlock_add_rule landlock_restrict_self",
        ])
        .arg(format!("--bind={}:/guide", guide.display()))
        .arg(format!(
            "--bind-ro={}:/etc/systemd/system/guide.service",
            guide.join("guide.service").display()
        ))
        .arg("systemd.wants=guide.service");
    nspawn
        .stdin(Stdio::null())
        .stdout(console.try_clone().unwrap())
        .stderr(console)
        .process_group(0);
    let mut nspawn = Booted(
        nspawn
            .spawn()
            .expect("systemd-nspawn; `cargo xtask test` installs what is missing"),
    );
    let began = Instant::now();
    while nspawn.0.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            let console = fs::read_to_string(guide.join("console")).unwrap_or_default();
            let said = fs::read_to_string(guide.join("said")).unwrap_or_default();
            panic!("the system did not switch itself off\n{console}\n{said}");
        }
        sleep(Duration::from_millis(100));
    }
}

/// Ends with the test: first the system's own first process, which takes all others with it.
struct Booted(Child);

impl Drop for Booted {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let id = self.0.id();
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            if let Ok(child) = child.parse() {
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
