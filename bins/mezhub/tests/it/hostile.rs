//! Certificates that the cluster's own keys signed and no hub ever would, shown to a real gateway and to a real sshd by
//! stock ssh. The keys come from a copy of the hub's database, opened with its sealing key; `ssh-keygen -s` signs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64;
use mezite_ca::seal::{Context, KeyFile};
use mezite_ca::{KeyKind, SoftwareKey, openssh};
use mezite_core::store::Store;
use mezite_store_sqlite::SqliteStore;
use serde_json::Value;

use crate::house::{CLUSTER, Done, House, User, Way, login, run, stock, text, write};

/// Somebody who has stolen every key of a house.
pub(crate) struct Hostile<'a> {
    house: &'a House,
    directory: PathBuf,
    count: AtomicUsize,
}

/// A key with a certificate beside it.
pub(crate) struct Shown {
    pub(crate) key: PathBuf,
}

impl<'a> Hostile<'a> {
    pub(crate) fn new(house: &'a House) -> Self {
        let directory = house.path("hostile");
        fs::create_dir(&directory).unwrap();
        Self {
            house,
            directory,
            count: AtomicUsize::new(0),
        }
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{name}-{count}"))
    }

    /// The sealed keys, in base64 as the store holds them.
    pub(crate) fn sealed(&self) -> Vec<String> {
        let stored = self.stored("ca/").into_iter();
        stored.map(|(_, key)| text(&key, "sealed")).collect()
    }

