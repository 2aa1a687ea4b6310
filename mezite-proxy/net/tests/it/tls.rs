//! Who may speak TLS with whom.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mezite_ca::verify::VerifiedPeer;
use mezite_ca::{
    HostTls, PeerKind, PeerName, Signer, TlsRequest, TrustBundle, UserTls, openssh, pin,
};
use mezite_core::{Clock, ClusterName, ManualClock, Serial, Span, UnixTime};
use mezite_net::tls::{
    Accept, Acceptor, Clients, Connector, Credentials, OwnIdentity, Peer, Protocol, TlsError,
};
use rand::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::keys::software;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
const LIFE: Span = Span::from_secs(3600);
/// The serial number of a certificate that the acceptors of these tests take for revoked.
const REVOKED: u64 = 13;

fn node() -> String {
    mezite_core::NodeId::new([1; 16]).to_string()
}

/// One cluster's two TLS authorities.
struct Authorities {
    cluster: ClusterName,
    user: UserTls,
    host: HostTls,
}

impl Authorities {
    fn new(cluster: &str, number: u8) -> Self {
        let cluster: ClusterName = cluster.parse().unwrap();
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        Self {
            user: UserTls::create(software(number), &cluster, NOW, &mut rng).unwrap(),
            host: HostTls::create(software(number + 1), &cluster, NOW, &mut rng).unwrap(),
            cluster,
        }
    }

    fn ours() -> Self {
        Self::new("test", 20)
    }

    fn trust(&self) -> Arc<dyn Fn() -> Arc<TrustBundle> + Send + Sync> {
        let bundle = Arc::new(TrustBundle {
            user_tls: vec![self.user.certificate().to_vec()],
            host_tls: vec![self.host.certificate().to_vec()],
            ..TrustBundle::empty(self.cluster.clone())
        });
        Arc::new(move || Arc::clone(&bundle))
    }

    /// What `kind` holds from `now` on.
    fn identity(&self, kind: PeerKind, now: UnixTime) -> OwnIdentity {
        self.numbered(kind, Serial::from_u64(1), now)
    }

