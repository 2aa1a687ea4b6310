//! The hub's side: which agents are connected, and how to reach a node through its agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mezite_core::{Labels, NodeId};
use rand::Rng;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::{BreakGlassUse, ControlError, ControlReader, DIAL_ID, Renewed, ToAgent, ToHub, split};
use crate::ByteStream;

/// How long an agent has to dial back.
const DIAL_BACK: Duration = Duration::from_secs(10);

/// An agent that says nothing for so long is gone; it speaks every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// How long a fresh session connection has to say its id.
const ID: Duration = Duration::from_secs(5);

/// Dial requests that may wait for the control connection's writer.
const QUEUE: usize = 64;

/// Why a node cannot be reached through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DialError {
    /// No agent of this node is connected to this hub.
    #[error("the node's agent is not connected")]
    NotConnected,
    /// The agent did not dial back in time.
    #[error("the node's agent did not dial back within {secs} seconds", secs = DIAL_BACK.as_secs())]
    Timeout,
    /// The agent said why not.
    #[error("the node's agent could not dial back: {0}")]
    Failed(String),
}

/// What the hub does when agents come, ask and go.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// An agent has come. `Ok` is the trust bundle (JSON) to greet it with; `Err` refuses it, with the reason.
    async fn connected(
        &self,
        node: &NodeId,
        version: &str,
        labels: Labels,
    ) -> Result<String, String>;

    /// The agent's last connection to this hub is gone.
    async fn disconnected(&self, node: &NodeId);

    /// The agent tells which keys it trusts, and which signed what it holds; see [`ToHub::Adopted`].
    async fn adopted(
        &self,
        node: &NodeId,
        trusts: BTreeMap<String, BTreeSet<String>>,
        holds: BTreeMap<String, String>,
    );

    /// The agent tells of a break-glass use. `Ok` when it is in the log; otherwise it is told again.
    async fn break_glass_used(&self, node: &NodeId, used: &BreakGlassUse) -> Result<(), String>;

    /// Fresh certificates for fresh keys (OpenSSH text; raw Ed25519). `Err` is a reason for the agent's log.
    async fn renew(
        &self,
        node: &NodeId,
        host_key: &str,
        tls_key: [u8; 32],
    ) -> Result<Renewed, String>;
}

/// The agents connected to this hub, and the dial-backs that are under way.
#[derive(Default)]
pub struct Registry {
    state: Mutex<State>,
    /// The newest trust bundle (JSON). Each connection passes on what is newer than its greeting.
    trust: watch::Sender<String>,
    /// Where all hubs are. Each connection passes it on.
    hubs: watch::Sender<Vec<String>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("agents", &self.state().agents.len())
            .finish()
    }
}

#[derive(Default)]
struct State {
    next: u64,
    agents: BTreeMap<NodeId, Agent>,
    dials: BTreeMap<[u8; DIAL_ID], Dial>,
}

/// The newest control connection of a node; an older one stays open but gets no more requests.
struct Agent {
    connection: u64,
    requests: mpsc::Sender<ToAgent>,
    /// Ends the connection; taken by whoever does.
    close: Option<oneshot::Sender<()>>,
}

struct Dial {
    node: NodeId,
    answer: oneshot::Sender<Result<Box<dyn ByteStream>, DialError>>,
}

