//! What a node keeps on its disk: who it is, its keys and certificates. One directory, 0700; files are written beside
//! and renamed, so that a crash leaves the old ones.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mezite_ca::openssh::{self, Principals, SshdPaths};
use mezite_ca::{KeyKind, SoftwareKey, TrustBundle, tls_signer};
use mezite_core::{ClusterName, NodeId, NodeName, Secret, UnixTime};
use mezite_net::ssh::ServerIdentity;
use mezite_net::tls::Credentials;
use serde::{Deserialize, Serialize};
use ssh_key::HashAlg;
use thiserror::Error;

use crate::account::Account;

/// The version of the directory's layout that this program writes.
const VERSION: u32 = 1;

/// Why the state cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The directory holds no node.
    #[error("`{path}` holds no node yet: run `mezd join --hub HOST:3080 --token T --ca-pin P` first", path = .0.display())]
    NotJoined(PathBuf),
    /// The directory holds a node already.
    #[error("`{path}` holds node `{name}` already: remove it there and at the hub to join anew", path = path.display())]
    Joined {
        /// The directory.
        path: PathBuf,
        /// The node in it.
        name: String,
    },
    /// Made by another version of this program.
    #[error("`{path}` has layout version {found}, this program knows {VERSION}", path = path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// A file cannot be read or written.
    #[error("cannot use `{path}`: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{path}` is damaged: {error}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

/// Everything but the private keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "the file's fields")]
pub struct Node {
    /// Layout version.
    pub version: u32,
    /// Its identity.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// `host:port` of the tunnel port of the hub that the node joined at.
    pub tunnel: String,
    /// The tunnel ports of all hubs, as one of them has told.
    #[serde(default)]
    pub hubs: Vec<String>,
    /// OpenSSH text of the host certificate.
    pub host_certificate: String,
    /// DER certificates, leaf first, hexadecimal.
    pub tls_chain: Vec<String>,
    /// When both run out.
    pub valid_before: UnixTime,
    /// When they were issued.
    pub issued: UnixTime,
    /// What the node trusts.
    pub trust: TrustBundle,
}

/// A node with its keys.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "two halves")]
pub struct State {
    /// What is public.
    pub node: Node,
    /// What is not.
    pub keys: Keys,
}

/// The node's private keys, made here and never sent.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "two keys")]
pub struct Keys {
    /// Host key for SSH.
    pub host: SoftwareKey,
    /// Key for TLS.
    pub tls: SoftwareKey,
}

impl Keys {
    /// Fresh keys.
    #[must_use]
    pub fn generate() -> Self {
        let mut rng = mezite_net::random::rng();
        Self {
            host: SoftwareKey::generate(&mut rng),
            tls: SoftwareKey::generate(&mut rng),
        }
    }
}

impl State {
    /// The identity for the SSH server.
    ///
    /// # Errors
    /// A sentence if key or certificate cannot be used.
    pub fn server_identity(&self) -> Result<ServerIdentity, String> {
        let text =
            openssh::private_key(self.keys.host.seed(), "").map_err(|error| error.to_string())?;
        let key =
            ssh_key::PrivateKey::from_openssh(text.expose()).map_err(|error| error.to_string())?;
        let certificate = ssh_key::Certificate::from_openssh(&self.node.host_certificate);
        Ok(ServerIdentity {
            key,
            certificate: certificate.map_err(|error| error.to_string())?,
        })
    }

    /// Which keys of the cluster signed what the node holds, as fingerprints `SHA256:…`. What cannot be read is left out.
    #[must_use]
    pub fn signers(&self) -> Vec<(KeyKind, String)> {
        let host = ssh_key::Certificate::from_openssh(&self.node.host_certificate).ok();
        let host = host.map(|certificate| {
            certificate
                .signature_key()
                .fingerprint(HashAlg::Sha256)
                .to_string()
        });
        let chain = self.tls_chain().ok();
        let tls = chain.and_then(|chain| tls_signer(&chain).ok());
        [(KeyKind::Node, host), (KeyKind::HostTls, tls)]
            .into_iter()
            .filter_map(|(kind, by)| Some((kind, by?)))
            .collect()
    }

