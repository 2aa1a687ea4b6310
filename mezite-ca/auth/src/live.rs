//! Immutable pictures of parts of the store, each replaced when the store says that something changed: [`Snapshot`],
//! from which decisions are made, and the cluster's keys.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use mezite_api::document::LockTarget;
use mezite_core::store::{Commit, Key, Store, Versioned, Watch};
use mezite_core::{Login, NodeId, NodeName, RoleName, SessionId, UnixTime, UserName};
use mezite_rbac::{PolicySet, Role, Subject, Traits};
use ssh_key::PublicKey;
use tokio::sync::{Mutex, watch};

use crate::error::Error;
use crate::record::{self, BreakGlassKey, Lock, Node, User, prefix};
use crate::revoked::List;

/// Roles, users, nodes and locks as they were together at one moment.
#[derive(Debug)]
pub struct Snapshot {
    policy: PolicySet,
    subjects: BTreeMap<UserName, Subject>,
    nodes: BTreeMap<NodeId, Node>,
    names: BTreeMap<NodeName, NodeId>,
    locks: Vec<Lock>,
    revoked: List,
    break_glass: Vec<PublicKey>,
    /// Of all keys that it was made from, and their revisions.
    made_from: u64,
}

impl Snapshot {
    /// The compiled roles.
    #[must_use]
    pub fn policy(&self) -> &PolicySet {
        &self.policy
    }

    /// A user with roles and traits.
    #[must_use]
    pub fn subject(&self, user: &UserName) -> Option<&Subject> {
        self.subjects.get(user)
    }

    /// All users with roles and traits, by name.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.values()
    }

    /// A node by its id.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// A node by its name.
    #[must_use]
    pub fn node_named(&self, name: &NodeName) -> Option<&Node> {
        self.names.get(name).and_then(|id| self.nodes.get(id))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// How many users there are.
    #[must_use]
    pub fn user_count(&self) -> usize {
        self.subjects.len()
    }

    /// The offline keys that nodes trust, without those that are revoked.
    #[must_use]
    pub fn break_glass(&self) -> &[PublicKey] {
        &self.break_glass
    }

    pub(crate) fn revoked(&self) -> &List {
        &self.revoked
    }

    /// Whether there is such a role.
    pub(crate) fn has_role(&self, name: &RoleName) -> bool {
        self.policy.roles().any(|role| role.name() == name)
    }

    /// The first lock in force that stops any of these.
    pub(crate) fn lock_on(&self, stopped: &Stopped<'_>, now: UnixTime) -> Option<Error> {
        self.locks
            .iter()
            .find(|lock| lock.spec.is_in_force(now) && stopped.meets(&lock.spec.target))
            .map(|lock| Error::Locked {
                target: lock.spec.target.to_string(),
                reason: match lock.spec.reason.as_str() {
                    "" => String::new(),
                    reason => format!(": {}", reason.escape_debug()),
                },
            })
    }
}

/// What a lock may stop in one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stopped<'a> {
    pub(crate) subject: Option<&'a Subject>,
    pub(crate) node: Option<&'a NodeName>,
    pub(crate) login: Option<&'a Login>,
    pub(crate) session: Option<SessionId>,
}

impl Stopped<'_> {
    fn meets(&self, target: &LockTarget) -> bool {
        match target {
            LockTarget::User(name) => self.subject.is_some_and(|subject| subject.user == *name),
            LockTarget::Role(name) => self
                .subject
                .is_some_and(|subject| subject.roles.contains(name)),
            LockTarget::Node(name) => self.node == Some(name),
            LockTarget::Login(name) => self.login == Some(name),
            LockTarget::Session(id) => self.session == Some(*id),
        }
    }
}

/// Tells when decisions may have changed.
#[derive(Clone, Debug)]
pub struct Changes(pub(crate) watch::Receiver<Arc<Snapshot>>);

