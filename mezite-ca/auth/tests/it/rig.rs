//! A hub in memory whose disk can be made to fail, and the steps that most tests begin with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use async_trait::async_trait;
use mezite_api::request;
use mezite_api::v1;
use mezite_api::v1::hub_client::HubClient;
use mezite_api::v1::hub_server::HubServer;
use mezite_auth::grpc::{self, HubService};
use mezite_auth::{Actor, Auth, Error, Identity, NoRecordings, Settings};
use mezite_ca::seal::{KeyFile, Sealer};
use mezite_ca::verify::{self, Context, Purpose, VerifiedIdentity, VerifiedPeer};
use mezite_ca::{PeerKind, Signer, SoftwareKey, TrustBundle, openssh};
use mezite_core::store::{
    Commit, Committed, Dump, Key, LogQuery, MemoryStore, Store, StoreError, StoredEvent, Versioned,
    Watch,
};
use mezite_core::{Clock, Event, ManualClock, NodeName, Secret, SessionId, Span, UnixTime};
use serde_json::Value;
use ssh_key::PublicKey;

pub(crate) const START: UnixTime = UnixTime::from_secs(1_769_846_400);

/// A store that can lose its disk.
#[derive(Debug, Default)]
pub(crate) struct Fragile {
    inner: MemoryStore,
    broken: AtomicBool,
    deaf: AtomicBool,
}

impl Fragile {
    /// The next commit is written, and nobody hears of it.
    pub(crate) fn lose_answer(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for Fragile {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.inner.watch(prefix)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("no space left on device".into()));
        }
        let committed = self.inner.commit(commit).await;
        if self.deaf.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the connection was lost".into()));
        }
        committed
    }

    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.log(query).await
    }

    async fn dump(&self) -> Result<Dump, StoreError> {
        self.inner.dump().await
    }

    async fn restore(&self, dump: Dump, event: Event) -> Result<Committed, StoreError> {
        self.inner.restore(dump, event).await
    }
}

pub(crate) struct Rig {
    pub(crate) auth: Auth,
    pub(crate) store: Arc<Fragile>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) sealer: Arc<dyn Sealer>,
    pub(crate) local: Actor,
}

pub(crate) fn settings() -> Settings {
    Settings {
        gateway_names: vec!["hub.example".into(), "127.0.0.1".into()],
        gateway_address: "hub.example:3023".into(),
        tunnel_address: "hub.example:3024".into(),
        ..Settings::new("example".parse().unwrap())
    }
}

/// A key of its own for each call.
pub(crate) fn key() -> SoftwareKey {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    SoftwareKey::from_seed(Secret::new([NEXT.fetch_add(1, Ordering::SeqCst); 32]))
}

