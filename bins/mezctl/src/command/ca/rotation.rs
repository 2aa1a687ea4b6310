//! `ca status`, `ca rotate`, `ca adopted`: the keys of the authorities while they are replaced.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, ValueEnum};
use mezite_api::v1::{
    AuthorityKey, GetTrustRequest, Laggard, ListKeysRequest, RotateKeyRequest, StateAdoptionRequest,
};
use mezite_ca::rotation::KINDS;
use mezite_core::{NodeName, UnixTime};
use serde_json::{Value, json};

use crate::fail::{Code, Failure};
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `ca rotate --help` begins with.
pub(super) const ABOUT: &str = "\
Replace keys of the authorities, step by step, while everything runs.

  --begin     a new key is made and told to every hub and node, and to users when they log in (phase init)
  --advance   the new key signs what clients hold (phase update_clients)
  --advance   the new key signs what servers hold, too (phase update_servers)
  --advance   the old key is trusted no more, and its private half is removed: done (phase standby)

Each step forward waits until nobody would be cut off by it: until every hub and node trusts the new key, until they hold \
certificates by it, until what the old key signed for users has run out. `mezctl ca status` says who is waited for and \
what to do about it. --rollback makes the old key sign again, from any phase; --advance then ends it.

Identity, session and user-tls are the User CA's keys; gateway, node and host-tls the Host CA's. Running sessions go on. \
After the rotation of host-tls the pin for `msh login` and `mezd join` is another.";

/// What `ca rotate --help` ends with.
pub(super) const EXAMPLES: &str = "\
Examples:
  mezctl ca rotate --begin --key session
  mezctl ca status
  mezctl ca rotate --advance --key session
  mezctl ca rotate --begin --authority user      # identity, session and user-tls
  mezctl ca rotate --advance --force --all       # a key was stolen: whoever lags behind is cut off";

