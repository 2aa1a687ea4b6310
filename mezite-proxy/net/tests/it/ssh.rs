//! The SSH facade against itself, and against the bare library where a peer has to misbehave.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mezite_net::ssh::{
    Attempt, Authenticator, Channel, ChannelKind, Client, HostVerifier, Incoming, Message,
    OpenFailure, Request, Server, SshError, WindowSize, accept,
};
use russh::keys::PrivateKeyWithHashAlg;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::keys;

/// What an authenticator saw, in order.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// Lets in whoever shows a certificate whose key id names `user`.
#[derive(Debug, Default)]
pub(crate) struct Door(pub(crate) Seen);

#[async_trait]
impl Authenticator for Door {
    type Proof = Vec<u8>;

    async fn certificate(&mut self, user: &str, blob: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().unwrap().push(format!("certificate {user}"));
        let named = format!("user={user} ");
        blob.windows(named.len())
            .any(|window| window == named.as_bytes())
            .then(|| blob.to_vec())
    }

    async fn refused(&mut self, user: &str, attempt: Attempt) {
        self.0.lock().unwrap().push(format!("{attempt} {user}"));
    }
}

pub(crate) fn anybody() -> HostVerifier {
    Box::new(|_| Ok(()))
}

pub(crate) async fn connect(stream: DuplexStream, user: &str) -> Result<Client, SshError> {
    let key = Arc::new(keys::private(10));
    Client::connect(stream, anybody(), user, key, keys::identity("alice")).await
}

/// Both ends of one authenticated connection.
pub(crate) async fn pair() -> (Server<Vec<u8>>, Client) {
    let (near, far) = duplex(64 * 1024);
    let (server, client) = tokio::join!(
        accept(far, keys::host(), Door::default()),
        connect(near, "alice")
    );
    (server.unwrap(), client.unwrap())
}

pub(crate) async fn accepted(server: &mut Server<Vec<u8>>) -> Channel {
    let Some(Incoming::Open(pending)) = server.next().await else {
        panic!("no channel is opened")
    };
    assert_eq!(*pending.kind(), ChannelKind::Session);
    pending.accept().await
}

/// Both ends of one session channel.
pub(crate) async fn channel(server: &mut Server<Vec<u8>>, client: &Client) -> (Channel, Channel) {
    let (served, opened) = tokio::join!(accepted(server), client.open_session());
    (served, opened.unwrap())
}

/// The library's bare client, for what the facade's cannot do.
pub(crate) struct Bare;

