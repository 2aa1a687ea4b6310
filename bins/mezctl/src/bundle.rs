//! A bundle: one tar file with a recording, its events, and what proves both without a hub. Nothing is ever unpacked: the
//! members are read one after the other, by name and in this order.
//!
//! | member | holds |
//! | --- | --- |
//! | `manifest.json` | format, session, origin of the log, the audit keys in hex |
//! | `checkpoint.txt` | the signed checkpoint of the log (C2SP signed note) |
//! | `events.jsonl` | the session's events, and those that rotated the audit key, one a line, exactly as the log keeps them |
//! | `proofs.json` | for each of them its sequence and its inclusion proof (RFC 9162), hashes in base64 |
//! | `recording.mzr` | the sealed recording |

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use data_encoding::{BASE64, HEXLOWER};
use mezite_audit::catalogue::AuditKeyRotated;
use mezite_audit::checkpoint::Signed;
use mezite_audit::handover::Chain;
use mezite_audit::merkle::{Hash, leaf_hash};
use mezite_audit::proof::{inclusion, verify_inclusion};
use mezite_audit::tile::{Place, Tiles, WIDTH};
use mezite_audit::{Checkpoint, CheckpointError, Handover, NoteKey, checkpoint};
use mezite_core::SessionId;
use mezite_record::{Verified, VerifyError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

const FORMAT: &str = "mezite-bundle/1";
/// Most bytes of a member other than the recording.
const MAX_MEMBER: u64 = 64 * 1024 * 1024;

/// What is wrong with a bundle, and where.
#[derive(Debug, Error)]
pub(crate) enum BundleError {
    #[error("the bundle cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the bundle has `{found}` where `{wanted}` belongs")]
    Member { wanted: &'static str, found: String },
    #[error("`{0}` is not what a bundle of this version holds: {1}")]
    Malformed(&'static str, String),
    #[error("the bundle's checkpoint is not signed with a trusted key: {0}")]
    Checkpoint(CheckpointError),
    #[error("event {0} does not hand the audit key over: {1}")]
    Handover(u64, CheckpointError),
    #[error("event {0} is not in the log that the checkpoint was signed over")]
    NotIncluded(u64),
    #[error("event {0} is of another session, or says another number than its proof")]
    Foreign(u64),
    #[error(
        "no event of the bundle tells the recording's digest: nothing says that this is the session's recording"
    )]
    NoDigest,
    #[error("the recording's digest is {found}, but its event says {told}")]
    Digest { found: String, told: String },
    #[error(transparent)]
    Recording(#[from] VerifyError),
    #[error("the bundle is of session {manifest}, but holds the recording of session {recording}")]
    OtherSession {
        manifest: SessionId,
        recording: SessionId,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    session: SessionId,
    origin: String,
    keys: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    sequence: u64,
    path: Vec<String>,
}

/// Collects the session's events out of the log as it passes by.
#[derive(Debug)]
pub(crate) struct Collected {
    session: SessionId,
    /// The tree over the whole log: 32 bytes for each event, whether its body is still there or was pruned.
    edge: Tiles,
    tiles: BTreeMap<Place, Vec<u8>>,
    leaves: u64,
    events: Vec<(u64, Vec<u8>)>,
}

impl Collected {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            edge: Tiles::default(),
            tiles: BTreeMap::new(),
            leaves: 0,
            events: Vec::new(),
        }
    }

    /// Takes the next event of the log.
    pub(crate) fn push(&mut self, sequence: u64, body: Vec<u8>) {
        self.leaf(leaf_hash(&body));
        let of_session =
            field(&body, "session_id").as_deref() == Some(self.session.to_string().as_str());
        if of_session || hands_over(&body) {
            self.events.push((sequence, body));
        }
    }

    /// Takes the leaf hashes of the next events of the log, whose bodies were pruned.
    pub(crate) fn push_pruned(&mut self, leaf_hashes: &[u8]) {
        for hash in leaf_hashes.as_chunks::<32>().0 {
            self.leaf(*hash);
        }
    }

    fn leaf(&mut self, hash: Hash) {
        self.edge.append(hash);
        self.leaves += 1;
        if self.leaves.is_multiple_of(WIDTH) {
            self.tiles.extend(self.edge.take_changed());
        }
    }

    /// Writes the whole bundle. `note` is the log's signed checkpoint, `bytes` the length of `recording`.
    pub(crate) fn write(
        &mut self,
        keys: &[[u8; 32]],
        note: &str,
        recording: impl Read,
        bytes: u64,
        out: impl Write,
    ) -> Result<(), BundleError> {
        let opened = open_note(note, keys)?.checkpoint;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            session: self.session,
            origin: opened.origin.clone(),
            keys: keys.iter().map(|key| HEXLOWER.encode(key)).collect(),
        };
        self.tiles.extend(self.edge.take_changed());
        let tree = |place: Place| self.tiles.get(&place).cloned();
        let (mut events, mut proofs) = (Vec::new(), Vec::new());
        for (sequence, body) in &self.events {
            // Events that came after the checkpoint cannot be proven by it.
            let Ok(path) = inclusion(&tree, *sequence, opened.size) else {
                continue;
            };
            events.extend_from_slice(body);
            events.push(b'\n');
            proofs.push(Proof {
                sequence: *sequence,
                path: path.iter().map(|hash| BASE64.encode(hash)).collect(),
            });
        }
        let mut tar = tar::Builder::new(out);
        let json = |what, value: Result<Vec<u8>, serde_json::Error>| {
            value.map_err(|error| BundleError::Malformed(what, error.to_string()))
        };
        let manifest = json("manifest.json", serde_json::to_vec_pretty(&manifest))?;
        let proofs = json("proofs.json", serde_json::to_vec(&proofs))?;
        for (name, content) in [
            ("manifest.json", manifest.as_slice()),
            ("checkpoint.txt", note.as_bytes()),
            ("events.jsonl", &events),
            ("proofs.json", &proofs),
        ] {
            let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
            append(&mut tar, name, content, length)?;
        }
        append(&mut tar, "recording.mzr", recording, bytes)?;
        Ok(tar.into_inner()?.flush()?)
    }
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    content: impl Read,
    length: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, content.take(length))
}

