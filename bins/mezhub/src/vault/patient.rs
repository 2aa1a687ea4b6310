//! A store that hangs must not hold up the end of a session: what the gateway asks of it is answered within a time, by a
//! failure if need be, and what may take long is done on a thread that may block.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mezite_core::SessionId;
use mezite_record::{Part, Sink, SinkError};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio::time::error::Elapsed;

/// A sink with a bound on each call. Sealing a long recording takes many calls, each of them short.
#[derive(Debug)]
pub(crate) struct Patient {
    sink: Arc<dyn Sink>,
    patience: Duration,
}

impl Patient {
    pub(crate) fn new(sink: Arc<dyn Sink>, patience: Duration) -> Self {
        Self { sink, patience }
    }

    fn late(&self, what: &str) -> SinkError {
        let seconds = self.patience.as_secs_f64();
        SinkError::Unavailable(format!(
            "the store of recordings did not {what} within {seconds} s"
        ))
    }

    /// Does `act` on a thread that may block. One that never returns is left behind.
    async fn aside<T: Send + 'static, A>(
        &self,
        what: &str,
        act: impl FnOnce(Arc<dyn Sink>) -> A + Send + 'static,
    ) -> Result<T, SinkError>
    where
        A: Future<Output = Result<T, SinkError>>,
    {
        let (sink, runtime) = (Arc::clone(&self.sink), Handle::current());
        let task = tokio::task::spawn_blocking(move || runtime.block_on(act(sink)));
        let done: Result<Result<_, JoinError>, Elapsed> =
            tokio::time::timeout(self.patience, task).await;
        match done {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(SinkError::Unavailable(error.to_string())),
            Err(_) => Err(self.late(what)),
        }
    }
}

#[async_trait]
impl Sink for Patient {
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError> {
        let opened = tokio::time::timeout(self.patience, self.sink.open(id, head)).await;
        opened.unwrap_or_else(|_| Err(self.late("begin a recording")))
    }

    /// On this thread: it is a write to memory, and comes with each key that is typed.
    async fn append(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        let appended = tokio::time::timeout(self.patience, self.sink.append(id, bytes)).await;
        appended.unwrap_or_else(|_| Err(self.late("take what was recorded")))
    }

    async fn sync(&self, id: &SessionId) -> Result<(), SinkError> {
        let id = *id;
        self.aside("sync", async move |sink| sink.sync(&id).await)
            .await
    }

    async fn stage(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let (id, bytes) = (*id, bytes.to_vec());
        self.aside("take a sealed recording", async move |sink| {
            sink.stage(&id, offset, &bytes).await
        })
        .await
    }

    async fn finish(&self, id: &SessionId) -> Result<(), SinkError> {
        let id = *id;
        self.aside("finish a recording", async move |sink| {
            sink.finish(&id).await
        })
        .await
    }

    async fn put_index(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        let (id, bytes) = (*id, bytes.to_vec());
        self.aside("take an index", async move |sink| {
            sink.put_index(&id, &bytes).await
        })
        .await
    }

    async fn remove(&self, id: &SessionId) -> Result<(), SinkError> {
        let id = *id;
        self.aside("remove a recording", async move |sink| {
            sink.remove(&id).await
        })
        .await
    }

    async fn read(
        &self,
        id: &SessionId,
        part: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError> {
        let id = *id;
        self.aside("read", async move |sink| {
            sink.read(&id, part, offset, limit).await
        })
        .await
    }

    async fn length(&self, id: &SessionId, part: Part) -> Result<u64, SinkError> {
        let id = *id;
        self.aside("measure a recording", async move |sink| {
            sink.length(&id, part).await
        })
        .await
    }

    async fn list(&self, part: Part) -> Result<Vec<SessionId>, SinkError> {
        self.aside("list", async move |sink| sink.list(part).await)
            .await
    }

    async fn place(&self, id: &SessionId, part: Part) -> Option<String> {
        self.sink.place(id, part).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mezite_core::{NodeId, UnixTime};
    use mezite_record::sink::conformance::{self, FaultySink, Obstacle, Step};
    use mezite_record::{Frame, Header, Identity, MemorySink, Recorder};

    use super::*;

    /// Hangs when the recording is to be finished: in the way of a future, or of a system call.
    #[derive(Debug)]
    struct Hanging {
        blocks: bool,
        /// Whoever holds it keeps the call from returning.
        gate: Arc<Mutex<()>>,
    }

    #[async_trait]
    impl Obstacle for Hanging {
        async fn meet(
            &self,
            _: &SessionId,
            step: Step<'_>,
            _: &MemorySink,
        ) -> Result<bool, SinkError> {
            if step != Step::Finish {
                return Ok(true);
            }
            if self.blocks {
                drop(self.gate.lock());
            }
            std::future::pending().await
        }
    }

    #[test]
    fn attack_49_a_store_that_hangs_at_the_end_does_not_hold_it_up() {
        for blocks in [false, true] {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let gate = Arc::new(Mutex::new(()));
            let shut = gate.lock().unwrap();
            let hanging = FaultySink::new(Hanging {
                blocks,
                gate: Arc::clone(&gate),
            });
            let start = UnixTime::from_secs(1_767_225_600);
            let header = Header {
                session_id: SessionId::new(start, [1; 16]),
                cluster: "example".parse().unwrap(),
                user: "alice".parse().unwrap(),
                node_id: NodeId::new([2; 16]),
                node: "db-1".parse().unwrap(),
                login: "root".parse().unwrap(),
                started: start,
                source: None,
            };
            let sink = Arc::new(Patient::new(Arc::new(hanging), Duration::from_millis(100)));
            let error = runtime.block_on(async {
                let signer = Arc::new(NoSignature);
                let reader = [Identity::generate().recipient()];
                let opened = Recorder::open(
                    sink.clone(),
                    &header,
                    &reader,
                    signer,
                    &mut mezite_net::random::rng(),
                );
                let mut recorder = opened.await.unwrap();
                recorder.record(start, Frame::note("shown")).await.unwrap();
                recorder.finish(start).await.unwrap_err().to_string()
            });
            assert!(
                error.contains("did not finish a recording within 0.1 s"),
                "{error}"
            );
            let kept = runtime.block_on(sink.list(Part::Journal));
            assert_eq!(kept, Ok(vec![header.session_id]), "to be recovered");
            drop(shut);
            runtime.shutdown_background();
        }
    }

    #[derive(Debug)]
    struct NoSignature;

    impl mezite_record::Signer for NoSignature {
        fn public_key(&self) -> [u8; 32] {
            [0; 32]
        }
        fn sign(&self, _: &[u8]) -> Result<[u8; 64], mezite_record::SignError> {
            Ok([0; 64])
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let patience = Duration::from_secs(60);
        conformance::all(async || Patient::new(Arc::new(MemorySink::new()), patience)).await;
    }
}
