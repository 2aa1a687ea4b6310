//! Every sink runs the suite of the seam, against receivers of the test.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mezite_audit::sink::conformance::{self, Receiver};
use mezite_audit::{Batch, Sink};
use mezite_core::store::StoredEvent;
use mezite_core::{Event, UnixTime};
use mezite_net::ByteStream;
use mezite_net::tls::Outside;
use mezite_sinks::{JsonLines, Syslog, Webhook, checkpoint_path};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn event(sequence: u64, text: &str) -> StoredEvent {
    let event = Event::new(
        "user.login",
        "MZ1001",
        UnixTime::from_secs(sequence),
        [[7; 16]; 2],
    );
    StoredEvent {
        sequence,
        body: event.with("method", text).render(sequence),
    }
}

async fn hand_over(sink: &dyn Sink, events: &[StoredEvent]) -> Result<(), String> {
    let batch = Batch {
        events,
        checkpoint: None,
    };
    sink.deliver(&batch)
        .await
        .map_err(|error| error.to_string())
}

/// A file in a directory of its own, rotated often.
struct Directory(TempDir, u64);

impl Directory {
    fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    /// All files of events, oldest first: the renamed ones sort by their last sequence.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut renamed: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.len() == "audit.jsonl.".len() + 20 && name.starts_with("audit.jsonl.0")
            })
            .collect();
        renamed.sort();
        renamed.push(self.path());
        renamed
    }
}

#[async_trait]
impl Receiver for Directory {
    async fn sink(&self) -> Box<dyn Sink> {
        Box::new(JsonLines::open(self.path(), self.1, 100).unwrap())
    }

    async fn received(&self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for file in self.files() {
            let Ok(text) = std::fs::read(file) else {
                continue;
            };
            let found = text.split_inclusive(|byte| *byte == b'\n');
            lines.extend(found.map(|line| line.strip_suffix(b"\n").unwrap().to_vec()));
        }
        lines
    }

    async fn checkpoint(&self) -> Option<String> {
        std::fs::read_to_string(checkpoint_path(&self.path())).ok()
    }

    async fn set_dead(&self, dead: bool) {
        let aside = self.0.path().join("aside");
        if dead {
            // It may just have been rotated.
            drop(std::fs::rename(self.path(), &aside));
            std::fs::create_dir(self.path()).unwrap();
        } else {
            std::fs::remove_dir(self.path()).unwrap();
            drop(std::fs::rename(&aside, self.path()));
        }
    }
}

#[tokio::test]
async fn json_lines_conform_with_and_without_rotation() {
    for max_bytes in [1, 900, u64::MAX] {
        conformance::all(async || Directory(tempfile::tempdir().unwrap(), max_bytes)).await;
    }
}

#[tokio::test]
async fn attack_58_a_line_torn_by_a_crash_is_written_anew() {
    let directory = Directory(tempfile::tempdir().unwrap(), u64::MAX);
    let log: Vec<_> = (1..=3).map(|sequence| event(sequence, "x")).collect();
    hand_over(&*directory.sink().await, &log[..2])
        .await
        .unwrap();
    let mut text = std::fs::read(directory.path()).unwrap();
    text.extend_from_slice(&log[2].body[..40]);
    std::fs::write(directory.path(), &text).unwrap();
    let sink = directory.sink().await;
    assert_eq!(sink.acknowledged().await.unwrap(), 2);
    hand_over(&*sink, &log[2..]).await.unwrap();
    let bodies: Vec<_> = log.iter().map(|event| event.body.clone()).collect();
    assert_eq!(directory.received().await, bodies);
}

#[tokio::test]
async fn only_the_newest_renamed_files_are_kept_and_are_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory(tempfile::tempdir().unwrap(), 1);
    std::fs::write(directory.0.path().join("audit.jsonl.mine"), "kept").unwrap();
    let sink = JsonLines::open(directory.path(), 1, 2).unwrap();
    for sequence in 1..=5 {
        hand_over(&sink, &[event(sequence, "x")]).await.unwrap();
    }
    let renamed: Vec<_> = directory.files();
    assert_eq!(renamed.len(), 3, "{renamed:?}");
    assert!(renamed[0].ends_with("audit.jsonl.00000000000000000004"));
    assert!(directory.0.path().join("audit.jsonl.mine").exists());
    for path in &renamed[..2] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
    }
    let again = JsonLines::open(directory.path(), 1, 2).unwrap();
    assert_eq!(again.acknowledged().await.unwrap(), 5);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_left_alone() {
    let directory = Directory(tempfile::tempdir().unwrap(), u64::MAX);
    let sink = directory.sink().await;
    hand_over(&*sink, &[event(1, "x")]).await.unwrap();
    let moved = directory.0.path().join("moved");
    std::fs::rename(directory.path(), &moved).unwrap();
    hand_over(&*sink, &[event(2, "x")]).await.unwrap();
    let lines = |path: &PathBuf| std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&moved), lines(&directory.path())), (1, 1));
}

