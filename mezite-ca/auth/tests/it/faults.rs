//! A fault at each call of the store while a day's work is done: whatever was observed has its event, no event claims
//! what did not happen, and the log verifies after the hub has started again on what is left.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use mezite_api::{request, v1};
use mezite_audit::checkpoint::{self, NoteKey};
use mezite_audit::verify::Verifier;
use mezite_auth::backup::{self, Reader, Restoring};
use mezite_auth::{Actor, Auth, Identity};
use mezite_ca::Signer;
use mezite_ca::seal::{KeyFile, Sealer};
use mezite_ca::verify::{self, Context, VerifiedIdentity};
use mezite_core::store::{
    Commit, Committed, Dump, Key, LogQuery, MemoryStore, Store, StoreError, StoredEvent, Versioned,
    Watch,
};
use mezite_core::{Clock, Event, ManualClock};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::rig::{START, db1, key, session, settings, ssh_key};

/// What goes wrong at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is refused, and nothing is made.
    Before,
    /// It is made, and the answer is lost.
    After,
    /// The process dies before it: nothing more is made or answered.
    DeathBefore,
    /// The process dies when it was made, before anybody heard of it.
    DeathAfter,
}

const FAULTS: [Fault; 4] = [
    Fault::Before,
    Fault::After,
    Fault::DeathBefore,
    Fault::DeathAfter,
];

/// Counts calls, and fails at one of them.
#[derive(Debug)]
struct Faulty {
    inner: Arc<MemoryStore>,
    calls: AtomicUsize,
    at: usize,
    fault: Fault,
    dead: AtomicBool,
}

impl Faulty {
    fn new(inner: &Arc<MemoryStore>, at: usize, fault: Fault) -> Self {
        Self {
            inner: Arc::clone(inner),
            calls: AtomicUsize::new(0),
            at,
            fault,
            dead: AtomicBool::new(false),
        }
    }

    async fn call<T>(
        &self,
        made: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let lost = || Err(StoreError::Unavailable("told to fail".into()));
        if self.dead.load(Ordering::SeqCst) {
            return lost();
        }
        if self.calls.fetch_add(1, Ordering::SeqCst) != self.at {
            return made.await;
        }
        let dies = matches!(self.fault, Fault::DeathBefore | Fault::DeathAfter);
        self.dead.store(dies, Ordering::SeqCst);
        if matches!(self.fault, Fault::After | Fault::DeathAfter) {
            drop(made.await);
        }
        lost()
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.call(self.inner.get(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.call(self.inner.list(prefix, after, limit)).await
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.inner.watch(prefix)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.call(self.inner.commit(commit)).await
    }

    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.call(self.inner.log(query)).await
    }

    async fn dump(&self) -> Result<Dump, StoreError> {
        self.call(self.inner.dump()).await
    }

    async fn restore(&self, dump: Dump, event: Event) -> Result<Committed, StoreError> {
        self.call(self.inner.restore(dump, event)).await
    }
}

/// Something that somebody saw happen: there must be an event of this type with this value in this field.
type Seen = (&'static str, &'static str, String);

fn sealer() -> Arc<dyn Sealer> {
    Arc::new(KeyFile::parse("5a".repeat(32).as_bytes()).unwrap())
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(START))
}

/// A day at a hub, as far as it gets.
async fn day(store: Arc<Faulty>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let Ok(auth) = Auth::open(store, clock(), sealer(), settings()).await else {
        return seen;
    };
    seen.push(("hub.started", "hub_id", settings().hub));
    let _ = work(&auth, &mut seen).await;
    if auth.stop("the day is over").await.is_ok() {
        seen.push(("hub.stopped", "reason", "the day is over".into()));
    }
    seen
}

