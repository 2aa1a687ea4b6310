//! What OpenSSH programs read: lines for `sshd_config` and `known_hosts`, and private key files.

use mezite_core::{ClusterName, NodeId, Secret};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey, PublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::kind::escaped;

/// Why a text for OpenSSH was not written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpensshError {
    /// No keys were given: the line would trust nobody, or be no line.
    #[error("there is no authority to write down")]
    NoKeys,
    /// A path would end its line or be read as several words.
    #[error(
        "`{0}` cannot be written into sshd_config: use an absolute path without spaces, quotes or `%`"
    )]
    Path(String),
    /// A host pattern would be read as something else.
    #[error(
        "`{0}` cannot be written into known_hosts: use a host name, `*.domain`, an address, or `[host]:port`"
    )]
    Pattern(String),
    /// The key could not be encoded.
    #[error("the key could not be written: {0}")]
    Write(String),
}

/// Where a stock `sshd` finds Mezite's files.
#[derive(Clone, Copy, Debug)]
pub struct SshdPaths<'a> {
    /// The file with the session authorities' keys.
    pub user_ca_keys: &'a str,
    /// The node's host certificate, beside its host key.
    pub host_certificate: &'a str,
    /// How `sshd` learns the principals of a login.
    pub principals: Principals<'a>,
}

