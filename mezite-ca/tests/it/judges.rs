//! OpenSSH reads every SSH certificate and key file, and a stock `sshd` lets in what it should; OpenSSL verifies every X.509 certificate.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use data_encoding::BASE64_MIME;
use mezite_ca::openssh::{self, Principals, SshdPaths};
use mezite_ca::{Binding, IdentityRequest, PeerKind, SessionRequest, Signer, principal};
use mezite_core::{Login, NodeId, UnixTime};
use ssh_key::Certificate;

use crate::fixture::{Cluster, hours, key, node_id, public, rng, serial, session_id, user};

/// Runs a program that must be installed; CI installs `openssh-client` and `openssl`.
pub(crate) fn run(program: &str, arguments: &[&str], directory: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"))
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What `ssh-keygen -L` says of a certificate, each run of white space as one blank.
fn keygen_reads(certificate: &Certificate) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("x-cert.pub"),
        certificate.to_openssh().unwrap(),
    )
    .unwrap();
    let output = run("ssh-keygen", &["-L", "-f", "x-cert.pub"], directory.path());
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn ssh_keygen_reads_every_certificate() {
    let cluster = Cluster::example();
    let (session, node) = (session_id(), node_id());
    let hubs = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    for (certificate, expected) in [
        (
            cluster.identity_certificate(),
            vec![
                "Type: ssh-ed25519-cert-v01@openssh.com user certificate".to_owned(),
                "Key ID: \"mezite identity user=alice cluster=example\"".to_owned(),
                "Serial: 42 Valid: from 2027-01-15T07:55:00 to 2027-01-15T16:00:00".to_owned(),
                "Principals: mezite:example:alice Critical Options: (none) Extensions: (none)"
                    .to_owned(),
            ],
        ),
        (
            cluster.session_certificate(&hubs),
            vec![
                format!("Key ID: \"mezite session {session} user=alice node={node} login=root\""),
                "Valid: from 2027-01-15T07:55:00 to 2027-01-15T08:05:00".to_owned(),
                format!("Principals: mezite:{node}:root"),
                "Critical Options: source-address 192.0.2.7,2001:db8::7 Extensions:".to_owned(),
                "permit-pty".to_owned(),
            ],
        ),
        (
            cluster.gateway_certificate(),
            vec![
                "host certificate".to_owned(),
                "Valid: from 2027-01-15T07:55:00 to 2027-01-15T09:00:00".to_owned(),
                "Principals: db1.example hub.example".to_owned(),
            ],
        ),
        (
            cluster.node_certificate(),
            vec![
                "host certificate".to_owned(),
                format!("Key ID: \"mezite node {node} cluster=example\""),
                format!("Principals: {node}.example"),
            ],
        ),
    ] {
        let said = keygen_reads(&certificate);
        for expected in expected {
            assert!(
                said.contains(&expected),
                "`{expected}` is missing in:\n{said}"
            );
        }
    }
}

#[test]
fn ssh_keygen_finds_the_certified_name_in_known_hosts() {
    let cluster = Cluster::example();
    let directory = tempfile::tempdir().unwrap();
    let names = ["*.example".to_owned(), "[hub.example]:3023".to_owned()];
    let line = openssh::known_hosts_line(&cluster.name, &names, &cluster.trust.gateway).unwrap();
    std::fs::write(directory.path().join("known_hosts"), line).unwrap();
    for (name, found) in [
        ("db1.example", true),
        ("[hub.example]:3023", true),
        ("example", false),
    ] {
        let output = run(
            "ssh-keygen",
            &["-F", name, "-f", "known_hosts"],
            directory.path(),
        );
        assert_eq!(
            text(&output).contains("CA"),
            found,
            "{name}: {}",
            text(&output)
        );
    }
}

#[test]
fn ssh_keygen_reads_our_private_key_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    let file = openssh::private_key(key(100).seed(), "alice@example").unwrap();
    std::fs::write(&path, file.expose()).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let output = run("ssh-keygen", &["-y", "-f", "id"], directory.path());
    let public = openssh::public_key(key(100).public_key())
        .to_openssh()
        .unwrap();
    assert!(
        text(&output).starts_with(public.trim()),
        "{}",
        text(&output)
    );
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_MIME.encode(der).replace("\r\n", "\n");
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        body.trim_end()
    )
}

