//! Embeds the certificate authority, and nothing else of Mezite: writes what a user and a stock `sshd` need into a directory, so that
//! the login it prints opens that one account on that one machine for five minutes.
//!
//! `cargo run -p mezite-examples --bin issue-certificate -- DIRECTORY LOGIN`

#![expect(clippy::print_stdout, reason = "a program whose result is text")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mezite_ca::openssh::{self, Principals, SshdPaths};
use mezite_ca::{NodeKey, Permissions, SessionKey, SessionRequest, Signer, SoftwareKey, principal};
use mezite_core::{ClusterName, Login, NodeId, Serial, SessionId, UnixTime};
use rand::RngExt;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, login] = arguments.as_slice() else {
        return Err("usage: issue-certificate DIRECTORY LOGIN".into());
    };
    let directory = fs::canonicalize(directory)?;
    let login: Login = login.parse()?;
    let (mut rng, now) = (rand::rng(), now()?);
    let cluster: ClusterName = "example".parse()?;
    let node = NodeId::new(rng.random());

    // Two authorities: one vouches for sessions towards nodes, one for nodes towards whoever connects.
    let sessions = SessionKey::new(Arc::new(SoftwareKey::generate(&mut rng)));
    let nodes = NodeKey::new(Arc::new(SoftwareKey::generate(&mut rng)));

    // The machine: a host key with its certificate, and whom it lets in.
    let host = SoftwareKey::generate(&mut rng);
    let public = openssh::public_key(host.public_key());
    let serial = Serial::new(rng.random());
    let certificate = nodes.issue(&node, &cluster, &public, serial, now, &mut rng)?;
    write(
        &directory,
        "host",
        openssh::private_key(host.seed(), "")?.expose(),
    )?;
    write(&directory, "host-cert.pub", &certificate.to_openssh()?)?;
    let authority = openssh::authorized_ca_keys(&cluster, &[sessions.public_key()])?;
    write(&directory, "user_ca.pub", &authority)?;
    let path = |name: &str| directory.join(name).display().to_string();
    let settings = openssh::sshd_lines(
        &node,
        &SshdPaths {
            user_ca_keys: &path("user_ca.pub"),
            host_certificate: &path("host-cert.pub"),
            principals: Principals::Directory(&path("principals")),
        },
    )?;
    write(
        &directory,
        "sshd_config",
        &format!("HostKey {}\n{settings}", path("host")),
    )?;

    fs::create_dir_all(directory.join("principals"))?;
    let opens = format!("{}\n", principal::session(&node, &login));
    write(&directory, &format!("principals/{login}"), &opens)?;

    // The session: a key made for it alone, and a certificate that opens one login on this machine.
    let session = SoftwareKey::generate(&mut rng);
    let request = SessionRequest {
        session_id: SessionId::new(now, rng.random()),
        user: &"alice".parse()?,
        node_id: &node,
        login: &login,
        public_key: &openssh::public_key(session.public_key()),
        permissions: Permissions {
            pty: true,
            ..Permissions::default()
        },
        obligations: &[],
        source_addresses: &[],
    };
    let certificate = sessions.issue(&request, Serial::new(rng.random()), now, &mut rng)?;
    write(
        &directory,
        "id",
        openssh::private_key(session.seed(), "")?.expose(),
    )?;
    write(&directory, "id-cert.pub", &certificate.to_openssh()?)?;
    let name = principal::node_host(&node, &cluster);
    let known =
        openssh::known_hosts_line(&cluster, std::slice::from_ref(&name), &[nodes.public_key()])?;
    write(&directory, "known_hosts", &known)?;

    println!("principal: {}", principal::session(&node, &login));
    println!("host name: {name}");
    println!(
        "ssh -F none -i id -o IdentitiesOnly=yes -o UserKnownHostsFile=known_hosts {login}@{name}"
    );
    Ok(())
}

/// Private files only: there is nothing here that others need to read.
fn write(directory: &Path, name: &str, content: &str) -> std::io::Result<()> {
    let path = directory.join(name);
    fs::write(&path, "")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, content)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program reads its clock; the crate does not"
)]
fn now() -> Result<UnixTime, Box<dyn Error>> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(UnixTime::from_secs(elapsed.as_secs()))
}
