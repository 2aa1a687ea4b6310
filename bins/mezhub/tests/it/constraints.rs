//! Keys of an agent that are constrained to destinations (`ssh-add -h`), through the gateway. The agent believes what it has
//! verified itself: to it the gateway is the node, because it showed a certificate for the node's name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::forward::role;
use crate::house::{
    CLUSTER, Done, House, Running, UNPRIVILEGED, User, Way, free_port, login, run, stock, target,
    until, write,
};

fn append(file: &Path, line: &str) {
    let before = fs::read_to_string(file).unwrap_or_default();
    write(file, before + line);
}

/// An `ssh-agent`.
struct Agent<'a> {
    house: &'a House,
    socket: PathBuf,
    /// Where `ssh-add` finds the keys of hosts.
    hosts: [PathBuf; 2],
    _process: Running,
}

impl<'a> Agent<'a> {
    fn start(house: &'a House, known_hosts: PathBuf) -> Self {
        let socket = house.path("agent");
        let mut agent = stock("ssh-agent");
        let process = Running::start(agent.args(["-D", "-a"]).arg(&socket), b"");
        until("the agent", || socket.exists());
        Self {
            house,
            socket,
            hosts: [known_hosts, house.path("others")],
            _process: process,
        }
    }

    /// A new key that the agent alone has, good for `hops`; every [`Host`] lets it in.
    fn make(&self, name: &str, hops: &[&str]) {
        let key = self.house.path(name);
        run(stock("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&key))
        .ok();
        self.add(&key, hops);
        fs::remove_file(&key).unwrap();
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        append(&self.house.path("authorized"), &public);
    }

    fn add(&self, key: &Path, hops: &[&str]) {
        let mut add = stock("ssh-add");
        add.env("SSH_AUTH_SOCK", &self.socket);
        for file in &self.hosts {
            add.arg("-H").arg(file);
        }
        for hop in hops {
            add.args(["-h", hop]);
        }
        run(add.arg(key)).ok();
    }

    /// A command where the agent is at hand.
    fn shell(&self, command: &str) -> Done {
        let mut shell = std::process::Command::new("sh");
        run(shell
            .args(["-c", command])
            .env("SSH_AUTH_SOCK", &self.socket))
    }
}

/// A stock sshd that is no node.
struct Host {
    name: &'static str,
    port: u16,
}

impl Host {
    fn start(house: &House, name: &'static str) -> Self {
        let directory = house.path(&format!("{name}.sshd"));
        fs::create_dir(&directory).unwrap();
        let key = directory.join("host");
        run(stock("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key))
        .ok();
        let lines = format!(
            "AuthorizedKeysFile {}\nHostKey {}\n{UNPRIVILEGED}",
            house.path("authorized").display(),
            key.display()
        );
        write(&directory.join("sshd_config"), lines);
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        append(&house.path("others"), &format!("{name} {public}"));
        let port = free_port();
        house.start_sshd(name, port);
        Self { name, port }
    }

    /// Which keys of the agent log in, if `shell` runs the commands; one line each.
    fn lets_in(&self, house: &House, keys: &[&str], shell: impl FnOnce(&str) -> Done) -> String {
        let ssh = format!(
            "ssh -F none -o BatchMode=yes -o ConnectTimeout=20 -o IdentitiesOnly=yes -o UserKnownHostsFile={} \
             -o GlobalKnownHostsFile=none -o HostKeyAlias={} -p {} {}@127.0.0.1",
            house.path("others").display(),
            self.name,
            self.port,
            login(),
        );
        let public = house.path("$key.pub").display().to_string();
        shell(&format!(
            "for key in {}; do {ssh} -i {public} echo $key </dev/null; done; :",
            keys.join(" ")
        ))
        .ok()
    }
}

#[test]
fn attack_19_a_key_is_usable_from_a_node_only_where_its_destinations_say_so() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    role(&house, "agent", "agent_forwarding: true");
    let alice = house.user_with("alice", "access,agent", &login(), &[]);
    let agent = Agent::start(&house, alice.key().with_file_name("known_hosts"));
    let (third, fourth) = (Host::start(&house, "third"), Host::start(&house, "fourth"));
    let keys = ["free", "direct", "node", "web-third", "db1-third"];
    let (web, db1) = (format!("web.{CLUSTER}"), format!("db1.{CLUSTER}"));
    let (web_third, db1_third) = (format!("{web}>third"), format!("{db1}>third"));
    agent.make("free", &[]);
    agent.make("direct", &["third"]);
    agent.make("node", &[&web, &db1]);
    agent.make("web-third", &[&web, &web_third]);
    agent.make("db1-third", &[&db1, &db1_third]);

    let here = |host: &Host| host.lets_in(&house, &keys, |command| agent.shell(command));
    assert_eq!(here(&third), "free\ndirect\n");
    assert_eq!(here(&fourth), "free\n");

    for (node, way, own) in [
        ("web", Way::Proxy, "web-third"),
        ("web", Way::Jump, "web-third"),
        ("db1", Way::Proxy, "db1-third"),
        ("db1", Way::Jump, "db1-third"),
    ] {
        let there = |command: &str| {
            let mut ssh = alice.openssh("ssh", way);
            ssh.env("SSH_AUTH_SOCK", &agent.socket);
            run(ssh.args(["-A", &target(node), command]))
        };
        let shown = there("ssh-add -L | cut -d' ' -f3").ok();
        assert_eq!(shown, format!("free\n{own}\n"), "{node} {way:?}");
        let from = |host: &Host| host.lets_in(&house, &keys, there);
        assert_eq!(from(&third), format!("free\n{own}\n"), "{node} {way:?}");
        assert_eq!(from(&fourth), "free\n", "{node} {way:?}");
        // What is no login is signed by a key without constraints alone.
        for (key, signed) in [("free", true), (own, false)] {
            let public = house.path(&format!("{key}.pub"));
            let sign = format!(
                "echo text | ssh-keygen -Y sign -n file -f {}",
                public.display()
            );
            let done = there(&sign);
            assert_eq!(done.out().contains("SSH SIGNATURE"), signed, "{done}");
        }
    }
}

/// Has `ssh` take the identity from the agent, and gives its configuration. It names the certificate alone: where `ssh` knows
/// the bare key as well, it asks the agent to sign with that, and the agent refuses because the request names the other.
fn identity_of_an_agent(user: &User<'_>) -> PathBuf {
    let file = user.home.join("ssh_config");
    let config = fs::read_to_string(&file).unwrap();
    let key = user.key().display().to_string();
    let both = format!("IdentityFile {key}\n    CertificateFile {key}-cert.pub\n");
    assert!(config.contains(&both), "{config}");
    write(
        &file,
        config.replace(&both, &format!("IdentityFile {key}-cert.pub\n")),
    );
    file
}

/// The identity itself may lie in an agent, constrained to the hub and to nodes.
#[test]
fn attack_19_an_identity_in_an_agent_opens_only_the_nodes_of_its_destinations() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    let alice = house.user("alice");
    let agent = Agent::start(&house, alice.key().with_file_name("known_hosts"));
    write(&house.path("others"), "");
    identity_of_an_agent(&alice);
    let (hub, web) = ("127.0.0.1", format!("web.{CLUSTER}"));
    agent.add(&alice.key(), &[hub, &web]);
    let enter = |way: Way, node: &str| {
        let mut ssh = alice.ssh(way, node);
        ssh.env("SSH_AUTH_SOCK", &agent.socket);
        run(ssh.arg("echo in"))
    };
    for way in [Way::Proxy, Way::Jump] {
        assert_eq!(enter(way, "web").ok(), "in\n");
        enter(way, "db1").fails(255, &["Permission denied"]);
    }
    agent.shell("ssh-add -D").ok();
    agent.add(&alice.key(), &[&web]);
    assert_eq!(enter(Way::Proxy, "web").ok(), "in\n");
    enter(Way::Jump, "web").fails(255, &["Permission denied"]);
}

/// From a node on to a further node an agent signs only what names the host key that it is for (`publickey-hostbound`), which
/// the SSH library does not know: a constrained identity is refused there, and never used unbound.
#[test]
fn limit_a_constrained_identity_goes_no_further_than_one_node() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    role(&house, "agent", "agent_forwarding: true");
    let alice = house.user_with("alice", "access,agent", &login(), &[]);
    let agent = Agent::start(&house, alice.key().with_file_name("known_hosts"));
    write(&house.path("others"), "");
    let config = identity_of_an_agent(&alice);
    let (web, db1) = (format!("web.{CLUSTER}"), format!("db1.{CLUSTER}"));
    let further = || {
        let mut ssh = alice.ssh(Way::Proxy, "web");
        let there = format!("ssh -F {} {} echo in", config.display(), target("db1"));
        run(ssh.env("SSH_AUTH_SOCK", &agent.socket).args(["-A", &there]))
    };
    agent.add(&alice.key(), &[]);
    assert_eq!(further().ok(), "in\n");
    agent.shell("ssh-add -D").ok();
    agent.add(&alice.key(), &[&web, &format!("{web}>{db1}")]);
    further().fails(255, &["agent refused operation", "Permission denied"]);
}