impl russh::client::Handler for Bare {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub(crate) async fn bare_client(stream: DuplexStream) -> russh::client::Handle<Bare> {
    let config = Arc::new(russh::client::Config::default());
    russh::client::connect_stream(config, stream, Bare)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_certificate_comes_in_with_its_exact_bytes() {
    let (server, _client) = pair().await;
    assert_eq!(server.user(), "alice");
    let shown = ssh_key::Certificate::from_bytes(server.proof()).unwrap();
    assert_eq!(
        shown.public_key(),
        keys::private(10).public_key().key_data()
    );
}

#[tokio::test]
async fn a_certificate_that_the_authenticator_refuses_stays_outside() {
    let seen = Seen::default();
    let (near, far) = duplex(64 * 1024);
    let (server, client) = tokio::join!(
        accept(far, keys::host(), Door(Arc::clone(&seen))),
        connect(near, "mallory")
    );
    assert!(matches!(client, Err(SshError::Refused(user)) if user == "mallory"));
    assert!(server.is_err());
    assert_eq!(*seen.lock().unwrap(), ["certificate mallory"]);
}

#[tokio::test]
async fn a_plain_key_is_refused_and_seen() {
    let seen = Seen::default();
    let (near, far) = duplex(64 * 1024);
    let trying = async {
        let mut client = bare_client(near).await;
        let key = PrivateKeyWithHashAlg::new(Arc::new(keys::private(10)), None);
        client.authenticate_publickey("alice", key).await.unwrap()
    };
    let (server, tried) = tokio::join!(accept(far, keys::host(), Door(Arc::clone(&seen))), trying);
    assert!(!tried.success());
    assert!(server.is_err());
    let seen = seen.lock().unwrap().join("\n");
    assert!(
        seen.contains("without a certificate alice") && seen.contains("SHA256:"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_password_is_refused_and_seen_without_it() {
    let seen = Seen::default();
    let (near, far) = duplex(64 * 1024);
    let trying = async {
        let mut client = bare_client(near).await;
        client.authenticate_password("alice", "hunter2").await
    };
    let (server, tried) = tokio::join!(accept(far, keys::host(), Door(Arc::clone(&seen))), trying);
    assert!(!tried.is_ok_and(|result| result.success()));
    assert!(server.is_err());
    assert!(!seen.lock().unwrap().join("\n").contains("hunter2"));
}

#[tokio::test]
async fn a_host_certificate_is_judged_by_its_bytes() {
    let (near, far) = duplex(64 * 1024);
    let shown = keys::host();
    let expected = shown.certificate.to_bytes().unwrap();
    let verifier: HostVerifier = Box::new(move |blob| {
        assert_eq!(blob, expected);
        Err(String::from("not the node that was meant"))
    });
    let key = Arc::new(keys::private(10));
    let (_, client) = tokio::join!(
        accept(far, shown, Door::default()),
        Client::connect(near, verifier, "alice", key, keys::identity("alice"))
    );
    assert!(
        matches!(&client, Err(SshError::HostRefused(words)) if words == "not the node that was meant"),
        "{client:?}"
    );
}

/// A bare server of the library.
#[derive(Clone)]
pub(crate) struct Node;

impl russh::server::Handler for Node {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        _: russh::server::PublicKeyOffer<'_>,
    ) -> Result<russh::server::Auth, russh::Error> {
        Ok(russh::server::Auth::Accept)
    }

    async fn auth_openssh_certificate(
        &mut self,
        _: &str,
        _: &ssh_key::Certificate,
    ) -> Result<russh::server::Auth, russh::Error> {
        Ok(russh::server::Auth::Accept)
    }
}

fn node_config(certified: bool) -> Arc<russh::server::Config> {
    let identity = keys::host();
    Arc::new(russh::server::Config {
        keys: vec![identity.key],
        certificates: certified
            .then_some(identity.certificate)
            .into_iter()
            .collect(),
        ..russh::server::Config::default()
    })
}

#[tokio::test]
async fn a_plain_host_key_is_refused() {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(russh::server::run_stream(node_config(false), far, Node));
    let client = connect(near, "alice").await;
    assert!(client.is_err(), "{client:?}");
}

#[tokio::test]
async fn a_node_cannot_open_channels() {
    let (near, far) = duplex(64 * 1024);
    let serving = tokio::spawn(russh::server::run_stream(node_config(true), far, Node));
    let client = connect(near, "alice").await.unwrap();
    let handle = serving.await.unwrap().unwrap().handle();
    assert!(handle.channel_open_session().await.is_err());
    assert!(handle.channel_open_agent().await.is_err());
    assert!(handle.channel_open_x11("10.0.0.1", 6000).await.is_err());
    let forwarded = handle.channel_open_forwarded_tcpip("127.0.0.1", 80, "127.0.0.1", 1);
    assert!(forwarded.await.is_err());
    let forwarded = handle.channel_open_forwarded_streamlocal("/run/x");
    assert!(forwarded.await.is_err());
    let direct = handle.channel_open_direct_tcpip("169.254.169.254", 80, "127.0.0.1", 1);
    assert!(direct.await.is_err());
    assert!(
        handle
            .channel_open_direct_streamlocal("/run/x")
            .await
            .is_err()
    );
    assert!(!client.is_closed(), "it is refused, not torn down");
}

#[tokio::test]
async fn global_requests_wait_for_an_answer_each() {
    let (near, far) = duplex(64 * 1024);
    let asking = async {
        let mut client = bare_client(near).await;
        let key = Arc::new(keys::private(10));
        let tried = client
            .authenticate_openssh_cert("alice", key, keys::identity("alice"))
            .await
            .unwrap();
        assert!(tried.success());
        (client,)
    };
    let (server, (client,)) = tokio::join!(accept(far, keys::host(), Door::default()), asking);
    let mut server = server.unwrap();
    let deciding = async {
        let mut asked = Vec::new();
        while asked.len() < 6 {
            let Some(Incoming::Listen(pending)) = server.next().await else {
                panic!("no listener")
            };
            asked.push((pending.at().to_string(), pending.is_stop()));
            // Dropped, a request is refused.
            if asked.len() > 3 {
                pending.grant(8080);
            }
        }
        asked
    };
    let asking = async {
        assert!(client.tcpip_forward("0.0.0.0", 0).await.is_err());
        assert!(client.cancel_tcpip_forward("0.0.0.0", 0).await.is_err());
        assert!(client.streamlocal_forward("/run/x").await.is_err());
        assert_eq!(client.tcpip_forward("localhost", 0).await.unwrap(), 8080);
        client
            .cancel_tcpip_forward("localhost", 8080)
            .await
            .unwrap();
        client.streamlocal_forward("/run/x").await.unwrap();
    };
    let (asked, ()) = tokio::join!(deciding, asking);
    let expected = [
        ("0.0.0.0:0", false),
        ("0.0.0.0:0", true),
        ("/run/x", false),
        ("localhost:0", false),
        ("localhost:8080", true),
        ("/run/x", false),
    ];
    assert_eq!(asked, expected.map(|(at, stop)| (at.to_owned(), stop)));
}

#[tokio::test]
async fn a_nodes_channels_are_offered_where_somebody_takes_them() {
    let (near, far) = duplex(64 * 1024);
    let serving = tokio::spawn(russh::server::run_stream(node_config(true), far, Node));
    let client = connect(near, "alice").await.unwrap();
    let handle = serving.await.unwrap().unwrap().handle();
    let mut offers = client.offers().unwrap();
    assert!(client.offers().is_none(), "given once");
    let opening = async {
        let agent = handle.channel_open_agent().await.unwrap();
        agent.data(&b"hello"[..]).await.unwrap();
        let refused = handle.channel_open_x11("10.0.0.1", 6000).await;
        assert!(refused.is_err());
        let session = handle.channel_open_session().await;
        assert!(session.is_err(), "no offer of a session");
        agent
    };
    let taking = async {
        let agent = offers.recv().await.unwrap();
        assert_eq!(*agent.kind(), ChannelKind::Agent);
        let mut agent = agent.accept().await;
        let said = agent.reader.next().await;
        assert_eq!(said, Some(Message::Data(Bytes::from_static(b"hello"))));
        let x11 = offers.recv().await.unwrap();
        assert_eq!(x11.kind().to_string(), "x11");
        x11.refuse(OpenFailure::Prohibited, "no").await;
        agent
    };
    let _ends = tokio::join!(opening, taking);
}

#[tokio::test]
async fn a_command_goes_round() {
    let (mut server, client) = pair().await;
    let (served, opened) = channel(&mut server, &client).await;
    let serving = async {
        let Channel { mut reader, writer } = served;
        let command = Message::Request(Request::Exec(b"cat \xff".to_vec()));
        assert_eq!(reader.next().await, Some(command));
        writer.send(Message::Success).await.unwrap();
        assert_eq!(
            reader.next().await,
            Some(Message::Data(Bytes::from_static(b"in")))
        );
        assert_eq!(reader.next().await, Some(Message::Eof));
        for message in [
            Message::Data(Bytes::from_static(b"out")),
            Message::ExtendedData(1, Bytes::from_static(b"err")),
            Message::Request(Request::ExitStatus(3)),
            Message::Eof,
            Message::Close,
        ] {
            writer.send(message).await.unwrap();
        }
        while reader.next().await.is_some() {}
    };
    let asking = async {
        let Channel { mut reader, writer } = opened;
        for message in [
            Message::Request(Request::Exec(b"cat \xff".to_vec())),
            Message::Data(Bytes::from_static(b"in")),
            Message::Eof,
        ] {
            writer.send(message).await.unwrap();
        }
        let mut heard = Vec::new();
        while let Some(message) = reader.next().await {
            heard.push(message);
        }
        writer.send(Message::Close).await.unwrap();
        heard
    };
    let ((), heard) = tokio::join!(serving, asking);
    assert_eq!(
        heard,
        [
            Message::Success,
            Message::Data(Bytes::from_static(b"out")),
            Message::ExtendedData(1, Bytes::from_static(b"err")),
            Message::Request(Request::ExitStatus(3)),
            Message::Eof,
            Message::Close,
        ]
    );
}

#[tokio::test]
async fn requests_are_answered_in_their_order() {
    let (mut server, client) = pair().await;
    let (served, opened) = channel(&mut server, &client).await;
    let size = WindowSize {
        cols: 80,
        rows: 24,
        width: 1,
        height: 2,
    };
    let pty = Message::Request(Request::Pty {
        term: String::from("xterm"),
        size,
        modes: vec![(53, 1)],
    });
    let env = Message::Request(Request::Env {
        name: String::from("LANG"),
        value: String::from("C"),
    });
    let resize = Message::Request(Request::WindowChange(WindowSize { cols: 100, ..size }));
    let signal = Message::Request(Request::Signal(String::from("INT")));
    let shell = Message::Request(Request::Shell);
    let sftp = Message::Request(Request::Subsystem(String::from("sftp")));
    let script = [pty, env, shell, resize, signal, sftp];
    let serving = async {
        let Channel { mut reader, writer } = served;
        let mut heard = Vec::new();
        for answer in [
            Some(Message::Success),
            None,
            Some(Message::Failure),
            None,
            None,
            Some(Message::Success),
        ] {
            heard.push(reader.next().await.unwrap());
            if let Some(answer) = answer {
                writer.send(answer).await.unwrap();
            }
        }
        writer.send(Message::Close).await.unwrap();
        heard
    };
    let asking = async {
        let Channel { mut reader, writer } = opened;
        for message in script.clone() {
            writer.send(message).await.unwrap();
        }
        let mut answers = Vec::new();
        while let Some(message) = reader.next().await {
            answers.push(message);
        }
        answers
    };
    let (heard, answers) = tokio::join!(serving, asking);
    assert_eq!(heard, script);
    assert_eq!(
        answers,
        [
            Message::Success,
            Message::Failure,
            Message::Success,
            Message::Close
        ]
    );
}

#[tokio::test]
async fn a_channel_is_over_for_whoever_closes_it() {
    let (mut server, client) = pair().await;
    let (mut served, mut opened) = channel(&mut server, &client).await;
    served.writer.send(Message::Close).await.unwrap();
    for reader in [&mut served.reader, &mut opened.reader] {
        let closed = tokio::time::timeout(Duration::from_secs(1), reader.next()).await;
        assert_eq!(closed.unwrap(), Some(Message::Close));
        assert_eq!(reader.next().await, None);
    }
}

#[tokio::test]
async fn an_exit_signal_arrives_whole() {
    let (mut server, client) = pair().await;
    let (served, mut opened) = channel(&mut server, &client).await;
    for name in ["KILL", "SEGV", "STRANGE@example.org"] {
        let exit = Message::Request(Request::ExitSignal {
            signal: String::from(name),
            core_dumped: true,
            message: String::from("it ended"),
        });
        served.writer.send(exit.clone()).await.unwrap();
        assert_eq!(opened.reader.next().await, Some(exit));
    }
}

#[tokio::test]
async fn a_side_cannot_say_what_is_the_others() {
    let (mut server, client) = pair().await;
    let (served, opened) = channel(&mut server, &client).await;
    let from_server = served.writer.send(Message::Request(Request::Shell)).await;
    assert!(matches!(from_server, Err(SshError::Protocol(_))));
    let from_client = opened
        .writer
        .send(Message::Request(Request::ExitStatus(0)))
        .await;
    assert!(matches!(from_client, Err(SshError::Protocol(_))));
}

#[tokio::test]
async fn a_refused_channel_says_why() {
    let (mut server, client) = pair().await;
    let refusing = async {
        for failure in [
            Some(OpenFailure::Shortage),
            Some(OpenFailure::ConnectFailed),
            None,
        ] {
            let Some(Incoming::Open(pending)) = server.next().await else {
                panic!("no channel is opened")
            };
            match failure {
                Some(failure) => pending.refuse(failure, "no").await,
                None => drop(pending),
            }
        }
    };
    let asking = async {
        let mut failures = Vec::new();
        for _ in 0..3 {
            match client.open_session().await {
                Err(SshError::ChannelRefused(failure)) => failures.push(failure),
                other => panic!("{other:?}"),
            }
        }
        failures
    };
    let ((), failures) = tokio::join!(refusing, asking);
    assert_eq!(
        failures[..2],
        [OpenFailure::Shortage, OpenFailure::ConnectFailed]
    );
}

/// Both loops have a socket that takes little, and each side has more to say than any buffer holds.
#[tokio::test]
async fn bulk_both_ways_never_stalls() {
    const PIECES: usize = 600;
    let (mut server, client) = pair().await;
    let (near, far) = tokio::join!(accepted(&mut server), client.open_session());
    let (mut near, mut far) = (near, far.unwrap());
    let echoing = tokio::spawn(async move {
        while let Some(message) = near.reader.next().await {
            if let Message::Data(_) = &message {
                near.writer.send(message).await.unwrap();
            }
        }
    });
    let sending = tokio::spawn(async move {
        for _ in 0..PIECES {
            let piece = Message::Data(vec![7; 32 * 1024].into());
            far.writer.send(piece).await.unwrap();
        }
        far.writer
    });
    let receiving = async {
        let mut received = 0;
        while received < PIECES * 32 * 1024 {
            match far.reader.next().await {
                Some(Message::Data(data)) => received += data.len(),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), receiving)
        .await
        .expect("neither side waits for the other");
    drop(sending.await.unwrap());
    echoing.abort();
}

#[tokio::test]
async fn attack_30_a_million_refused_channels_leave_room() {
    let (mut server, client) = pair().await;
    let refusing = async {
        while let Some(Incoming::Open(pending)) = server.next().await {
            pending.refuse(OpenFailure::Prohibited, "no").await;
        }
    };
    let asking = async {
        for _ in 0..2000 {
            assert!(client.open_session().await.is_err());
        }
    };
    tokio::select! {
        () = refusing => panic!("the connection was lost"),
        () = asking => {}
    }
    let (_served, opened) = tokio::join!(accepted(&mut server), client.open_session());
    assert!(opened.is_ok());
}

#[tokio::test]
async fn a_stream_in_a_channel_carries_bytes() {
    let (mut server, client) = pair().await;
    let serving = async {
        let Some(Incoming::Open(pending)) = server.next().await else {
            panic!("no channel is opened")
        };
        let ChannelKind::DirectTcpip { to, .. } = pending.kind().clone() else {
            panic!("not a jump")
        };
        assert_eq!((to.host.as_str(), to.port), ("db1", 22));
        let mut stream = pending.accept_stream().await;
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&said).await.unwrap();
        stream
    };
    let asking = async {
        let mut stream = client.open_direct_tcpip("db1", 22).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        said
    };
    let (_stream, said) = tokio::join!(serving, asking);
    assert_eq!(&said, b"hello");
}

#[tokio::test]
async fn a_dropped_stream_closes_its_channel() {
    let (mut server, client) = pair().await;
    let serving = async {
        let Some(Incoming::Open(pending)) = server.next().await else {
            panic!("no channel is opened")
        };
        drop(pending.accept_stream().await);
        server
    };
    let asking = async {
        let mut stream = client.open_direct_tcpip("db1", 22).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
        assert!(end.expect("the end is told").is_err());
    };
    let (_server, ()) = tokio::join!(serving, asking);
}

#[tokio::test]
async fn a_goodbye_is_heard_and_ends_the_connection() {
    let (server, client) = pair().await;
    server.disconnect("enough").await;
    let closed = async {
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), closed)
        .await
        .unwrap();
}

#[tokio::test]
async fn attack_31_a_client_that_does_not_read_is_cut_off() {
    let (near, far) = duplex(16 * 1024);
    let (mut near_read, mut near_write) = tokio::io::split(near);
    // The client behind this relay stops reading when told so.
    let (client_end, relay_end) = duplex(16 * 1024);
    let (mut relay_read, mut relay_write) = tokio::io::split(relay_end);
    let up = tokio::spawn(async move { tokio::io::copy(&mut relay_read, &mut near_write).await });
    let down = tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut relay_write).await });
    let (server, client) = tokio::join!(
        accept(far, keys::host(), Door::default()),
        connect(client_end, "alice")
    );
    let (mut server, client) = (server.unwrap(), client.unwrap());
    let (served, opened) = channel(&mut server, &client).await;
    down.abort();
    let writing = tokio::spawn(async move {
        let data = Bytes::from(vec![0; 32 * 1024]);
        while served
            .writer
            .send(Message::Data(data.clone()))
            .await
            .is_ok()
        {}
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!writing.is_finished(), "it waits for the client");
    tokio::time::timeout(Duration::from_secs(1), server.disconnect("enough"))
        .await
        .unwrap();
    let over = tokio::time::timeout(Duration::from_secs(1), server.next());
    assert!(over.await.unwrap().is_none());
    writing.abort();
    drop((opened, up));
}

#[tokio::test]
async fn a_dropped_server_or_client_is_cut() {
    let (server, client) = pair().await;
    drop(server);
    let closed = async {
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), closed)
        .await
        .unwrap();
    let (mut server, client) = pair().await;
    drop(client);
    let ended = tokio::time::timeout(Duration::from_secs(1), server.next()).await;
    assert!(ended.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn attack_29_a_client_that_stops_half_way_is_cut_off() {
    for said in [&b""[..], b"SSH-2.0-slow\r\n"] {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(said).await.unwrap();
        let served = accept(far, keys::gateway("hub"), Door::default()).await;
        assert!(matches!(served, Err(SshError::Timeout(30))), "{served:?}");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(1), near.read_to_end(&mut rest));
        closed.await.unwrap().unwrap();
    }
}
