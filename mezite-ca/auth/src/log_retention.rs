//! Removes events that are old enough. What was removed is named by an event, and the hashes stay in the tree: the log
//! verifies as before, and a deletion that nobody announced is found.

use std::collections::BTreeMap;
use std::time::Duration;

use mezite_audit::catalogue::{self, AuditKeyRotated, AuditPruned, BackupRestored};
use mezite_audit::sequences::Sequences;
use mezite_core::store::{Commit, LogQuery, StoredEvent};
use mezite_core::{Span, UnixTime};
use mezite_rbac::{Resource, Verb};

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;
use crate::texts;

/// How long events are kept. Without any rule: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root fills it")]
pub struct LogRetention {
    /// For types that no other rule names; `None`: for ever.
    pub default: Option<Span>,
    /// By type, or by a prefix of types that ends with a dot; the longest that fits counts. `None`: for ever.
    pub types: BTreeMap<String, Option<Span>>,
}

impl LogRetention {
    /// Whether there is any rule.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.default.is_none() && self.types.values().all(Option::is_none)
    }

    /// The names of rules that no event type of the catalogue has or begins with.
    pub fn unknown_types(&self) -> impl Iterator<Item = &str> {
        let known = |name: &str| {
            catalogue::all()
                .iter()
                .any(|entry| fits(name, entry.event_type))
        };
        self.types
            .keys()
            .map(String::as_str)
            .filter(move |name| !known(name))
    }

    /// How long events of this type are kept. What tells of removed events, of lost ones, or of the keys that signed, stays.
    #[must_use]
    pub fn age(&self, event_type: &str) -> Option<Span> {
        let stays = [
            AuditKeyRotated::TYPE,
            AuditPruned::TYPE,
            BackupRestored::TYPE,
        ];
        if stays.contains(&event_type) {
            return None;
        }
        let rules = self.types.iter().filter(|(name, _)| fits(name, event_type));
        match rules.max_by_key(|(name, _)| name.len()) {
            Some((_, age)) => *age,
            None => self.default,
        }
    }
}

fn fits(name: &str, event_type: &str) -> bool {
    if name.ends_with('.') {
        event_type.starts_with(name)
    } else {
        event_type == name
    }
}

/// What a sweep removed of one type, or would remove.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedEvents {
    /// The type.
    pub event_type: &'static str,
    /// How old they may become.
    pub age: Span,
    /// How many.
    pub count: u64,
}

/// Most bytes of the ranges that one event names.
const RANGES_BYTES: usize = 15 * 1024;

/// Most events that are looked at in one step, and removed by one commit.
const STEP: usize = 1000;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// After the start, so that it does not run at each of many restarts.
const SETTLED: Duration = Duration::from_secs(10 * 60);

impl Auth {
    /// Removes what is old enough, or only counts it. Nothing that is not sealed yet goes, and nothing that a receiver
    /// has not got.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::NoRetention`], [`Error::Unavailable`].
    pub async fn prune_log(
        &self,
        actor: &Actor,
        dry_run: bool,
    ) -> Result<Vec<PrunedEvents>, Error> {
        let verb = if dry_run { Verb::Read } else { Verb::Delete };
        self.guard(actor, Resource::Audit, verb, None).await?;
        if self.settings().log_retention.is_none() {
            return Err(Error::NoRetention);
        }
        self.sweep_log(actor.name(), dry_run).await
    }

    /// Removes what is old enough, once a day, until the future is dropped.
    pub async fn run_log_retention(&self) {
        if self.settings().log_retention.is_none() {
            return;
        }
        tokio::time::sleep(SETTLED).await;
        let name = format!("hub:{}", self.settings().hub);
        loop {
            match self.sweep_log(&name, false).await {
                Ok(pruned) => {
                    let events: u64 = pruned.iter().map(|pruned| pruned.count).sum();
                    tracing::info!(events, "events that were old enough were removed");
                }
                Err(error) => {
                    tracing::error!(%error, "old events could not be removed; trying again tomorrow")
                }
            }
            tokio::time::sleep(DAY).await;
        }
    }

