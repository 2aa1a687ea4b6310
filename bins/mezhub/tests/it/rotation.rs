//! Both authorities are rotated whole while people work.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::house::{Done, House, PATIENCE, Running, User, Way, noise, program, run, sha256, text};

const KINDS: [&str; 6] = [
    "identity", "session", "user-tls", "gateway", "node", "host-tls",
];

/// A terminal session that somebody has open.
struct Terminal {
    ssh: Running,
    keyboard: ChildStdin,
    typed: u32,
}

impl Terminal {
    fn open(user: &User<'_>, node: &str) -> Self {
        let mut command = user.ssh(Way::Proxy, node);
        let (ssh, keyboard) = Running::interactive(command.args(["-tt", "sh"]));
        let mut terminal = Self {
            ssh,
            keyboard,
            typed: 0,
        };
        terminal.works();
        terminal
    }

    /// What is typed is answered by the same shell.
    #[track_caller]
    fn works(&mut self) {
        self.typed += 1;
        let line = b"typed=$((typed + 1)); echo \"line-$typed.\"\n";
        self.keyboard.write_all(line).unwrap();
        self.keyboard.flush().unwrap();
        self.ssh.until(&format!("line-{}.", self.typed));
    }

    #[track_caller]
    fn leave(mut self) {
        self.works();
        self.keyboard.write_all(b"exit 6\n").unwrap();
        drop(self.keyboard);
        let done = self.ssh.wait(PATIENCE);
        assert_eq!(done.code, 6, "{done}");
    }
}

/// Bytes that stream to a node for as long as it is wanted.
struct Transfer {
    ssh: Running,
    stop: Arc<AtomicBool>,
    feeding: JoinHandle<(u64, String)>,
    target: std::path::PathBuf,
}

impl Transfer {
    fn begin(user: &User<'_>, node: &str) -> Self {
        let target = user.home.join("streamed");
        let mut command = user.ssh(Way::Jump, node);
        command.arg(format!("cat > {}", target.display()));
        let (ssh, mut pipe) = Running::interactive(&mut command);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let feeding = std::thread::spawn(move || {
            let block = noise("stream", 256 * 1024);
            let (mut sent, mut hash) = (0, Sha256::new());
            while !stopped.load(Ordering::SeqCst) {
                let count = u64::to_le_bytes(sent);
                for part in [&count[..], &block] {
                    pipe.write_all(part).unwrap();
                    hash.update(part);
                    sent += u64::try_from(part.len()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(40));
            }
            (sent, data_encoding::HEXLOWER.encode(&hash.finalize()))
        });
        Self {
            ssh,
            stop,
            feeding,
            target,
        }
    }

    /// Every byte is there.
    #[track_caller]
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let (sent, hash) = self.feeding.join().unwrap();
        self.ssh.wait(PATIENCE).ok();
        assert_eq!(sha256(&self.target), hash);
        sent
    }
}

fn keys(house: &House) -> Value {
    house.mezctl(&["ca", "status", "-o", "json"]).json()["keys"].clone()
}

fn key(house: &House, kind: &str) -> Value {
    let keys = keys(house);
    let found = keys.as_array().unwrap().iter();
    let mut found = found.filter(|key| key["kind"] == kind);
    found.next().unwrap().clone()
}

fn laggards(house: &House, kind: &str) -> Vec<String> {
    let key = key(house, kind);
    let laggards = key["laggards"].as_array().unwrap().iter();
    laggards.map(|one| text(one, "name")).collect()
}

