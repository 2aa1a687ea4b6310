//! Break-glass on the node: who may come in while the hub is down, and the record of it, which is on the disk before
//! anybody comes in and stays until a hub has acknowledged it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use mezite_ca::verify::{self, VerifiedBreakGlass};
use mezite_ca::{BREAK_GLASS_CEILING, TrustBundle};
use mezite_core::{EventId, Login, NodeId, UnixTime};
use mezite_net::tunnel::BreakGlassUse;
use rand::Rng;
use ssh_key::{Certificate, HashAlg};

use crate::state::{Directory, StateError};

/// Most uses that wait for a hub. Beyond, nobody gets in: a record that is lost would be worse.
const MAX_WAITING: usize = 10_000;

/// The uses that no hub has acknowledged yet: one file each.
#[derive(Clone, Debug)]
pub struct Spool(Directory);

impl Spool {
    /// The spool in a node's directory.
    #[must_use]
    pub const fn new(directory: Directory) -> Self {
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("break-glass")
    }

    fn io(&self, error: io::Error) -> StateError {
        StateError::Io {
            path: self.path(),
            error,
        }
    }

    /// Makes a use durable. When this returns, it will reach a hub.
    ///
    /// # Errors
    /// [`StateError`]; then nobody may come in.
    pub fn record(&self, used: &BreakGlassUse) -> Result<(), StateError> {
        let waiting = self.waiting()?.len();
        if waiting >= MAX_WAITING {
            return Err(self.io(io::Error::other(format!(
                "{waiting} uses wait for a hub already: connect the node, or move the files away"
            ))));
        }
        let bytes = serde_json::to_vec(used).map_err(|error| self.io(io::Error::other(error)))?;
        self.0
            .write_below("break-glass", &format!("{}.json", used.id), &bytes)
    }

    /// Whether this use is written down already, by an earlier question of the same connection.
    fn holds(&self, used: &BreakGlassUse) -> Result<bool, StateError> {
        let same = |other: &BreakGlassUse| {
            other.connection == used.connection
                && other.login == used.login
                && other.serial == used.serial
                && other.key == used.key
        };
        Ok(used.connection.is_some() && self.waiting()?.iter().any(same))
    }

    /// What waits, oldest first. A file that cannot be read stays where it is, and is told in the log.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn waiting(&self) -> Result<Vec<BreakGlassUse>, StateError> {
        let entries = match fs::read_dir(self.path()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io(error)),
        };
        let mut found: Vec<BreakGlassUse> = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| self.io(error))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path)
                .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other))
            {
                Ok(used) => found.push(used),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a record of a break-glass use cannot be read");
                }
            }
        }
        found.sort_by_key(|used| used.id);
        Ok(found)
    }

    /// A hub has it: the file goes.
    pub fn acknowledged(&self, id: &EventId) {
        let path = self.path().join(format!("{id}.json"));
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(path = %path.display(), %error, "a reported use cannot be removed; it is reported again");
        }
    }
}

/// Somebody at the door.
#[derive(Clone, Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) node: &'a NodeId,
    pub(crate) trust: &'a TrustBundle,
    pub(crate) login: &'a str,
    /// PROTOCOL.certkeys.
    pub(crate) certificate: &'a [u8],
    pub(crate) source: Option<IpAddr>,
    pub(crate) now: UnixTime,
    /// Who serves: `builtin` or `openssh`.
    pub(crate) mode: &'a str,
    /// Of a local sshd.
    pub(crate) connection: Option<String>,
}

impl Attempt<'_> {
    /// Checks the certificate and makes its use durable. Only then may the holder come in.
    pub(crate) fn admit(&self, spool: &Spool) -> Result<VerifiedBreakGlass, String> {
        let login: Login = self
            .login
            .parse()
            .map_err(|error: mezite_core::name::NameError| error.to_string())?;
        let context = verify::Context {
            trust: self.trust,
            now: self.now,
            source: self.source,
            // A key is taken out of the bundle; what it signed lives an hour at most.
            revoked: &|_| false,
        };
        let ceiling = BREAK_GLASS_CEILING;
        let verified = verify::break_glass(self.certificate, self.node, &login, ceiling, &context);
        let verified = verified.map_err(|error| error.to_string())?;
        let certificate =
            Certificate::from_bytes(self.certificate).map_err(|error| error.to_string())?;
        let mut random = [0; 16];
        mezite_net::random::rng().fill_bytes(&mut random);
        let used = BreakGlassUse {
            id: EventId::new(self.now, random),
            at: self.now,
            login,
            mode: self.mode.to_owned(),
            serial: verified.serial(),
            key_id: verified.key_id().to_owned(),
            key: verified
                .public_key()
                .fingerprint(HashAlg::Sha256)
                .to_string(),
            authority: certificate
                .signature_key()
                .fingerprint(HashAlg::Sha256)
                .to_string(),
            source: self.source,
            connection: self.connection.clone(),
        };
        if spool.holds(&used).map_err(|error| error.to_string())? {
            return Ok(verified);
        }
        spool.record(&used).map_err(|error| {
            format!("its use could not be recorded, so it opens nothing: {error}")
        })?;
        tracing::warn!(login = %used.login, key_id = used.key_id, serial = %used.serial, "break-glass was used");
        Ok(verified)
    }
}

/// What `AuthorizedPrincipalsCommand` of a local sshd asks: the principal with which `certificate` (base64) may log in as
/// `login`, if there is one. The certificate of a session has it by itself; one by a break-glass key is checked here,
/// and its use is on the disk when this returns. sshd asks before and after the client has proven its key, so that a use
/// that is written down may have ended there.
///
/// # Errors
/// Why there is none, for sshd's log.
pub fn principal(
    directory: &Directory,
    login: &str,
    certificate: &str,
    now: UnixTime,
) -> Result<String, String> {
    let node = directory.load_node().map_err(|error| error.to_string())?;
    let parsed: Login = login
        .parse()
        .map_err(|error: mezite_core::name::NameError| error.to_string())?;
    let blob = data_encoding::BASE64
        .decode(certificate.as_bytes())
        .map_err(|error| format!("the certificate is not base64: {error}"))?;
    let read = Certificate::from_bytes(&blob).map_err(|error| error.to_string())?;
    let signer = read.signature_key();
    if node
        .trust
        .break_glass
        .iter()
        .any(|key| key.key_data() == signer)
    {
        let attempt = Attempt {
            node: &node.id,
            trust: &node.trust,
            login,
            certificate: &blob,
            source: source_of(&read),
            now,
            mode: "openssh",
            connection: connection(),
        };
        // sshd lets the holder in by the principal below.
        drop(attempt.admit(&Spool::new(directory.clone()))?);
    }
    Ok(mezite_ca::principal::session(&node.id, &parsed))
}

/// What tells this connection to sshd from others: the process that asks, and when it began (proc_pid_stat(5)).
fn connection() -> Option<String> {
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    // The 22nd field; the second is the name, which may hold blanks.
    let began = fields.split_whitespace().nth(19)?;
    Some(format!("{parent}-{began}"))
}

/// sshd does not tell where the client is, and checks `source-address` by itself: any address of the list stands for it.
fn source_of(certificate: &Certificate) -> Option<IpAddr> {
    let options = certificate.critical_options();
    let (_, list) = options.iter().find(|(name, _)| *name == "source-address")?;
    let first = list.split(',').next()?;
    first.split('/').next()?.trim().parse().ok()
}
