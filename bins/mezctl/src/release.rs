//! Whether files are those of a release: SHA256SUMS is signed by a release key, and each file has the digest that it says.
//! Needs no network and no hub.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The keys that this program trusts by itself: PEM blocks, none before the first release.
pub(crate) const KEYS: &str = include_str!("../release-keys.pem");

const SUMS: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.sig";
const BUILDINFO: &str = "BUILDINFO";
/// Lists and signatures beyond this are refused.
const MAX_TEXT: u64 = 1024 * 1024;

/// Why files are not those of a release.
#[derive(Debug, Error)]
pub(crate) enum ReleaseError {
    #[error("cannot read `{path}`: {error}")]
    Read { path: String, error: io::Error },
    #[error("`{0}` is larger than a list or signature can be")]
    TooLarge(String),
    #[error("the release key is none: {0}; expected PEM blocks `BEGIN PUBLIC KEY` of a P-256 key")]
    Key(String),
    #[error(
        "this program carries no release key: name a file with it by --key, from another source than the release"
    )]
    NoKey,
    #[error("`{0}` is no signature: expected base64 of an ECDSA signature")]
    Signature(String),
    #[error("`{0}` is not signed by a release key: do not use these files")]
    Unsigned(String),
    #[error(
        "`{SUMS}` line {line} cannot be read: expected a SHA-256 digest, two spaces and a file name without `/`"
    )]
    Line { line: usize },
    #[error("`{0}` is not the file that was released: its digest differs; do not use it")]
    Digest(String),
    #[error("`{0}` is not part of the release: `{SUMS}` does not list it; do not use it")]
    Unlisted(String),
    #[error("`{0}` is listed in `{SUMS}` but not here: fetch it, or verify a single file")]
    Missing(String),
    #[error("`{BUILDINFO}` names no version of the form 1.2.3")]
    NoVersion,
    #[error(
        "the release is version {found}, older than this program ({own}): an attacker may offer an old one with known faults; \
         --allow-older accepts it"
    )]
    Older { found: String, own: String },
}

/// What holds.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) version: String,
    pub(crate) commit: String,
    /// The files whose digests were compared.
    pub(crate) files: Vec<String>,
}

/// A version as numbers, for comparison.
type Version = (u64, u64, u64);

/// Checks a directory with all files of a release, or one file with SHA256SUMS, SHA256SUMS.sig and BUILDINFO beside it.
///
/// `keys` is PEM; `own` is the version below which nothing is accepted, unless it is `None`.
pub(crate) fn verify(path: &Path, keys: &str, own: Option<&str>) -> Result<Verified, ReleaseError> {
    let keys = parse_keys(keys)?;
    let (directory, only) = if path.is_dir() {
        (path.to_owned(), None)
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (parent(path), Some(name.into_owned()))
    };
    let sums = small(&directory.join(SUMS))?;
    check_signature(&directory.join(SIGNATURE), &sums, &keys)?;
    let listed = parse_sums(&sums)?;
    let files = match only {
        Some(name) if listed.contains_key(&name) => vec![name],
        Some(name) => return Err(ReleaseError::Unlisted(name)),
        None => all(&directory, &listed)?,
    };
    for name in files.iter().map(String::as_str).chain([BUILDINFO]) {
        let wanted = listed
            .get(name)
            .ok_or_else(|| ReleaseError::Unlisted(name.to_owned()))?;
        if digest(&directory.join(name))? != *wanted {
            return Err(ReleaseError::Digest(name.to_owned()));
        }
    }
    let facts = small(&directory.join(BUILDINFO))?;
    let facts = String::from_utf8_lossy(&facts);
    let fact = |key: &str| {
        facts
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    };
    let version = fact("version").ok_or(ReleaseError::NoVersion)?;
    let number = parse_version(version).ok_or(ReleaseError::NoVersion)?;
    if let Some(own) = own
        && parse_version(own).is_some_and(|own| number < own)
    {
        return Err(ReleaseError::Older {
            found: version.to_owned(),
            own: own.to_owned(),
        });
    }
    Ok(Verified {
        version: version.to_owned(),
        commit: fact("commit").unwrap_or("unknown").to_owned(),
        files,
    })
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn parse_keys(pem: &str) -> Result<Vec<VerifyingKey>, ReleaseError> {
    const END: &str = "-----END PUBLIC KEY-----";
    let mut keys = Vec::new();
    let mut rest = pem;
    while let Some(begin) = rest.find("-----BEGIN PUBLIC KEY-----") {
        let bad = |why: &str| ReleaseError::Key(why.to_owned());
        let block = rest.get(begin..).unwrap_or_default();
        let end = block.find(END).ok_or_else(|| bad("a block has no end"))?;
        let (block, after) = block.split_at(end.saturating_add(END.len()));
        let key = VerifyingKey::from_public_key_pem(block);
        keys.push(key.map_err(|error| bad(&error.to_string()))?);
        rest = after;
    }
    if keys.is_empty() {
        return Err(ReleaseError::NoKey);
    }
    Ok(keys)
}

/// What `cosign sign-blob` and `openssl dgst -sha256 -sign` make: ECDSA P-256 over SHA-256, DER, in base64.
fn check_signature(path: &Path, signed: &[u8], keys: &[VerifyingKey]) -> Result<(), ReleaseError> {
    let shown = || path.display().to_string();
    let text = small(path)?;
    let der = BASE64
        .decode(text.trim_ascii())
        .map_err(|_| ReleaseError::Signature(shown()))?;
    let signature = Signature::from_der(&der).map_err(|_| ReleaseError::Signature(shown()))?;
    if keys
        .iter()
        .any(|key| key.verify(signed, &signature).is_ok())
    {
        return Ok(());
    }
    Err(ReleaseError::Unsigned(SUMS.to_owned()))
}

fn parse_sums(sums: &[u8]) -> Result<BTreeMap<String, [u8; 32]>, ReleaseError> {
    let mut listed = BTreeMap::new();
    let text = String::from_utf8_lossy(sums);
    for (index, line) in text.lines().enumerate() {
        let bad = || ReleaseError::Line {
            line: index.saturating_add(1),
        };
        let (digest, name) = line.split_once("  ").ok_or_else(bad)?;
        let digest = HEXLOWER.decode(digest.as_bytes()).map_err(|_| bad())?;
        let digest = <[u8; 32]>::try_from(digest).map_err(|_| bad())?;
        // A name leads nowhere but into the directory, and is listed once.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(bad());
        }
        if listed.insert(name.to_owned(), digest).is_some() {
            return Err(bad());
        }
    }
    Ok(listed)
}