/// `None`: it could not go on.
async fn work(auth: &Auth, seen: &mut Vec<Seen>) -> Option<()> {
    let local = Actor::local(0).unwrap();
    let role = "{kind: role, version: v1, metadata: {name: ops}, spec: {allow: {node_labels: {env: prod}, logins: [deploy]}}}";
    if auth.apply(&local, role, false).await.is_ok() {
        seen.push(("role.created", "resource_name", "ops".into()));
    }
    let one = "{kind: role, version: v1, metadata: {name: one}, spec: {options: {max_sessions: 1}, allow: {node_labels: {\"*\": \"*\"}, logins: [deploy]}}}";
    auth.apply(&local, one, false).await.ok()?;
    seen.push(("role.created", "resource_name", "one".into()));
    let user = v1::CreateUserRequest {
        name: "alice".into(),
        roles: vec!["access".into(), "one".into()],
        logins: vec!["deploy".into()],
        ..v1::CreateUserRequest::default()
    };
    let user = request::CreateUser::try_from(user).unwrap();
    let password = auth.create_user(&local, user).await.ok()?;
    seen.push(("user.created", "resource_name", "alice".into()));
    let token = request::CreateToken::new(
        None,
        std::collections::BTreeMap::new().try_into().unwrap(),
        None,
    );
    let token = auth.create_token(&local, token).await.ok()?;
    let join = v1::JoinRequest {
        token: token.token.expose().clone(),
        node_name: db1().to_string(),
        host_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: key().public_key().to_vec(),
        client_time_ms: START.as_millis(),
        ..v1::JoinRequest::default()
    };
    let node = auth.join(&join.try_into().unwrap(), None).await.ok()?;
    seen.push(("node.joined", "server_id", node.id.to_string()));
    let serial = node.host_certificate.serial().to_string();
    seen.push(("host.cert.issued", "serial", serial));
    let login = v1::LoginRequest {
        user: "alice".into(),
        password: password.expose().clone(),
        ssh_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: key().public_key().to_vec(),
        client_time_ms: START.as_millis(),
        ..v1::LoginRequest::default()
    };
    let identity = auth.login(login.try_into().unwrap(), None).await.ok()?;
    seen.push((
        "user.cert.issued",
        "serial",
        identity.ssh_certificate.serial().to_string(),
    ));
    let alice = verified(auth, &identity);
    let deploy = "deploy".parse().unwrap();
    let permit = auth
        .authorize(&alice, &db1(), &deploy, None, session(1))
        .await
        .ok()?;
    seen.push(("access.granted", "session_id", session(1).to_string()));
    if let Ok(certificate) = auth.issue_session(&permit, &ssh_key()).await {
        seen.push((
            "session.cert.issued",
            "serial",
            certificate.serial().to_string(),
        ));
    }
    // Whatever failed, the one session that the role allows is taken.
    let second = auth
        .authorize(&alice, &db1(), &deploy, None, session(2))
        .await;
    let refusal = second.unwrap_err();
    if let Some(id) = refusal.event_id {
        seen.push(("authz.denied", "id", id.to_string()));
    }
    let lock = v1::CreateLockRequest {
        target_kind: "user".into(),
        target_name: "alice".into(),
        ..v1::CreateLockRequest::default()
    };
    if let Ok(name) = auth.create_lock(&local, lock.try_into().unwrap()).await {
        seen.push(("lock.created", "resource_name", name));
    }
    if auth.remove(&local, "role", "ops").await.is_ok() {
        seen.push(("role.deleted", "resource_name", "ops".into()));
    }
    if let Some(bytes) = backed_up(auth, &local).await {
        seen.push(("backup.created", "user_name", local.name().to_owned()));
        Reader::open(Cursor::new(bytes)).unwrap().check().unwrap();
    }
    // As far as it gets: the next start seals what is left.
    drop(auth.keep_log().await);
    Some(())
}

/// A backup, if all of it came.
async fn backed_up(auth: &Auth, local: &Actor) -> Option<Vec<u8>> {
    let mut parts = auth.backup(local).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        bytes.extend(part.ok()?);
    }
    Some(bytes)
}

fn verified(auth: &Auth, identity: &Identity) -> VerifiedIdentity {
    let trust = auth.trust();
    let context = Context {
        trust: &trust,
        now: START,
        source: None,
        revoked: &|_| false,
    };
    verify::identity(&identity.ssh_certificate.to_bytes().unwrap(), &context).unwrap()
}

