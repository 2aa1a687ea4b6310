//! Re-sealing: the cluster's keys at rest move from one sealing key to another.

use data_encoding::BASE64;
use mezite_ca::KeyKind;
use mezite_ca::seal::{Context, Sealer};
use mezite_core::Clock;
use mezite_core::store::{Commit, Expect, Key, Store, StoreError};

use crate::error::OpenError;
use crate::live;
use crate::random;
use crate::record::{self, SealedKey};
use crate::settings::Settings;
use crate::tell::Teller;

/// How often it is tried while other hubs change keys at the same moment.
const ATTEMPTS: usize = 4;

/// Seals anew with `to` every key that still is sealed with `from`; says how many. All move in one commit with its event,
/// or none does: whatever dies on the way, each key opens with one of the two, and a second run ends what the first began.
///
/// Call it before [`crate::Auth::open`] with `to`. After it `from` opens nothing that the store holds.
///
/// # Errors
/// [`OpenError::Reseal`] if a key opens with neither; then nothing was changed. [`OpenError::Cluster`], [`OpenError::Store`],
/// [`OpenError::Corrupt`].
pub async fn reseal(
    store: &dyn Store,
    clock: &dyn Clock,
    settings: &Settings,
    from: &dyn Sealer,
    to: &dyn Sealer,
) -> Result<usize, OpenError> {
    for _ in 0..ATTEMPTS {
        match try_reseal(store, clock, settings, from, to).await {
            // Another hub was faster; it may have left some.
            Err(OpenError::Store(StoreError::Conflict(_))) => {}
            result => return result,
        }
    }
    Err(OpenError::Store(StoreError::Unavailable(
        "other hubs keep changing the cluster's keys: start one hub at a time".to_owned(),
    )))
}

async fn try_reseal(
    store: &dyn Store,
    clock: &dyn Clock,
    settings: &Settings,
    from: &dyn Sealer,
    to: &dyn Sealer,
) -> Result<usize, OpenError> {
    let mut moved = Vec::new();
    for (key, stored) in live::all(store, "ca/").await? {
        let mut sealed: SealedKey = record::read(&key, &stored)?;
        if sealed.cluster != settings.cluster {
            return Err(OpenError::Cluster {
                stored: sealed.cluster,
                configured: settings.cluster.clone(),
            });
        }
        let (kind, generation) = parts(&key)?;
        let context = Context {
            cluster: &settings.cluster,
            kind,
            generation,
        };
        let blob = BASE64
            .decode(sealed.sealed.as_bytes())
            .map_err(|error| OpenError::Corrupt(format!("{key}: {error}")))?;
        if to.open(&blob, &context).is_ok() {
            continue;
        }
        let failed = |source| OpenError::Reseal { kind, source };
        let plain = from.open(&blob, &context).map_err(failed)?;
        let fresh = to
            .seal(plain.expose(), &context, &mut random::rng())
            .map_err(failed)?;
        // The old blob goes with the commit, so the new one must open.
        let read = to.open(&fresh, &context).map_err(failed)?;
        if read.expose() != plain.expose() {
            return Err(OpenError::Corrupt(format!("{key} did not seal anew")));
        }
        sealed.sealed = BASE64.encode(&fresh);
        moved.push((key, stored.revision, record::write(&sealed)?));
    }
    let count = moved.len();
    if count == 0 {
        return Ok(0);
    }
    let mut commit = Commit::new(Teller::new(clock, settings).resealed(count));
    for (key, revision, value) in moved {
        commit = commit.put(key, Expect::Revision(revision), value);
    }
    store.commit(commit).await?;
    Ok(count)
}

/// Kind and generation behind `ca/<kind>/<generation>`.
fn parts(key: &Key) -> Result<(KeyKind, u64), OpenError> {
    let found = key
        .as_str()
        .strip_prefix("ca/")
        .and_then(|rest| rest.split_once('/'))
        .and_then(|(kind, generation)| Some((kind.parse().ok()?, generation.parse().ok()?)));
    found.ok_or_else(|| OpenError::Corrupt(format!("{key} is no key's place")))
}