    /// What a copy of the database holds under `prefix`.
    fn stored(&self, prefix: &str) -> Vec<(String, Value)> {
        let copy = self.fresh("database");
        fs::create_dir(&copy).unwrap();
        for name in ["mezhub.db", "mezhub.db-wal"] {
            let from = self.house.path("hub").join(name);
            if from.exists() {
                fs::copy(from, copy.join(name)).unwrap();
            }
        }
        let store = SqliteStore::open(&copy.join("mezhub.db")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let found = runtime.block_on(store.list(prefix, None, 100)).unwrap();
        drop(store);
        let found = found.into_iter();
        found
            .map(|(key, stored)| {
                let value = serde_json::from_slice(&stored.value).unwrap();
                (key.as_str().to_owned(), value)
            })
            .collect()
    }

    /// The private key of an authority, as `ssh-keygen -s` takes it.
    pub(crate) fn authority(&self, kind: KeyKind) -> PathBuf {
        let (key, stored) = self.stored(&format!("ca/{kind}/")).pop().unwrap();
        let sealed = BASE64.decode(text(&stored, "sealed").as_bytes()).unwrap();
        let content = fs::read(self.house.path("sealing.key")).unwrap();
        let generation = key.rsplit('/').next().unwrap().parse().unwrap();
        let context = Context {
            cluster: &CLUSTER.parse().unwrap(),
            kind,
            generation,
        };
        let opened = SoftwareKey::open(&KeyFile::parse(&content).unwrap(), &sealed, &context);
        let file = self.fresh(kind.as_str());
        let key = openssh::private_key(opened.unwrap().seed(), "").unwrap();
        write(&file, key.expose());
        file
    }

    /// A fresh key, certified by `authority` as `words` say.
    pub(crate) fn certificate<W: AsRef<OsStr>>(&self, authority: &Path, words: &[W]) -> Shown {
        let key = self.fresh("key");
        let mut make = stock("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
        run(make.arg(&key)).ok();
        let mut sign = stock("ssh-keygen");
        sign.args(["-q", "-I", "hostile", "-s"]).arg(authority);
        sign.args(words).arg(key.with_extension("pub"));
        run(&mut sign).ok();
        Shown { key }
    }

    /// What the hub would issue, by the hub's own key, with `words` more.
    pub(crate) fn identity(&self, user: &str, words: &[&str]) -> Shown {
        let authority = self.authority(KeyKind::Identity);
        let principal = format!("mezite:{CLUSTER}:{user}");
        let usual = ["-V", "-1m:+10m", "-O", "clear", "-z", "7", "-n", &principal];
        self.certificate(&authority, &[&usual, words].concat())
    }
}

impl Shown {
    fn ssh(&self) -> Command {
        let mut ssh = stock("ssh");
        let key = self.key.display().to_string();
        ssh.args(["-F", "none", "-i", &key]);
        for option in [
            &format!("CertificateFile={key}-cert.pub"),
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh
    }

    /// Straight to an sshd.
    pub(crate) fn to_sshd(&self, port: u16, login: &str) -> Done {
        let mut ssh = self.ssh();
        ssh.args([
            "-p",
            &port.to_string(),
            &format!("{login}@127.0.0.1"),
            "echo in",
        ]);
        run(&mut ssh)
    }

    /// To a node through the gateway, for clients without jump hosts.
    pub(crate) fn to_gateway(&self, house: &House, login: &str, node: &str) -> Done {
        let port = house.ports.ssh.to_string();
        run(self
            .ssh()
            .args(["-p", &port, &format!("{login}+{node}@127.0.0.1"), "echo in"]))
    }
}

#[track_caller]
fn refused(done: &Done) {
    assert_eq!(done.code, 255, "{done}");
    assert!(done.stdout.is_empty(), "{done}");
}

/// The harness makes what is accepted, or no refusal would say anything.
#[track_caller]
fn accepted(done: Done) {
    assert_eq!(done.ok(), "in\n");
}

#[test]
fn attack_02_no_other_authority_opens_the_gateway_or_a_node() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    house.user("alice");
    let hostile = Hostile::new(&house);
    accepted(
        hostile
            .identity("alice", &[])
            .to_gateway(&house, &login(), "web"),
    );
    let node = house.mezctl(&["get", "node", "db1", "-o", "json"]).json();
    let session = format!("mezite:{}:{}", text(&node["metadata"], "id"), login());
    let identity = format!("mezite:{CLUSTER}:alice");
    let window = ["-V", "-1m:+5m"];
    let good = hostile.certificate(
        &hostile.authority(KeyKind::Session),
        &[&window[..], &["-n", &session]].concat(),
    );
    accepted(good.to_sshd(port, &login()));
    for kind in KeyKind::ALL {
        let authority = hostile.authority(kind);
        for host in [&[][..], &["-h"]] {
            let words = |principal: &str| {
                let words = [&window[..], host, &["-n", principal]].concat();
                hostile.certificate(&authority, &words)
            };
            if kind != KeyKind::Identity || !host.is_empty() {
                refused(&words(&identity).to_gateway(&house, &login(), "web"));
            }
            if kind != KeyKind::Session || !host.is_empty() {
                refused(&words(&session).to_sshd(port, &login()));
            }
        }
    }
}

/// A node that shows the right key and name, certified by another authority than that of nodes, is no node.
#[test]
fn attack_02_no_other_authority_makes_a_node() {
    let house = House::start();
    let port = house.agentless("db1");
    let alice = house.user("alice");
    let hostile = Hostile::new(&house);
    let node = house.mezctl(&["get", "node", "db1", "-o", "json"]).json();
    let name = format!("{}.{CLUSTER}", text(&node["metadata"], "id"));
    let host = house.path("db1.sshd/host.pub");
    for kind in [
        KeyKind::Session,
        KeyKind::Identity,
        KeyKind::Gateway,
        KeyKind::HostTls,
        KeyKind::Node,
    ] {
        for words in [&["-h"][..], &[]] {
            let mut sign = stock("ssh-keygen");
            sign.args(["-q", "-I", "hostile", "-V", "-1m:+1h", "-n", &name]);
            sign.args(words).arg("-s").arg(hostile.authority(kind));
            run(sign.arg(&host)).ok();
            house.crash("db1.sshd");
            house.start_sshd("db1", port);
            let done = run(alice.ssh(Way::Proxy, "db1").arg("echo in"));
            if kind == KeyKind::Node && !words.is_empty() {
                accepted(done);
            } else {
                refused(&done);
            }
        }
    }
}

#[test]
fn attack_03_a_key_that_was_certified_certifies_nobody() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    let alice = house.user("alice");
    let hostile = Hostile::new(&house);
    let node = house.mezctl(&["get", "node", "db1", "-o", "json"]).json();
    let session = format!("mezite:{}:{}", text(&node["metadata"], "id"), login());
    let identity = format!("mezite:{CLUSTER}:alice");
    let leaves = [
        alice.key(),
        house.path("db1.sshd/host"),
        hostile.identity("alice", &[]).key,
    ];
    for leaf in leaves {
        let words =
            |principal: &str| hostile.certificate(&leaf, &["-V", "-1m:+5m", "-n", principal]);
        refused(&words(&identity).to_gateway(&house, &login(), "web"));
        refused(&words(&session).to_sshd(port, &login()));
    }
}

/// What a refused certificate would have allowed or forbidden has no part in the session of the one that was accepted.
#[test]
fn attack_10_what_counts_is_the_certificate_that_let_in() {
    let house = House::start();
    house.agent("web");
    house.user("alice");
    house.user("bob");
    let hostile = Hostile::new(&house);
    let bad = [
        hostile.identity("alice", &["-O", "source-address=192.0.2.1/32"]),
        hostile.identity("alice", &["-O", "force-command=id"]),
        hostile.identity("alice", &["-V", "-2h:-1h"]),
    ];
    let bob = hostile.identity("bob", &["-z", "4711"]);
    let mut ssh = bob.ssh();
    for shown in &bad {
        let key = shown.key.display().to_string();
        ssh.args(["-i", &key, "-o", &format!("CertificateFile={key}-cert.pub")]);
    }
    let port = house.ports.ssh.to_string();
    let place = format!("{}+web@127.0.0.1", login());
    accepted(run(ssh.args(["-p", &port, &place, "echo in"])));
    let session = house.session("bob", 1);
    assert_eq!(text(session.event("access.granted"), "serial"), "4711");
    assert!(house.sessions_of("alice").is_empty());
}

#[test]
fn attack_04_odd_principals_open_nothing() {
    let house = House::start();
    house.agent("web");
    house.user("alice");
    let port = house.agentless("db1");
    let hostile = Hostile::new(&house);
    let authority = hostile.authority(KeyKind::Identity);
    let window = ["-V", "-1m:+5m"];
    let good = format!("mezite:{CLUSTER}:alice");
    let many = vec![good.as_str(); 200].join(",");
    let long = format!("mezite:{CLUSTER}:{}", "a".repeat(20_000));
    let mut principals: Vec<Option<Vec<u8>>> = vec![None];
    for odd in [
        "",
        "alice",
        "*",
        "mezite:house:*",
        "mezite:house:a?ice",
        "mezite:house:../alice",
        "mezite:house:alice ",
        " mezite:house:alice",
        "mezite:house:alice\n",
        "mezite:house:alice,mezite:house:alice",
        "mezite:house:alice,mezite:house:bob",
        "mezite:house:",
        "mezite::alice",
        "mezite:other:alice",
        &many,
        &long,
    ] {
        principals.push(Some(odd.as_bytes().to_vec()));
    }
    principals.push(Some(b"mezite:house:al\xffice".to_vec()));
    for principal in principals {
        use std::os::unix::ffi::OsStrExt;
        let mut words: Vec<&OsStr> = window.map(OsStr::new).to_vec();
        if let Some(principal) = &principal {
            if principal.is_empty() {
                continue;
            }
            words.extend([OsStr::new("-n"), OsStr::from_bytes(principal)]);
        }
        let shown = hostile.certificate(&authority, &words);
        refused(&shown.to_gateway(&house, &login(), "web"));
    }
    // No principals at all opens no stock sshd either, though its own default would once have let it in.
    let session = hostile.authority(KeyKind::Session);
    refused(
        &hostile
            .certificate(&session, &window)
            .to_sshd(port, &login()),
    );
}

#[test]
fn attack_05_names_that_could_be_somebody_else_open_nothing() {
    let house = House::start();
    house.agent("web");
    house.user("alice");
    let hostile = Hostile::new(&house);
    for other in [
        "Alice",
        "ALICE",
        "\u{ff41}lice",
        "a\u{301}lice",
        "alic\u{435}",
        "0",
        "1000",
    ] {
        refused(
            &hostile
                .identity(other, &[])
                .to_gateway(&house, &login(), "web"),
        );
    }
    let alice = hostile.identity("alice", &[]);
    accepted(alice.to_gateway(&house, &login(), "web"));
    for number in ["0", "00", "+0", "1000"] {
        refused(&alice.to_gateway(&house, number, "web"));
    }
}

#[test]
fn attack_06_windows_are_kept() {
    let house = House::start();
    house.agent("web");
    house.user("alice");
    let hostile = Hostile::new(&house);
    for window in [
        "+1h:+2h",
        "-2h:-1h",
        "always:forever",
        "-1m:forever",
        "-1m:+25h",
        "always:+5m",
    ] {
        refused(
            &hostile
                .identity("alice", &["-V", window])
                .to_gateway(&house, &login(), "web"),
        );
    }
    accepted(
        hostile
            .identity("alice", &["-V", "-1m:+23h"])
            .to_gateway(&house, &login(), "web"),
    );
}

#[test]
fn attack_07_options_are_honoured_or_refuse_at_the_gateway() {
    let house = House::start();
    house.agent("web");
    house.user("alice");
    let hostile = Hostile::new(&house);
    let verdict = |option: &str| {
        hostile
            .identity("alice", &["-O", option])
            .to_gateway(&house, &login(), "web")
    };
    for option in [
        "critical:unknown@example",
        "critical:permit-pty",
        "critical:force-command=id",
        "verify-required",
        "extension:force-command=id",
        "extension:source-address=127.0.0.1/32",
    ] {
        refused(&verdict(option));
    }
    accepted(verdict("extension:unknown@example=x"));
    accepted(verdict("permit-pty"));
}

#[test]
fn attack_08_addresses_are_checked_on_every_way_in_and_hop() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    let alice = house.user("alice");
    let hostile = Hostile::new(&house);
    let node = house.mezctl(&["get", "node", "db1", "-o", "json"]).json();
    let session = format!("mezite:{}:{}", text(&node["metadata"], "id"), login());
    let authority = hostile.authority(KeyKind::Session);
    for (addresses, good) in [
        ("127.0.0.1/32", true),
        ("192.0.2.0/24,127.0.0.0/8", true),
        ("192.0.2.1/32", false),
        ("::1/128", false),
    ] {
        let option = format!("source-address={addresses}");
        let shown = hostile.identity("alice", &["-O", &option]);
        let direct = shown.to_gateway(&house, &login(), "web");
        // The user's own configuration, with this certificate in place of the right one.
        let keys = [
            alice.key(),
            PathBuf::from(format!("{}-cert.pub", alice.key().display())),
        ];
        let stolen = [
            shown.key.clone(),
            PathBuf::from(format!("{}-cert.pub", shown.key.display())),
        ];
        let kept = keys.each_ref().map(|path| fs::read(path).unwrap());
        for (place, from) in keys.iter().zip(&stolen) {
            write(place, fs::read(from).unwrap());
        }
        let ways = [Way::Proxy, Way::Jump].map(|way| run(alice.ssh(way, "web").arg("echo in")));
        for (place, content) in keys.iter().zip(kept) {
            write(place, content);
        }
        let words = ["-V", "-1m:+5m", "-n", &session, "-O", &option];
        let sshd = hostile
            .certificate(&authority, &words)
            .to_sshd(port, &login());
        for done in ways.into_iter().chain([direct, sshd]) {
            if good {
                accepted(done);
            } else {
                refused(&done);
            }
        }
    }
}