/// Starts on what is left, and holds everything against everything.
async fn judge(store: Arc<MemoryStore>, seen: Vec<Seen>, what: &str) {
    let auth = Auth::open(store.clone(), clock(), sealer(), settings()).await;
    let auth = auth.unwrap_or_else(|error| panic!("{what}: the hub does not start again: {error}"));
    auth.keep_log().await.unwrap();
    let log = store.log(&LogQuery::after(0, 10_000)).await.unwrap();
    let events: Vec<Value> = log
        .iter()
        .map(|event| serde_json::from_slice(&event.body).unwrap())
        .collect();
    let has = |event_type: &str, field: &str, value: &str| {
        events.iter().any(|event| {
            let found = &event[field];
            event["event_type"] == event_type
                && (found == value || found.to_string().trim_matches('"') == value)
        })
    };
    for (event_type, field, value) in &seen {
        assert!(
            has(event_type, field, value),
            "{what}: {event_type} of {value} was seen and is not in the log"
        );
    }
    // What the log says about the store's state is so, and what is so is in the log.
    for (event_type, field, value, undone, prefix) in [
        (
            "role.created",
            "resource_name",
            "ops",
            Some("role.deleted"),
            "role/ops",
        ),
        ("user.created", "resource_name", "alice", None, "user/alice"),
        (
            "node.joined",
            "server_hostname",
            "db1",
            None,
            "node-name/db1",
        ),
        ("lock.created", "target_name", "alice", None, "lock/"),
    ] {
        let undone = undone.is_some_and(|undone| has(undone, field, value));
        let told = has(event_type, field, value) && !undone;
        let is = !store.list(prefix, None, 1).await.unwrap().is_empty();
        assert_eq!(
            told, is,
            "{what}: {event_type} in the log, {prefix} in the store"
        );
    }
    let note = auth.checkpoint().await.unwrap().unwrap();
    let key = NoteKey::new(auth.log_origin(), &auth.audit_signer().public_key()).unwrap();
    let mut verifier = Verifier::new([checkpoint::open(&note, &key).unwrap()]).unwrap();
    for event in &log {
        verifier.push(event).unwrap();
    }
    let vouched = verifier.finish().unwrap().vouched;
    assert_eq!(vouched, u64::try_from(log.len()).unwrap(), "{what}");
}

async fn with_fault(at: usize, fault: Fault) -> (usize, Vec<Seen>) {
    let inner = Arc::new(MemoryStore::new());
    let faulty = Arc::new(Faulty::new(&inner, at, fault));
    let seen = day(Arc::clone(&faulty)).await;
    // Whatever still follows the store meets a dead one.
    faulty.dead.store(true, Ordering::SeqCst);
    let calls = faulty.calls.load(Ordering::SeqCst);
    judge(inner, seen.clone(), &format!("{fault:?} at call {at}")).await;
    (calls, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_fault_at_each_call_of_the_store_leaves_no_effect_without_its_event() {
    let (calls, seen) = with_fault(usize::MAX, Fault::Before).await;
    assert_eq!(seen.len(), 14, "a whole day: {seen:?}");
    assert!(calls > 50, "{calls}");
    let mut running = JoinSet::new();
    for at in 0..calls {
        for fault in FAULTS {
            running.spawn(with_fault(at, fault));
            if running.len() >= 4 {
                running.join_next().await.unwrap().unwrap();
            }
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn attack_54_a_fault_while_a_backup_is_restored_leaves_all_of_it_or_nothing() {
    let origin = Arc::new(MemoryStore::new());
    let auth = Auth::open(origin, clock(), sealer(), settings()).await;
    let auth = auth.unwrap();
    let local = Actor::local(0).unwrap();
    let bytes = backed_up(&auth, &local).await.unwrap();
    let made = Restoring {
        hub: "h",
        who: "local:0",
        path: "/backup",
        now: START,
    };
    let restore = async |store: &Faulty| {
        let reader = Reader::open(Cursor::new(bytes.clone())).unwrap();
        backup::restore(store, reader, &made).await
    };
    let never = Faulty::new(&Arc::default(), usize::MAX, Fault::Before);
    let events = restore(&never).await.unwrap();
    let calls = never.calls.load(Ordering::SeqCst);
    assert!(calls > 0);
    for at in 0..calls {
        for fault in FAULTS {
            let what = format!("{fault:?} at call {at}");
            let inner = Arc::new(MemoryStore::new());
            restore(&Faulty::new(&inner, at, fault)).await.unwrap_err();
            let again = restore(&Faulty::new(&inner, usize::MAX, fault)).await;
            match fault {
                Fault::Before | Fault::DeathBefore => assert_eq!(again.unwrap(), events, "{what}"),
                Fault::After | Fault::DeathAfter => {
                    assert!(
                        matches!(again, Err(StoreError::NotEmpty)),
                        "{what}: {again:?}"
                    );
                }
            }
            judge(
                inner,
                vec![("backup.restored", "path", "/backup".into())],
                &what,
            )
            .await;
        }
    }
}
