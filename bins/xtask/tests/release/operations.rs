//! The operations guide, command by command, on the packages of the release: in a root with the machine's programs, and accounts,
//! configuration and data of its own, and a network that ends at the loopback.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Root, artefact, ok, output, release};

const GUIDE: &str = include_str!("../../../mezhub/OPERATIONS.md");

/// Stands for systemd, which is no child of a test: starts what the unit starts, as the account of the unit, with the credentials it
/// names, and waits until it serves.
const SYSTEMCTL: &str = r##"#!/bin/bash
set -eu; umask 022
verb=$1; shift
for word in "$@"; do
    case $word in --now|*.socket) continue ;; esac
    unit=${word%.service}
    case $unit in mezhub) account=mezite ;; mezd) account=mezite-node ;; esac
    stop() {
        [ -e /run/$unit.pid ] || return 0
        kill "$(cat /run/$unit.pid)"
        while kill -0 "$(cat /run/$unit.pid)" 2>/dev/null; do sleep 0.05; done
        rm /run/$unit.pid
    }
    start() {
        directory=/run/credentials/$unit.service
        rm -rf "$directory"; mkdir -p "$directory"
        cat /units/$unit.service /etc/systemd/system/$unit.service.d/*.conf 2>/dev/null |
            sed -n 's/^LoadCredentialEncrypted=//p' | while IFS=: read -r name file; do
                systemd-creds decrypt --name="$name" "$file" "$directory/$name"
            done
        chmod 700 "$directory"; find "$directory" -type f -exec chmod 400 {} +; chown -R $account: "$directory"
        start=$(sed -n 's/^ExecStart=//p' /units/$unit.service)
        # Without an sshd in this root the agent itself serves.
        start=${start/ --mode openssh/}
        start=${start#/usr/bin/}
        CREDENTIALS_DIRECTORY=$directory setsid setpriv --reuid $account --regid $account --init-groups $start \
            > /run/$unit.log 2>&1 9>&- &
        echo $! > /run/$unit.pid
        for _ in $(seq 1200); do
            if grep -q -e ' ready' -e 'connected to the hub' /run/$unit.log; then return 0; fi
            kill -0 $! 2>/dev/null || break
            sleep 0.1
        done
        echo "$unit did not start" >&2; cat /run/$unit.log >&2; exit 1
    }
    case $verb in
        enable|start) start ;;
        stop) stop ;;
        restart) stop; start ;;
        daemon-reload) ;;
    esac
done
"##;

/// Seals to a key of the machine; here to nothing, because the machine's is not the test's.
const SYSTEMD_CREDS: &str = "#!/bin/sh\nset -e\nshift 2\nexec install -m 600 \"$1\" \"$2\"\n";

/// Installed already; that packages install is another test.
const DPKG: &str = "#!/bin/sh\n[ \"$1\" = --install ] && [ -e \"$2\" ]\n";

#[test]
fn every_command_of_the_operations_guide_works_and_reaches_nobody_else() {
    let root = Root::new();
    let place = root.path("guide");
    fs::create_dir(&place).unwrap();
    for name in ["mezhub", "mezd"] {
        let package = artefact(&format!("{name}_{}_amd64.deb", version()));
        ok(&mut root.dpkg(&["--install", package.to_str().unwrap()]));
        fs::copy(&package, place.join(package.file_name().unwrap())).unwrap();
    }
    for (name, script) in [
        ("systemctl", SYSTEMCTL),
        ("systemd-creds", SYSTEMD_CREDS),
        ("dpkg", DPKG),
    ] {
        let path = root.path("usr/bin").join(name);
        fs::write(&path, script).unwrap();
        ok(Command::new("chmod").arg("755").arg(path));
    }
    let script: String = blocks()
        .into_iter()
        .map(|block| prepared(block) + "\n")
        .collect();
    fs::write(place.join("guide.sh"), script).unwrap();
    // The agent itself serves here, and the account that it runs as may log in nowhere.
    let accounts = fs::read_to_string(root.path("etc/passwd")).unwrap();
    fs::write(
        root.path("etc/passwd"),
        accounts.replace("/usr/sbin/nologin", "/bin/sh"),
    )
    .unwrap();
    let trace = place.join("trace");
    let mut inside = Command::new("strace");
    inside
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=connect,sendto,sendmsg",
            "-e",
            "signal=none",
            "-o",
        ])
        .arg(&trace);
    inside.args([
        "bwrap",
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--die-with-parent",
    ]);
    inside.args([
        "--ro-bind",
        "/usr",
        "/usr",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--dir",
        "/etc",
    ]);
    for name in ["bin", "lib", "lib64", "sbin"] {
        inside.args(["--symlink", &format!("usr/{name}"), &format!("/{name}")]);
    }
    for name in [
        "alternatives",
        "ld.so.cache",
        "hosts",
        "nsswitch.conf",
        "pam.d",
        "security",
        "login.defs",
    ] {
        let path = format!("/etc/{name}");
        inside.args(["--ro-bind-try", &path, &path]);
    }
    for directory in [
        "/run",
        "/root",
        "/tmp",
        "/var/lib",
        "/var/log",
        "/var/backups",
    ] {
        inside.args(["--dir", directory]);
    }
    for (from, to) in [
        ("etc/mezite", "/etc/mezite"),
        ("etc/passwd", "/etc/passwd"),
        ("etc/group", "/etc/group"),
        ("usr/lib/systemd/system", "/units"),
        ("usr/bin", "/opt"),
        ("guide", "/mnt"),
    ] {
        inside.arg("--bind").arg(root.path(from)).arg(to);
    }
    let prologue = "
        export PATH=/opt:$PATH HOME=/root; unset CREDENTIALS_DIRECTORY
        install -d -m 700 -o mezite -g mezite /var/lib/mezite /var/log/mezite
        install -d -m 700 -o mezite-node -g mezite-node /var/lib/mezite-node
        cd /mnt; umask 077; set -eux; . ./guide.sh";
    let done = output(inside.args(["--chdir", "/mnt", "/bin/bash", "-c", prologue]));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&done.stdout),
        said
    );
    assert_eq!(
        fs::read_to_string(place.join("answer")).unwrap(),
        "recorded\n"
    );
    reached_nobody(&trace);
}

fn version() -> String {
    let facts = fs::read_to_string(release().join("BUILDINFO")).unwrap();
    let version = facts
        .lines()
        .find_map(|line| line.strip_prefix("version: "));
    version.unwrap().to_owned()
}

fn blocks() -> Vec<&'static str> {
    let blocks: Vec<&str> = GUIDE
        .split("```sh\n")
        .skip(1)
        .map(|part| part.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() > 12);
    blocks
}

/// What the guide leaves to its reader: the password goes from the screen into a file, and somebody opens a session.
fn prepared(block: &str) -> String {
    if block.starts_with("mezctl users add alice") {
        let (first, rest) = block.split_once('\n').unwrap();
        let password =
            "sed -n 's/.*\"password\": *\"\\([^\"]*\\)\".*/\\1/p' alice.json > alice.password";
        let block = format!("{first}\n{password}\n{rest}");
        // The agent serves its own account in this root.
        let block = block.replace("--logins alice", "--logins mezite-node");
        return block + "msh ssh mezite-node@web echo recorded > answer\n";
    }
    block.to_owned()
}

/// Every address that anybody asked for is this machine's own.
fn reached_nobody(trace: &Path) {
    let trace = fs::read_to_string(trace).unwrap();
    let mut asked = 0;
    for line in trace
        .lines()
        .filter(|line| line.contains("sa_family=AF_INET"))
    {
        asked += 1;
        let own = ["inet_addr(\"127.0.0.", "\"::1\"", "\"::ffff:127.0.0."]
            .iter()
            .any(|own| line.contains(own));
        assert!(own, "{line}");
    }
    assert!(asked > 5, "the trace is empty: {asked}");
}