    fn numbered(&self, kind: PeerKind, serial: Serial, now: UnixTime) -> OwnIdentity {
        let name = match kind {
            PeerKind::Node => node(),
            PeerKind::Hub => String::from("hub.example.org"),
            PeerKind::User | PeerKind::Bot => String::from("alice"),
        };
        let peer = PeerName {
            cluster: self.cluster.clone(),
            kind,
            name,
        };
        let key = software(30);
        let request = TlsRequest {
            twin: None,
            peer: &peer,
            public_key: key.public_key(),
            dns_names: &[],
            addresses: &[],
            life: LIFE,
        };
        let (leaf, authority) = match kind {
            PeerKind::Node | PeerKind::Hub => (
                self.host.issue(&request, serial, now),
                self.host.certificate(),
            ),
            PeerKind::User | PeerKind::Bot => (
                self.user.issue(&request, serial, now),
                self.user.certificate(),
            ),
        };
        OwnIdentity::new(&Credentials {
            chain: vec![leaf.unwrap().to_vec(), authority.to_vec()],
            pkcs8: openssh::pkcs8(key.seed()),
        })
        .unwrap()
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn acceptor(
    ours: &Authorities,
    kinds: &'static [PeerKind],
    clients: Clients,
    clock: Arc<dyn Clock>,
) -> Acceptor {
    Acceptor::new(
        ours.identity(PeerKind::Hub, NOW),
        Accept::Kinds(ours.trust(), kinds),
        clients,
        Arc::new(|peer: &VerifiedPeer| peer.serial() == Serial::from_u64(REVOKED)),
        &[Protocol::Grpc, Protocol::TunnelControl],
        clock,
    )
    .unwrap()
}

fn connector(own: Option<OwnIdentity>, accept: Accept) -> Connector {
    Connector::new(own, accept, Protocol::Grpc, clock()).unwrap()
}

fn to_hub(ours: &Authorities, own: Option<OwnIdentity>) -> Connector {
    connector(own, Accept::Kinds(ours.trust(), &[PeerKind::Hub]))
}

/// One connection, and one byte from the server: what each side thinks of it.
async fn meet(acceptor: &Acceptor, connector: &Connector) -> (Result<Peer, TlsError>, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = async {
        let (stream, from) = listener.accept().await.unwrap();
        let (mut stream, peer) = acceptor.accept(stream, &from.to_string()).await?;
        stream.write_all(b"!").await.unwrap();
        stream.flush().await.unwrap();
        Ok(peer)
    };
    let connecting = async {
        // In TLS 1.3 a client learns only by reading that its certificate was refused.
        match connector.connect(&address).await {
            Ok(mut stream) => stream.read_u8().await.is_ok(),
            Err(_) => false,
        }
    };
    tokio::join!(serving, connecting)
}

const ALL: [PeerKind; 4] = [PeerKind::User, PeerKind::Bot, PeerKind::Hub, PeerKind::Node];

#[tokio::test]
async fn attack_63_each_port_takes_only_its_own_kinds() {
    let ours = Authorities::ours();
    let ports: [&'static [PeerKind]; 4] = [
        &[PeerKind::Node],
        &[PeerKind::Hub],
        &[PeerKind::User],
        &[PeerKind::Hub, PeerKind::Node],
    ];
    for kinds in ports {
        let acceptor = acceptor(&ours, kinds, Clients::Required, clock());
        for kind in ALL {
            let client = to_hub(&ours, Some(ours.identity(kind, NOW)));
            let (served, heard) = meet(&acceptor, &client).await;
            let welcome = kinds.contains(&kind);
            assert_eq!(
                served.is_ok(),
                welcome,
                "{kind} where {kinds:?}: {served:?}"
            );
            assert_eq!(heard, welcome);
            if let Ok(peer) = served {
                assert_eq!(peer.identity.unwrap().kind(), kind);
                assert_eq!(peer.protocol, Protocol::Grpc);
            }
        }
    }
}

#[tokio::test]
async fn attack_63_another_clusters_certificates_are_refused() {
    let (ours, theirs) = (Authorities::ours(), Authorities::new("other", 40));
    let acceptor = acceptor(&ours, &ALL, Clients::Required, clock());
    for kind in ALL {
        let client = to_hub(&ours, Some(theirs.identity(kind, NOW)));
        assert!(meet(&acceptor, &client).await.0.is_err(), "{kind}");
    }
    // The same authority keys under another name do not help.
    let renamed = Authorities::new("other", 20);
    let client = to_hub(&ours, Some(renamed.identity(PeerKind::User, NOW)));
    assert!(meet(&acceptor, &client).await.0.is_err());
    // Nor does a client take another cluster's hub.
    let client = to_hub(&theirs, Some(ours.identity(PeerKind::User, NOW)));
    assert!(!meet(&acceptor, &client).await.1);
}

#[tokio::test]
async fn attack_63_certificates_expire_by_our_clock() {
    let ours = Authorities::ours();
    let clock = clock();
    let acceptor = acceptor(&ours, &ALL, Clients::Required, clock.clone());
    let client = || to_hub(&ours, Some(ours.identity(PeerKind::Node, NOW)));
    assert!(meet(&acceptor, &client()).await.0.is_ok());
    clock.advance(Span::from_secs(LIFE.as_secs() + 2));
    assert!(meet(&acceptor, &client()).await.0.is_err());
    clock.set(NOW.minus(Span::from_secs(3600)));
    assert!(meet(&acceptor, &client()).await.0.is_err(), "not valid yet");
}

#[tokio::test]
async fn attack_63_a_servers_certificate_expires_too() {
    let ours = Authorities::ours();
    let later: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW.plus(Span::from_secs(7200))));
    let acceptor = acceptor(&ours, &ALL, Clients::Optional, clock());
    let accept = Accept::Kinds(ours.trust(), &[PeerKind::Hub]);
    let client = Connector::new(None, accept, Protocol::Grpc, later).unwrap();
    assert!(!meet(&acceptor, &client).await.1);
}