/// How `sshd` learns that the login `%u` is reached by the principal `mezite:<node-id>:%u`.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "sshd knows these ways")]
pub enum Principals<'a> {
    /// `AuthorizedPrincipalsCommand`: this program prints its argument, for example `/bin/echo`.
    Command(&'a str),
    /// `AuthorizedPrincipalsCommand`: the node's agent, which also checks break-glass certificates and writes their use
    /// down.
    Agent {
        /// The path of `mezd`.
        program: &'a str,
        /// The agent's data directory.
        directory: &'a str,
        /// The Unix user of the agent.
        user: &'a str,
    },
    /// `AuthorizedPrincipalsFile`: one file for each login in this directory, holding [`crate::principal::session`].
    Directory(&'a str),
    /// It does not: the principal is the bare login, and what opens one such node opens them all. See
    /// [`crate::Binding::Login`] for what that costs.
    Login,
}

/// The lines for `sshd_config` that make a stock `sshd` accept the sessions of one node, and of no other.
///
/// Three settings: `TrustedUserCAKeys`, the principals, `HostCertificate`. (`AuthorizedPrincipalsCommand` needs the
/// user it runs as on a line of its own.) [`authorized_ca_keys`] is the content of the file at `user_ca_keys`.
///
/// # Errors
/// [`OpensshError::Path`].
pub fn sshd_lines(node_id: &NodeId, paths: &SshdPaths<'_>) -> Result<String, OpensshError> {
    let principals = match paths.principals {
        Principals::Command(program) => format!(
            "AuthorizedPrincipalsCommand {} mezite:{node_id}:%u\nAuthorizedPrincipalsCommandUser nobody\n",
            path(program)?
        ),
        Principals::Agent {
            program,
            directory,
            user,
        } => format!(
            "AuthorizedPrincipalsCommand {} principals --data-dir {} %u %k\nAuthorizedPrincipalsCommandUser {}\n",
            path(program)?,
            path(directory)?,
            word(user)?
        ),
        Principals::Directory(directory) => {
            format!("AuthorizedPrincipalsFile {}/%u\n", path(directory)?)
        }
        Principals::Login => String::new(),
    };
    Ok(format!(
        "TrustedUserCAKeys {}\n{principals}HostCertificate {}\n",
        path(paths.user_ca_keys)?,
        path(paths.host_certificate)?
    ))
}

/// The content of the file that `TrustedUserCAKeys` names: one line for each session authority.
///
/// # Errors
/// [`OpensshError::NoKeys`], [`OpensshError::Write`].
pub fn authorized_ca_keys(
    cluster: &ClusterName,
    session_keys: &[PublicKey],
) -> Result<String, OpensshError> {
    lines(session_keys, |key| {
        format!("{key} mezite session {cluster}\n")
    })
}

/// What is added to that file for a node whose agent checks break-glass certificates ([`Principals::Agent`]).
///
/// # Errors
/// [`OpensshError::NoKeys`], [`OpensshError::Write`].
pub fn break_glass_ca_keys(
    cluster: &ClusterName,
    break_glass_keys: &[PublicKey],
) -> Result<String, OpensshError> {
    lines(break_glass_keys, |key| {
        format!("{key} mezite break-glass {cluster}\n")
    })
}

/// The lines for `known_hosts` that make `ssh` trust the hub: `@cert-authority <names> <key>`, one for each gateway key.
///
/// `names` are patterns as sshd(8) has them, for example `*.example`, `hub.example`, `[hub.example]:3023`.
///
/// # Errors
/// [`OpensshError::NoKeys`], [`OpensshError::Pattern`], [`OpensshError::Write`].
pub fn known_hosts_line(
    cluster: &ClusterName,
    names: &[String],
    gateway_keys: &[PublicKey],
) -> Result<String, OpensshError> {
    if names.is_empty() {
        return Err(OpensshError::Pattern(String::new()));
    }
    if let Some(bad) = names.iter().find(|name| !is_pattern(name)) {
        return Err(OpensshError::Pattern(escaped(bad)));
    }
    let names = names.join(",");
    lines(gateway_keys, |key| {
        format!("@cert-authority {names} {key} mezite gateway {cluster}\n")
    })
}

fn lines(keys: &[PublicKey], line: impl Fn(&str) -> String) -> Result<String, OpensshError> {
    if keys.is_empty() {
        return Err(OpensshError::NoKeys);
    }
    keys.iter()
        .map(|key| {
            let bare = PublicKey::from(key.key_data().clone());
            bare.to_openssh()
                .map(|text| line(text.trim()))
                .map_err(written)
        })
        .collect()
}

/// A pattern that grants a domain, a host or a host and port, and that cannot be read as a marker, a list, a hash, a
/// negation or another line.
fn is_pattern(name: &str) -> bool {
    let bare = match name
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    {
        Some((host, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            host
        }
        Some(_) => return false,
        None => name,
    };
    let host = bare.strip_prefix("*.").unwrap_or(bare);
    crate::principal::is_host_name(host)
}

fn path(text: &str) -> Result<&str, OpensshError> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@:".contains(&byte));
    if text.starts_with('/') && plain {
        Ok(text)
    } else {
        Err(OpensshError::Path(escaped(text)))
    }
}

/// A Unix account in a line of its own.
fn word(text: &str) -> Result<&str, OpensshError> {
    if text.parse::<mezite_core::Login>().is_ok() {
        Ok(text)
    } else {
        Err(OpensshError::Path(escaped(text)))
    }
}

/// The OpenSSH public key of an Ed25519 key's 32 bytes.
#[must_use]
pub fn public_key(public_key: [u8; 32]) -> PublicKey {
    PublicKey::from(ssh_key::public::Ed25519PublicKey(public_key))
}

/// An Ed25519 private key as the file that `ssh -i` reads (PROTOCOL.key), not encrypted.
///
/// # Errors
/// [`OpensshError::Write`].
pub fn private_key(seed: &Secret<[u8; 32]>, comment: &str) -> Result<Secret<String>, OpensshError> {
    let keypair = KeypairData::from(Ed25519Keypair::from_seed(seed.expose()));
    let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
    let key = PrivateKey::new(keypair, comment).map_err(written)?;
    let text = key.to_openssh(LineEnding::LF).map_err(written)?;
    Ok(Secret::new(String::clone(&text)))
}

/// An Ed25519 private key as PKCS#8 version 1 DER (RFC 8410 section 7), which OpenSSL 3.0 and rustls read. Version 2,
/// with the public key inside, is refused by many.
#[must_use]
pub fn pkcs8(seed: &Secret<[u8; 32]>) -> Secret<Vec<u8>> {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let seed = Zeroizing::new(*seed.expose());
    Secret::new([PREFIX.as_slice(), seed.as_slice()].concat())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn written(error: ssh_key::Error) -> OpensshError {
    OpensshError::Write(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<PublicKey> {
        let mut key = public_key([7; 32]);
        key.set_comment("x\n@cert-authority * ");
        vec![key]
    }

    #[test]
    fn sshd_gets_three_settings() {
        let node = NodeId::new([0; 16]);
        let paths = SshdPaths {
            user_ca_keys: "/etc/ssh/mezite_user_ca.pub",
            host_certificate: "/etc/ssh/ssh_host_ed25519_key-cert.pub",
            principals: Principals::Command("/bin/echo"),
        };
        assert_eq!(
            sshd_lines(&node, &paths).unwrap(),
            "TrustedUserCAKeys /etc/ssh/mezite_user_ca.pub\n\
             AuthorizedPrincipalsCommand /bin/echo mezite:aaaaaaaaaaaaaaaaaaaaaaaaaa:%u\n\
             AuthorizedPrincipalsCommandUser nobody\n\
             HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n"
        );
        let directory = SshdPaths {
            principals: Principals::Directory("/etc/ssh/principals"),
            ..paths
        };
        assert!(
            sshd_lines(&node, &directory)
                .unwrap()
                .contains("\nAuthorizedPrincipalsFile /etc/ssh/principals/%u\n")
        );
        let bare = SshdPaths {
            principals: Principals::Login,
            ..paths
        };
        assert_eq!(
            sshd_lines(&node, &bare).unwrap(),
            "TrustedUserCAKeys /etc/ssh/mezite_user_ca.pub\n\
             HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n"
        );
        for bad in ["relative", "/a b", "/a\nPermitRootLogin yes", "/%h", ""] {
            let paths = SshdPaths {
                user_ca_keys: bad,
                ..paths
            };
            assert_eq!(
                sshd_lines(&node, &paths),
                Err(OpensshError::Path(escaped(bad)))
            );
        }
    }

    #[test]
    fn attack_82_no_name_or_comment_can_add_to_known_hosts() {
        let cluster = "example".parse().unwrap();
        let names = [
            "*.example",
            "hub.example",
            "[hub.example]:3023",
            "127.0.0.1",
            "[::1]:3023",
        ]
        .map(str::to_owned);
        let line = known_hosts_line(&cluster, &names, &keys()).unwrap();
        let head = "@cert-authority *.example,hub.example,[hub.example]:3023,127.0.0.1,[::1]:3023 ssh-ed25519 AAAA";
        assert!(line.starts_with(head), "{line}");
        assert!(line.ends_with(" mezite gateway example\n"));
        assert_eq!(line.lines().count(), 1);
        for bad in [
            "", "*", "*.", "a b", "a,*", "!a", "|1|x", "a\nb", "a\u{a0}b", "@revoked", "[a]:",
            "[a]:x", "[a", "?.b",
        ] {
            let names = [bad.to_owned()];
            assert_eq!(
                known_hosts_line(&cluster, &names, &keys()),
                Err(OpensshError::Pattern(escaped(bad))),
            );
        }
        assert_eq!(
            known_hosts_line(&cluster, &names, &[]),
            Err(OpensshError::NoKeys)
        );
    }

    #[test]
    fn private_keys_read_back() {
        let seed = Secret::new([9; 32]);
        let text = private_key(&seed, "alice\n").unwrap();
        let read = PrivateKey::from_openssh(text.expose()).unwrap();
        let key = read.key_data().ed25519().unwrap();
        assert_eq!(key.private.to_bytes(), [9; 32]);
        assert_eq!(pkcs8(&seed).expose().len(), 48);
    }
}