pub(crate) fn ssh_key() -> PublicKey {
    openssh::public_key(key().public_key())
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with_settings(settings()).await
    }

    pub(crate) async fn with_settings(settings: Settings) -> Self {
        let store = Arc::new(Fragile::default());
        let clock = Arc::new(ManualClock::new(START));
        Self::open(store, clock, settings).await
    }

    /// A second hub on the same store.
    pub(crate) async fn with(&self, settings: Settings) -> Self {
        Self::open(Arc::clone(&self.store), Arc::clone(&self.clock), settings).await
    }

    /// What a caller speaks to.
    pub(crate) fn client(&self) -> HubClient<HubServer<HubService>> {
        HubClient::new(grpc::hub(self.auth.clone(), Arc::new(NoRecordings)))
    }

    async fn open(store: Arc<Fragile>, clock: Arc<ManualClock>, settings: Settings) -> Self {
        let content = format!("{}\n", "5a".repeat(32));
        let sealer: Arc<dyn Sealer> = Arc::new(KeyFile::parse(content.as_bytes()).unwrap());
        let auth = Auth::open(store.clone(), clock.clone(), Arc::clone(&sealer), settings)
            .await
            .unwrap();
        Self {
            auth,
            store,
            clock,
            sealer,
            local: Actor::local(0).unwrap(),
        }
    }

    /// Another hub on the same store.
    pub(crate) async fn hub(&self, name: &str) -> Auth {
        let settings = Settings {
            hub: name.into(),
            ..settings()
        };
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Auth::open(store, clock, Arc::clone(&self.sealer), settings)
            .await
            .unwrap()
    }

    pub(crate) fn advance(&self, span: Span) {
        self.clock.set(self.clock.now().plus(span));
    }

    pub(crate) fn break_disk(&self, broken: bool) {
        self.store.broken.store(broken, Ordering::SeqCst);
    }

    /// Makes a user whose trait `logins` is `logins`; returns the password.
    pub(crate) async fn user(&self, name: &str, roles: &[&str], logins: &[&str]) -> String {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let message = v1::CreateUserRequest {
            name: name.into(),
            roles: texts(roles),
            logins: texts(logins),
            ..v1::CreateUserRequest::default()
        };
        let wanted = request::CreateUser::try_from(message).unwrap();
        let password = self.auth.create_user(&self.local, wanted).await.unwrap();
        password.expose().clone()
    }

    pub(crate) async fn login(&self, user: &str, password: &str) -> Result<Identity, Error> {
        self.login_for(user, password, 0).await
    }

    pub(crate) async fn login_for(
        &self,
        user: &str,
        password: &str,
        ttl_seconds: u64,
    ) -> Result<Identity, Error> {
        let message = v1::LoginRequest {
            user: user.into(),
            password: password.into(),
            ttl_seconds,
            ssh_public_key: ssh_key().to_openssh().unwrap(),
            tls_public_key: key().public_key().to_vec(),
            client_time_ms: self.clock.now().as_millis(),
        };
        self.auth.login(message.try_into().unwrap(), None).await
    }

    fn context<'a>(&self, trust: &'a TrustBundle) -> Context<'a> {
        Context {
            trust,
            now: self.clock.now(),
            source: None,
            revoked: &|_| false,
        }
    }

    pub(crate) fn verified(&self, identity: &Identity) -> VerifiedIdentity {
        let trust = self.auth.trust();
        verify::identity(
            &identity.ssh_certificate.to_bytes().unwrap(),
            &self.context(&trust),
        )
        .unwrap()
    }

    pub(crate) fn peer(&self, chain: &[Vec<u8>], kind: PeerKind) -> VerifiedPeer {
        let trust = self.auth.trust();
        let chain: Vec<_> = chain.iter().map(|der| der.as_slice().into()).collect();
        verify::peer(&chain, Purpose::Client, &[kind], &self.context(&trust)).unwrap()
    }

    pub(crate) async fn token(&self, labels: &[(&str, &str)]) -> String {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let wanted = request::CreateToken::new(None, labels.try_into().unwrap(), None);
        let made = self.auth.create_token(&self.local, wanted).await.unwrap();
        made.token.expose().clone()
    }

    pub(crate) fn join_request(&self, token: &str, name: &str) -> request::Join {
        let message = v1::JoinRequest {
            token: token.into(),
            node_name: name.into(),
            labels: std::iter::once(("env".to_owned(), "agent-says".to_owned())).collect(),
            host_public_key: ssh_key().to_openssh().unwrap(),
            tls_public_key: key().public_key().to_vec(),
            client_time_ms: self.clock.now().as_millis(),
        };
        message.try_into().unwrap()
    }

    pub(crate) async fn node(&self, name: &str) -> mezite_auth::NodeIdentity {
        let token = self.token(&[("env", "prod")]).await;
        let join = self.join_request(&token, name);
        self.auth.join(&join, None).await.unwrap()
    }

    pub(crate) async fn lock(&self, kind: &str, name: &str) -> String {
        let message = v1::CreateLockRequest {
            target_kind: kind.into(),
            target_name: name.into(),
            reason: "laptop lost".into(),
            expires_ms: 0,
        };
        let wanted = message.try_into().unwrap();
        self.auth.create_lock(&self.local, wanted).await.unwrap()
    }

    /// A verified identity of a user who may log in as `deploy` wherever the role `access` lets.
    pub(crate) async fn alice(&self) -> VerifiedIdentity {
        let password = self.user("alice", &["access"], &["deploy"]).await;
        self.verified(&self.login("alice", &password).await.unwrap())
    }

    pub(crate) async fn events(&self, event_type: &str) -> Vec<Value> {
        let query = LogQuery {
            event_type: Some(event_type.into()),
            ..LogQuery::after(0, 1000)
        };
        let found = self.store.log(&query).await.unwrap();
        found
            .iter()
            .map(|event| serde_json::from_slice(&event.body).unwrap())
            .collect()
    }

    pub(crate) async fn everything_stored(&self) -> String {
        let keys = self.store.list("", None, 10_000).await.unwrap();
        let events = self.store.log(&LogQuery::after(0, 10_000)).await.unwrap();
        let keys = keys
            .iter()
            .map(|(key, stored)| format!("{key} {}", String::from_utf8_lossy(&stored.value)));
        let events = events
            .iter()
            .map(|event| String::from_utf8_lossy(&event.body).into_owned());
        keys.chain(events).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn session(number: u8) -> SessionId {
    SessionId::new(START, [number; 16])
}

pub(crate) fn db1() -> NodeName {
    "db1".parse().unwrap()
}