/// What a stock sshd makes of a forced command holds for every channel; the gateway takes no such certificate at all.
#[test]
fn attack_09_a_forced_command_is_all_there_is() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    house.user("alice");
    let hostile = Hostile::new(&house);
    let forced = "force-command=echo forced";
    let identity = hostile.identity("alice", &["-O", forced]);
    let gateway = house.ports.ssh.to_string();
    let place = format!("{}+web@127.0.0.1", login());
    for words in [
        &["-p", &gateway, &place][..],
        &["-p", &gateway, &place, "echo in"],
        &["-p", &gateway, "-s", &place, "sftp"],
        &["-p", &gateway, "-tt", &place],
        &["-p", &gateway, "-W", "127.0.0.1:1", &place],
        &[
            "-p",
            &gateway,
            "-N",
            "-L",
            "127.0.0.1:0:127.0.0.1:1",
            &place,
        ],
    ] {
        refused(&run(identity.ssh().args(words)));
    }
    let node = house.mezctl(&["get", "node", "db1", "-o", "json"]).json();
    let session = format!("mezite:{}:{}", text(&node["metadata"], "id"), login());
    let words = ["-V", "-1m:+5m", "-n", &session, "-O", "clear", "-O", forced];
    let shown = hostile.certificate(&hostile.authority(KeyKind::Session), &words);
    let (sshd, place) = (port.to_string(), format!("{}@127.0.0.1", login()));
    for words in [
        &["-p", &sshd, &place][..],
        &["-p", &sshd, &place, "echo in"],
        &["-p", &sshd, "-s", &place, "sftp"],
    ] {
        assert_eq!(run(shown.ssh().args(words)).ok(), "forced\n", "{words:?}");
    }
    // A second channel on the same connection, and a forward, which the certificate does not permit.
    let control = house.path("control").display().to_string();
    let shared = ["-p", &sshd, "-o", &format!("ControlPath={control}")];
    let mut master = shown.ssh();
    master
        .args(shared)
        .args(["-o", "ControlMaster=yes", "-N", &place]);
    let master = crate::house::Running::start(&mut master, b"");
    crate::house::until("the shared connection", || Path::new(&control).exists());
    let second = run(shown.ssh().args(shared).args([&place, "echo in"]));
    assert_eq!(second.ok(), "forced\n");
    drop(master);
    refused(&run(shown.ssh().args([
        "-p",
        &sshd,
        "-W",
        &format!("127.0.0.1:{port}"),
        &place,
    ])));
}

