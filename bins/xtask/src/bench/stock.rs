//! The stock side: a private sshd as target, a second one as jump host, and the client's configuration.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Way;
use super::cleanup::Server;
use crate::needs;
use crate::step::{self, Failure};

/// Both servers and the key that opens them; they end with this value.
pub(crate) struct Lab {
    directory: PathBuf,
    /// The Unix account that runs this, which is the only one a server without root can open.
    pub(crate) login: String,
    target: Sshd,
    jump: Sshd,
}

struct Sshd {
    server: Server,
    port: u16,
    /// Its public host key: type and base64.
    host_key: String,
}

impl Lab {
    pub(crate) fn start(scratch: &Path) -> Result<Self, Failure> {
        let directory = scratch.join("stock");
        make_directory(&directory)?;
        let login = step::read(Command::new("id").arg("-un"))?.trim().to_owned();
        let user_key = key(&directory, "user")?;
        write(&directory.join("authorized_keys"), &user_key)?;
        let target = sshd(&directory, "target")?;
        let jump = sshd(&directory, "jump")?;
        Ok(Self {
            directory,
            login,
            target,
            jump,
        })
    }

    pub(crate) fn ways(&self) -> Vec<Way> {
        let jump = self.jump.server.id();
        vec![
            Way {
                name: "direct",
                host: "direct".to_owned(),
                bastion: None,
            },
            Way {
                name: "ssh -J",
                host: "jumped".to_owned(),
                bastion: Some(jump),
            },
        ]
    }

    /// Writes the client configuration of the run, with `more` for further ways, and returns its path.
    ///
    /// The first value found counts in ssh_config, so what must be equal for all stands first.
    pub(crate) fn client_config(&self, more: &str) -> Result<PathBuf, Failure> {
        let Self {
            directory,
            login,
            target,
            jump,
        } = self;
        let here = directory.display();
        let known = format!(
            "[127.0.0.1]:{} {}\n[127.0.0.1]:{} {}\n",
            target.port, target.host_key, jump.port, jump.host_key
        );
        write(&directory.join("known_hosts"), &known)?;
        let text = format!(
            "Host *\n  BatchMode yes\n  ControlMaster no\n  ControlPath none\n  LogLevel ERROR\n  \
             KexAlgorithms curve25519-sha256\n  Ciphers aes256-gcm@openssh.com\n  Compression no\n  \
             IgnoreUnknown ObscureKeystrokeTiming\n  ObscureKeystrokeTiming no\n\
             Host direct jumped jump\n  User {login}\n  HostName 127.0.0.1\n  IdentitiesOnly yes\n  IdentityFile {here}/user\n  \
             StrictHostKeyChecking yes\n  UserKnownHostsFile {here}/known_hosts\n  GlobalKnownHostsFile none\n\
             Host direct jumped\n  Port {}\nHost jump\n  Port {}\nHost jumped\n  ProxyJump jump\n{more}",
            target.port, jump.port
        );
        let path = directory.join("ssh_config");
        write(&path, &text)?;
        Ok(path)
    }
}

fn sshd(directory: &Path, name: &str) -> Result<Sshd, Failure> {
    let program = needs::find("sshd")
        .ok_or_else(|| Failure::new("`sshd` is not there; install openssh-server"))?;
    if nix::unistd::Uid::effective().is_root() {
        // Where Debian's sshd separates its privileges.
        make_directory(Path::new("/run/sshd"))?;
    }
    let host_key = key(directory, &format!("{name}-host"))?;
    let port = free_port()?;
    let config = directory.join(format!("{name}-sshd_config"));
    write(&config, &settings(directory, name, port))?;
    let mut command = Command::new(program);
    command.arg("-D").arg("-e").arg("-f").arg(&config);
    let mut server = Server::start(&mut command, directory.join(format!("{name}.log")))?;
    server.wait_until(&format!("the {name} sshd"), || accepts(port))?;
    Ok(Sshd {
        server,
        port,
        host_key,
    })
}

fn settings(directory: &Path, name: &str, port: u16) -> String {
    let here = directory.display();
    let mut text = format!(
        "Port {port}\nHostKey {here}/{name}-host\nAuthorizedKeysFile {here}/authorized_keys\n"
    );
    for line in [
        "ListenAddress 127.0.0.1",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "UseDNS no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "PrintMotd no",
        "PrintLastLog no",
        "MaxStartups 1000",
        "LogLevel ERROR",
        "Subsystem sftp internal-sftp",
    ] {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Makes a key pair without a passphrase and returns the public half: type and base64.
fn key(directory: &Path, name: &str) -> Result<String, Failure> {
    let path = directory.join(name);
    step::read(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&path),
    )?;
    let public = crate::tree::text(&path.with_extension("pub"))?;
    Ok(public
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" "))
}

/// A loopback port that nobody holds now.
pub(crate) fn free_port() -> Result<u16, Failure> {
    let port =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    port.map(|address| address.port())
        .map_err(|error| Failure::new(format!("no free loopback port: {error}")))
}

pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

pub(crate) fn make_directory(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::new(format!("cannot make `{}`: {error}", path.display())))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))
}