/// Waits until only these hold the next step of a key up.
#[track_caller]
fn only(house: &House, kind: &str, names: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = laggards(house, kind);
        if found == names {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{kind} waits for {found:?}, not {names:?}: {}",
            house.mezctl(&["ca", "status"]).ok()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn advance(house: &House, kind: &str, words: &[&str]) -> Done {
    house.mezctl(&[&["ca", "rotate", "--advance", "--key", kind], words].concat())
}

#[track_caller]
fn all_in(house: &House, phase: &str) {
    for key in keys(house).as_array().unwrap() {
        assert_eq!(key["phase"], phase, "{key}");
    }
}

/// Somebody who comes only now gets in everywhere, by both ways.
#[track_caller]
fn a_newcomer_works(house: &House, name: &str) {
    let user = house.user(name);
    for node in ["builtin", "second", "carried", "agentless"] {
        let done = run(user.ssh(Way::Proxy, node).arg("echo in"));
        assert_eq!(
            (done.code, done.out().as_str()),
            (0, "in\n"),
            "{node}: {done}"
        );
    }
    let done = run(user.ssh(Way::Jump, "builtin").arg("echo in"));
    assert_eq!((done.code, done.out().as_str()), (0, "in\n"), "{done}");
}

/// The operator of an agentless node signs its host key again. A stock sshd reads the certificate at each connection.
#[track_caller]
fn sign_again(house: &House, name: &str) {
    let at = |file: &str| {
        let path = house.path(&format!("{name}.sshd/{file}"));
        path.display().to_string()
    };
    let (public, certificate) = (at("host.pub"), at("host-cert.pub"));
    let sign = [
        "ca",
        "sign-host",
        name,
        "--public-key",
        &public,
        "--out",
        &certificate,
    ];
    house.mezctl(&sign).ok();
}

/// A live session, a running transfer and newcomers in each phase do not notice; who holds what the old keys signed does.
#[test]
fn attack_16_both_authorities_rotate_whole_and_old_logins_are_refused() {
    let house = House::start();
    house.agent("builtin");
    house.agent("second");
    house.agent_before_sshd("carried");
    house.agentless("agentless");
    let early = house.user("early");
    let away = house.user("away");
    let mut terminal = Terminal::open(&early, "builtin");
    let transfer = Transfer::begin(&early, "builtin");
    let refused = advance(&house, "session", &[]);
    refused.fails(1, &["not being rotated"]);
    let none = house.mezctl(&["ca", "rotate", "--advance", "--all"]);
    none.fails(1, &["--begin"]).in_one_line();

    house.mezctl(&["ca", "rotate", "--begin", "--all"]).ok();
    all_in(&house, "init");
    a_newcomer_works(&house, "in-init");
    terminal.works();
    // Agents were told at once; the node that cannot be told is named, with what to do.
    only(&house, "session", &["agentless"]);
    only(&house, "host-tls", &[]);
    let shown = house.mezctl(&["ca", "status"]).ok();
    assert!(shown.contains("mezctl ca adopted agentless"), "{shown}");
    advance(&house, "session", &[])
        .fails(1, &["node `agentless` does not trust it yet", "--force"]);
    let user_ca = house
        .path("agentless.sshd/user_ca.pub")
        .display()
        .to_string();
    house
        .mezctl(&["ca", "export", "--format", "user-ca", "--out", &user_ca])
        .ok();
    house.mezctl(&["ca", "adopted", "agentless"]).ok();
    house
        .mezctl(&["ca", "adopted", "builtin"])
        .fails(2, &["tells by itself"]);
    // An agent that starts again still knows both keys.
    house.crash("second");
    house.start_agent("second", &[]);
    only(&house, "session", &[]);
    // A client that comes by learns both keys, although it logged in before.
    early.msh(&["ls"]).ok();
    let known = std::fs::read_to_string(early.key().with_file_name("known_hosts")).unwrap();
    assert_eq!(known.lines().count(), 2, "{known}");
    for kind in ["identity", "session", "user-tls", "node"] {
        advance(&house, kind, &[]).ok();
    }
    for kind in ["gateway", "host-tls"] {
        advance(&house, kind, &[]).fails(1, &["logged in before"]);
        advance(&house, kind, &["--force"]).ok();
    }
    all_in(&house, "update_clients");
    a_newcomer_works(&house, "in-clients");
    terminal.works();

    for kind in KINDS {
        advance(&house, kind, &[]).ok();
    }
    all_in(&house, "update_servers");
    terminal.works();
    // Agents renew by themselves, also one that was away; what a stock sshd shows is looked at.
    house.crash("second");
    house.start_agent("second", &[]);
    only(&house, "host-tls", &[]);
    only(&house, "node", &["agentless"]);
    advance(&house, "node", &[]).fails(1, &["node `agentless` holds no certificate by it yet"]);
    a_newcomer_works(&house, "in-servers");
    sign_again(&house, "agentless");
    only(&house, "node", &[]);
    for kind in ["gateway", "node", "host-tls"] {
        advance(&house, kind, &[]).ok();
    }
    for kind in ["identity", "session", "user-tls"] {
        advance(&house, kind, &[]).fails(1, &["valid until"]);
        advance(&house, kind, &["--force"]).ok();
    }
    all_in(&house, "standby");
    a_newcomer_works(&house, "at-the-end");
    terminal.leave();
    let sent = transfer.end();
    assert!(sent > 1_000_000, "{sent} bytes");

    old_logins_are_worth_nothing(&house, &early, &away);
    let keys = keys(&house);
    for key in keys.as_array().unwrap() {
        assert_eq!(key["generations"].as_array().unwrap().len(), 1, "{key}");
        assert_eq!(key["generations"][0]["number"], 2, "{key}");
    }
    house.mezctl(&["audit", "verify"]).ok();
    // A hub that starts anew has the new keys and no other.
    house.stop_hub();
    house.start_hub();
    crate::house::until("the agents", || {
        ["builtin", "second", "carried"]
            .iter()
            .all(|name| house.is_online(name))
    });
    a_newcomer_works(&house, "after-a-restart");
}

/// Whose login is from before gets a sentence that says what to do.
#[track_caller]
fn old_logins_are_worth_nothing(house: &House, early: &User<'_>, away: &User<'_>) {
    early
        .msh(&["ls"])
        .fails(3, &["log in again with `msh login`"]);
    let proxied = run(early.ssh(Way::Proxy, "builtin").arg("echo in"));
    proxied.fails(255, &["log in again with `msh login`"]);
    let jumped = run(early.ssh(Way::Jump, "builtin").arg("echo in"));
    let jumped = jumped.fails(255, &["Permission denied"]);
    assert!(jumped.stdout.is_empty(), "{jumped}");
    let attempts = house.events_of("early", "auth.attempt.failed");
    let why =
        |attempt: &Value| text(attempt, "error_message").contains("no authority of this cluster");
    assert!(attempts.iter().any(why), "{attempts:?}");
    early.log_in_again().ok();
    assert_eq!(
        run(early.ssh(Way::Proxy, "builtin").arg("echo in")).ok(),
        "in\n"
    );
    // One who slept through it all knows no key of the hub any more, and needs the pin.
    away.msh(&["ls"]).fails(4, &["mezctl ca status"]);
    away.log_in_again().fails(4, &["--ca-pin"]);
    let pin = text(
        &house.mezctl(&["ca", "status", "-o", "json"]).json(),
        "ca_pin",
    );
    assert_ne!(pin, away.pin);
}

#[test]
fn a_quickstart_directory_goes_on_after_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mezctl.sock").display().to_string();
    let mezctl = program("mezctl").display().to_string();
    let quickstart = |script: &str| {
        let mut command = std::process::Command::new(program("mezhub"));
        command
            .arg("quickstart")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--", "sh", "-ec", script])
            .env_remove("HOME")
            .env_remove("RUST_LOG");
        run(&mut command)
    };
    let rotate = format!("{mezctl} --socket {socket} ca rotate --all");
    let script = format!(
        "{rotate} --begin >/dev/null; for step in 1 2 3; do {rotate} --advance --force >/dev/null; sleep 1; done; echo rotated"
    );
    let first = quickstart(&script);
    assert_eq!(
        (first.code, first.out().as_str()),
        (0, "rotated\n"),
        "{first}"
    );
    let second = quickstart(&format!("{mezctl} --socket {socket} ca status -o json"));
    assert!(second.err().contains("audit: verified"), "{second}");
    let status = second.json();
    for key in status["keys"].as_array().unwrap() {
        assert_eq!(
            (&key["phase"], &key["generations"][0]["number"]),
            (&"standby".into(), &2.into()),
            "{key}"
        );
    }
    // A rotation that was forced to its end before the node had heard of it: the node joins anew.
    let sudden = format!(
        "{rotate} --begin >/dev/null; {rotate} --advance --force >/dev/null; {rotate} --advance --force >/dev/null; \
         {rotate} --advance --force >/dev/null; echo rotated"
    );
    let third = quickstart(&sudden);
    assert_eq!(
        (third.code, third.out().as_str()),
        (0, "rotated\n"),
        "{third}"
    );
    let fourth = quickstart("echo on");
    assert_eq!(
        (fourth.code, fourth.out().as_str()),
        (0, "on\n"),
        "{fourth}"
    );
}
