//! The service itself: what it is made of, how it starts, and the two doors through which it writes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mezite_audit::catalogue::Stamp;
use mezite_ca::seal::Sealer;
use mezite_ca::verify::VerifiedIdentity;
use mezite_ca::{Signer, SoftwareKey, TrustBundle};
use mezite_core::store::{Commit, Committed, Expect, LogQuery, Store, StoreError};
use mezite_core::{
    Clock, ClusterName, Event, EventId, NodeId, Secret, SessionId, UnixTime, UserName,
};
use mezite_rbac::{PolicySet, Subject, builtin_roles};

use crate::actor::Actor;
use crate::bursts::Bursts;
use crate::error::{Error, OpenError};
use crate::hubs::{self, Standpoint};
use crate::keys::{FixedKeys, KeyStore, Keys, TrustChanges};
use crate::live::{Changes, Live, Snapshot, Stopped};
use crate::password::Passwords;
use crate::record::{self, prefix};
use crate::session::Running;
use crate::settings::Settings;
use crate::sinks::ExportStanding;
use crate::tell::Teller;

/// How long a failed note waits to be tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The auth service. Cheap to clone; all clones are one service.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

pub(crate) struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    keys: Arc<Live<Keys>>,
    fixed: FixedKeys,
    passwords: Passwords,
    live: Arc<Live<Snapshot>>,
    /// What the administrator on the hub's own host may do: the built-in roles, whatever was made of them in the store.
    local: PolicySet,
    online: Mutex<BTreeMap<NodeId, usize>>,
    running: Mutex<BTreeMap<SessionId, Running>>,
    sinks: Mutex<BTreeMap<String, ExportStanding>>,
    bursts: Bursts,
    standpoint: Arc<Standpoint>,
    full: AtomicBool,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// Starts the service on a store: opens the cluster's keys, or makes them on the first start; writes the built-in
    /// roles if they are missing; reports `hub.started`.
    ///
    /// Call it inside a tokio runtime. The caller spawns [`Auth::run_keeper`], and stops when [`Auth::displaced`] says so.
    ///
    /// # Errors
    /// [`OpenError`], each a sentence that says what to do.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        sealer: Arc<dyn Sealer>,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let source = KeyStore {
            store: Arc::clone(&store),
            sealer,
            cluster: settings.cluster.clone(),
        };
        source
            .make_missing(clock.now(), Teller::new(&*clock, &settings))
            .await?;
        let fixed = source.fixed().await?;
        let keys = Live::<Keys>::start(&*store, source).await?;
        write_builtin_roles(&*store, &*clock, &settings).await?;
        let passwords = Passwords::new().map_err(|error| OpenError::Corrupt(error.to_string()))?;
        let local = PolicySet::compile(builtin_roles())
            .map_err(|error| OpenError::Corrupt(error.to_string()))?;
        let live = Live::<Snapshot>::start(&*store, Arc::clone(&store)).await?;
        let auth = Self(Arc::new(Inner {
            store,
            clock,
            settings,
            keys,
            fixed,
            passwords,
            live,
            local,
            online: Mutex::default(),
            running: Mutex::default(),
            sinks: Mutex::default(),
            bursts: Bursts::default(),
            standpoint: Arc::default(),
            full: AtomicBool::new(false),
        }));
        auth.take_place().await?;
        let beat = auth.beat();
        let standpoint = Arc::clone(&auth.0.standpoint);
        tokio::spawn(hubs::keep(Arc::downgrade(&auth.0), standpoint, beat));
        tokio::spawn(hubs::watch_over(Arc::downgrade(&auth.0), beat));
        tokio::spawn(keep_place(Arc::downgrade(&auth.0), auth.trust_changes()));
        Ok(auth)
    }

    /// Reports `hub.stopped`. The last thing before the process ends.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn stop(&self, reason: &str) -> Result<(), Error> {
        self.report_bursts(None).await;
        let sessions = self.running().len();
        let stopped = Commit::new(self.tell().hub_stopped(reason, sessions));
        self.commit(self.leave(stopped).await?).await?;
        Ok(())
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.0.settings.cluster
    }

    /// What the composition root decided.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The public keys of all authorities that are trusted at this moment, in every generation.
    #[must_use]
    pub fn trust(&self) -> Arc<TrustBundle> {
        Arc::clone(self.keys().trust())
    }

    /// Tells when [`Auth::trust`] is another, or another key signs.
    #[must_use]
    pub fn trust_changes(&self) -> TrustChanges {
        TrustChanges(self.0.keys.subscribe())
    }

    /// What a newcomer is told out of band about the hub: `sha256:<hex>` of the host TLS authority's key.
    #[must_use]
    pub fn ca_pin(&self) -> String {
        self.keys().host_tls.pin()
    }

    /// The key that signs checkpoints and recordings at this moment.
    #[must_use]
    pub fn audit_signer(&self) -> Arc<dyn Signer> {
        Arc::<SoftwareKey>::clone(&self.keys().audit.key)
    }

    /// The 32 bytes from which the composition root makes the hub's own recording identity.
    #[must_use]
    pub fn recording_secret(&self) -> &Secret<[u8; 32]> {
        &self.0.fixed.recording
    }

    /// What decisions are made from at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.live.current()
    }

    /// Tells when running sessions must be decided again. A change reaches it within a second.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.0.live.subscribe())
    }

    /// Who a verified identity is now: with the roles and traits of this moment, unless a lock stops it.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Revoked`], [`Error::Gone`], [`Error::Locked`].
    pub fn subject(&self, identity: &VerifiedIdentity) -> Result<Subject, Error> {
        if self.now() >= identity.valid_before() {
            return Err(Error::Expired(identity.valid_before()));
        }
        if self.is_revoked(&identity.revocable()) {
            return Err(Error::Revoked(identity.serial()));
        }
        self.user(identity.user())
    }

    /// The user of this name as of now, unless a lock stops it.
    pub(crate) fn user(&self, name: &UserName) -> Result<Subject, Error> {
        let snapshot = self.snapshot();
        let subject = snapshot.subject(name).ok_or(Error::Gone)?;
        let stopped = Stopped {
            subject: Some(subject),
            ..Stopped::default()
        };
        match snapshot.lock_on(&stopped, self.now()) {
            Some(locked) => Err(locked),
            None => Ok(subject.clone()),
        }
    }

    /// An event of this moment. It is nothing until it is recorded.
    #[must_use]
    pub fn event(&self, make: impl FnOnce(&Stamp<'_>) -> Event) -> Event {
        self.tell().event(make)
    }

    /// Makes one event durable. `make` gets what every event is stamped with.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the event may be lost, so what it tells of must not happen.
    pub async fn report(&self, make: impl FnOnce(&Stamp<'_>) -> Event) -> Result<EventId, Error> {
        let event = self.tell().event(make);
        let id = event.id;
        self.commit(Commit::new(event)).await?;
        Ok(id)
    }

    /// The number of the last event.
    pub(crate) async fn last_sequence(&self) -> Result<u64, Error> {
        let newest = LogQuery {
            limit: 1,
            order: mezite_core::store::Order::NewestFirst,
            ..LogQuery::default()
        };
        let found = self.store().log(&newest).await?;
        Ok(found.first().map_or(0, |event| event.sequence))
    }

    /// The only place that writes. What was written is what the next decision sees.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let (decisions, keys) = (
            Live::<Snapshot>::shows(&commit),
            Live::<Keys>::shows(&commit),
        );
        let committed = self.0.store.commit(commit).await?;
        self.0.live.follow_commit(decisions).await;
        self.0.keys.follow_commit(keys).await;
        Ok(committed)
    }

    pub(crate) fn tell(&self) -> Teller<'_> {
        Teller::new(&*self.0.clock, &self.0.settings)
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.0.clock.now()
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// The keys as they are at this moment. Whoever needs two of them takes this once.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        self.0.keys.current()
    }

    /// The same after they were read anew.
    pub(crate) async fn newest_keys(&self) -> Result<Arc<Keys>, OpenError> {
        self.0.keys.refresh().await?;
        Ok(self.keys())
    }

    pub(crate) fn key_store(&self) -> &KeyStore {
        self.0.keys.source()
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(crate) fn local_policy(&self) -> &PolicySet {
        &self.0.local
    }

    pub(crate) fn online(&self) -> MutexGuard<'_, BTreeMap<NodeId, usize>> {
        self.0.online.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn running(&self) -> MutexGuard<'_, BTreeMap<SessionId, Running>> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn standings(&self) -> MutexGuard<'_, BTreeMap<String, ExportStanding>> {
        self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bursts(&self) -> &Bursts {
        &self.0.bursts
    }

    pub(crate) fn standpoint(&self) -> &Standpoint {
        &self.0.standpoint
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// Reads roles, users, nodes and locks to be sure of them; whoever follows them hears of it if they are others.
    pub(crate) async fn confirm_rules(&self) -> Result<(), Error> {
        self.0.live.confirm().await
    }

    /// Has everything that was decided decided again, by the picture that is there.
    pub(crate) fn decide_again(&self) {
        self.0.live.wake();
    }

    pub(crate) fn full(&self) -> &AtomicBool {
        &self.0.full
    }

    /// Has everything that was decided decided again.
    pub(crate) async fn look_again(&self) -> Result<(), Error> {
        self.0.live.refresh().await
    }

    /// Names of this hub that are DNS names, and those that are addresses.
    pub(crate) fn names(&self) -> (Vec<String>, Vec<IpAddr>) {
        let names = &self.0.settings.gateway_names;
        let (ips, dns): (Vec<_>, Vec<_>) = names
            .iter()
            .cloned()
            .partition(|name| name.parse::<IpAddr>().is_ok());
        (dns, ips.iter().filter_map(|ip| ip.parse().ok()).collect())
    }
}

/// Notes what this hub has adopted whenever that changes, for as long as the service lives.
async fn keep_place(auth: Weak<Inner>, mut changes: TrustChanges) {
    while changes.changed().await {
        loop {
            let Some(auth) = auth.upgrade() else { return };
            match Auth(auth).hub_adopts().await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(%error, "this hub's trust in new keys could not be recorded; trying on");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn write_builtin_roles(
    store: &dyn Store,
    clock: &dyn Clock,
    settings: &Settings,
) -> Result<(), OpenError> {
    let tell = Teller::new(clock, settings);
    let hub = Actor::hub(&settings.hub);
    for role in builtin_roles() {
        let key = record::key(prefix::ROLE, role.name().as_str())?;
        if store.get(&key).await?.is_some() {
            continue;
        }
        let commit = Commit::new(tell.role_created(&hub, &role)).put(
            key,
            Expect::Absent,
            record::write(&role)?,
        );
        match store.commit(commit).await {
            // Another hub was faster.
            Ok(_) | Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