#[test]
fn attack_18_another_clusters_certificates_are_worth_nothing_here() {
    let (house, other) = (House::start(), House::start());
    house.agent("web");
    house.user("alice");
    let theirs = other.user("alice");
    let hostile = Hostile::new(&house);
    // The same cluster name and user, by another cluster's authority.
    let shown = Shown { key: theirs.key() };
    refused(&shown.to_gateway(&house, &login(), "web"));
    // Our authority, for another cluster.
    let authority = hostile.authority(KeyKind::Identity);
    let words = ["-V", "-1m:+5m", "-n", "mezite:elsewhere:alice"];
    refused(
        &hostile
            .certificate(&authority, &words)
            .to_gateway(&house, &login(), "web"),
    );
    // Their TLS certificate at our API.
    let home = other.path("alice.home/msh").join(CLUSTER);
    let ours = house.path("alice.home/msh").join(CLUSTER);
    assert_eq!(house_call(&house, "alice").code, 0);
    for name in ["tls.key", "tls.json"] {
        fs::copy(home.join(name), ours.join(name)).unwrap();
    }
    let refused = house_call(&house, "alice");
    assert!(refused.code != 0, "{refused}");
}

fn house_call(house: &House, user: &str) -> Done {
    let home = house.path(&format!("{user}.home"));
    let user = User {
        house,
        name: user.to_owned(),
        password: String::new(),
        pin: String::new(),
        home,
    };
    user.msh(&["ls"])
}

/// No agent is carried, so no constraint of a key in it can be lost on the way.
#[test]
fn attack_19_no_agent_is_forwarded() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    let alice = house.user("alice");
    let socket = house.path("agent");
    let mut agent = stock("ssh-agent");
    agent.args(["-D", "-a"]).arg(&socket);
    let _agent = crate::house::Running::start(&mut agent, b"");
    crate::house::until("the agent", || socket.exists());
    let key = house.path("constrained");
    run(stock("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key))
    .ok();
    run(stock("ssh-add")
        .env("SSH_AUTH_SOCK", &socket)
        .arg("-c")
        .arg(&key))
    .ok();
    for (node, way) in [
        ("web", Way::Proxy),
        ("web", Way::Jump),
        ("db1", Way::Proxy),
        ("db1", Way::Jump),
    ] {
        let mut ssh = alice.openssh("ssh", way);
        ssh.env("SSH_AUTH_SOCK", &socket)
            .args(["-A", &crate::house::target(node)])
            .arg("echo agent: ${SSH_AUTH_SOCK:-none}");
        let done = run(&mut ssh);
        assert_eq!(done.ok(), "agent: none\n", "{node} {way:?}");
    }
}
