//! A server and a bucket for each test, hubs over it, and what they record.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mezite_core::{NodeId, SessionId, UnixTime};
use mezite_record::{Frame, Header, Identity, Part, Recorder, Sink};
use mezite_vault::testing::Server;
use mezite_vault::{AccessKey, S3Settings, S3Sink};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::fault::{Fault, Proxy};

pub(crate) const START: UnixTime = UnixTime::from_secs(1_767_225_600);
pub(crate) const SECRET: &str = "wJalrXUtnFEMI-not-to-be-seen";
pub(crate) const BUCKET: &str = "recordings";

pub(crate) struct Lab {
    root: TempDir,
    server: Server,
    proxy: Proxy,
    /// The part of the bucket that is this test's.
    prefix: String,
    pub(crate) patience: Duration,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static MADE: OnceLock<Server> = OnceLock::new();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let make = || {
            let server = Server::shared();
            server.bucket(BUCKET);
            server
        };
        let made = tokio::task::spawn_blocking(move || *MADE.get_or_init(make));
        let server = made.await.unwrap();
        Self {
            root: tempfile::tempdir().unwrap(),
            server,
            proxy: Proxy::start(server.address()).await,
            prefix: format!("test/{number}"),
            patience: Duration::from_secs(60),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn settings(&self, hub: &str) -> S3Settings {
        S3Settings {
            spool: self.path(hub),
            ..settings(&self.proxy.endpoint(), &self.prefix, hub)
        }
    }

    pub(crate) async fn open(&self, settings: &S3Settings) -> S3Sink {
        S3Sink::open(settings).await.unwrap()
    }

    /// A hub with a disk of its own.
    pub(crate) async fn hub(&self, name: &str) -> Arc<S3Sink> {
        Arc::new(self.open(&self.settings(name)).await)
    }

    /// How many requests the store got so far.
    pub(crate) fn requests(&self) -> usize {
        self.proxy.requests()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.proxy.set(fault);
    }

    pub(crate) async fn until(&self, what: &str, done: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !done().await {
            assert!(begun.elapsed() < self.patience, "no {what}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The objects of this test, asked without the sink.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let (server, prefix) = (self.server, format!("{}/", self.prefix));
        let listed = tokio::task::spawn_blocking(move || {
            let keys = server.objects(BUCKET, &prefix).into_iter();
            keys.map(|it| it.strip_prefix(&prefix).unwrap().to_owned())
                .collect()
        });
        listed.await.unwrap()
    }

    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) {
        self.ask("PUT", key, bytes).await;
    }

    pub(crate) async fn get(&self, key: &str) -> Vec<u8> {
        self.ask("GET", key, b"").await
    }

    async fn ask(&self, method: &'static str, key: &str, bytes: &[u8]) -> Vec<u8> {
        let (server, bytes) = (self.server, bytes.to_vec());
        let path = format!("/{BUCKET}/{}/{key}", self.prefix);
        let asked = tokio::task::spawn_blocking(move || server.ask(method, &path, &bytes));
        asked.await.unwrap()
    }

    /// The files in the spool of a hub.
    pub(crate) fn spooled(&self, hub: &str) -> Vec<String> {
        let months = std::fs::read_dir(self.path(hub)).unwrap();
        months
            .flat_map(|month| std::fs::read_dir(month.unwrap().path()).unwrap())
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

pub(crate) fn settings(endpoint: &str, prefix: &str, hub: &str) -> S3Settings {
    S3Settings {
        bucket: BUCKET.into(),
        endpoint: Some(endpoint.into()),
        region: "us-east-1".into(),
        prefix: prefix.into(),
        access_key: AccessKey {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: String::from(SECRET).into(),
        },
        ca_pem: None,
        hub: hub.into(),
        spool: PathBuf::new(),
        spool_limit: 64 * 1024 * 1024,
        index_cache: 1024 * 1024,
        piece_every: Duration::from_millis(300),
        piece_bytes: 16 * 1024,
    }
}

pub(crate) fn id() -> SessionId {
    header(7).session_id
}

pub(crate) fn signer() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_bytes(&[9; 32]))
}

pub(crate) fn header(number: u8) -> Header {
    Header {
        session_id: SessionId::new(START, [number; 16]),
        cluster: "example".parse().unwrap(),
        user: "alice".parse().unwrap(),
        node_id: NodeId::new([2; 16]),
        node: "db-1".parse().unwrap(),
        login: "root".parse().unwrap(),
        started: START,
        source: None,
    }
}

pub(crate) async fn recorder(sink: Arc<dyn Sink>, identity: &Identity) -> Recorder {
    let recipients = [identity.recipient()];
    let opened = Recorder::open(sink, &header(7), &recipients, signer(), &mut rand::rng());
    opened.await.unwrap()
}

pub(crate) async fn record(recorder: &mut Recorder, bytes: &[u8]) {
    recorder
        .record(START, Frame::stdout(0, bytes.to_vec()))
        .await
        .unwrap();
}

pub(crate) async fn whole(sink: &dyn Sink, part: Part) -> Vec<u8> {
    sink.read(&id(), part, 0, usize::MAX).await.unwrap()
}

/// Bytes that do not compress, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}