    /// The credentials for TLS.
    ///
    /// # Errors
    /// A sentence if the chain is not hexadecimal.
    pub fn credentials(&self) -> Result<Credentials, String> {
        Ok(Credentials {
            chain: self.tls_chain()?,
            pkcs8: openssh::pkcs8(self.keys.tls.seed()),
        })
    }

    fn tls_chain(&self) -> Result<Vec<Vec<u8>>, String> {
        let chain = self.node.tls_chain.iter();
        chain
            .map(|der| data_encoding::HEXLOWER.decode(der.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Opens or makes the directory, private to its owner.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |error| StateError::Io {
            path: path.to_owned(),
            error,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io)?;
        let directory = Self(path.to_owned());
        // Found out now rather than when a join token has been used up.
        let probe = path.join(".probe");
        directory.write(&probe, b"")?;
        fs::remove_file(&probe).map_err(io)?;
        Ok(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the node without its keys.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load_node(&self) -> Result<Node, StateError> {
        let path = self.0.join("node.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::NotJoined(self.0.clone()));
            }
            Err(error) => return Err(StateError::Io { path, error }),
        };
        let damaged = |error: serde_json::Error| StateError::Damaged {
            path: path.clone(),
            error: error.to_string(),
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version: found } = serde_json::from_slice(&text).map_err(damaged)?;
        if found != VERSION {
            return Err(StateError::Version {
                path: self.0.clone(),
                found,
            });
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Writes a file in a directory below, both private to the owner, and makes it durable.
    pub(crate) fn write_below(
        &self,
        directory: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), StateError> {
        let below = self.0.join(directory);
        let io = |error| StateError::Io {
            path: below.clone(),
            error,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&below)
            .map_err(io)?;
        self.write(&below.join(name), bytes)?;
        let synced = fs::File::open(&below).and_then(|directory| directory.sync_all());
        synced.map_err(io)
    }

    /// Refuses a directory that holds a node.
    ///
    /// # Errors
    /// [`StateError::Joined`].
    pub fn must_be_empty(&self) -> Result<(), StateError> {
        match self.load() {
            Err(StateError::NotJoined(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(state) => Err(StateError::Joined {
                path: self.0.clone(),
                name: state.node.name.to_string(),
            }),
        }
    }

    /// Forgets the node: its certificates have run out, or the hub has removed it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn clear(&self) -> Result<(), StateError> {
        let path = self.0.join("node.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { path, error })
            }
            Ok(()) | Err(_) => {
                self.forget_old_keys(UnixTime::from_millis(0));
                Ok(())
            }
        }
    }

    /// Reads node and keys.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(&self) -> Result<State, StateError> {
        let node = self.load_node()?;
        // The file that names the keys is written last, so a crash between two writes is a damaged state, not a mix.
        let keys = Keys {
            host: self.read_key("host", &node)?,
            tls: self.read_key("tls", &node)?,
        };
        Ok(State { node, keys })
    }

    /// Writes node and keys.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        for (name, key) in [("host", &state.keys.host), ("tls", &state.keys.tls)] {
            let hex = Secret::new(data_encoding::HEXLOWER.encode(key.seed().expose()));
            self.write(
                &self.key_path(name, state.node.issued),
                hex.expose().as_bytes(),
            )?;
        }
        self.save_node(&state.node)?;
        self.forget_old_keys(state.node.issued);
        Ok(())
    }

    /// Writes what is known of the node, whose keys are there already.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn save_node(&self, node: &Node) -> Result<(), StateError> {
        let path = self.0.join("node.json");
        let text = serde_json::to_vec_pretty(&Node {
            version: VERSION,
            ..node.clone()
        });
        let text = text.map_err(|error| StateError::Damaged {
            path: path.clone(),
            error: error.to_string(),
        })?;
        self.write(&path, &text)
    }

    /// Writes what an sshd on this machine needs to serve the node's sessions, and gives the file that its
    /// `sshd_config` includes: host key and certificate, and whose sessions it takes.
    ///
    /// # Errors
    /// [`StateError::Io`]; [`StateError::Damaged`] where sshd could not read the directory's path in its configuration.
    pub fn write_sshd(&self, state: &State) -> Result<PathBuf, StateError> {
        let path = self.0.join("sshd");
        let io = |error| StateError::Io {
            path: path.clone(),
            error,
        };
        let unfit = |error: openssh::OpensshError| StateError::Damaged {
            path: path.clone(),
            error: error.to_string(),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(io)?;
        let whole = fs::canonicalize(&path).map_err(io)?;
        let at = |name: &str| whole.join(name).display().to_string();
        let directory = fs::canonicalize(&self.0).map_err(io)?.display().to_string();
        let program = program_for_sshd();
        let user = Account::own_name();
        let principals = match (&program, &user) {
            (Ok(program), Ok(user)) => Principals::Agent {
                program,
                directory: &directory,
                user,
            },
            (program, _) => {
                if let Err(why) = program {
                    tracing::warn!(
                        why,
                        "break-glass certificates do not work through this sshd"
                    );
                }
                Principals::Command("/bin/echo")
            }
        };
        let paths = SshdPaths {
            user_ca_keys: &at("user_ca.pub"),
            host_certificate: &at("host_key-cert.pub"),
            principals,
        };
        let node = &state.node;
        let lines = openssh::sshd_lines(&node.id, &paths).map_err(unfit)?;
        let lines = format!("HostKey {}\n{lines}", at("host_key"));
        let mut user_ca =
            openssh::authorized_ca_keys(&node.cluster, &node.trust.session).map_err(unfit)?;
        let by_agent = matches!(principals, Principals::Agent { .. });
        if by_agent && !node.trust.break_glass.is_empty() {
            let keys = &node.trust.break_glass;
            user_ca += &openssh::break_glass_ca_keys(&node.cluster, keys).map_err(unfit)?;
        }
        let key = openssh::private_key(state.keys.host.seed(), "").map_err(unfit)?;
        let certificate = format!("{}\n", node.host_certificate.trim());
        let include = whole.join("mezite.conf");
        self.write(&whole.join("user_ca.pub"), user_ca.as_bytes())?;
        self.write(&whole.join("host_key"), key.expose().as_bytes())?;
        self.write(&whole.join("host_key-cert.pub"), certificate.as_bytes())?;
        // The last: whoever reloads sshd when it changes finds all of it new.
        self.write(&include, lines.as_bytes())?;
        Ok(include)
    }

    /// Keys carry the time of their certificates in their names, so that renewal never overwrites what is in use.
    fn key_path(&self, name: &str, issued: UnixTime) -> PathBuf {
        self.0.join(format!("{name}-{}.key", issued.as_millis()))
    }

    fn read_key(&self, name: &str, node: &Node) -> Result<SoftwareKey, StateError> {
        let path = self.key_path(name, node.issued);
        let text = fs::read_to_string(&path).map_err(|error| StateError::Io {
            path: path.clone(),
            error,
        })?;
        let text = Secret::new(text);
        let seed = data_encoding::HEXLOWER
            .decode(text.expose().trim().as_bytes())
            .ok();
        let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        let damaged = || StateError::Damaged {
            path,
            error: String::from("it is not a key"),
        };
        Ok(SoftwareKey::from_seed(Secret::new(
            seed.ok_or_else(damaged)?,
        )))
    }

    fn forget_old_keys(&self, issued: UnixTime) {
        let keep = [self.key_path("host", issued), self.key_path("tls", issued)];
        let Ok(entries) = fs::read_dir(&self.0) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "key") && !keep.contains(&path)
            {
                // A leftover is removed at the next renewal.
                drop(fs::remove_file(path));
            }
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StateError> {
        let temporary = path.with_extension("new");
        let written = (|| {
            drop(fs::remove_file(&temporary));
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            fs::File::open(&self.0)?.sync_all()
        })();
        written.map_err(|error| StateError::Io {
            path: path.to_owned(),
            error,
        })
    }
}

/// This program, if an sshd would run it: sshd takes commands only from places that nobody but root can change
/// (sshd_config, `AuthorizedPrincipalsCommand`).
fn program_for_sshd() -> Result<String, String> {
    let own = std::env::current_exe().and_then(fs::canonicalize);
    let own = own.map_err(|error| format!("the path of this program is not known: {error}"))?;
    for place in own.ancestors() {
        let facts = fs::metadata(place).map_err(|error| format!("{}: {error}", place.display()))?;
        if facts.uid() != 0 || facts.permissions().mode() & 0o022 != 0 {
            return Err(format!(
                "sshd would not run {}, because {} can be changed by others than root: install mezd in /usr/local/bin for instance",
                own.display(),
                place.display()
            ));
        }
    }
    Ok(own.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(issued: u64) -> State {
        let cluster: ClusterName = "example".parse().unwrap();
        let node = Node {
            version: VERSION,
            id: NodeId::new([1; 16]),
            name: "web".parse().unwrap(),
            cluster: cluster.clone(),
            hubs: Vec::new(),
            tunnel: "127.0.0.1:3024".into(),
            host_certificate: String::new(),
            tls_chain: vec!["00ff".into()],
            valid_before: UnixTime::from_secs(issued + 86_400),
            issued: UnixTime::from_secs(issued),
            trust: TrustBundle::empty(cluster),
        };
        State {
            node,
            keys: Keys::generate(),
        }
    }

    fn key_files(path: &Path) -> usize {
        let entries = fs::read_dir(path).unwrap().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "key"))
            .count()
    }

    #[test]
    fn a_node_reads_back_and_renewal_replaces_its_keys() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        assert!(matches!(directory.load(), Err(StateError::NotJoined(_))));
        directory.must_be_empty().unwrap();
        for issued in [1, 2] {
            let written = state(issued);
            directory.save(&written).unwrap();
            let read = directory.load().unwrap();
            assert_eq!(read.node.issued, written.node.issued);
            assert_eq!(
                read.keys.host.seed().expose(),
                written.keys.host.seed().expose()
            );
            assert_eq!(
                read.keys.tls.seed().expose(),
                written.keys.tls.seed().expose()
            );
            assert_eq!(key_files(temporary.path()), 2, "old keys are forgotten");
        }
        assert!(matches!(
            directory.must_be_empty(),
            Err(StateError::Joined { .. })
        ));
        directory.clear().unwrap();
        assert_eq!(key_files(temporary.path()), 0);
        directory.must_be_empty().unwrap();
    }