#[test]
fn files_that_are_not_ours_are_left_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("diary");
    for content in ["Dear diary\n".repeat(9), "x".repeat(300_000)] {
        std::fs::write(&path, &content).unwrap();
        let error = JsonLines::open(path.clone(), 1, 1).unwrap_err().to_string();
        assert!(error.contains("move it away"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(JsonLines::open(link, 1, 1).is_err());
    let missing = directory.path().join("no/such/directory");
    let error = JsonLines::open(missing.clone(), 1, 1).unwrap_err();
    assert!(error.to_string().contains(missing.to_str().unwrap()));
}

/// What a receiver on the network has heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    events: Vec<Vec<u8>>,
    checkpoint: Option<String>,
}

impl Heard {
    fn event(&self, body: &[u8]) {
        self.0.lock().unwrap().events.push(body.to_vec());
    }

    fn checkpoint(&self, note: &serde_json::Value) {
        if let Some(note) = note.as_str() {
            self.0.lock().unwrap().checkpoint = Some(note.to_owned());
        }
    }
}

/// Reads one connection to its end.
trait Protocol: Clone + Send + Sync + 'static {
    fn serve(
        &self,
        stream: Box<dyn ByteStream>,
        heard: Heard,
    ) -> impl Future<Output = Option<()>> + Send;
    fn sink(&self, way: Outside, port: u16) -> Box<dyn Sink>;
}

/// A receiver on a loopback port, with or without TLS.
struct Network<P> {
    protocol: P,
    way: Outside,
    port: u16,
    heard: Heard,
    dead: Arc<AtomicBool>,
    _server: tokio::task::JoinSet<()>,
}

/// A certificate for `localhost`, made by OpenSSL.
struct Certificate {
    directory: TempDir,
}

impl Certificate {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let config = "[req]\nprompt=no\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\nCN=receiver\n\
                      [v3]\nsubjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n";
        std::fs::write(at("config"), config).unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2"])
            .arg("-config")
            .arg(at("config"))
            .arg("-keyout")
            .arg(at("key"))
            .arg("-out")
            .arg(at("certificate"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { directory }
    }

    fn way(&self) -> Outside {
        let pem = std::fs::read(self.directory.path().join("certificate")).unwrap();
        Outside::tls(&pem).unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let at = |name: &str| self.directory.path().join(name);
        let chain = CertificateDer::pem_file_iter(at("certificate"))
            .unwrap()
            .map(Result::unwrap);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                chain.collect(),
                PrivateKeyDer::from_pem_file(at("key")).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl<P: Protocol> Network<P> {
    async fn start(protocol: P, certificate: Option<&Certificate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, dead) = (Heard::default(), Arc::new(AtomicBool::new(false)));
        let mut server = tokio::task::JoinSet::new();
        let acceptor = certificate.map(Certificate::acceptor);
        let serving = (protocol.clone(), heard.clone(), Arc::clone(&dead));
        server.spawn(async move {
            let (protocol, heard, dead) = serving;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if dead.load(Ordering::SeqCst) {
                    continue;
                }
                let stream: Box<dyn ByteStream> = match &acceptor {
                    None => Box::new(stream),
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(tls) => Box::new(tls),
                        Err(_) => continue,
                    },
                };
                let _ = protocol.serve(stream, heard.clone()).await;
            }
        });
        Self {
            protocol,
            way: certificate.map_or_else(Outside::dangerously_plain, Certificate::way),
            port,
            heard,
            dead,
            _server: server,
        }
    }
}

#[async_trait]
impl<P: Protocol> Receiver for Network<P> {
    async fn sink(&self) -> Box<dyn Sink> {
        self.protocol.sink(self.way.clone(), self.port)
    }

    async fn received(&self) -> Vec<Vec<u8>> {
        self.heard.0.lock().unwrap().events.clone()
    }

    async fn checkpoint(&self) -> Option<String> {
        self.heard.0.lock().unwrap().checkpoint.clone()
    }

    async fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }
}

/// Reads octet-counted messages.
#[derive(Clone)]
struct Frames;

impl Protocol for Frames {
    async fn serve(&self, mut stream: Box<dyn ByteStream>, heard: Heard) -> Option<()> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.ok()?;
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let message = rest.get(space + 1..space + 1 + length)?;
            rest = &rest[space + 1 + length..];
            let text = std::str::from_utf8(message).unwrap();
            let fields: Vec<&str> = text.splitn(8, ' ').collect();
            let [priority, _, "hub-1", "mezhub", "-", id, "-", body] = fields[..] else {
                return None;
            };
            assert!(
                priority.starts_with("<1") && priority.ends_with(">1"),
                "{priority}"
            );
            if id == "checkpoint" {
                let note: serde_json::Value = serde_json::from_str(body).unwrap();
                heard.checkpoint(&note["checkpoint"]);
            } else {
                heard.event(body.as_bytes());
            }
        }
        // The sink takes this as its receipt: TLS says who gave it.
        stream.shutdown().await.ok()
    }

    fn sink(&self, way: Outside, port: u16) -> Box<dyn Sink> {
        Box::new(Syslog::new(way, "localhost".into(), port, "hub-1".into()))
    }
}