/// A bundle that holds together.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) recording: Verified,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) events: usize,
    /// The audit keys that the log had, the one that signs now last.
    pub(crate) keys: Vec<String>,
}

/// Checks a bundle against `trusted` keys, or against those that it names itself where there are none.
pub(crate) fn check(file: impl Read, trusted: &[[u8; 32]]) -> Result<Checked, BundleError> {
    let mut archive = tar::Archive::new(file);
    let mut members = archive.entries()?;
    let manifest: Manifest = parse("manifest.json", next(&mut members, "manifest.json")?)?;
    if manifest.format != FORMAT {
        let what = format!("format `{}`", manifest.format.escape_default());
        return Err(BundleError::Malformed("manifest.json", what));
    }
    let own: Vec<[u8; 32]> = manifest.keys.iter().filter_map(|key| key_of(key)).collect();
    let keys = [trusted, own.as_slice()].concat();
    let note = String::from_utf8(bytes(next(&mut members, "checkpoint.txt")?)?);
    let note = note.map_err(|error| BundleError::Malformed("checkpoint.txt", error.to_string()))?;
    let signed = open_note(&note, &keys)?;
    let checkpoint = &signed.checkpoint;
    let events = bytes(next(&mut members, "events.jsonl")?)?;
    let proofs: Vec<Proof> = parse("proofs.json", next(&mut members, "proofs.json")?)?;
    let lines: Vec<&[u8]> = events.split_inclusive(|it| *it == b'\n').collect();
    if lines.len() != proofs.len() {
        let what = format!("{} proofs for {} events", proofs.len(), lines.len());
        return Err(BundleError::Malformed("proofs.json", what));
    }
    let (mut told, mut chain) = (None, Chain::default());
    for (line, proof) in lines.iter().zip(&proofs) {
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        included(body, proof, checkpoint, &manifest.session)?;
        if hands_over(body) {
            let text = |name| field(body, name).unwrap_or_default();
            Handover::from_event(&text("old_key"), &text("new_key"), &text("handover"))
                .and_then(|handover| chain.push(handover))
                .map_err(|error| BundleError::Handover(proof.sequence, error))?;
            continue;
        }
        told = field(body, "recording_sha256").or(told);
    }
    // Recordings are signed with the key of their time, and the log that the newest key signed names each of them.
    let keys = trusted_keys(&signed, &chain, trusted)?;
    let recording = mezite_record::verify(next(&mut members, "recording.mzr")?, &keys)?;
    let told = told.ok_or(BundleError::NoDigest)?;
    if recording.digest != told {
        let found = recording.digest;
        return Err(BundleError::Digest { found, told });
    }
    if recording.header.session_id != manifest.session {
        return Err(BundleError::OtherSession {
            manifest: manifest.session,
            recording: recording.header.session_id,
        });
    }
    Ok(Checked {
        recording,
        events: proofs.len() - (chain.keys().count().saturating_sub(1)),
        keys: keys.iter().map(|key| HEXLOWER.encode(key)).collect(),
        checkpoint: signed.checkpoint,
    })
}