#[test]
fn openssl_verifies_every_peer_against_its_own_authority_only() {
    let cluster = Cluster::example();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, der: &[u8]| {
        std::fs::write(directory.path().join(name), pem("CERTIFICATE", der)).unwrap();
    };
    write("user", cluster.user_tls.certificate());
    write("host", cluster.host_tls.certificate());
    for (kind, authority, other, purposes) in [
        (PeerKind::User, "user", "host", ["sslclient"].as_slice()),
        (PeerKind::Bot, "user", "host", &["sslclient"]),
        (PeerKind::Node, "host", "user", &["sslclient"]),
        (PeerKind::Hub, "host", "user", &["sslclient", "sslserver"]),
    ] {
        write("peer", &cluster.tls_certificate(kind));
        for purpose in ["sslclient", "sslserver"] {
            let verify = |authority: &str| {
                let arguments = [
                    "verify",
                    "-x509_strict",
                    "-attime",
                    "1800000000",
                    "-purpose",
                    purpose,
                    "-CAfile",
                    authority,
                    "peer",
                ];
                run("openssl", &arguments, directory.path())
            };
            let output = verify(authority);
            assert_eq!(
                output.status.success(),
                purposes.contains(&purpose),
                "{kind} {purpose}: {}",
                text(&output)
            );
            assert!(
                !verify(other).status.success(),
                "{kind} {purpose} against {other}"
            );
        }
        let output = run(
            "openssl",
            &["x509", "-in", "peer", "-noout", "-text"],
            directory.path(),
        );
        let said = text(&output);
        assert!(
            said.contains(&format!("URI:{}", cluster.peer_name(kind))),
            "{said}"
        );
        assert!(said.contains("Serial Number: 42 (0x2a)"), "{said}");
    }
}

#[test]
fn openssl_reads_our_pkcs8() {
    let directory = tempfile::tempdir().unwrap();
    let der = openssh::pkcs8(key(104).seed());
    std::fs::write(
        directory.path().join("key"),
        pem("PRIVATE KEY", der.expose()),
    )
    .unwrap();
    let output = run(
        "openssl",
        &["pkey", "-in", "key", "-pubout", "-outform", "DER"],
        directory.path(),
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(output.stdout.ends_with(&key(104).public_key()));
}

/// A stock `sshd` set up with the lines we print, reached without a network: `ssh` starts it as its ProxyCommand.
struct Sshd {
    directory: tempfile::TempDir,
    login: Login,
}

impl Sshd {
    fn new(cluster: &Cluster, now: UnixTime, binding: Binding) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let login: Login = text(&run("id", &["-un"], directory.path()))
            .trim()
            .parse()
            .unwrap();
        let host = cluster.node.issue(
            &node_id(),
            &cluster.name,
            &public(103),
            serial(),
            now,
            &mut rng(),
        );
        let keys = openssh::authorized_ca_keys(&cluster.name, &cluster.trust.session).unwrap();
        let names = [principal::node_host(&node_id(), &cluster.name)];
        let known = openssh::known_hosts_line(&cluster.name, &names, &cluster.trust.node).unwrap();
        let paths = SshdPaths {
            user_ca_keys: &path("user_ca.pub"),
            host_certificate: &path("host-cert.pub"),
            principals: match binding {
                Binding::Node => Principals::Directory(&path("principals")),
                Binding::Login => Principals::Login,
            },
        };
        let lines = openssh::sshd_lines(&node_id(), &paths).unwrap();
        let rest = "StrictModes no\nUsePAM no\nPermitRootLogin yes\nAuthorizedKeysFile none\nPasswordAuthentication no";
        let config = format!("HostKey {}\n{lines}{rest}\n", path("host"));
        let private = |seed| openssh::private_key(key(seed).seed(), "").unwrap();
        std::fs::create_dir(path("principals")).unwrap();
        for (name, content) in [
            ("host", private(103).expose().as_str()),
            ("host-cert.pub", &host.unwrap().to_openssh().unwrap()),
            ("user_ca.pub", &keys),
            ("known_hosts", &known),
            ("sshd_config", &config),
            ("id", private(101).expose()),
            (
                &format!("principals/{login}"),
                &format!("{}\n", principal::session(&node_id(), &login)),
            ),
        ] {
            std::fs::write(path(name), content).unwrap();
            std::fs::set_permissions(path(name), Permissions::from_mode(0o600)).unwrap();
        }
        Self { directory, login }
    }

    /// Logs in with a certificate for the key of seed 101, and says what became of it.
    fn login(&self, certificate: &Certificate) -> (bool, String) {
        let cert = self.directory.path().join("id-cert.pub");
        std::fs::write(cert, certificate.to_openssh().unwrap()).unwrap();
        let target = format!(
            "{}@{}",
            self.login,
            principal::node_host(&node_id(), &"example".parse().unwrap())
        );
        let arguments = [
            "-F",
            "none",
            "-v",
            "-i",
            "id",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "UserKnownHostsFile=known_hosts",
            "-o",
            "GlobalKnownHostsFile=none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "ProxyCommand=/usr/sbin/sshd -i -e -f $PWD/sshd_config",
            &target,
            "echo in",
        ];
        let output = run("ssh", &arguments, self.directory.path());
        (
            output.status.success() && output.stdout == b"in\n",
            text(&output),
        )
    }
}