impl Changes {
    /// Waits until there is a newer picture than at the last return. `false`: the auth service is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// What a [`Live`] keeps the newest of.
#[async_trait]
pub(crate) trait Picture: Sized + Send + Sync + 'static {
    /// What it is read from.
    type Source: Send + Sync;

    /// The prefixes of the keys that it is made of.
    const WATCHED: &'static [&'static str];

    /// What it shows, for an operator's log.
    const WHAT: &'static str;

    /// Why it cannot be read.
    type Error: fmt::Debug + Send;

    /// Reads it; `before` is the picture so far.
    async fn read(source: &Self::Source, before: Option<&Self>) -> Result<Self, Self::Error>;

    /// Whether it is certain that both show the same.
    fn is_same(&self, _other: &Self) -> bool {
        false
    }
}

/// Keeps the newest [`Picture`].
pub(crate) struct Live<P: Picture> {
    source: P::Source,
    current: watch::Sender<Arc<P>>,
    /// One reader at a time, so that an older picture cannot replace a newer one.
    reading: Mutex<()>,
}

impl<P: Picture> fmt::Debug for Live<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("what", &P::WHAT).finish()
    }
}

impl<P: Picture> Live<P> {
    /// Reads the first picture and follows the store from then on, until the last reference is dropped.
    pub(crate) async fn start(store: &dyn Store, source: P::Source) -> Result<Arc<Self>, P::Error> {
        // Watching begins before reading: what changes in between is read again.
        let watches: Vec<Watch> = P::WATCHED
            .iter()
            .map(|prefix| store.watch(prefix))
            .collect();
        let first = P::read(&source, None).await?;
        let live = Arc::new(Self {
            source,
            current: watch::Sender::new(Arc::new(first)),
            reading: Mutex::new(()),
        });
        for watch in watches {
            tokio::spawn(follow(Arc::downgrade(&live), watch));
        }
        Ok(live)
    }