#[tokio::test]
async fn attack_63_no_certificate_is_nobody_or_nothing() {
    let ours = Authorities::ours();
    let required = acceptor(&ours, &ALL, Clients::Required, clock());
    let (served, heard) = meet(&required, &to_hub(&ours, None)).await;
    assert!(served.is_err() && !heard);
    let optional = acceptor(&ours, &ALL, Clients::Optional, clock());
    let (served, heard) = meet(&optional, &to_hub(&ours, None)).await;
    assert!(served.unwrap().identity.is_none() && heard);
    // Optional is no excuse for a wrong one.
    let theirs = Authorities::new("other", 40).identity(PeerKind::User, NOW);
    let (served, _) = meet(&optional, &to_hub(&ours, Some(theirs))).await;
    assert!(served.is_err());
}

/// In TLS 1.3 a client may talk before it knows that it is refused. What it says must not cost it the reason: a
/// connection closed over unread bytes is reset.
#[tokio::test]
async fn a_refused_client_that_talks_first_still_reads_why() {
    let ours = Authorities::ours();
    let acceptor = acceptor(&ours, &ALL, Clients::Required, clock());
    let strange = Authorities::new("test", 40).identity(PeerKind::User, NOW);
    let revoked = ours.numbered(PeerKind::User, Serial::from_u64(REVOKED), NOW);
    for (own, reason) in [(strange, "UnknownCA"), (revoked, "CertificateRevoked")] {
        let connector = to_hub(&ours, Some(own));
        for _ in 0..50 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let serving = async {
                let (stream, from) = listener.accept().await.unwrap();
                acceptor.accept(stream, &from.to_string()).await.is_err()
            };
            let talking = async {
                let mut stream = connector.connect(&address).await.unwrap();
                let mut said = Ok(());
                for _ in 0..40 {
                    said = said.and(stream.write_all(&[7; 1000]).await);
                    said = said.and(stream.flush().await);
                    tokio::task::yield_now().await;
                }
                let heard = stream.read_u8().await;
                said.and_then(|()| heard.map(drop)).unwrap_err().to_string()
            };
            let (refused, why) = tokio::join!(serving, talking);
            assert!(refused && why.contains(reason), "{why}");
        }
    }
}

#[tokio::test]
async fn attack_63_only_a_hub_may_be_the_server() {
    let ours = Authorities::ours();
    for kind in ALL {
        let posing = Acceptor::new(
            ours.identity(kind, NOW),
            Accept::Kinds(ours.trust(), &ALL),
            Clients::Optional,
            Arc::new(|_| false),
            &[Protocol::Grpc],
            clock(),
        )
        .unwrap();
        let (_, heard) = meet(&posing, &to_hub(&ours, None)).await;
        assert_eq!(heard, kind == PeerKind::Hub, "{kind}");
    }
}

#[tokio::test]
async fn a_pinned_hub_is_known_by_its_authority() {
    let ours = Authorities::ours();
    let acceptor = acceptor(&ours, &ALL, Clients::Optional, clock());
    let right = pin(ours.host.certificate()).unwrap();
    let pins = [
        (right.clone(), true),
        (right.to_uppercase(), false),
        (pin(ours.user.certificate()).unwrap(), false),
        (Authorities::new("other", 40).host.pin(), false),
        (String::new(), false),
    ];
    for (pin, welcome) in pins {
        let client = connector(None, Accept::PinnedHub(pin.clone()));
        assert_eq!(meet(&acceptor, &client).await.1, welcome, "{pin}");
    }
    let node = Acceptor::new(
        ours.identity(PeerKind::Node, NOW),
        Accept::Kinds(ours.trust(), &ALL),
        Clients::Optional,
        Arc::new(|_| false),
        &[Protocol::Grpc],
        clock(),
    )
    .unwrap();
    let client = connector(None, Accept::PinnedHub(right));
    assert!(!meet(&node, &client).await.1, "a node is no hub");
}