/// The next member, which must be a file of this name.
fn next<'a, R: Read>(
    members: &mut tar::Entries<'a, R>,
    wanted: &'static str,
) -> Result<tar::Entry<'a, R>, BundleError> {
    let other = |found: String| BundleError::Member { wanted, found };
    let entry = members
        .next()
        .ok_or_else(|| other("its end".to_owned()))??;
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if path != wanted || entry.header().entry_type() != tar::EntryType::Regular {
        return Err(other(path.chars().flat_map(char::escape_default).collect()));
    }
    Ok(entry)
}

fn included(
    body: &[u8],
    proof: &Proof,
    checkpoint: &Checkpoint,
    session: &SessionId,
) -> Result<(), BundleError> {
    let sequence = proof.sequence;
    let hash = |text: &String| Hash::try_from(BASE64.decode(text.as_bytes()).ok()?).ok();
    let path: Option<Vec<Hash>> = proof.path.iter().map(hash).collect();
    let path = path.ok_or(BundleError::NotIncluded(sequence))?;
    verify_inclusion(&path, body, sequence, checkpoint.size, &checkpoint.root)
        .map_err(|_| BundleError::NotIncluded(sequence))?;
    let own: Option<u64> = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|event| event.get("sequence")?.as_u64());
    let of = field(body, "session_id");
    let belongs = of == Some(session.to_string()) || hands_over(body);
    if own == Some(sequence) && belongs {
        Ok(())
    } else {
        Err(BundleError::Foreign(sequence))
    }
}

fn open_note(note: &str, keys: &[[u8; 32]]) -> Result<Signed, BundleError> {
    // The origin is part of what is signed; which log it is, the caller sees.
    let origin = note.lines().next().unwrap_or_default();
    let keys = keys.iter().map(|key| NoteKey::new(origin, key));
    let keys: Result<Vec<_>, _> = keys.collect();
    keys.and_then(|keys| checkpoint::open_any(note, &keys))
        .map_err(BundleError::Checkpoint)
}