    pub(crate) fn current(&self) -> Arc<P> {
        Arc::clone(&self.current.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<P>> {
        self.current.subscribe()
    }

    /// What the pictures are read from.
    pub(crate) fn source(&self) -> &P::Source {
        &self.source
    }

    pub(crate) async fn refresh(&self) -> Result<(), P::Error> {
        let _one = self.reading.lock().await;
        let before = self.current();
        let picture = P::read(&self.source, Some(&before)).await?;
        self.current.send_replace(Arc::new(picture));
        Ok(())
    }

    /// Reads it whether or not anything changed; followers hear of it only if it did.
    pub(crate) async fn confirm(&self) -> Result<(), P::Error> {
        let _one = self.reading.lock().await;
        let before = self.current();
        let picture = P::read(&self.source, Some(&before)).await?;
        if !picture.is_same(&before) {
            self.current.send_replace(Arc::new(picture));
        }
        Ok(())
    }

    /// Tells followers to look again at the picture that is there.
    pub(crate) fn wake(&self) {
        self.current.send_modify(|_| {});
    }

    /// Reads anew if a commit has `changed` what the picture shows. The change is made, so a failure is only told.
    pub(crate) async fn follow_commit(&self, changed: bool) {
        if changed && let Err(error) = self.refresh().await {
            tracing::error!(
                ?error,
                what = P::WHAT,
                "a change was made but could not be read back at once"
            );
        }
    }

    /// Whether `commit` changes the picture.
    pub(crate) fn shows(commit: &Commit) -> bool {
        commit.changes().iter().any(|change| {
            P::WATCHED
                .iter()
                .any(|prefix| change.key.as_str().starts_with(prefix))
        })
    }
}

async fn follow<P: Picture>(live: Weak<Live<P>>, mut watch: Watch) {
    loop {
        tokio::select! {
            _ = watch.changed() => {}
            () = tokio::time::sleep(LOOK_UP) => {
                if live.strong_count() == 0 {
                    return;
                }
                continue;
            }
        }
        let Some(live) = live.upgrade() else { return };
        while let Err(error) = live.refresh().await {
            tracing::error!(
                ?error,
                what = P::WHAT,
                "a change could not be read; trying on"
            );
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// How often an idle follower looks whether anybody still needs it.
const LOOK_UP: std::time::Duration = std::time::Duration::from_secs(5);
const RETRY: std::time::Duration = std::time::Duration::from_millis(250);

#[async_trait]
impl Picture for Snapshot {
    type Source = Arc<dyn Store>;

    const WATCHED: &'static [&'static str] = &[
        prefix::ROLE,
        prefix::USER,
        prefix::NODE,
        prefix::LOCK,
        prefix::REVOKED,
        prefix::BREAK_GLASS,
    ];

    const WHAT: &'static str = "roles, users, nodes, locks and revocations";

    type Error = Error;

    async fn read(store: &Arc<dyn Store>, _before: Option<&Self>) -> Result<Self, Error> {
        read(&**store).await
    }

    fn is_same(&self, other: &Self) -> bool {
        self.made_from == other.made_from
    }
}

async fn read(store: &dyn Store) -> Result<Snapshot, Error> {
    let mut made_from = DefaultHasher::new();
    let mut roles = Vec::new();
    for (key, stored) in all(store, prefix::ROLE).await? {
        (&key, stored.revision).hash(&mut made_from);
        roles.push(record::read::<Role>(&key, &stored)?);
    }
    let policy = PolicySet::compile(roles).map_err(|error| Error::Corrupt(error.to_string()))?;
    let mut subjects = BTreeMap::new();
    for (key, stored) in all(store, prefix::USER).await? {
        (&key, stored.revision).hash(&mut made_from);
        let user = record::read::<User>(&key, &stored)?;
        subjects.insert(user.name.clone(), subject(user)?);
    }
    let mut nodes = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (key, stored) in all(store, prefix::NODE).await? {
        (&key, stored.revision).hash(&mut made_from);
        let node = record::read::<Node>(&key, &stored)?;
        names.insert(node.name.clone(), node.id.clone());
        nodes.insert(node.id.clone(), node);
    }
    let mut locks = Vec::new();
    for (key, stored) in all(store, prefix::LOCK).await? {
        (&key, stored.revision).hash(&mut made_from);
        locks.push(record::read::<Lock>(&key, &stored)?);
    }
    let revoked = List::read(store).await?;
    revoked.head().hash(&mut made_from);
    let mut break_glass = Vec::new();
    for (key, stored) in all(store, prefix::BREAK_GLASS).await? {
        (&key, stored.revision).hash(&mut made_from);
        let found = record::read::<BreakGlassKey>(&key, &stored)?;
        break_glass.push(found.public_key.key().clone());
    }
    break_glass.retain(|key| !revoked.revokes_key(key));
    Ok(Snapshot {
        policy,
        subjects,
        nodes,
        names,
        locks,
        revoked,
        break_glass,
        made_from: made_from.finish(),
    })
}

/// The user as the policy engine takes it. The password's hash stays behind.
pub(crate) fn subject(user: User) -> Result<Subject, Error> {
    Ok(Subject {
        user: user.name,
        roles: user.roles,
        internal: Traits::new(user.traits).map_err(|error| Error::Document(error.to_string()))?,
        external: Traits::default(),
    })
}

/// Everything under `prefix`, page by page.
pub(crate) async fn all(store: &dyn Store, prefix: &str) -> Result<Vec<(Key, Versioned)>, Error> {
    const PAGE: usize = 1000;
    let mut found: Vec<(Key, Versioned)> = Vec::new();
    loop {
        let after = found.last().map(|(key, _)| key.clone());
        let page = store.list(prefix, after.as_ref(), PAGE).await?;
        let last = page.len() < PAGE;
        found.extend(page);
        if last {
            return Ok(found);
        }
    }
}