#[tokio::test]
async fn syslog_conforms_over_tcp_and_tls() {
    let certificate = Certificate::new();
    conformance::all(async || Network::start(Frames, None).await).await;
    conformance::all(async || Network::start(Frames, Some(&certificate)).await).await;
}

#[tokio::test]
async fn a_receiver_whose_certificate_nobody_vouches_for_gets_nothing() {
    let (ours, theirs) = (Certificate::new(), Certificate::new());
    let mut receiver = Network::start(Frames, Some(&theirs)).await;
    receiver.way = ours.way();
    let error = hand_over(&*receiver.sink().await, &[event(1, "x")])
        .await
        .unwrap_err();
    assert!(error.contains("no TLS connection"), "{error}");
    assert!(receiver.received().await.is_empty());
    let plain = Network::start(Frames, None).await;
    let sink = Syslog::new(ours.way(), "localhost".into(), plain.port, "h".into());
    assert!(hand_over(&sink, &[event(1, "x")]).await.is_err());
}

/// Answers each POST with this status, and what else it says.
#[derive(Clone)]
struct Http {
    answer: String,
    token_file: Option<PathBuf>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Http {
    fn answering(answer: &str) -> Self {
        Self {
            answer: answer.to_owned(),
            token_file: None,
            requests: Arc::default(),
        }
    }
}

impl Protocol for Http {
    async fn serve(&self, stream: Box<dyn ByteStream>, heard: Heard) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1)?;
        let length: usize = length.lines().next()?.trim().parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        self.requests.lock().unwrap().push(head);
        if self.answer.starts_with("200") {
            let raw: Document<'_> = serde_json::from_slice(&body).unwrap();
            for event in raw.events {
                heard.event(event.get().as_bytes());
            }
            heard.checkpoint(&raw.checkpoint);
        }
        let answer = format!(
            "HTTP/1.1 {}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            self.answer
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }

    fn sink(&self, way: Outside, port: u16) -> Box<dyn Sink> {
        let url = format!("https://localhost:{port}/in").parse().unwrap();
        Box::new(Webhook::new(way, url, self.token_file.clone()))
    }
}

#[derive(serde::Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    events: Vec<&'a serde_json::value::RawValue>,
    #[serde(default)]
    checkpoint: serde_json::Value,
}

#[tokio::test]
async fn webhook_conforms() {
    let certificate = Certificate::new();
    conformance::all(async || Network::start(Http::answering("200 OK"), Some(&certificate)).await)
        .await;
}

#[tokio::test]
async fn attack_79_redirects_are_not_followed_and_refusals_are_told_without_secrets() {
    let certificate = Certificate::new();
    let elsewhere = Network::start(Http::answering("200 OK"), None).await;
    let token = certificate.directory.path().join("token");
    std::fs::write(&token, "sesame-open\n").unwrap();
    for answer in [
        format!(
            "307 Temporary Redirect\r\nlocation: http://localhost:{}/steal",
            elsewhere.port
        ),
        String::from("301 Moved\r\nlocation: http://169.254.169.254/latest"),
        String::from("403 Forbidden"),
        String::from("500 Oops"),
        String::from("100 Continue"),
    ] {
        let mut http = Http::answering(&answer);
        http.token_file = Some(token.clone());
        let receiver = Network::start(http, Some(&certificate)).await;
        let sink = receiver.sink().await;
        let error = hand_over(&*sink, &[event(1, "x")]).await.unwrap_err();
        assert!(!error.contains("sesame"), "{error}");
        assert!(!format!("{sink:?}").contains("sesame"));
        if answer.starts_with('3') {
            assert!(error.contains("redirects are not followed"), "{error}");
        }
    }
    assert!(elsewhere.protocol.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_new_token_needs_no_restart() {
    let certificate = Certificate::new();
    let token = certificate.directory.path().join("token");
    let mut http = Http::answering("200 OK");
    http.token_file = Some(token.clone());
    let receiver = Network::start(http, Some(&certificate)).await;
    let sink = receiver.sink().await;
    let error = hand_over(&*sink, &[event(1, "x")]).await.unwrap_err();
    assert!(error.contains(&token.display().to_string()), "{error}");
    for (sequence, text) in [(1, "one\n"), (2, "two\n")] {
        std::fs::write(&token, text).unwrap();
        hand_over(&*sink, &[event(sequence, "x")]).await.unwrap();
    }
    std::fs::write(&token, "a\nb\n").unwrap();
    assert!(hand_over(&*sink, &[event(3, "x")]).await.is_err());
    let requests = receiver.protocol.requests.lock().unwrap().clone();
    let said: Vec<_> = requests
        .iter()
        .filter_map(|head| {
            let mut lines = head.lines().map(str::to_ascii_lowercase);
            let line = lines.find(|line| line.starts_with("authorization:"))?;
            Some(line.split_once(' ')?.1.to_owned())
        })
        .collect();
    assert_eq!(said, ["bearer one", "bearer two"]);
}