/// What `ca rotate` takes.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("step").required(true).args(["begin", "advance", "rollback"])),
    group(ArgGroup::new("which").required(true).args(["key", "authority", "all"]))
)]
pub(crate) struct RotateArgs {
    /// Make a new key and tell everybody of it. It signs nothing yet.
    #[arg(long)]
    begin: bool,
    /// Take the next step, if nobody would be cut off by it.
    #[arg(long)]
    advance: bool,
    /// Go back: the old key signs again.
    #[arg(long)]
    rollback: bool,
    /// Advance although somebody is cut off by it. Who was is in the audit log.
    #[arg(long, conflicts_with_all = ["begin", "rollback"])]
    force: bool,
    /// One key.
    #[arg(long, value_name = "KEY", value_parser = PossibleValuesParser::new(KINDS.map(|kind| kind.as_str())))]
    key: Option<String>,
    /// All keys of one authority. Those that are not being rotated stay as they are.
    #[arg(long, value_enum, value_name = "AUTHORITY")]
    authority: Option<Authority>,
    /// All keys of both authorities.
    #[arg(long)]
    all: bool,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The two authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Authority {
    /// Signs what users hold and what hubs show to nodes.
    User,
    /// Signs what hubs and nodes hold.
    Host,
}

impl Authority {
    fn of(kind: &str) -> Self {
        match kind {
            "gateway" | "host-tls" | "node" => Self::Host,
            _ => Self::User,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
        }
    }
}

const STANDBY: &str = "standby";

pub(super) async fn status(format: Format, hub: &mut Hub) -> Result<(), Failure> {
    let trust = within(hub.client.get_trust(GetTrustRequest {})).await?;
    let keys = list(hub).await?;
    let cluster = serde_json::from_str::<Value>(&trust.trust).map_err(Failure::failed)?;
    let cluster = cluster.get("cluster").cloned().unwrap_or_default();
    let documents: Vec<Value> = keys.iter().map(document).collect();
    let value = json!({ "cluster": cluster, "ca_pin": trust.ca_pin, "keys": documents });
    if format == Format::Table {
        out::line(format_args!("pin: {}\n", out::plain(&trust.ca_pin)))?;
    }
    out::show(format, &value, || table(&keys))?;
    if format == Format::Table {
        for key in keys.iter().filter(|key| key.phase != STANDBY) {
            out::line(format_args!("\n{}", waiting(key).join("\n")))?;
        }
    }
    Ok(())
}

async fn list(hub: &mut Hub) -> Result<Vec<AuthorityKey>, Failure> {
    Ok(within(hub.client.list_keys(ListKeysRequest {})).await?.keys)
}

pub(super) async fn rotate(args: &RotateArgs, hub: &mut Hub) -> Result<(), Failure> {
    let step = match (args.begin, args.rollback) {
        (true, _) => "begin",
        (_, true) => "rollback",
        _ => "advance",
    };
    let mut taken = Vec::new();
    let mut failed = Vec::new();
    for kind in wanted(args, hub).await? {
        let request = RotateKeyRequest {
            kind: kind.clone(),
            step: step.to_owned(),
            force: args.force,
        };
        match within(hub.client.rotate_key(request)).await {
            Ok(answer) => taken.extend(answer.key),
            Err(failure) if args.key.is_some() => return Err(failure),
            Err(failure) => failed.push((kind, failure)),
        }
    }
    let documents: Vec<Value> = taken.iter().map(document).collect();
    let refused: Vec<Value> = failed
        .iter()
        .map(|(kind, failure)| json!({ "kind": kind, "error": failure.to_string() }))
        .collect();
    let value = json!({ "keys": documents, "refused": refused });
    out::show(args.output, &value, || table(&taken))?;
    let total = taken.len() + failed.len();
    let count = failed.len();
    for (kind, failure) in &failed {
        out::note(format_args!("{kind}: {failure}"));
    }
    match failed.into_iter().next() {
        None => Ok(()),
        Some((_, first)) => Err(Failure::new(
            first.code,
            format_args!(
                "{count} of {total} keys stay as they are; the others have taken the step"
            ),
        )),
    }
}

/// Which keys are meant. Of a group, those that the step is not for are left out.
async fn wanted(args: &RotateArgs, hub: &mut Hub) -> Result<Vec<String>, Failure> {
    if let Some(key) = &args.key {
        return Ok(vec![key.clone()]);
    }
    let keys = list(hub).await?;
    let meant = keys.into_iter().filter(|key| {
        let of_authority = args
            .authority
            .is_none_or(|authority| authority == Authority::of(&key.kind));
        of_authority && (args.begin || key.phase != STANDBY)
    });
    let kinds: Vec<String> = meant.map(|key| key.kind).collect();
    if kinds.is_empty() {
        return Err(Failure::new(
            Code::Failed,
            "none of these keys is being rotated: begin with --begin",
        ));
    }
    Ok(kinds)
}

pub(super) async fn adopted(name: &NodeName, hub: &mut Hub) -> Result<(), Failure> {
    let request = StateAdoptionRequest {
        node: name.to_string(),
    };
    within(hub.client.state_adoption(request)).await?;
    out::line(format_args!(
        "{name} is taken to trust every session key of now"
    ))
}

fn table(keys: &[AuthorityKey]) -> Table {
    let mut table = Table::new(&[
        "AUTHORITY",
        "KEY",
        "PHASE",
        "SINCE",
        "GENERATION",
        "FINGERPRINT",
        "ADOPTED",
    ]);
    for key in keys {
        let mut head = [
            Authority::of(&key.kind).as_str().to_owned(),
            key.kind.clone(),
            key.phase.clone(),
            time(key.since_ms).unwrap_or_else(|| "-".to_owned()),
        ];
        let mut adopted = match key.phase.as_str() {
            STANDBY => String::new(),
            _ => format!("{} of {}", followed(key), key.parties),
        };
        for generation in &key.generations {
            let [authority, kind, phase, since] = std::mem::take(&mut head);
            table.row(&[
                authority,
                kind,
                phase,
                since,
                format!("{} {}", generation.number, generation.state),
                generation.fingerprint.clone(),
                std::mem::take(&mut adopted),
            ]);
        }
    }
    table
}

/// How many hubs and nodes hold the next step up no more.
fn followed(key: &AuthorityKey) -> u32 {
    let behind = u32::try_from(key.laggards.len()).unwrap_or(u32::MAX);
    key.parties.saturating_sub(behind)
}

fn time(millis: u64) -> Option<String> {
    (millis != 0).then(|| UnixTime::from_millis(millis).to_string())
}

/// What the next step of a key that is being rotated waits for, line by line.
fn waiting(key: &AuthorityKey) -> Vec<String> {
    let AuthorityKey {
        kind,
        laggards,
        until_ms,
        logins_until_ms,
        ..
    } = key;
    let advance = format!("`mezctl ca rotate --advance --key {kind}`");
    let mut lines = Vec::new();
    for Laggard {
        kind,
        name,
        lag,
        hint,
    } in laggards
    {
        lines.push(format!("  {kind} {name} {lag}: {hint}"));
    }
    if let Some(until) = time(*until_ms) {
        lines.push(format!(
            "  certificates that the other generation signed for users are good until {until}"
        ));
    }
    if let Some(until) = time(*logins_until_ms) {
        lines.push(format!(
            "  users who logged in before the rotation know only the old key until {until}, unless they log in again or use \
             msh before"
        ));
    }
    let head = if lines.is_empty() {
        format!("{kind}: nobody is waited for; go on with {advance}")
    } else {
        format!("{kind}: the next step waits (who cannot wait cuts them off with --force):")
    };
    lines.insert(0, head);
    lines.iter().map(|line| out::plain(line)).collect()
}

fn document(key: &AuthorityKey) -> Value {
    let generations: Vec<Value> = key
        .generations
        .iter()
        .map(|one| json!({ "number": one.number, "state": one.state, "fingerprint": one.fingerprint }))
        .collect();
    let laggards: Vec<Value> = key
        .laggards
        .iter()
        .map(|one| json!({ "kind": one.kind, "name": one.name, "lag": one.lag, "hint": one.hint }))
        .collect();
    let (until, logins_until) = (time(key.until_ms), time(key.logins_until_ms));
    let ready = laggards.is_empty() && until.is_none() && logins_until.is_none();
    json!({
        "kind": key.kind, "authority": Authority::of(&key.kind).as_str(), "phase": key.phase,
        "since": time(key.since_ms), "generations": generations, "parties": key.parties, "adopted": followed(key),
        "laggards": laggards, "until": until, "logins_until": logins_until,
        "ready": ready && key.phase != STANDBY,
    })
}

#[cfg(test)]
mod tests {
    use mezite_api::v1::KeyGeneration;

