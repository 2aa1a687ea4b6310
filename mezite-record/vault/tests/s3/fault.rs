//! The way to the store, which can fail: a proxy of TCP connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mezite_core::Span;
use mezite_record::{Identity, Part, Recording, Sink, SinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::store::{Lab, START, header, id, noise, record, recorder, whole};

/// What goes wrong from now on, on open connections too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Nobody answers.
    Refuse,
    /// Every request fails.
    Error500,
    /// Every piece of a request takes this long.
    Slow(Duration),
    /// A connection ends after so many bytes of requests.
    CutAfter(usize),
    /// `If-None-Match` does not arrive.
    ForgetConditions,
}

pub(crate) struct Proxy {
    address: std::net::SocketAddr,
    fault: Arc<Mutex<Fault>>,
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(store: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            fault: Arc::new(Mutex::new(Fault::None)),
            requests: Arc::default(),
        };
        let (fault, requests) = (Arc::clone(&proxy.fault), Arc::clone(&proxy.requests));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (fault, requests) = (Arc::clone(&fault), Arc::clone(&requests));
                tokio::spawn(carry(client, store, fault, requests));
            }
        });
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

async fn carry(client: TcpStream, store: &str, fault: Arc<Mutex<Fault>>, made: Arc<AtomicUsize>) {
    let now = || *fault.lock().unwrap_or_else(PoisonError::into_inner);
    if now() == Fault::Refuse {
        return;
    }
    let (mut from_store, mut to_store) = TcpStream::connect(store).await.unwrap().into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let answers = async { tokio::io::copy(&mut from_store, &mut to_client).await };
    let requests = async {
        let (mut piece, mut carried) = (vec![0; 64 * 1024], 0);
        loop {
            let count = from_client.read(&mut piece).await?;
            if count == 0 {
                return Ok(true);
            }
            carried += count;
            let mut bytes = piece[..count].to_vec();
            let signed = b"\r\nauthorization: ";
            let signed = bytes.windows(signed.len()).filter(|it| it == signed);
            made.fetch_add(signed.count(), Ordering::Relaxed);
            match now() {
                Fault::Refuse => return Ok(false),
                Fault::Error500 => return Ok::<_, std::io::Error>(true),
                Fault::CutAfter(most) if carried > most => return Ok(false),
                Fault::Slow(pause) => tokio::time::sleep(pause).await,
                Fault::ForgetConditions => {
                    let name = b"if-none-match";
                    if let Some(at) = bytes.windows(name.len()).position(|it| it == name) {
                        bytes[at..at + name.len()].copy_from_slice(b"x-nothing-her");
                    }
                }
                Fault::None | Fault::CutAfter(_) => {}
            }
            to_store.write_all(&bytes).await?;
        }
    };
    let failed = tokio::select! {
        _ = answers => false,
        done = requests => matches!(done, Ok(true)) && now() == Fault::Error500,
    };
    if failed {
        let answer =
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        drop(to_client.write_all(answer.as_bytes()).await);
    }
}