    async fn sweep_log(&self, who: &str, dry_run: bool) -> Result<Vec<PrunedEvents>, Error> {
        let sealed = self.sealed_events().await?;
        let end = self
            .delivered_to_all()
            .await?
            .unwrap_or(u64::MAX)
            .min(sealed);
        let now = self.now();
        let mut all = Vec::new();
        for entry in catalogue::all() {
            let Some(age) = self.settings().log_retention.age(entry.event_type) else {
                continue;
            };
            let before = Horizon {
                time: now.minus(age),
                sequence: end.saturating_add(1),
            };
            let rule = format!("{} after {age}", entry.event_type);
            let count = self
                .sweep_type(
                    entry.event_type,
                    &before,
                    (!dry_run).then_some((who, &rule)),
                )
                .await?;
            if count > 0 {
                let event_type = entry.event_type;
                all.push(PrunedEvents {
                    event_type,
                    age,
                    count,
                });
            }
        }
        Ok(all)
    }

    /// Counts the events of a type that are behind the horizon, and removes them when told who says so and why.
    async fn sweep_type(
        &self,
        event_type: &str,
        before: &Horizon,
        remove: Option<(&str, &str)>,
    ) -> Result<u64, Error> {
        let (mut after, mut count) = (0, 0);
        loop {
            let query = LogQuery {
                event_type: Some(event_type.to_owned()),
                until: Some(before.time),
                before: Some(before.sequence),
                ..LogQuery::after(after, STEP)
            };
            let page = self.store().log(&query).await?;
            let Some(last) = page.last() else {
                return Ok(count);
            };
            after = last.sequence;
            count += u64::try_from(page.len()).unwrap_or(0);
            let Some((who, rule)) = remove else { continue };
            let found = page.iter().map(|event| event.sequence);
            for part in parts(&found.collect()) {
                let event = self.tell().event(|stamp| {
                    AuditPruned {
                        user_name: who,
                        rule,
                        count: part.count(),
                        ranges: &part.to_string(),
                    }
                    .event(stamp)
                });
                let gone: Vec<StoredEvent> = page
                    .iter()
                    .filter(|event| part.iter().any(|range| range.contains(&event.sequence)))
                    .cloned()
                    .collect();
                let commit = Commit::new(event).and_prune(part.iter());
                self.commit(texts::removed(commit, &gone)?).await?;
            }
        }
    }
}

/// Only what is older in both ways goes.
struct Horizon {
    time: UnixTime,
    sequence: u64,
}

/// Cut so that the ranges of each part fit into an event.
fn parts(all: &Sequences) -> Vec<Sequences> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Sequences::new(), 0);
    for range in all.iter() {
        // Two numbers of at most 20 digits, a hyphen and a comma.
        bytes += 42;
        if bytes > RANGES_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 42;
        }
        part.insert(range);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_that_fits_counts() {
        let days = |days: u64| Some(Span::from_secs(days * 86_400));
        let retention = LogRetention {
            default: days(400),
            types: [
                ("session.".to_owned(), days(100)),
                ("session.exec".to_owned(), days(10)),
                ("lock.".to_owned(), None),
            ]
            .into(),
        };
        for (event_type, age) in [
            ("user.login", days(400)),
            ("session.start", days(100)),
            ("session.exec", days(10)),
            ("lock.created", None),
            ("audit.pruned", None),
            ("audit.key.rotated", None),
            ("backup.restored", None),
        ] {
            assert_eq!(retention.age(event_type), age, "{event_type}");
        }
        assert_eq!(retention.unknown_types().count(), 0);
        assert!(!retention.is_none() && LogRetention::default().is_none());
    }

    #[test]
    fn ranges_that_are_too_many_for_one_event_become_several() {
        let scattered: Sequences = (0..1000).map(|n| u64::MAX - 2 * n).collect();
        let parts = parts(&scattered);
        assert!(parts.len() > 1);
        let mut joined = Sequences::new();
        for part in &parts {
            assert!(part.to_string().len() <= RANGES_BYTES);
            joined.merge(part);
        }
        assert_eq!(joined, scattered);
    }
}