#[tokio::test]
async fn renewed_credentials_serve_new_connections() {
    let ours = Authorities::ours();
    let clock = Arc::new(ManualClock::new(NOW.plus(Span::from_secs(7200))));
    let own = ours.identity(PeerKind::Node, NOW);
    let acceptor = acceptor(&ours, &ALL, Clients::Required, clock.clone());
    let client = to_hub(&ours, Some(own.clone()));
    assert!(meet(&acceptor, &client).await.0.is_err());
    let peer = PeerName {
        cluster: ours.cluster.clone(),
        kind: PeerKind::Node,
        name: node(),
    };
    let key = software(31);
    let request = TlsRequest {
        twin: None,
        peer: &peer,
        public_key: key.public_key(),
        dns_names: &[],
        addresses: &[],
        life: LIFE,
    };
    let leaf = ours.host.issue(&request, Serial::from_u64(2), clock.now());
    let mut fresh = Credentials {
        chain: vec![leaf.unwrap().to_vec(), ours.host.certificate().to_vec()],
        pkcs8: openssh::pkcs8(software(30).seed()),
    };
    assert!(matches!(own.replace(&fresh), Err(TlsError::Credentials(_))));
    fresh.pkcs8 = openssh::pkcs8(key.seed());
    own.replace(&fresh).unwrap();
    assert!(meet(&acceptor, &client).await.0.is_ok());
}

#[tokio::test]
async fn a_wrong_protocol_is_told_apart() {
    let ours = Authorities::ours();
    let acceptor = acceptor(&ours, &ALL, Clients::Optional, clock());
    let accept = Accept::Kinds(ours.trust(), &[PeerKind::Hub]);
    let client = Connector::new(None, accept, Protocol::Ssh, clock()).unwrap();
    let (served, heard) = meet(&acceptor, &client).await;
    assert!(served.is_err() && !heard);
}

#[tokio::test(start_paused = true)]
async fn attack_63_a_slow_handshake_is_cut_off() {
    let ours = Authorities::ours();
    let acceptor = acceptor(&ours, &ALL, Clients::Optional, clock());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_silent, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let served = acceptor.accept(accepted.unwrap().0, "nowhere").await;
    assert!(matches!(served.err(), Some(TlsError::Timeout(_))));
}

/// What `openssl s_client` says of a connection with these options; it leaves after the handshake.
async fn openssl(options: &[&str]) -> (bool, String) {
    let ours = Authorities::ours();
    let acceptor = acceptor(&ours, &ALL, Clients::Optional, clock());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &address, "-alpn", "h2"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        match acceptor.accept(stream, "openssl").await {
            Ok((mut stream, _)) => {
                // What is there to be said after a handshake is said before the client's goodbye is read.
                drop(stream.read_u8().await);
                true
            }
            Err(_) => false,
        }
    };
    let met = async { tokio::join!(serving, client.wait_with_output()) };
    let (served, output) = tokio::time::timeout(Duration::from_secs(15), met)
        .await
        .unwrap();
    let output = output.unwrap();
    let told = [output.stdout, output.stderr].concat();
    (served, String::from_utf8_lossy(&told).into_owned())
}

#[tokio::test]
async fn attack_63_no_tls_1_2_and_nothing_to_resume() {
    let (served, told) = openssl(&["-tls1_2"]).await;
    assert!(!served && told.contains("protocol version"), "{told}");
    let (served, told) = openssl(&["-tls1_3"]).await;
    assert!(served && told.contains("TLSv1.3"), "{told}");
    assert!(!told.contains("New Session Ticket arrived"), "{told}");
    assert!(told.contains("Early data was not sent"), "{told}");
}