/// The keys that the log had, where who signed it last is trusted, or followed somebody who is.
fn trusted_keys(
    signed: &Signed,
    chain: &Chain,
    trusted: &[[u8; 32]],
) -> Result<Vec<[u8; 32]>, BundleError> {
    let wrong = BundleError::Checkpoint;
    chain.check(signed).map_err(wrong)?;
    let leads = |key: &[u8; 32]| {
        let key = NoteKey::new(&*signed.checkpoint.origin, key)?;
        chain.leads_from(&key, signed)
    };
    let mut refused = Ok(());
    for key in trusted {
        refused = leads(key);
        if refused.is_ok() {
            break;
        }
    }
    refused.map_err(wrong)?;
    let keys: Vec<_> = chain.keys().map(NoteKey::public_key).collect();
    Ok(if keys.is_empty() {
        signed.by.iter().map(NoteKey::public_key).collect()
    } else {
        keys
    })
}

fn hands_over(body: &[u8]) -> bool {
    field(body, "event_type").as_deref() == Some(AuditKeyRotated::TYPE)
}

/// 64 hexadecimal digits.
pub(crate) fn key_of(text: &str) -> Option<[u8; 32]> {
    let bytes = HEXLOWER.decode(text.trim().to_ascii_lowercase().as_bytes());
    bytes.ok()?.try_into().ok()
}

fn bytes(entry: impl Read) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    let read = entry.take(MAX_MEMBER + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_MEMBER {
        return Err(io::Error::other("a part of it is longer than 64 MiB").into());
    }
    Ok(bytes)
}

fn parse<T: for<'a> Deserialize<'a>>(
    name: &'static str,
    entry: impl Read,
) -> Result<T, BundleError> {
    serde_json::from_slice(&bytes(entry)?)
        .map_err(|error| BundleError::Malformed(name, error.to_string()))
}

