//! The hub is dead, and somebody has to get in: with stock ssh and ssh-keygen, past the hub, and not past its log.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::house::{
    CLUSTER, Done, House, free_port, login, program, run, stock, text, until, write,
};

/// An offline key, and what its holder has written down.
struct Envelope<'a> {
    house: &'a House,
    key: PathBuf,
    node: String,
    known_hosts: PathBuf,
}

impl<'a> Envelope<'a> {
    /// Made with `mezctl`, for one node.
    fn seal(house: &'a House, name: &str) -> Self {
        let key = house.path("night");
        let said = house
            .mezctl(&[
                "ca",
                "break-glass",
                "new",
                "night-shift",
                "--out",
                key.to_str().unwrap(),
            ])
            .ok();
        let node = house.mezctl(&["get", "node", name, "-o", "json"]).json();
        let node = text(&node["metadata"], "id");
        let known_hosts = house.path("night.known_hosts");
        let line = said
            .lines()
            .find(|line| line.starts_with("@cert-authority "));
        write(&known_hosts, format!("{}\n", line.unwrap()));
        Self {
            house,
            key,
            node,
            known_hosts,
        }
    }

    /// A fresh key, certified by `signer`.
    fn certificate(&self, signer: &Path, name: &str, principal: &str, window: &str) -> PathBuf {
        let key = self.house.path(name);
        run(stock("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key))
        .ok();
        let mut sign = stock("ssh-keygen");
        sign.args([
            "-q",
            "-I",
            "carol: hub down",
            "-z",
            "5",
            "-V",
            window,
            "-n",
            principal,
            "-s",
        ]);
        run(sign.arg(signer).arg(key.with_extension("pub"))).ok();
        key
    }

    fn good(&self, name: &str) -> PathBuf {
        let principal = format!("mezite:{}:{}", self.node, login());
        self.certificate(&self.key, name, &principal, "+15m")
    }

    /// Stock ssh straight to the node, which has to be the right one.
    fn ssh(&self, key: &Path, port: u16, login: &str) -> Done {
        let mut ssh = stock("ssh");
        ssh.args(["-F", "none", "-p", &port.to_string(), "-i"])
            .arg(key);
        for option in [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "LogLevel=ERROR",
            "GlobalKnownHostsFile=none",
            &format!("UserKnownHostsFile={}", self.known_hosts.display()),
            &format!("HostKeyAlias={}.{CLUSTER}", self.node),
        ] {
            ssh.args(["-o", option]);
        }
        run(ssh.args([&format!("{login}@127.0.0.1"), "echo in"]))
    }
}

#[track_caller]
fn refused(done: &Done) {
    assert_eq!(done.code, 255, "{done}");
    assert!(done.stdout.is_empty(), "{done}");
}

fn trusted(house: &House, name: &str) -> bool {
    fs::read_to_string(house.path(name).join("node.json"))
        .is_ok_and(|node| node.contains("break_glass"))
}

fn uses(house: &House) -> Vec<serde_json::Value> {
    let mut events = house.events();
    events.retain(|event| text(event, "event_type") == "node.break_glass.used");
    events
}

#[test]
fn a_break_glass_certificate_opens_a_node_while_the_hub_is_dead_and_is_in_the_log_afterwards() {
    let house = House::start();
    let (token, pin) = house.token(&[]);
    house.join("web", &token, &pin, &house.path("web")).ok();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    house.start_agent("web", &["--break-glass-listen", &address]);
    let envelope = Envelope::seal(&house, "web");
    let mode = fs::metadata(&envelope.key).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
    until("the node's trust", || trusted(&house, "web"));
    house.crash_hub();

    let good = envelope.good("carol");
    assert_eq!(envelope.ssh(&good, port, &login()).ok(), "in\n");
    let principal = format!("mezite:{}:{}", envelope.node, login());
    let elsewhere = format!("mezite:{}:{}", "a".repeat(26), login());
    let stranger = house.path("stranger");
    run(stock("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&stranger))
    .ok();
    for (name, signer, principal, window) in [
        ("long", &envelope.key, principal.as_str(), "+2h"),
        ("forever", &envelope.key, &principal, "always:forever"),
        ("late", &envelope.key, &principal, "-1h:-1m"),
        ("other-node", &envelope.key, &elsewhere, "+15m"),
        ("bare", &envelope.key, &login(), "+15m"),
        ("star", &envelope.key, "*", "+15m"),
        ("stranger-signed", &stranger, &principal, "+15m"),
    ] {
        let key = envelope.certificate(signer, name, principal, window);
        refused(&envelope.ssh(&key, port, &login()));
    }
    refused(&envelope.ssh(&good, port, "nobody"));
    // No record, no session.
    let spool = house.path("web/break-glass");
    let kept = house.path("web/kept");
    fs::rename(&spool, &kept).unwrap();
    write(&spool, "in the way");
    refused(&envelope.ssh(&good, port, &login()));
    fs::remove_file(&spool).unwrap();
    fs::rename(&kept, &spool).unwrap();
    // An agent that dies with the hub still has it.
    house.crash("web");
    house.start_hub();
    assert!(uses(&house).is_empty());
    house.start_agent("web", &["--break-glass-listen", &address]);
    until("the event", || !uses(&house).is_empty());
    until("the acknowledgement", || {
        fs::read_dir(&spool).unwrap().count() == 0
    });
    let events = uses(&house);
    assert_eq!(events.len(), 1, "{events:?}");
    for (field, value) in [
        ("key_id", "carol: hub down"),
        ("serial", "5"),
        ("server_hostname", "web"),
        ("mode", "builtin"),
        ("client_ip", "127.0.0.1"),
    ] {
        assert_eq!(text(&events[0], field), value, "{events:?}");
    }
    // With the hub there it works too, and is told at once; taken back, the key opens nothing.
    assert_eq!(envelope.ssh(&good, port, &login()).ok(), "in\n");
    until("the second event", || uses(&house).len() == 2);
    house
        .mezctl(&["ca", "break-glass", "revoke", "night-shift"])
        .ok();
    until("the node's trust", || !trusted(&house, "web"));
    refused(&envelope.ssh(&good, port, &login()));
}

/// sshd runs programs only from places that nobody but root can change (sshd_config(5), AuthorizedPrincipalsCommand).
fn sshd_would_run(program: &Path) -> bool {
    program.canonicalize().unwrap().ancestors().all(|place| {
        let place = fs::metadata(place).unwrap();
        place.uid() == 0 && place.mode() & 0o022 == 0
    })
}

#[test]
fn the_sshd_beside_an_agent_takes_break_glass_certificates_and_the_agent_tells() {
    let house = House::start();
    let port = house.agent_before_sshd("db1");
    let envelope = Envelope::seal(&house, "db1");
    until("the node's trust", || trusted(&house, "db1"));
    let conf = fs::read_to_string(house.path("db1/sshd/mezite.conf")).unwrap();
    let runs = sshd_would_run(&program("mezd"));
    assert_eq!(conf.contains("principals --data-dir"), runs, "{conf}");
    if !runs {
        let log = fs::read_to_string(house.path("db1.log")).unwrap();
        assert!(
            log.contains("break-glass certificates do not work"),
            "{log}"
        );
        return;
    }
    until("the sshd's trust", || {
        fs::read_to_string(house.path("db1/sshd/user_ca.pub"))
            .unwrap()
            .contains("break-glass")
    });
    house.crash_hub();
    let good = envelope.good("carol");
    assert_eq!(envelope.ssh(&good, port, &login()).ok(), "in\n");
    let principal = format!("mezite:{}:{}", envelope.node, login());
    for (name, window) in [("long", "+2h"), ("forever", "always:forever")] {
        let key = envelope.certificate(&envelope.key, name, &principal, window);
        refused(&envelope.ssh(&key, port, &login()));
    }
    house.start_hub();
    until("the event", || uses(&house).len() == 1);
    let events = uses(&house);
    assert_eq!(text(&events[0], "mode"), "openssh", "{events:?}");
    // Sessions by way of the hub go on through the same command.
    until("the agent", || house.is_online("db1"));
    let user = house.user("alice");
    assert_eq!(
        run(user.ssh(crate::house::Way::Proxy, "db1").arg("echo in")).ok(),
        "in\n"
    );
    assert_eq!(uses(&house).len(), 1);
}

#[test]
fn break_glass_keys_are_ones_own_and_ed25519() {
    let house = House::start();
    let key = house.path("own");
    run(stock("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key))
    .ok();
    let public = key.with_extension("pub").display().to_string();
    house
        .mezctl(&["ca", "break-glass", "add", "one", &public])
        .ok();
    house
        .mezctl(&["ca", "break-glass", "add", "two", &public])
        .fails(1, &["exists already"]);
    let listed = house.mezctl(&["ca", "break-glass", "ls"]).ok();
    assert!(
        listed.contains("one") && listed.contains("SHA256:"),
        "{listed}"
    );
    let rsa = house.path("rsa");
    run(stock("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-N", "", "-f"])
        .arg(&rsa))
    .ok();
    let rsa = rsa.with_extension("pub").display().to_string();
    house
        .mezctl(&["ca", "break-glass", "add", "three", &rsa])
        .fails(2, &["Ed25519"]);
    let session = house.path("session.pub");
    house
        .mezctl(&[
            "ca",
            "export",
            "--format",
            "user-ca",
            "--out",
            session.to_str().unwrap(),
        ])
        .ok();
    house
        .mezctl(&[
            "ca",
            "break-glass",
            "add",
            "four",
            session.to_str().unwrap(),
        ])
        .fails(2, &["session authority"]);
    // A file that is there stays.
    house
        .mezctl(&[
            "ca",
            "break-glass",
            "new",
            "five",
            "--out",
            key.to_str().unwrap(),
        ])
        .fails(1, &["exists"]);
    house
        .mezctl(&["ca", "break-glass", "revoke", "nobody"])
        .fails(1, &["nobody"]);
}