fn real_now() -> UnixTime {
    #[expect(clippy::disallowed_methods, reason = "sshd reads the real clock")]
    let elapsed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    UnixTime::from_secs(elapsed.as_secs())
}

#[test]
fn a_stock_sshd_that_knows_no_principals_opens_to_bare_logins_only() {
    let cluster = Cluster::example();
    let now = real_now();
    let sshd = Sshd::new(&cluster, now, Binding::Login);
    for (binding, opens) in [(Binding::Login, true), (Binding::Node, false)] {
        let request = SessionRequest {
            session_id: session_id(),
            user: &user(),
            node_id: &node_id(),
            login: &sshd.login,
            public_key: &public(101),
            permissions: mezite_ca::Permissions::default(),
            obligations: &[],
            source_addresses: &[],
        };
        let certificate = cluster
            .session
            .issue_bound(&request, binding, serial(), now, &mut rng())
            .unwrap();
        let (opened, said) = sshd.login(&certificate);
        assert_eq!(opened, opens, "{binding:?}: {said}");
    }
}

#[test]
fn a_stock_sshd_opens_to_its_own_sessions_only() {
    let cluster = Cluster::example();
    let now = real_now();
    let sshd = Sshd::new(&cluster, now, Binding::Node);
    let session = |node: NodeId, now: UnixTime| {
        let request = SessionRequest {
            session_id: session_id(),
            user: &user(),
            node_id: &node,
            login: &sshd.login,
            public_key: &public(101),
            permissions: mezite_ca::Permissions::default(),
            obligations: &[("idle-timeout", "30m")],
            source_addresses: &[],
        };
        cluster
            .session
            .issue(&request, serial(), now, &mut rng())
            .unwrap()
    };
    let (opened, said) = sshd.login(&session(node_id(), now));
    assert!(opened, "{said}");
    let logged = format!(
        "ID mezite session {} user=alice node={} login=",
        session_id(),
        node_id()
    );
    assert!(said.contains(&logged), "{said}");
    let identity = IdentityRequest {
        cluster: &cluster.name,
        user: &user(),
        public_key: &public(101),
        ttl: hours(8),
        ceiling: hours(8),
    };
    for (what, certificate) in [
        ("another node's", session(NodeId::new([2; 16]), now)),
        ("an old one", session(node_id(), now.minus(hours(1)))),
        (
            "an identity",
            cluster
                .identity
                .issue(&identity, serial(), now, &mut rng())
                .unwrap(),
        ),
    ] {
        let (opened, said) = sshd.login(&certificate);
        assert!(
            !opened && said.contains("Permission denied"),
            "{what}: {said}"
        );
    }
}