impl Registry {
    /// No agents.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an agent of `node` is connected here.
    #[must_use]
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.state().agents.contains_key(node)
    }

    /// The nodes whose agents are connected here.
    #[must_use]
    pub fn connected(&self) -> Vec<NodeId> {
        self.state().agents.keys().cloned().collect()
    }

    /// Ends the control connection of `node`'s agent, if there is one here.
    pub fn disconnect(&self, node: &NodeId) {
        let mut state = self.state();
        let close = state
            .agents
            .get_mut(node)
            .and_then(|agent| agent.close.take());
        if let Some(close) = close {
            // It may have ended in this moment.
            let _ = close.send(());
        }
    }

    /// Tells every connected agent at once, and each that is just being greeted, what to trust from now on (JSON of the
    /// bundle).
    pub fn trust_now(&self, trust: String) {
        self.trust.send_replace(trust);
    }

    /// Tells every connected agent, and each that will be, the tunnel addresses of all hubs.
    pub fn hubs_now(&self, addresses: Vec<String>) {
        self.hubs.send_replace(addresses);
    }

    /// A fresh stream to `node`.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, node: &NodeId) -> Result<Box<dyn ByteStream>, DialError> {
        let mut id = [0; DIAL_ID];
        crate::random::rng().fill_bytes(&mut id);
        let (answer, answered) = oneshot::channel();
        let requests = {
            let mut state = self.state();
            let requests = state
                .agents
                .get(node)
                .ok_or(DialError::NotConnected)?
                .requests
                .clone();
            state.dials.insert(
                id,
                Dial {
                    node: node.clone(),
                    answer,
                },
            );
            requests
        };
        let forget = Forget { registry: self, id };
        let dialled = tokio::time::timeout(DIAL_BACK, async {
            let request = ToAgent::Dial { id: hex(&id) };
            requests
                .send(request)
                .await
                .map_err(|_| DialError::NotConnected)?;
            answered.await.map_err(|_| DialError::NotConnected)?
        });
        let dialled = dialled.await.unwrap_or(Err(DialError::Timeout));
        drop(forget);
        dialled
    }

    /// Takes a session connection that an authenticated agent of `node` has opened: reads its id and gives the
    /// stream to whoever asked for it. An id that is unknown, used or of another node closes the connection.
    pub async fn deliver<S: ByteStream + 'static>(&self, node: &NodeId, mut stream: S) {
        let mut id = [0; DIAL_ID];
        let read = tokio::time::timeout(ID, stream.read_exact(&mut id)).await;
        if !matches!(read, Ok(Ok(_))) {
            return;
        }
        let dial = {
            let mut state = self.state();
            match state.dials.get(&id) {
                Some(dial) if dial.node == *node => state.dials.remove(&id),
                Some(_) | None => None,
            }
        };
        match dial {
            // Whoever asked may have given up by now; then the stream is dropped.
            Some(dial) => drop(dial.answer.send(Ok(Box::new(stream)))),
            None => {
                tracing::debug!(%node, "a session connection came too late or with an unknown id")
            }
        }
    }

    /// Serves the control connection of an authenticated agent of `node` until it ends.
    pub async fn serve<S: ByteStream + 'static>(
        self: Arc<Self>,
        node: NodeId,
        stream: S,
        hooks: Arc<dyn Hooks>,
    ) {
        let (mut reader, mut writer) = split(stream);
        // Before the greeting: what changes during it is told after it.
        let mut trust = self.trust.subscribe();
        let hello = tokio::time::timeout(SILENCE, reader.next::<ToHub>()).await;
        let Ok(Ok(ToHub::Hello { version, labels })) = hello else {
            tracing::warn!(%node, "an agent did not say hello");
            return;
        };
        let greeting = match Labels::new(labels) {
            Ok(labels) => hooks.connected(&node, &version, labels).await,
            Err(error) => Err(error.to_string()),
        };
        let greeting = match greeting {
            Ok(trust) => ToAgent::Welcome { trust },
            Err(reason) => {
                tracing::warn!(%node, reason, "an agent was refused");
                // It learns the reason if it still listens.
                drop(writer.send(&ToAgent::Refused { reason }).await);
                return;
            }
        };
        if writer.send(&greeting).await.is_err() {
            hooks.disconnected(&node).await;
            return;
        }
        let mut hubs = self.hubs.subscribe();
        if !hubs.borrow().is_empty() {
            hubs.mark_changed();
        }
        let (requests, mut queue) = mpsc::channel(QUEUE);
        let (connection, closed) = self.register(&node, requests.clone());
        let sending = async {
            loop {
                let message = tokio::select! {
                    message = queue.recv() => message,
                    changed = trust.changed() => changed.is_ok().then(|| ToAgent::Trust {
                        trust: trust.borrow_and_update().clone(),
                    }),
                    changed = hubs.changed() => changed.is_ok().then(|| ToAgent::Hubs {
                        addresses: hubs.borrow_and_update().clone(),
                    }),
                };
                let Some(message) = message else {
                    return Ok::<(), ControlError>(());
                };
                writer.send(&message).await?;
            }
        };
        let receiving = self.receive(&node, &mut reader, &requests, hooks.as_ref());
        let ended = tokio::select! {
            ended = sending => ended,
            ended = receiving => ended,
            Ok(()) = closed => Err(ControlError::Io(std::io::ErrorKind::ConnectionAborted.into())),
        };
        tracing::info!(%node, ended = %ended.err().map_or_else(String::new, |error| error.to_string()), "an agent is gone");
        if self.unregister(&node, connection) {
            hooks.disconnected(&node).await;
        }
    }

    async fn receive<S: ByteStream>(
        &self,
        node: &NodeId,
        reader: &mut ControlReader<S>,
        requests: &mpsc::Sender<ToAgent>,
        hooks: &dyn Hooks,
    ) -> Result<(), ControlError> {
        loop {
            let message = tokio::time::timeout(SILENCE, reader.next::<ToHub>()).await;
            let message =
                message.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
            match message {
                ToHub::Alive => {}
                ToHub::Hello { .. } => {
                    return Err(ControlError::Unreadable(String::from("a second hello")));
                }
                ToHub::Adopted { trusts, holds } => hooks.adopted(node, trusts, holds).await,
                ToHub::BreakGlassUsed(used) => match hooks.break_glass_used(node, &used).await {
                    Ok(()) => requests
                        .send(ToAgent::BreakGlassNoted { id: used.id })
                        .await
                        .map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?,
                    Err(error) => {
                        tracing::error!(%node, error, "a break-glass use could not be recorded; the node tells it again");
                    }
                },
                ToHub::DialFailed { id, error } => self.fail(node, &id, error),
                ToHub::Renew { host_key, tls_key } => {
                    let renewed =
                        match unhex(&tls_key).and_then(|key| <[u8; 32]>::try_from(key).ok()) {
                            Some(tls_key) => hooks.renew(node, &host_key, tls_key).await,
                            None => Err(String::from("the TLS key is not 32 bytes of hexadecimal")),
                        };
                    let answer = match renewed {
                        Ok(renewed) => ToAgent::Renewed(renewed),
                        Err(reason) => ToAgent::Refused { reason },
                    };
                    requests
                        .send(answer)
                        .await
                        .map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
                }
            }
        }
    }

    fn fail(&self, node: &NodeId, id: &str, error: String) {
        let Some(id) = unhex(id).and_then(|id| <[u8; DIAL_ID]>::try_from(id).ok()) else {
            return;
        };
        let mut state = self.state();
        if state.dials.get(&id).is_some_and(|dial| dial.node == *node)
            && let Some(dial) = state.dials.remove(&id)
        {
            drop(dial.answer.send(Err(DialError::Failed(error))));
        }
    }

    fn register(
        &self,
        node: &NodeId,
        requests: mpsc::Sender<ToAgent>,
    ) -> (u64, oneshot::Receiver<()>) {
        let mut state = self.state();
        state.next += 1;
        let connection = state.next;
        let (close, closed) = oneshot::channel();
        state.agents.insert(
            node.clone(),
            Agent {
                connection,
                requests,
                close: Some(close),
            },
        );
        (connection, closed)
    }

    /// Whether the node has no newer connection here.
    fn unregister(&self, node: &NodeId, connection: u64) -> bool {
        let mut state = self.state();
        let newest = state
            .agents
            .get(node)
            .is_some_and(|agent| agent.connection == connection);
        if newest {
            state.agents.remove(node);
        }
        newest
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a dial off the list when its caller is done, in whatever way.
struct Forget<'a> {
    registry: &'a Registry,
    id: [u8; DIAL_ID],
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.registry.state().dials.remove(&self.id);
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::ControlWriter;
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    struct Welcoming;

    #[async_trait]
    impl Hooks for Welcoming {
        async fn connected(&self, _: &NodeId, _: &str, _: Labels) -> Result<String, String> {
            Ok(String::from("{}"))
        }

        async fn disconnected(&self, _: &NodeId) {}

        async fn adopted(
            &self,
            _: &NodeId,
            _: BTreeMap<String, BTreeSet<String>>,
            _: BTreeMap<String, String>,
        ) {
        }

        async fn break_glass_used(&self, _: &NodeId, _: &BreakGlassUse) -> Result<(), String> {
            Ok(())
        }

        async fn renew(&self, _: &NodeId, _: &str, _: [u8; 32]) -> Result<Renewed, String> {
            Err(String::from("not here"))
        }
    }

    async fn connected(
        registry: &Arc<Registry>,
        node: &NodeId,
    ) -> (ControlReader<DuplexStream>, ControlWriter<DuplexStream>) {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(Arc::clone(registry).serve(node.clone(), far, Arc::new(Welcoming)));
        let (mut reader, mut writer) = split(near);
        writer
            .send(&ToHub::Hello {
                version: "1".into(),
                labels: BTreeMap::new(),
            })
            .await
            .unwrap();
        assert!(matches!(
            reader.next::<ToAgent>().await.unwrap(),
            ToAgent::Welcome { .. }
        ));
        while !registry.is_connected(node) {
            tokio::task::yield_now().await;
        }
        (reader, writer)
    }

    #[tokio::test]
    async fn a_dial_is_answered_by_the_connection_with_its_id_and_only_once() {
        let registry = Arc::new(Registry::new());
        let node = NodeId::new([1; 16]);
        let (mut reader, _writer) = connected(&registry, &node).await;
        let agent = async {
            let ToAgent::Dial { id } = reader.next::<ToAgent>().await.unwrap() else {
                panic!("no dial")
            };
            let id = unhex(&id).unwrap();
            let foreign = NodeId::new([2; 16]);
            for (from, served) in [(&foreign, false), (&node, true), (&node, false)] {
                let (mut near, far) = tokio::io::duplex(64);
                near.write_all(&id).await.unwrap();
                registry.deliver(from, far).await;
                if served {
                    near.write_all(b"hello").await.unwrap();
                    tokio::spawn(async move { near.read_u8().await });
                } else {
                    assert!(
                        near.read_u8().await.is_err(),
                        "an id of another node, or used, is closed"
                    );
                }
            }
        };
        let (dialled, ()) = tokio::join!(registry.dial(&node), agent);
        let mut said = [0; 5];
        dialled.unwrap().read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
    }

    #[tokio::test]
    async fn every_agent_hears_at_once_what_to_trust_from_now_on() {
        let registry = Arc::new(Registry::new());
        let mut agents = Vec::new();
        for number in [1, 2] {
            agents.push(connected(&registry, &NodeId::new([number; 16])).await);
        }
        for trust in ["one", "two"] {
            registry.trust_now(trust.to_owned());
            for (reader, _) in &mut agents {
                let told = reader.next::<ToAgent>().await.unwrap();
                let expected = ToAgent::Trust {
                    trust: trust.to_owned(),
                };
                assert_eq!(told, expected);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_nobody_answers_ends_and_leaves_nothing() {
        let registry = Arc::new(Registry::new());
        let node = NodeId::new([1; 16]);
        assert_eq!(
            registry.dial(&node).await.err(),
            Some(DialError::NotConnected)
        );
        let (_reader, mut writer) = connected(&registry, &node).await;
        let alive = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                writer.send(&ToHub::Alive).await.unwrap();
            }
        };
        let dialled = tokio::select! {
            dialled = registry.dial(&node) => dialled,
            () = alive => unreachable!("the agent goes on"),
        };
        assert_eq!(dialled.err(), Some(DialError::Timeout));
        assert!(registry.state().dials.is_empty());
    }
}