/// Every listed file has to be there, and nothing else but signatures.
fn all(directory: &Path, listed: &BTreeMap<String, [u8; 32]>) -> Result<Vec<String>, ReleaseError> {
    let unreadable = |error| ReleaseError::Read {
        path: directory.display().to_string(),
        error,
    };
    for entry in directory.read_dir().map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy().into_owned();
        let signature = [".sig", ".sigstore.json", ".sshsig"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let of_release = |name: &str| name == SUMS || listed.contains_key(name);
        if !of_release(&name) && !signature.is_some_and(of_release) {
            return Err(ReleaseError::Unlisted(name));
        }
    }
    if let Some(name) = listed.keys().find(|name| !directory.join(name).exists()) {
        return Err(ReleaseError::Missing(name.clone()));
    }
    Ok(listed.keys().cloned().collect())
}

fn digest(path: &Path) -> Result<[u8; 32], ReleaseError> {
    let unreadable = |error| ReleaseError::Read {
        path: path.display().to_string(),
        error,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(buffer.get(..count).unwrap_or_default());
    }
}

fn small(path: &Path) -> Result<Vec<u8>, ReleaseError> {
    let shown = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(ReleaseError::Read { path: shown, error }),
        Ok(size) if u64::try_from(size).is_ok_and(|size| size <= MAX_TEXT) => Ok(bytes),
        Ok(_) => Err(ReleaseError::TooLarge(shown)),
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|part| part.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer;
    use p256::pkcs8::EncodePublicKey;
    use tempfile::TempDir;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 32]).unwrap()
    }

    fn pem(seed: u8) -> String {
        key(seed)
            .verifying_key()
            .to_public_key_pem(p256::pkcs8::LineEnding::LF)
            .unwrap()
    }

    /// A release of two files, signed by the key of `seed`.
    fn release(version: &str, seed: u8) -> TempDir {
        let place = tempfile::tempdir().unwrap();
        let facts = format!("format: 1\nversion: {version}\ncommit: abc\n");
        fs::write(place.path().join(BUILDINFO), facts).unwrap();
        fs::write(place.path().join("mezhub"), "the program").unwrap();
        sign(&place, &[BUILDINFO, "mezhub"], seed);
        place
    }

    fn sign(place: &TempDir, names: &[&str], seed: u8) {
        let line = |name: &&str| {
            let bytes = fs::read(place.path().join(name)).unwrap_or_default();
            format!("{}  {name}\n", HEXLOWER.encode(&Sha256::digest(bytes)))
        };
        let sums: String = names.iter().map(line).collect();
        let signature: Signature = key(seed).sign(sums.as_bytes());
        let signature = BASE64.encode(signature.to_der().as_bytes());
        fs::write(place.path().join(SUMS), sums).unwrap();
        fs::write(place.path().join(SIGNATURE), signature + "\n").unwrap();
    }

    #[test]
    fn a_whole_release_and_a_single_file_verify() {
        let place = release("1.2.3", 7);
        let whole = verify(place.path(), &pem(7), Some("1.2.3")).unwrap();
        assert_eq!(whole.files, [BUILDINFO, "mezhub"]);
        assert_eq!((&*whole.version, &*whole.commit), ("1.2.3", "abc"));
        let two = pem(6) + &pem(7);
        let one = verify(&place.path().join("mezhub"), &two, None).unwrap();
        assert_eq!(one.files, ["mezhub"]);
    }

    #[test]
    fn attack_81_what_was_changed_added_or_left_out_is_refused() {
        let refused = |change: &dyn Fn(&TempDir), words: &str| {
            let place = release("1.2.3", 7);
            change(&place);
            let error = verify(place.path(), &pem(7), None).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        };
        let put = |name: &'static str, text: &'static str| {
            move |place: &TempDir| fs::write(place.path().join(name), text).unwrap()
        };
        refused(
            &put("mezhub", "another program"),
            "`mezhub` is not the file",
        );
        refused(
            &put(BUILDINFO, "version: 9.9.9\n"),
            "`BUILDINFO` is not the file",
        );
        refused(&put("mezd", "a present"), "`mezd` is not part");
        refused(
            &put("libnss.so.sig", "a present"),
            "`libnss.so.sig` is not part",
        );
        refused(&put(SUMS, "00  mezhub\n"), "not signed");
        refused(&put(SIGNATURE, "AAAA"), "no signature");
        refused(&put(SIGNATURE, "%"), "no signature");
        refused(
            &|place| fs::remove_file(place.path().join("mezhub")).unwrap(),
            "not here",
        );
        refused(
            &|place| fs::remove_file(place.path().join(SIGNATURE)).unwrap(),
            "cannot read",
        );
        refused(
            &|place| sign(place, &[BUILDINFO, "mezhub"], 8),
            "not signed",
        );
        refused(
            &|place| sign(place, &["mezhub"], 7),
            "`BUILDINFO` is not part",
        );
        for line in ["zz  mezhub", "../etc/passwd", "  x"] {
            let text = format!("{line}\n");
            let place = release("1.2.3", 7);
            let signature: Signature = key(7).sign(text.as_bytes());
            fs::write(place.path().join(SUMS), &text).unwrap();
            let signature = BASE64.encode(signature.to_der().as_bytes());
            fs::write(place.path().join(SIGNATURE), signature).unwrap();
            let error = verify(place.path(), &pem(7), None).unwrap_err();
            assert!(matches!(error, ReleaseError::Line { line: 1 }), "{error}");
        }
    }

    #[test]
    fn attack_81_an_old_release_is_refused_unless_it_is_asked_for() {
        let place = release("0.9.12", 7);
        let error = verify(place.path(), &pem(7), Some("0.10.0")).unwrap_err();
        assert!(matches!(error, ReleaseError::Older { .. }), "{error}");
        verify(place.path(), &pem(7), None).unwrap();
        verify(place.path(), &pem(7), Some("0.9.2")).unwrap();
        let place = release("latest", 7);
        let error = verify(place.path(), &pem(7), None).unwrap_err();
        assert!(matches!(error, ReleaseError::NoVersion), "{error}");
    }

    #[test]
    fn without_a_key_nothing_is_trusted() {
        let place = release("1.2.3", 7);
        let error = |keys: &str| verify(place.path(), keys, None).unwrap_err().to_string();
        assert!(error("").contains("carries no release key"));
        assert!(error("-----BEGIN PUBLIC KEY-----\nAAAA\n").contains("no end"));
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert!(error(ed25519).contains("the release key is none"));
        // As long as nothing was released there is none.
        let own = parse_keys(KEYS);
        assert!(
            own.is_ok() || matches!(own, Err(ReleaseError::NoKey)),
            "{own:?}"
        );
    }
}
