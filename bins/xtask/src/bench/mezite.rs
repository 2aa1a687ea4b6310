//! The Mezite side: a hub and a node from the release binaries, set up by the commands an operator types.
//!
//! Whatever the programs print or read is known here and nowhere else in the bench.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Way;
use super::cleanup::Server;
use super::stock::{self, Lab};
use crate::step::{self, Failure, cargo};

const CLUSTER: &str = "bench";
const NODE: &str = "target";
const USER: &str = "bench";

/// Where the release binaries lie.
pub(crate) struct Programs(PathBuf);

impl Programs {
    fn command(&self, name: &str) -> Command {
        Command::new(self.0.join(name))
    }
}

/// Builds the four programs as they are released.
pub(crate) fn build() -> Result<Programs, Failure> {
    let mut command = cargo([
        "build",
        "--release",
        "-p",
        "mezhub",
        "-p",
        "mezd",
        "-p",
        "msh",
        "-p",
        "mezctl",
    ]);
    // Standard output belongs to the report.
    eprintln!("==> programs: {}", step::shown(&command));
    step::read(&mut command)?;
    let metadata = step::read(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::new(format!("`cargo metadata` is not JSON: {error}")))?;
    let target = metadata
        .get("target_directory")
        .and_then(serde_json::Value::as_str);
    let target =
        target.ok_or_else(|| Failure::new("`cargo metadata` names no target directory"))?;
    Ok(Programs(Path::new(target).join("release")))
}

/// A hub, a node that dialled out to it, and a user who logged in; the servers end with this value.
pub(crate) struct House {
    /// Ends before the hub does.
    _node: Server,
    hub: Server,
    client_config: String,
}

/// The loopback ports of one hub.
struct Ports {
    https: u16,
    ssh: u16,
    tunnel: u16,
    auth: u16,
}

impl House {
    pub(crate) fn start(programs: &Programs, directory: &Path, lab: &Lab) -> Result<Self, Failure> {
        stock::make_directory(directory)?;
        let ports = Ports {
            https: stock::free_port()?,
            ssh: stock::free_port()?,
            tunnel: stock::free_port()?,
            auth: stock::free_port()?,
        };
        let config = directory.join("mezite.yaml");
        stock::write(&config, &hub_config(directory, &ports))?;
        sealing_key(&directory.join("sealing.key"))?;
        let mut command = programs.command("mezhub");
        let mut hub = Server::start(
            command.args(["start", "--config"]).arg(&config),
            directory.join("hub.log"),
        )?;
        let socket = directory.join("hub/mezctl.sock");
        hub.wait_until("the hub", || stock::accepts(ports.https) && socket.exists())?;
        let admin = |words: &[&str]| {
            step::read(
                programs
                    .command("mezctl")
                    .arg("--socket")
                    .arg(&socket)
                    .args(words),
            )
        };
        let proxy = format!("127.0.0.1:{}", ports.https);
        let home = directory.join("client");
        stock::make_directory(&home)?;
        let password = password(&admin(&[
            "users", "add", USER, "--roles", "access", "--logins", &lab.login, "-o", "json",
        ])?)?;
        let token = admin(&["tokens", "add", "-o", "json"])?;
        let node_data = directory.join("node");
        let mut join = programs.command("mezd");
        join.arg("join").args([
            "--hub",
            &proxy,
            "--name",
            NODE,
            "--token",
            &field(&token, "token")?,
        ]);
        step::read(
            join.args(["--ca-pin", &field(&token, "ca_pin")?, "--data-dir"])
                .arg(&node_data),
        )?;
        let mut command = programs.command("mezd");
        let mut node = Server::start(
            command.args(["start", "--data-dir"]).arg(&node_data),
            directory.join("node.log"),
        )?;
        node.wait_until("the node", || {
            admin(&["get", "nodes", "-o", "json"]).is_ok_and(|text| online(&text))
        })?;
        let client = |words: &[&str]| {
            let mut command = programs.command("msh");
            command
                .env("HOME", &home)
                .env("MEZITE_PASSWORD", &password)
                .args(words);
            step::read(&mut command)
        };
        client(&[
            "login",
            "--proxy",
            &proxy,
            "--user",
            USER,
            "--ca-pin",
            &field(&token, "ca_pin")?,
        ])?;
        let snippet = client(&["config"])?;
        Ok(Self {
            _node: node,
            hub,
            client_config: client_config(&snippet, lab),
        })
    }

    pub(crate) fn ways(&self) -> Vec<Way> {
        vec![Way {
            name: "Mezite",
            host: format!("{NODE}.{CLUSTER}"),
            bastion: Some(self.hub.id()),
        }]
    }

    /// Lines for the client's configuration that lead through the gateway.
    pub(crate) fn client_config(&self) -> &str {
        &self.client_config
    }
}

fn hub_config(directory: &Path, ports: &Ports) -> String {
    let Ports {
        https,
        ssh,
        tunnel,
        auth,
    } = ports;
    let (data, key) = (directory.join("hub"), directory.join("sealing.key"));
    format!(
        "cluster: {CLUSTER}\nnames: [127.0.0.1]\ndata_dir: {}\nsealing:\n  key_file: {}\nlisten:\n  https: 127.0.0.1:{https}\n  \
         ssh: 127.0.0.1:{ssh}\n  tunnel: 127.0.0.1:{tunnel}\n  auth: 127.0.0.1:{auth}\n",
        data.display(),
        key.display()
    )
}

/// What seals the hub's keys: 64 hexadecimal digits that only we can read.
fn sealing_key(path: &Path) -> Result<(), Failure> {
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    let made = (|| {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(hex.as_bytes())
    })();
    made.map_err(|error: std::io::Error| {
        Failure::new(format!("cannot write `{}`: {error}", path.display()))
    })
}

fn client_config(snippet: &str, lab: &Lab) -> String {
    format!("Host {NODE}.{CLUSTER}\n  User {}\n{snippet}\n", lab.login)
}

/// True when the list of nodes, which has one, says that it is connected.
fn online(nodes: &str) -> bool {
    nodes
        .split_whitespace()
        .collect::<String>()
        .contains("\"online\":true")
}

fn password(answer: &str) -> Result<String, Failure> {
    field(answer, "password")
}

/// A field of a program's JSON answer.
fn field(answer: &str, name: &str) -> Result<String, Failure> {
    let value: serde_json::Value = serde_json::from_str(answer)
        .map_err(|error| Failure::new(format!("an answer is not JSON ({error}): {answer}")))?;
    let text = value.get(name).and_then(serde_json::Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("an answer has no `{name}`: {answer}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_and_a_missing_one_is_named() {
        assert_eq!(field(r#"{"token":"abc"}"#, "token").unwrap(), "abc");
        assert!(
            field(r#"{"token":"abc"}"#, "ca_pin")
                .unwrap_err()
                .to_string()
                .contains("`ca_pin`")
        );
        assert!(field("not json", "token").is_err());
    }

    #[test]
    fn a_node_is_online_when_the_list_says_so() {
        assert!(online("[ { \"name\": \"target\", \"online\": true } ]"));
        assert!(!online("[ { \"name\": \"target\", \"online\": false } ]"));
    }

    #[test]
    fn the_hubs_configuration_names_every_port() {
        let text = hub_config(
            Path::new("/x"),
            &Ports {
                https: 1001,
                ssh: 1002,
                tunnel: 1003,
                auth: 1004,
            },
        );
        for port in ["1001", "1002", "1003", "1004"] {
            assert!(text.contains(port), "{text}");
        }
    }
}
