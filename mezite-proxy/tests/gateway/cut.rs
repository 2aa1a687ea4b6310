//! Connections that end at every byte, and recorders that cannot keep up: nothing that was shown is missing in a recording.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use mezite_core::Span;
use mezite_net::ssh::Message;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::house::{FLOOD, House, Started, connect_over};

/// A connection that breaks when so many bytes have passed, both ways together.
struct Cut {
    stream: Option<DuplexStream>,
    left: Arc<AtomicUsize>,
}

impl Cut {
    /// What may still pass of `wanted`; at the end the other side sees the connection gone.
    fn take(&mut self, wanted: usize) -> usize {
        let granted = self.left.load(Ordering::SeqCst).min(wanted);
        if granted == 0 && wanted > 0 {
            self.stream = None;
        }
        granted
    }

    fn passed(&self, count: usize) {
        self.left.fetch_sub(count, Ordering::SeqCst);
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let granted = self.take(buffer.remaining());
        let mut own = vec![0; granted.min(16 * 1024)];
        let mut part = ReadBuf::new(&mut own);
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        let polled = Pin::new(stream).poll_read(context, &mut part);
        buffer.put_slice(part.filled());
        let count = part.filled().len();
        self.passed(count);
        polled
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let granted = self.take(bytes.len());
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let polled = Pin::new(stream).poll_write(context, bytes.get(..granted).unwrap());
        if let Poll::Ready(Ok(count)) = polled {
            self.passed(count);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// `ssh app+db1@hub echo` over a connection that breaks after `most` bytes; how many passed.
async fn session(house: &House, most: usize) -> usize {
    let left = Arc::new(AtomicUsize::new(most));
    let (stream, served) = house.dial_and_watch();
    let stream = Cut {
        stream: Some(stream),
        left: Arc::clone(&left),
    };
    let working = async {
        let client = connect_over(stream, "app", Span::from_secs(3600))
            .await
            .ok()?;
        let mut started = Started::attempt(&client, "echo").await.ok()?;
        while started.next().await.is_some() {}
        Some(())
    };
    let worked = tokio::time::timeout(Duration::from_secs(20), working).await;
    assert!(worked.is_ok(), "the client hangs after {most} bytes");
    let served = tokio::time::timeout(Duration::from_secs(20), served).await;
    assert!(served.is_ok_and(|it| it.is_ok()), "cut after {most} bytes");
    most - left.load(Ordering::SeqCst)
}

/// From the first byte of a connection to its last, whatever was going on there.
#[tokio::test]
async fn attack_48_a_client_cut_off_at_any_byte_leaves_a_sealed_recording_and_an_end() {
    let house = House::new();
    let whole = session(&house, usize::MAX).await;
    assert!((2000..20_000).contains(&whole), "{whole} bytes");
    let mut begun = 0;
    // Most of it is key exchange; the session itself comes last.
    let late = whole * 7 / 8;
    let moments = (0..late)
        .step_by(whole / 30)
        .chain((late..whole).step_by(5));
    for most in moments {
        session(&house, most).await;
        let steps = house.steps();
        let count = |step: &str| steps.iter().filter(|it| *it == step).count();
        begun = count("session.start");
        assert_eq!(count("session.end"), count("recording opened"), "{most}");
        assert_eq!(house.sealed().await, count("recording opened"), "{most}");
    }
    assert!(begun > 50, "{begun} sessions began");
}

#[tokio::test]
async fn attack_49_a_slow_recorder_slows_the_session_and_loses_nothing() {
    let house = House::new();
    house.slow_down("append");
    let client = house.connect("app").await;
    let mut flood = Started::new(&client, "flood").await;
    let mut received = 0;
    while let Some(message) = flood.next().await {
        if let Message::Data(data) = message {
            received += data.len();
            let recorded = house.journalled().await;
            assert!(
                recorded >= u64::try_from(received).unwrap() || recorded == 0,
                "{received} bytes are shown, {recorded} are recorded"
            );
        }
    }
    assert_eq!(received, FLOOD);
    drop(client);
    house.wait_for("session.end").await;
    assert_eq!(house.sealed().await, 1);
}

#[tokio::test]
async fn attack_48_what_was_shown_is_forced_to_the_disk_while_the_session_runs() {
    let house = House::new();
    let client = house.connect("app").await;
    let _running = Started::new(&client, "sleep").await;
    house.wait_for("ran sleep").await;
    assert!(house.journalled().await > 0);
    let synced = async {
        while house.synced() < house.journalled().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let synced = tokio::time::timeout(Duration::from_secs(20), synced).await;
    assert!(synced.is_ok(), "what was recorded lies in memory only");
}