fn field(body: &[u8], name: &str) -> Option<String> {
    let event: Value = serde_json::from_slice(body).ok()?;
    Some(event.get(name)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::{Signer, SigningKey};
    use mezite_audit::keeper::Head;
    use mezite_core::store::StoredEvent;
    use mezite_core::{NodeId, UnixTime};
    use mezite_record::sink::conformance::block_on;
    use mezite_record::{Frame, Header, Identity, MemorySink, Part, Recorder, Sink};

    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    fn public() -> [u8; 32] {
        key().verifying_key().to_bytes()
    }

    fn session(number: u8) -> SessionId {
        SessionId::new(START, [number; 16])
    }

    fn recording(number: u8) -> (Vec<u8>, String) {
        let header = Header {
            session_id: session(number),
            cluster: "example".parse().unwrap(),
            user: "alice".parse().unwrap(),
            node_id: NodeId::new([2; 16]),
            node: "db-1".parse().unwrap(),
            login: "root".parse().unwrap(),
            started: START,
            source: None,
        };
        let sink = Arc::new(MemorySink::new());
        let reader = Identity::generate().recipient();
        let signer = Arc::new(key());
        let opened = Recorder::open(sink.clone(), &header, &[reader], signer, &mut rand::rng());
        let mut recorder = block_on(opened).unwrap();
        block_on(recorder.record(START, Frame::stdout(0, "hello\n"))).unwrap();
        let digest = block_on(recorder.finish(START)).unwrap().digest;
        let id = session(number);
        let read = sink.read(&id, Part::Sealed, 0, usize::MAX);
        (block_on(read).unwrap(), digest)
    }

    fn log(digest: &str) -> Vec<StoredEvent> {
        let event = |sequence: u64| {
            let of = session(u8::try_from(sequence % 3).unwrap());
            let digest = if sequence == 7 { digest } else { "" };
            let mut body = serde_json::json!({ "sequence": sequence, "session_id": of });
            if !digest.is_empty() {
                body["recording_sha256"] = digest.into();
            }
            StoredEvent {
                sequence,
                body: body.to_string().into_bytes(),
            }
        };
        (1..=11).map(event).collect()
    }

    fn note(events: &[StoredEvent]) -> String {
        let head = Head::default().advance(events).unwrap();
        let checkpoint = head.checkpoint("example/mezite-audit");
        let signature = key().sign(checkpoint.body().as_bytes()).to_bytes();
        let key = NoteKey::new("example/mezite-audit", &public()).unwrap();
        checkpoint::finish(&checkpoint, &key, &signature).unwrap()
    }

    /// A bundle of session 1, whose events are 1, 4, 7 and 10.
    fn bundle_of(file: &[u8], events: &[StoredEvent], note: &str) -> Vec<u8> {
        let mut collected = Collected::new(session(1));
        for event in events {
            collected.push(event.sequence, event.body.clone());
        }
        let mut out = Vec::new();
        let bytes = u64::try_from(file.len()).unwrap();
        collected
            .write(&[public()], note, file, bytes, &mut out)
            .unwrap();
        out
    }

    fn bundle() -> Vec<u8> {
        let (file, digest) = recording(1);
        let events = log(&digest);
        bundle_of(&file, &events, &note(&events))
    }

    #[test]
    fn a_bundle_proves_recording_and_events_without_a_hub() {
        let checked = check(&bundle()[..], &[public()]).unwrap();
        assert_eq!((checked.events, checked.checkpoint.size), (4, 11));
        assert_eq!(checked.recording.header.user.as_str(), "alice");
        assert_eq!(checked.keys, [HEXLOWER.encode(&public())]);
        assert!(check(&bundle()[..], &[]).is_ok(), "its own key");
    }

    #[test]
    fn events_are_proven_although_others_were_pruned_and_more_have_come() {
        let (file, digest) = recording(1);
        let events = log(&digest);
        let note = note(&events);
        let mut collected = Collected::new(session(1));
        for event in &events {
            match event.sequence {
                2 | 3 => collected.push_pruned(&leaf_hash(&event.body)),
                sequence => collected.push(sequence, event.body.clone()),
            }
        }
        for sequence in 12..=600 {
            collected.push(sequence, b"{}".to_vec());
        }
        let (mut out, bytes) = (Vec::new(), u64::try_from(file.len()).unwrap());
        collected
            .write(&[public()], &note, &file[..], bytes, &mut out)
            .unwrap();
        assert_eq!(check(&out[..], &[public()]).unwrap().events, 4);
    }

    /// The log of [`log`] whose key was rotated with event 5, while the recording was made before.
    fn rotated(digest: &str) -> (Vec<StoredEvent>, SigningKey) {
        let new = SigningKey::from_bytes(&[6; 32]);
        let note_key = |key: &SigningKey| {
            NoteKey::new("example/mezite-audit", &key.verifying_key().to_bytes()).unwrap()
        };
        let mut events = log(digest);
        let head = Head::default().advance(&events[..4]).unwrap();
        let handover = Handover {
            last: head.checkpoint("example/mezite-audit"),
            old: note_key(&key()),
            new: note_key(&new),
        };
        let sign = |key: &SigningKey| key.sign(handover.body().as_bytes()).to_bytes();
        let signed = handover.finish(&sign(&key()), &sign(&new)).unwrap();
        let body = serde_json::json!({
            "sequence": 5, "event_type": "audit.key.rotated", "old_key": handover.old.to_line(),
            "new_key": handover.new.to_line(), "handover": mezite_audit::handover::field(&signed),
        });
        events[4].body = body.to_string().into_bytes();
        (events, new)
    }

    #[test]
    fn a_bundle_leads_from_a_retired_audit_key_to_the_one_that_signs_now() {
        let (file, digest) = recording(1);
        let (events, new) = rotated(&digest);
        let head = Head::default().advance(&events).unwrap();
        let checkpoint = head.checkpoint("example/mezite-audit");
        let (new_public, signature) = (
            new.verifying_key().to_bytes(),
            new.sign(checkpoint.body().as_bytes()).to_bytes(),
        );
        let note_key = NoteKey::new("example/mezite-audit", &new_public).unwrap();
        let newest = checkpoint::finish(&checkpoint, &note_key, &signature).unwrap();
        let made = |note: &str| {
            let mut collected = Collected::new(session(1));
            for event in &events {
                collected.push(event.sequence, event.body.clone());
            }
            let (mut out, bytes) = (Vec::new(), u64::try_from(file.len()).unwrap());
            let keys = [public(), new_public];
            collected
                .write(&keys, note, &file[..], bytes, &mut out)
                .unwrap();
            out
        };
        let bundle = made(&newest);
        for trusted in [&[][..], &[public()], &[new_public], &[public(), new_public]] {
            let checked = check(&bundle[..], trusted).unwrap();
            let keys = [public(), new_public].map(|key| HEXLOWER.encode(&key));
            assert_eq!((checked.events, checked.keys), (4, keys.to_vec()));
        }
        assert!(check(&bundle[..], &[[9; 32]]).is_err());
        // The old key over a log that reaches further than its own end.
        let forged = made(&note(&events));
        for trusted in [&[][..], &[public()], &[new_public]] {
            let error = check(&forged[..], trusted).unwrap_err();
            let retired = matches!(
                error,
                BundleError::Checkpoint(CheckpointError::NotInForce { size: 11, .. })
            );
            assert!(retired, "{error}");
        }
    }

    #[test]
    fn attack_51_no_byte_of_a_bundle_that_means_something_can_be_edited() {
        let whole = bundle();
        let mut archive = tar::Archive::new(&whole[..]);
        let (mut members, mut end) = (0, 0);
        for member in archive.entries().unwrap() {
            let member = member.unwrap();
            let name = member.path().unwrap().into_owned();
            // What the manifest says of keys counts for nobody who brings keys, and what a tar says of modes and padding for
            // nobody at all.
            if name.as_os_str() == "manifest.json" {
                continue;
            }
            members += 1;
            let start = usize::try_from(member.raw_file_position()).unwrap();
            end = start + usize::try_from(member.size()).unwrap();
            for place in start..end {
                let mut edited = whole.clone();
                edited[place] ^= 0x11;
                let checked = check(&edited[..], &[public()]);
                assert!(checked.is_err(), "{} at {}", name.display(), place - start);
            }
        }
        assert_eq!(members, 4);
        for cut in (0..end).step_by(97).chain([end - 1]) {
            assert!(check(&whole[..cut], &[public()]).is_err(), "{cut}");
        }
    }

    #[test]
    fn attack_51_another_recording_or_log_does_not_pass() {
        let (ours, digest) = recording(1);
        let (theirs, their_digest) = recording(2);
        let events = log(&digest);
        let swapped = bundle_of(&theirs, &events, &note(&events));
        assert!(matches!(
            check(&swapped[..], &[public()]),
            Err(BundleError::Digest { .. })
        ));
        let relabelled = log(&their_digest);
        let relabelled = bundle_of(&theirs, &relabelled, &note(&relabelled));
        assert!(matches!(
            check(&relabelled[..], &[public()]),
            Err(BundleError::OtherSession { .. })
        ));
        let silent = log("");
        let silent = bundle_of(&ours, &silent, &note(&silent));
        assert!(matches!(
            check(&silent[..], &[public()]),
            Err(BundleError::NoDigest)
        ));
        let forged = bundle_of(&ours, &log(&digest), &note(&log("ab")));
        assert!(matches!(
            check(&forged[..], &[public()]),
            Err(BundleError::NotIncluded(_))
        ));
        let trusted = check(&bundle()[..], &[[1; 32]]);
        assert!(matches!(trusted, Err(BundleError::Checkpoint(_))));
    }

    #[test]
    fn attack_50_a_bundle_with_other_members_is_refused_and_nothing_is_unpacked() {
        let mut out = Vec::new();
        let mut tar = tar::Builder::new(&mut out);
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        let name = b"../../etc/cron.d/x\x1b[2J";
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        drop(tar);
        let error = check(&out[..], &[public()]).unwrap_err().to_string();
        assert!(
            error.contains("cron.d") && !error.contains('\u{1b}'),
            "{error}"
        );
    }
}