    #[test]
    fn files_are_the_owners_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        directory.save(&state(1)).unwrap();
        for entry in fs::read_dir(temporary.path()).unwrap().flatten() {
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o077,
                0,
                "{entry:?}"
            );
        }
        assert_eq!(
            fs::metadata(temporary.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn an_sshd_gets_the_nodes_host_key_and_its_sessions_only() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(&temporary.path().join("node")).unwrap();
        let mut state = state(1);
        state.node.trust.session = vec![openssh::public_key([7; 32])];
        let include = directory.write_sshd(&state).unwrap();
        let lines = fs::read_to_string(&include).unwrap();
        let place = include.parent().unwrap();
        for line in [
            format!("HostKey {}/host_key\n", place.display()),
            String::from("AuthorizedPrincipalsCommand /"),
        ] {
            assert!(lines.contains(&line), "{lines}");
        }
        let key = fs::read_to_string(place.join("host_key")).unwrap();
        let key = ssh_key::PrivateKey::from_openssh(&key).unwrap();
        let own = openssh::public_key(mezite_ca::Signer::public_key(&state.keys.host));
        assert_eq!(key.public_key().key_data(), own.key_data());
        for entry in fs::read_dir(place).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{entry:?}");
        }
        // A directory that sshd would read as two words.
        let spaced = Directory::open(&temporary.path().join("a b")).unwrap();
        let error = spaced.write_sshd(&state).unwrap_err().to_string();
        assert!(error.contains("a b"), "{error}");
    }

    #[test]
    fn another_layout_and_damage_are_told_apart() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let path = temporary.path().join("node.json");
        fs::write(&path, r#"{"version":2,"whatever":true}"#).unwrap();
        assert!(matches!(
            directory.load(),
            Err(StateError::Version { found: 2, .. })
        ));
        fs::write(&path, "{").unwrap();
        assert!(matches!(directory.load(), Err(StateError::Damaged { .. })));
        directory.save(&state(1)).unwrap();
        let host_key = directory.key_path("host", UnixTime::from_secs(1));
        fs::write(host_key, "not a key").unwrap();
        assert!(matches!(directory.load(), Err(StateError::Damaged { .. })));
    }
}
