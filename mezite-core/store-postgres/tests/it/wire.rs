//! A wire between store and server that can be cut at a chosen moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// When the connection that carries the next `COMMIT` is cut, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cut {
    #[default]
    Never,
    /// The server never sees it.
    Before,
    /// The server makes it; its answer is lost.
    After,
    /// The client sees the cut at once, and the server what was sent when somebody looks whether it was made.
    Late,
}

/// What is still on its way to the server.
type OnItsWay = Arc<Mutex<Option<(TcpStream, Vec<u8>)>>>;

/// What is sent by whoever looks for an event.
const LOOKS: &[u8] = b"SELECT FROM mezite.event WHERE sequence";

pub(crate) struct Wire {
    pub(crate) port: u16,
    cut: Arc<Mutex<Cut>>,
    task: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let cut = Arc::<Mutex<Cut>>::default();
        let armed = Arc::clone(&cut);
        let late = OnItsWay::default();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(("127.0.0.1", port)).await;
                if let Ok(far) = far {
                    tokio::spawn(carry(near, far, Arc::clone(&armed), Arc::clone(&late)));
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
        *self.cut.lock().unwrap() = cut;
    }

    /// Whether it was cut since it was armed.
    pub(crate) fn was_cut(&self) -> bool {
        *self.cut.lock().unwrap() == Cut::Never
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, cut: Arc<Mutex<Cut>>, late: OnItsWay) {
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = near.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                let commits = there[..count].windows(7).any(|word| word == b"COMMIT\0");
                let armed = if commits { std::mem::take(&mut *cut.lock().unwrap()) } else { Cut::Never };
                if armed == Cut::Before {
                    return;
                }
                if armed == Cut::Late {
                    *late.lock().unwrap() = Some((far, there[..count].to_vec()));
                    return;
                }
                let looks = there[..count].windows(LOOKS.len()).any(|words| words == LOOKS);
                let arrived = if looks { late.lock().unwrap().take() } else { None };
                if let Some((mut far, sent)) = arrived {
                    tokio::spawn(async move {
                        far.write_all(&sent).await.unwrap();
                        // Until the server has nothing more to say.
                        while let Ok(1..) = far.read(&mut [0; 1 << 12]).await {}
                    });
                    // It waits for the lock by now.
                    sleep(Duration::from_millis(300)).await;
                }
                if far.write_all(&there[..count]).await.is_err() {
                    return;
                }
                if armed == Cut::After {
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