/// Whatever the store does, the session goes on, and all of it arrives when the store is well again.
async fn goes_on(fault: Fault) {
    let lab = Lab::new().await;
    let hub = lab.hub("hub-a").await;
    let identity = Identity::generate();
    let mut recorder = recorder(hub.clone(), &identity).await;
    record(&mut recorder, b"before").await;
    lab.until("a piece", async || {
        let place = hub.place(&id(), Part::Journal).await.unwrap();
        place.contains("all of it")
    })
    .await;
    lab.fault(fault);
    for number in 0..40_u8 {
        record(&mut recorder, &[number; 4000]).await;
    }
    if !matches!(fault, Fault::Slow(_)) {
        lab.until("a word of it", async || {
            let place = hub.place(&id(), Part::Journal).await.unwrap();
            place.contains("not in the bucket: it fails since")
        })
        .await;
    }
    let end = START.plus(Span::from_secs(1));
    recorder.finish(end).await.unwrap();
    if !matches!(fault, Fault::Slow(_)) {
        assert!(!hub.drained(Duration::from_millis(200)).await);
        // What is in the spool can be read all the same.
        assert!(whole(&*hub, Part::Sealed).await.len() > 100);
    }
    lab.fault(Fault::None);
    assert!(hub.drained(lab.patience).await);
    assert_eq!(
        lab.objects().await,
        [format!("recordings/2026-01/{}.mzr", id())]
    );
    let file = whole(&*lab.hub("hub-b").await, Part::Sealed).await;
    let shown = Recording::open(&file[..], vec![identity]).unwrap();
    assert_eq!(shown.map(Result::unwrap).count(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_store_that_answers_500_loses_nothing() {
    goes_on(Fault::Error500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_store_that_is_gone_loses_nothing() {
    goes_on(Fault::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_slow_store_loses_nothing() {
    goes_on(Fault::Slow(Duration::from_millis(150))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_connections_that_are_cut_lose_nothing() {
    goes_on(Fault::CutAfter(3000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_cut_in_a_large_upload_begins_it_anew() {
    let lab = Lab::new().await;
    let hub = lab.hub("hub-a").await;
    let content = noise(20 * 1024 * 1024);
    hub.open(&id(), b"head").await.unwrap();
    hub.stage(&id(), 0, &content).await.unwrap();
    lab.fault(Fault::CutAfter(3 * 1024 * 1024));
    hub.finish(&id()).await.unwrap();
    lab.until("the failure", async || {
        let place = hub.place(&id(), Part::Sealed).await.unwrap();
        place.contains("it fails since")
    })
    .await;
    let sealed = hub.list(Part::Sealed).await;
    assert_eq!(sealed, Ok(vec![id()]), "it lies in the spool");
    lab.fault(Fault::None);
    assert!(hub.drained(lab.patience).await);
    assert_eq!(whole(&*hub, Part::Sealed).await, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_dead_store_stops_a_session_when_the_spool_is_full_and_says_why() {
    let lab = Lab::new().await;
    let mut settings = lab.settings("hub-a");
    settings.spool_limit = 100_000;
    let hub = lab.open(&settings).await;
    hub.open(&id(), b"head").await.unwrap();
    lab.fault(Fault::Refuse);
    let mut written = 4;
    let why = loop {
        match hub.append(&id(), &[1; 10_000]).await {
            Ok(()) => written += 10_000,
            Err(SinkError::Unavailable(why)) => break why,
            Err(other) => panic!("{other}"),
        }
        assert!(written < 200_000);
    };
    assert!((90_000..=116_000).contains(&written), "{written}");
    assert!(
        why.contains("recordings") && why.contains("100000") && why.contains("fails since"),
        "{why}"
    );
    assert_eq!(
        hub.length(&id(), Part::Journal).await,
        Ok(written),
        "nothing half-written"
    );
    // When the store is back there is room again.
    lab.fault(Fault::None);
    lab.until("room", async || {
        hub.append(&id(), &[1; 10_000]).await.is_ok()
    })
    .await;
}

/// What somebody removed from the spool cannot go up. The uploader waits for what comes, and asks nothing of the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_spooled_journal_that_is_gone_is_waited_for_and_holds_up_no_other() {
    let lab = Lab::new().await;
    let hub = lab.hub("hub-a").await;
    hub.check().await.unwrap();
    let identity = Identity::generate();
    let _recorder = recorder(hub.clone(), &identity).await;
    lab.until("its beginning", async || {
        let place = hub.place(&id(), Part::Journal).await.unwrap();
        place.contains("all of it")
    })
    .await;
    let journal = lab.path("hub-a").join(format!("2026-01/{}.mzr.live", id()));
    std::fs::remove_file(&journal).unwrap();
    // The file that the writer has open takes it all the same.
    hub.append(&id(), &[7; 20_000]).await.unwrap();
    let asked = lab.requests();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.requests(), asked, "nothing is asked of the store");
    let place = hub.place(&id(), Part::Journal).await.unwrap();
    assert!(place.contains("20000 bytes not in the bucket"), "{place}");
    // Another session goes up meanwhile, and this one when its file is there again.
    let other = header(8).session_id;
    hub.open(&other, b"head").await.unwrap();
    hub.stage(&other, 0, b"sealed").await.unwrap();
    hub.finish(&other).await.unwrap();
    assert!(hub.drained(lab.patience).await);
    std::fs::write(&journal, noise(30_000)).unwrap();
    lab.until("the rest", async || {
        let place = hub.place(&id(), Part::Journal).await.unwrap();
        place.contains("all of it")
    })
    .await;
}