    use super::*;

    fn key() -> AuthorityKey {
        let generation = |number, state: &str| KeyGeneration {
            number,
            state: state.to_owned(),
            fingerprint: format!("SHA256:{number}"),
        };
        AuthorityKey {
            kind: "session".to_owned(),
            phase: "init".to_owned(),
            since_ms: 1_769_846_400_000,
            generations: vec![generation(1, "active"), generation(2, "next")],
            parties: 3,
            laggards: vec![Laggard {
                kind: "node".to_owned(),
                name: "db1".to_owned(),
                lag: "does not trust it yet".to_owned(),
                hint: "start it".to_owned(),
            }],
            until_ms: 0,
            logins_until_ms: 0,
        }
    }

    #[test]
    fn each_generation_has_a_row_and_each_laggard_a_line() {
        let standby = AuthorityKey {
            kind: "node".to_owned(),
            phase: STANDBY.to_owned(),
            generations: vec![KeyGeneration {
                number: 1,
                state: "active".to_owned(),
                fingerprint: "SHA256:9".to_owned(),
            }],
            ..AuthorityKey::default()
        };
        assert_eq!(
            table(&[key(), standby]).to_string(),
            "AUTHORITY  KEY      PHASE    SINCE                     GENERATION  FINGERPRINT  ADOPTED\n\
             user       session  init     2026-01-31T08:00:00.000Z  1 active    SHA256:1     2 of 3\n\
            \x20                                                      2 next      SHA256:2\n\
             host       node     standby  -                         1 active    SHA256:9"
        );
        let lines = waiting(&key());
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "  node db1 does not trust it yet: start it");
        let document = document(&key());
        assert_eq!(
            (&document["ready"], &document["adopted"]),
            (&false.into(), &2.into())
        );
    }

    #[test]
    fn a_key_that_nobody_holds_up_says_so() {
        let mut ready = key();
        ready.laggards.clear();
        let said = waiting(&ready);
        assert!(said[0].contains("--advance --key session"), "{said:?}");
        assert_eq!(document(&ready)["ready"], true);
        ready.logins_until_ms = 1_769_846_400_000;
        assert!(waiting(&ready)[1].contains("until 2026-01-31"), "{ready:?}");
        assert_eq!(document(&ready)["ready"], false);
    }

    #[test]
    fn every_key_has_its_authority() {
        let user: Vec<&str> = KINDS
            .iter()
            .map(|kind| kind.as_str())
            .filter(|kind| Authority::of(kind) == Authority::User)
            .collect();
        assert_eq!(user, ["identity", "session", "user-tls"]);
    }
}
