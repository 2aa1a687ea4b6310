//! A hub's place among the hubs of its cluster. Its name is taken by one process at a time; one that was killed is found
//! missing by the others; the sessions of all of them count together; and a hub that cannot confirm the rules lets nobody in.
//!
//! Each writes `log/hub/<name>` every sixth of `lock_staleness`. Nobody compares clocks: whoever looks measures by its own
//! how long that key was not written. After once `lock_staleness` the name can be taken, after twice the hub counts as lost: it
//! has ended its sessions by then, so nothing is cut off when agents stop to look for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use data_encoding::HEXLOWER;
use mezite_ca::verify::VerifiedIdentity;
use mezite_core::store::{Commit, Expect, Key, Revision, StoreError, Watch};
use mezite_core::{Event, SessionId, UserName};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as Turn, Notify, watch};
use tokio::time::{Instant, sleep};

use crate::auth::{Auth, Inner};
use crate::error::{Error, OpenError};
use crate::live::all;
use crate::random;
use crate::record::{self, prefix};
use crate::session::{No, Permit, Wish};

/// The name of a hub's own key, below `log/`: written without an event, as it tells of nothing but that a process lives.
const PLACES: &str = "hub/";

/// Below it lies a key for each user whose sessions are counted: hubs that grant at the same moment meet there.
const TURNS: &str = "sessions/";

/// How often a decision is made again because another hub granted at the same moment.
const ATTEMPTS: usize = 20;

/// Beats within one `lock_staleness`.
const BEATS: u32 = 6;

/// `hub/<name>`: a hub that runs. One that was killed stays until the others count it as lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hub {
    /// `host:port` for agents.
    tunnel: String,
}

/// `log/hub/<name>`: who has the name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Of which data directory: its lock lets one process in, so the next from there need not wait.
    installation: String,
    /// Drawn at each start.
    process: String,
    /// The sessions that each user has there.
    sessions: BTreeMap<UserName, Vec<SessionId>>,
}

/// What a hub knows of its place.
#[derive(Debug)]
pub(crate) struct Standpoint {
    process: String,
    /// The revision at which this process last wrote its key. Held while it is written.
    held: Turn<Option<Revision>>,
    /// Sessions at other hubs.
    elsewhere: Mutex<BTreeMap<UserName, usize>>,
    /// Since when no sign of each other hub was seen, as of the last look.
    silent: Mutex<BTreeMap<String, Instant>>,
    alone: AtomicBool,
    confirmed: Mutex<Instant>,
    due: Notify,
    displaced: watch::Sender<bool>,
}

impl Default for Standpoint {
    fn default() -> Self {
        Self {
            process: HEXLOWER.encode(&random::bytes::<16>()),
            held: Turn::default(),
            elsewhere: Mutex::default(),
            silent: Mutex::default(),
            alone: AtomicBool::new(true),
            confirmed: Mutex::new(Instant::now()),
            due: Notify::new(),
            displaced: watch::Sender::new(false),
        }
    }
}

impl Standpoint {
    /// The sessions here are others: worth a word if anybody counts them.
    pub(crate) fn sessions_changed(&self) {
        if !self.alone.load(Ordering::Relaxed) {
            self.due.notify_one();
        }
    }

    fn since_confirmed(&self) -> Duration {
        let confirmed = self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        confirmed.elapsed()
    }

