//! A wire between store and server that can be cut at a chosen moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// When the connection that carries the next `COMMIT` is cut, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    Never = 0,
    /// The server never sees it.
    Before = 1,
    /// The server makes it; its answer is lost.
    After = 2,
}

pub(crate) struct Wire {
    pub(crate) port: u16,
    cut: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicU8::new(0));
        let armed = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(("127.0.0.1", port)).await;
                if let Ok(far) = far {
                    tokio::spawn(carry(near, far, Arc::clone(&armed)));
                }
            }
        });
        Self {
            port: own,
            cut,
            task,
        }
    }

    /// At the next commit.
    pub(crate) fn arm(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether it was cut since it was armed.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == Cut::Never as u8
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, cut: Arc<AtomicU8>) {
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = near.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                let commits = there[..count].windows(7).any(|word| word == b"COMMIT\0");
                let armed = if commits { cut.swap(0, Ordering::SeqCst) } else { 0 };
                if armed == Cut::Before as u8 {
                    return;
                }
                if far.write_all(&there[..count]).await.is_err() {
                    return;
                }
                if armed == Cut::After as u8 {
                    // The server has answered when it has nothing more to say.
                    drop(far.read(&mut back).await);
                    return;
                }
            }
            read = far.read(&mut back) => {
                let Ok(count @ 1..) = read else { return };
                if near.write_all(&back[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