    fn confirm(&self, at: Instant) {
        *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// Whether a key tells of a hub that runs: where it is, that it lives, what it has adopted, who watches sessions through it.
pub(crate) fn is_of_running_hubs(key: &Key) -> bool {
    let key = key.as_str();
    let places = key
        .strip_prefix("log/")
        .is_some_and(|name| name.starts_with(PLACES));
    let prefixes = [prefix::HUB, prefix::ADOPTED_HUB, prefix::WATCHED];
    places || prefixes.iter().any(|prefix| key.starts_with(prefix))
}

/// A hub of the cluster, as another sees it.
pub(crate) struct HubStanding {
    pub(crate) name: String,
    /// `host:port` for agents; empty when it is not entered any more.
    pub(crate) tunnel: String,
    /// How many sessions run there, as of its last sign of life.
    pub(crate) sessions: usize,
    /// For how long it gave no sign of life; `None` of the hub that answers.
    pub(crate) silent: Option<Duration>,
}

/// The other hubs: at which revision each one's key is, and since when.
#[derive(Debug, Default)]
struct Others {
    looked: Option<Instant>,
    seen: BTreeMap<String, (Revision, Instant)>,
}

impl Auth {
    /// Takes the hub's name, reports `hub.started`, and from then on counts among those that must adopt a new key.
    ///
    /// # Errors
    /// [`OpenError::HubRuns`] when another process has the name and lives.
    pub(crate) async fn take_place(&self) -> Result<(), OpenError> {
        let (key, name) = (self.place_key()?, &self.settings().hub);
        let mut waiting: Option<(Revision, Instant)> = None;
        loop {
            let stored = self.store().get(&key).await?;
            let mut expect = Expect::Absent;
            if let Some(stored) = stored {
                let place: Place = record::read(&key, &stored)?;
                expect = Expect::Revision(stored.revision);
                let is_ours = place.installation == self.settings().installation;
                match waiting {
                    _ if is_ours => {}
                    None => {
                        tracing::warn!(hub = %name, "a hub of this name ran elsewhere: waiting to see whether it still does");
                        waiting = Some((stored.revision, Instant::now()));
                        sleep(self.beat()).await;
                        continue;
                    }
                    Some((before, _)) if before != stored.revision => {
                        return Err(OpenError::HubRuns(name.clone()));
                    }
                    Some((_, since)) if since.elapsed() < self.staleness() => {
                        sleep(self.beat()).await;
                        continue;
                    }
                    Some(_) => {}
                }
            }
            match self.enter(self.tell().hub_started(), expect).await {
                Ok(()) => return Ok(()),
                Err(Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes everything that makes this process a hub of the cluster.
    async fn enter(&self, event: Event, expect: Expect) -> Result<(), Error> {
        let began = Instant::now();
        let mut held = self.standpoint().held.lock().await;
        let settings = self.settings();
        let hub = Hub {
            tunnel: settings.tunnel_address.clone(),
        };
        let entered = self.adopts(Commit::new(event))?;
        // Of a process of this name that was killed.
        let entered = self.without_watchers(entered, &settings.hub).await?;
        let entered = entered
            .put(
                record::key(prefix::HUB, &settings.hub)?,
                Expect::Any,
                record::write(&hub)?,
            )
            .put(self.place_key()?, expect, self.place(None)?);
        *held = Some(self.commit(entered).await?.revision);
        self.standpoint().confirm(began);
        Ok(())
    }

    /// Adds to the commit that tells of the stop that this hub is none any more; nothing if another process has its name.
    pub(crate) async fn leave(&self, stopped: Commit) -> Result<Commit, Error> {
        let name = &self.settings().hub;
        let mut held = self.standpoint().held.lock().await;
        Ok(match held.take() {
            None => stopped,
            Some(_) => stopped
                .remove(record::key(prefix::HUB, name)?, Expect::Any)
                // A hub that does not run is cut off by nothing: it reads all keys when it starts.
                .remove(record::key(prefix::ADOPTED_HUB, name)?, Expect::Any)
                .remove(self.place_key()?, Expect::Any),
        })
    }

    /// Where agents reach the hubs: `host:port` of each one's tunnel port.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn tunnels(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for (key, stored) in all(self.store(), prefix::HUB).await? {
            found.push(record::read::<Hub>(&key, &stored)?.tunnel);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The hubs that run, and those that were killed and are not yet counted as lost, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn hubs(&self) -> Result<Vec<HubStanding>, Error> {
        let mut tunnels = BTreeMap::new();
        for (key, stored) in all(self.store(), prefix::HUB).await? {
            let name = key.as_str().strip_prefix(prefix::HUB).unwrap_or_default();
            tunnels.insert(name.to_owned(), record::read::<Hub>(&key, &stored)?.tunnel);
        }
        let places = self.places().await?;
        let silent = &self.standpoint().silent;
        let silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = |(name, (_, place)): (String, (Revision, Place))| HubStanding {
            tunnel: tunnels.remove(&name).unwrap_or_default(),
            sessions: place.sessions.values().map(Vec::len).sum(),
            silent: (name != self.settings().hub).then(|| {
                // Not looked at yet: it came a moment ago.
                silent.get(&name).map(Instant::elapsed).unwrap_or_default()
            }),
            name,
        };
        Ok(places.into_iter().map(standing).collect())
    }

    /// The sessions at other hubs, as of the last sign of life of each: hub, user, session.
    pub(crate) async fn running_elsewhere(
        &self,
    ) -> Result<Vec<(String, UserName, SessionId)>, Error> {
        let mut places = self.places().await?;
        places.remove(&self.settings().hub);
        let mut found = Vec::new();
        for (hub, (_, place)) in places {
            for (user, sessions) in place.sessions {
                let told = |session_id| (hub.clone(), user.clone(), session_id);
                found.extend(sessions.into_iter().map(told));
            }
        }
        Ok(found)
    }

    /// Tells when [`Auth::tunnels`] may be others.
    #[must_use]
    pub fn tunnel_changes(&self) -> Watch {
        self.store().watch(prefix::HUB)
    }

    /// Waits until another process has this hub's name: two would overwrite each other, so this one must end.
    pub async fn displaced(&self) {
        let mut displaced = self.standpoint().displaced.subscribe();
        // The sender lives as long as the service.
        let _ = displaced.wait_for(|displaced| *displaced).await;
    }

    /// Whether this hub cannot say that its rules and locks are those of the cluster: for `lock_staleness` the store has not
    /// answered both a write and a read. It lets nobody in then.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.standpoint().since_confirmed() > self.staleness()
    }

    /// Sessions of a user at other hubs, as of the last look.
    pub(crate) fn sessions_elsewhere(&self, user: &UserName) -> usize {
        let elsewhere = &self.standpoint().elsewhere;
        let elsewhere = elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.get(user).copied().unwrap_or_default()
    }

    /// Decides about a session whose user may have so many and no more, and grants it, while no other hub does.
    pub(crate) async fn grant_counted(
        &self,
        identity: &VerifiedIdentity,
        wish: &Wish<'_>,
    ) -> Result<Result<Permit, No>, Error> {
        let mut held = self.standpoint().held.lock().await;
        let turn = format!("{TURNS}{}", wish.user);
        for _ in 0..ATTEMPTS {
            let Some(revision) = *held else {
                return Err(Error::HubRuns(self.settings().hub.clone()));
            };
            let stored = self.store().get(&record::key("log/", &turn)?).await?;
            let expect = stored.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
            self.count_elsewhere(&self.places().await?);
            let snapshot = self.snapshot();
            let permit = match self.decide(&snapshot, identity, wish, None) {
                Ok(permit) => permit,
                Err(no) => return Ok(Err(no)),
            };
            let granted = Commit::new(self.granted(&snapshot, &permit, identity, wish))
                .put(
                    self.place_key()?,
                    Expect::Revision(revision),
                    self.place(Some(wish))?,
                )
                .and_log_keeping(&turn, expect, Vec::new())
                .map_err(|error| Error::Document(error.to_string()))?;
            match self.commit(granted).await {
                Ok(committed) => {
                    *held = Some(committed.revision);
                    self.count_in(&permit);
                    return Ok(Ok(permit));
                }
                Err(StoreError::Conflict(key)) if key != self.place_key()? => {}
                // The next beat finds out who wrote it.
                Err(error) => {
                    self.standpoint().due.notify_one();
                    return Err(error.into());
                }
            }
        }
        Err(Error::Conflict)
    }

    fn place_key(&self) -> Result<Key, Error> {
        record::key("log/", &format!("{PLACES}{}", self.settings().hub))
    }

    fn place(&self, one_more: Option<&Wish<'_>>) -> Result<Vec<u8>, Error> {
        let mut sessions: BTreeMap<UserName, Vec<SessionId>> = BTreeMap::new();
        for (user, session_id) in self
            .running()
            .values()
            .map(|running| (&running.user, running.session_id))
            .chain(one_more.map(|wish| (wish.user, wish.session_id)))
        {
            sessions.entry(user.clone()).or_default().push(session_id);
        }
        record::write(&Place {
            installation: self.settings().installation.clone(),
            process: self.standpoint().process.clone(),
            sessions,
        })
    }

    fn staleness(&self) -> Duration {
        self.settings().lock_staleness.as_duration()
    }

    pub(crate) fn beat(&self) -> Duration {
        self.staleness() / BEATS
    }

    /// Writes the hub's key. Where it is not as this process left it, either the others gave it up for lost, and it is
    /// back; or another process has the name.
    async fn keep_place(&self) -> Result<(), Error> {
        let key = self.place_key()?;
        let is_lost = {
            let mut held = self.standpoint().held.lock().await;
            let Some(revision) = *held else { return Ok(()) };
            let name = format!("{PLACES}{}", self.settings().hub);
            let commit =
                Commit::for_log_keeping(&name, Expect::Revision(revision), self.place(None)?)
                    .map_err(|error| Error::Document(error.to_string()))?;
            match self.commit(commit).await {
                Ok(committed) => {
                    *held = Some(committed.revision);
                    return Ok(());
                }
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
            match self.store().get(&key).await? {
                None => true,
                Some(stored) => {
                    let place: Place = record::read(&key, &stored)?;
                    if place.process == self.standpoint().process {
                        // An answer was lost.
                        *held = Some(stored.revision);
                    } else {
                        *held = None;
                        self.standpoint().displaced.send_replace(true);
                    }
                    false
                }
            }
        };
        if is_lost {
            tracing::warn!("the other hubs counted this one as lost: it is back");
            self.enter(self.tell().hub_returned(), Expect::Absent)
                .await?;
        }
        Ok(())
    }

    /// Writes the hub's key, reads the rules, looks at the others.
    async fn confirm_place(&self, others: &mut Others) -> Result<(), Error> {
        let began = Instant::now();
        self.keep_place().await?;
        self.confirm_rules().await?;
        self.standpoint().confirm(began);
        self.look_at(others).await
    }

    async fn look_at(&self, others: &mut Others) -> Result<(), Error> {
        let now = Instant::now();
        // What nobody looked at may have been written all the time; nor could others write while the database was away.
        if others
            .looked
            .is_some_and(|looked| now - looked > self.staleness() / 2)
        {
            others.seen.clear();
        }
        others.looked = Some(now);
        let places = self.places().await?;
        self.count_elsewhere(&places);
        let mut present: BTreeMap<String, (Revision, bool)> = BTreeMap::new();
        for (key, stored) in all(self.store(), prefix::HUB).await? {
            let name = key.as_str().strip_prefix(prefix::HUB).unwrap_or_default();
            present.insert(name.to_owned(), (stored.revision, false));
        }
        for (name, (revision, _)) in places {
            present.insert(name, (revision, true));
        }
        present.remove(&self.settings().hub);
        self.standpoint()
            .alone
            .store(present.is_empty(), Ordering::Relaxed);
        others.seen.retain(|name, _| present.contains_key(name));
        for (name, (revision, has_place)) in present {
            let seen = others.seen.entry(name.clone()).or_insert((revision, now));
            if seen.0 != revision {
                *seen = (revision, now);
            }
            if now - seen.1 > self.staleness() * 2 {
                self.count_as_lost(&name, revision, has_place).await?;
            }
        }
        let since = others.seen.iter();
        let since = since.map(|(name, (_, since))| (name.clone(), *since));
        let silent = &self.standpoint().silent;
        *silent.lock().unwrap_or_else(PoisonError::into_inner) = since.collect();
        Ok(())
    }

    async fn count_as_lost(
        &self,
        name: &str,
        seen: Revision,
        has_place: bool,
    ) -> Result<(), Error> {
        let entry = record::key(prefix::HUB, name)?;
        let place = record::key("log/", &format!("{PLACES}{name}"))?;
        let lost = Commit::new(self.tell().hub_lost(name))
            .remove(record::key(prefix::ADOPTED_HUB, name)?, Expect::Any);
        let lost = self.without_watchers(lost, name).await?;
        let lost = if has_place {
            lost.remove(place, Expect::Revision(seen))
                .remove(entry, Expect::Any)
        } else {
            lost.remove(place, Expect::Absent)
                .remove(entry, Expect::Revision(seen))
        };
        match self.commit(lost).await {
            Ok(_) => tracing::warn!(
                hub = name,
                "a hub was killed or lost its database: it counts no more"
            ),
            // It is back, or another hub was faster.
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The keys of all hubs, with what they hold.
    async fn places(&self) -> Result<BTreeMap<String, (Revision, Place)>, Error> {
        let below = format!("log/{PLACES}");
        let found = all(self.store(), &below).await?;
        let read = |(key, stored): &(Key, mezite_core::store::Versioned)| {
            let name = key.as_str().strip_prefix(&below).unwrap_or_default();
            Ok((
                name.to_owned(),
                (stored.revision, record::read(key, stored)?),
            ))
        };
        found.iter().map(read).collect()
    }

    fn count_elsewhere(&self, places: &BTreeMap<String, (Revision, Place)>) {
        let mut counted: BTreeMap<UserName, usize> = BTreeMap::new();
        for (name, (_, place)) in places {
            if *name == self.settings().hub {
                continue;
            }
            for (user, sessions) in &place.sessions {
                let sum = counted.entry(user.clone()).or_default();
                *sum = sum.saturating_add(sessions.len());
            }
        }
        let elsewhere = &self.standpoint().elsewhere;
        *elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }
}

/// Keeps a hub's place for as long as the service lives.
pub(crate) async fn keep(auth: Weak<Inner>, standpoint: Arc<Standpoint>, beat: Duration) {
    let mut others = Others::default();
    let mut whole = Instant::now();
    loop {
        tokio::select! {
            () = standpoint.due.notified() => {}
            () = sleep(beat.saturating_sub(whole.elapsed())) => {}
        }
        let Some(auth) = auth.upgrade().map(Auth::from_inner) else {
            return;
        };
        let kept = if whole.elapsed() >= beat {
            whole = Instant::now();
            auth.confirm_place(&mut others).await
        } else {
            auth.keep_place().await
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "this hub could not confirm its place and the rules; trying on");
        }
    }
}

/// Has every session decided again when the hub becomes stale, for as long as the service lives.
pub(crate) async fn watch_over(auth: Weak<Inner>, beat: Duration) {
    let mut was_stale = false;
    loop {
        sleep(beat.min(Duration::from_secs(1))).await;
        let Some(auth) = auth.upgrade().map(Auth::from_inner) else {
            return;
        };
        let is_stale = auth.is_stale();
        if is_stale && !was_stale {
            tracing::error!(
                "the rules could not be confirmed for too long: running sessions end, and none begins"
            );
            auth.decide_again();
        }
        was_stale = is_stale;
    }
}
