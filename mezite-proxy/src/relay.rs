//! Performs one session: decision, recording, the way to the node, then effect after effect.
//!
//! The order is design: decide (durable), open the recording (durable), mint the session certificate (durable), reach
//! the node, report the start, relay, seal, report the end.

mod facts;
mod reach;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mezite_ca::verify::VerifiedNode;
use mezite_core::{Login, SessionId, Span, UnixTime};
use mezite_net::ssh::{
    Channel, ChannelKind, ChannelReader, ChannelWriter, Client, Incoming, Message, Offer,
    OpenFailure, Opener, PendingChannel, PendingListener, Request, Server, SshError,
};
use mezite_rbac::Names;
use mezite_record::{Header, RecordError, Recorder};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authority::{Authority, Make, Node};
use crate::gateway::{Admission, Enlisted, Shared};
use crate::session::{Effect, EndReason, Engine, OWN_FAILURE, Refusal};
use facts::{Ending, Facts};
use reach::{prepare, reach};
pub(crate) use tell::tell;

/// How long both sides have to close once one of them has left.
const FAREWELL: Duration = Duration::from_secs(3);

/// The longest sleep before wall-clock deadlines are looked at again: clocks get set.
const TICK: Duration = Duration::from_secs(5);

/// How long a lost connection may take to show that it is, after its channels have closed without an exit status.
const GONE: Duration = Duration::from_millis(20);

/// How long the words to the user may take when a session is ended.
const GOODBYE: Duration = Duration::from_millis(200);

/// How long the last frame of a session that must end may take. A recording that hangs is cut there, and recovered.
const LAST_FRAME: Duration = Duration::from_millis(500);

/// How often a suspended session tries to go on.
const RETRY: Duration = Duration::from_secs(1);

/// How often a live recording is forced to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// Runs the session of an authenticated client from the decision to the sealed recording.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    client: Server<Admission>,
    node: Node,
    login: Login,
    source: IpAddr,
) {
    let authority = Arc::clone(&shared.authority);
    let identity = match client.proof().identity() {
        Ok(identity) => identity.clone(),
        Err(words) => return tell(client, &words).await,
    };
    let mut random = [0; 16];
    mezite_net::random::rng().fill_bytes(&mut random);
    let id = SessionId::new(authority.now(), random);
    let Some(enlisted) = shared.enlist(id) else {
        return tell(client, "the hub is shutting down: try again in a moment").await;
    };
    let way = prepare(shared, &node);
    let grant = match authority
        .authorize(&identity, &node, &login, source, id)
        .await
    {
        Ok(grant) => grant,
        Err(refusal) => {
            way.abort();
            return tell(client, &refusal.message).await;
        }
    };
    let facts = Facts {
        id,
        identity,
        grant,
        source,
        started: authority.now(),
        begun: Instant::now(),
    };
    let recorder = match open_recording(shared, &facts).await {
        Ok(recorder) => recorder,
        Err(error) => {
            report(authority.as_ref(), &|stamp| {
                facts.recording_failed(stamp, &error)
            })
            .await;
            return tell(
                client,
                &format!("the session could not be recorded, so it does not start: {error}"),
            )
            .await;
        }
    };
    match reach(&facts, way).await {
        Ok((link, node)) => {
            // Only our own agent looks at what a name stands for before it connects.
            let names = match link.is_served_by_us() {
                true => Names::Checked,
                false => Names::Unchecked,
            };
            Session::start(enlisted, facts, node, names, recorder)
                .run(client, link)
                .await
        }
        Err(words) => {
            close_recording(
                authority.as_ref(),
                &facts,
                recorder,
                &Ending::failed(&words),
            )
            .await;
            tell(client, &words).await;
        }
    }
}

async fn open_recording(shared: &Shared, facts: &Facts) -> Result<Recorder, String> {
    let header = Header {
        session_id: facts.id,
        cluster: shared.authority.cluster().clone(),
        user: facts.identity.user().clone(),
        node_id: facts.grant.permit().node().id.clone(),
        node: facts.grant.permit().node().name.clone(),
        login: facts.grant.permit().login().clone(),
        started: facts.started,
        source: Some(facts.source),
    };
    let recordings = &shared.recordings;
    let (sink, signer) = (Arc::clone(&recordings.sink), Arc::clone(&recordings.signer));
    let opening = Recorder::open(
        sink,
        &header,
        &recordings.recipients,
        signer,
        &mut mezite_net::random::rng(),
    );
    opening.await.map_err(|error| error.to_string())
}

async fn report(authority: &dyn Authority, make: Make<'_>) -> bool {
    match authority.report(make).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "an event could not be made durable");
            false
        }
    }
}

/// Seals the recording and reports the end. A journal that cannot be sealed stays, and is recovered at the next start.
async fn close_recording(
    authority: &dyn Authority,
    facts: &Facts,
    recorder: Recorder,
    ending: &Ending,
) {
    let summary = match recorder.finish(authority.now()).await {
        Ok(summary) => Some(summary),
        Err(error) => {
            tracing::error!(session = %facts.id, %error, "the recording could not be sealed");
            let error = error.to_string();
            report(authority, &|stamp| facts.recording_failed(stamp, &error)).await;
            None
        }
    };
    report(authority, &|stamp| {
        facts.end(stamp, ending, summary.as_ref())
    })
    .await;
}

/// A running session, shared by the tasks of its channels.
#[derive(Debug)]
struct Session {
    facts: Facts,
    authority: Arc<dyn Authority>,
    /// What the node showed.
    node: VerifiedNode,
    engine: Mutex<Engine>,
    recorder: tokio::sync::Mutex<Recorder>,
    /// Where words to the user can be written while channels are open.
    writers: Mutex<BTreeMap<u32, Arc<ChannelWriter>>>,
    ending: watch::Sender<Option<EndReason>>,
    /// Whether the session waits until it can be recorded again.
    suspended: watch::Sender<bool>,
    announcing: tokio::sync::Mutex<()>,
    enlisted: Enlisted,
}

impl Session {
    fn start(
        enlisted: Enlisted,
        facts: Facts,
        node: VerifiedNode,
        names: Names,
        recorder: Recorder,
    ) -> Arc<Self> {
        let obligations = facts.grant.permit().obligations().clone();
        let engine = Engine::new(obligations, facts.grant.deadline(), facts.started);
        let engine = engine.with_names(names);
        let authority = Arc::clone(&enlisted.shared.authority);
        Arc::new(Self {
            facts,
            node,
            authority,
            engine: Mutex::new(engine),
            recorder: tokio::sync::Mutex::new(recorder),
            writers: Mutex::default(),
            ending: watch::Sender::new(None),
            suspended: watch::Sender::new(false),
            announcing: tokio::sync::Mutex::default(),
            enlisted,
        })
    }

    async fn run(self: Arc<Self>, mut client: Server<Admission>, node: Client) {
        let node = Arc::new(node);
        let reason = if report(self.authority.as_ref(), &|stamp| self.facts.start(stamp)).await {
            self.serve(&mut client, &node).await
        } else {
            EndReason::ReportFailed
        };
        if reason != EndReason::ClientLeft {
            self.say_goodbye(&reason).await;
            client.disconnect(&reason.to_string()).await;
        }
        node.disconnect("the session is over").await;
        drop(client);
        self.finish(reason).await;
    }

    /// Until somebody leaves or something ends it.
    async fn serve(
        self: &Arc<Self>,
        client: &mut Server<Admission>,
        node: &Arc<Client>,
    ) -> EndReason {
        let mut channels = JoinSet::new();
        let opener = client.opener();
        let mut offers = node.offers();
        let mut ending = self.ending.subscribe();
        let mut ended_outside = self.enlisted.ended.clone();
        let mut changes = self.authority.changes();
        // What changed between the decision and now counts too.
        changes.mark_changed();
        // Beside the loop: a sink that hangs does not keep a session alive that has to end.
        let mut syncing = Box::pin(self.keep_synced());
        let mut watchers = None;
        let reason = loop {
            if watchers.is_none() && self.engine().announces_watchers() {
                let mut receiver = self.facts.grant.watchers();
                receiver.mark_changed();
                watchers = Some(receiver);
            }
            tokio::select! {
                biased;
                reason = ended(&mut ending) => break reason,
                reason = ended(&mut ended_outside) => break reason,
                Ok(()) = changes.changed() => self.decide_again().await,
                () = self.sleep_until_deadline() => {
                    let effects = self.engine().timeout(self.now());
                    self.perform_soon(effects).await;
                }
                () = &mut syncing => {}
                Some(()) = changed(&mut watchers) => {
                    let (session, watchers) = (Arc::clone(self), watchers.clone());
                    channels.spawn(async move { session.announce(watchers).await });
                }
                Some(_) = channels.join_next() => {}
                incoming = client.next() => match incoming {
                    Some(Incoming::Open(pending)) => {
                        let (session, node) = (Arc::clone(self), Arc::clone(node));
                        channels.spawn(async move { session.channel(pending, &node).await });
                    }
                    Some(Incoming::Listen(pending)) => {
                        let (session, node) = (Arc::clone(self), Arc::clone(node));
                        channels.spawn(async move { session.listen(pending, &node).await });
                    }
                    Some(_) => {}
                    None => break EndReason::ClientLeft,
                },
                Some(offer) = next_offer(&mut offers) => {
                    let (session, node, opener) = (Arc::clone(self), Arc::clone(node), opener.clone());
                    channels.spawn(async move { session.offered(offer, &opener, &node).await });
                }
            }
        };
        drop(syncing);
        let mut patience = LAST_FRAME;
        // Readers end with their connection; what is still on its way gets recorded and delivered.
        if reason == EndReason::ClientLeft {
            patience = FAREWELL;
            let drained = async { while channels.join_next().await.is_some() {} };
            drop(tokio::time::timeout(patience, drained).await);
        }
        self.stop(channels, patience).await;
        reason
    }

    /// Ends the tasks of all channels. None of them is left in the middle of a frame, which would leave the recording
    /// broken, unless the recorder hangs.
    async fn stop(&self, mut channels: JoinSet<()>, patience: Duration) {
        let between_frames = tokio::time::timeout(patience, self.recorder.lock()).await;
        channels.shutdown().await;
        drop(between_frames);
    }

    async fn decide_again(&self) {
        let decision = if self.authority.is_revoked(&self.node.revocable()) {
            Err(String::from("the node's certificate is revoked"))
        } else {
            self.facts.grant.recheck()
        };
        let effects = self.engine().decided(decision);
        self.perform_soon(effects).await;
    }

    /// Performs what the session's own loop decided. An end is an end even if its note cannot be recorded in time.
    async fn perform_soon(&self, effects: Vec<Effect>) {
        let end = effects.iter().find_map(|effect| match effect {
            Effect::End(reason) => Some(reason.clone()),
            Effect::Record(_) | Effect::Report(_) | Effect::ToClient(_) | Effect::ToNode(_) => None,
        });
        let performing = self.perform(effects, 0, None);
        let performed = tokio::time::timeout(LAST_FRAME, performing).await;
        if let (Err(_), Some(reason)) = (performed, end) {
            self.end(reason);
        }
    }

    /// The hub's clock, but never behind what has passed since the start: one that is set back lengthens no session.
    fn now(&self) -> UnixTime {
        let passed = u64::try_from(self.facts.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let least = self.facts.started.plus(Span::from_millis(passed));
        self.authority.now().max(least)
    }

    async fn sleep_until_deadline(&self) {
        let left = self.engine().deadline().since(self.now());
        tokio::time::sleep(left.as_duration().min(TICK)).await;
    }

    /// Forces the recording to the disk, again and again. A failure suspends or ends the session.
    async fn keep_synced(&self) {
        let mut next = tokio::time::interval(SYNC);
        loop {
            next.tick().await;
            let mut recorder = self.recorder.lock().await;
            if let Err(error) = recorder.sync().await
                && self.unrecorded(&mut recorder, error).await.is_err()
            {
                // The session is over: there is nothing to keep any more.
                drop(recorder);
                return std::future::pending().await;
            }
        }
    }

    /// The recording cannot be written: ends the session, or holds it until it can, as the role says. Whoever calls has the
    /// recorder, so nobody else records, and what needs no recording waits for [`Session::go_on`].
    async fn unrecorded(&self, recorder: &mut Recorder, error: RecordError) -> Result<(), ()> {
        if !self.engine().suspends() || !matches!(error, RecordError::Sink(_)) {
            self.end(EndReason::RecordingFailed(error.to_string()));
            return Err(());
        }
        self.suspended.send_replace(true);
        let why = error.to_string();
        self.report_recording("suspended", Some(&why)).await?;
        let words =
            format!("\r\nmezite: the session waits, because it cannot be recorded: {why}\r\n");
        self.say(&words, false).await;
        loop {
            tokio::time::sleep(RETRY).await;
            let written = async {
                recorder.retry().await?;
                recorder.sync().await
            };
            match written.await {
                Ok(()) => break,
                Err(RecordError::Sink(_)) if self.engine().suspends() => {}
                Err(error) => {
                    self.end(EndReason::RecordingFailed(error.to_string()));
                    return Err(());
                }
            }
        }
        self.report_recording("resumed", None).await?;
        self.suspended.send_replace(false);
        Ok(())
    }

    /// Tells the user who watches. One at a time, each with what holds then, so that the last word is the right one.
    async fn announce(&self, watchers: Option<watch::Receiver<BTreeSet<String>>>) {
        let _turn = self.announcing.lock().await;
        let now = watchers.map(|watchers| watchers.borrow().clone());
        let effects = now.map(|now| self.engine().watched(&now));
        for (channel, effect) in effects.into_iter().flatten() {
            if let Effect::ToClient(message) = effect {
                self.go_on().await;
                let writer = self.writers().get(&channel).cloned();
                let saying = async { send(writer.as_deref(), message).await };
                // A client that does not read is not waited for; what it was to read is recorded.
                drop(tokio::time::timeout(GOODBYE, saying).await);
            } else if !self.perform(vec![effect], channel, None).await {
                return;
            }
        }
    }

    async fn report_recording(&self, action: &str, error: Option<&str>) -> Result<(), ()> {
        let told = report(self.authority.as_ref(), &|stamp| {
            self.facts.recording(stamp, action, error)
        })
        .await;
        if told {
            return Ok(());
        }
        self.end(EndReason::ReportFailed);
        Err(())
    }

    /// While the session is suspended nothing passes.
    async fn go_on(&self) {
        if *self.suspended.borrow() {
            // The sender lives as long as the session.
            drop(self.suspended.subscribe().wait_for(|it| !it).await);
        }
    }

    /// One channel from its opening to its close.
    async fn channel(&self, pending: PendingChannel, node: &Client) {
        let opened = self.engine().open(pending.kind(), self.now());
        let (number, effects) = match opened {
            Ok(opened) => opened,
            Err(Refusal {
                failure,
                words,
                effects,
            }) => {
                self.perform(effects, 0, None).await;
                return pending.refuse(failure, &words).await;
            }
        };
        if !self.perform(effects, number, None).await {
            return;
        }
        let far = match node.open(pending.kind()).await {
            Ok(channel) => channel,
            Err(error) => {
                let words = error.to_string();
                pending.refuse(OpenFailure::ConnectFailed, &words).await;
                let effects = self.engine().failed(number, &words, self.now());
                self.perform(effects, number, None).await;
                return;
            }
        };
        // Words to the user have a place in sessions only.
        let speaks = *pending.kind() == ChannelKind::Session;
        let near = pending.accept().await;
        self.carry(number, near, far, node, speaks).await;
    }

    /// One channel that the node opens.
    async fn offered(&self, offer: Offer, client: &Opener, node: &Client) {
        let opened = self.engine().offered(offer.kind(), self.now());
        let (number, effects) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                self.perform(refusal.effects, 0, None).await;
                return offer.refuse(refusal.failure, &refusal.words).await;
            }
        };
        if !self.perform(effects, number, None).await {
            return;
        }
        match client.open(offer.kind()).await {
            Ok(near) => {
                let far = offer.accept().await;
                self.carry(number, near, far, node, false).await;
            }
            Err(error) => {
                let words = error.to_string();
                offer.refuse(OpenFailure::ConnectFailed, &words).await;
                let effects = self.engine().failed(number, &words, self.now());
                self.perform(effects, number, None).await;
            }
        }
    }

    /// A request that the node listen, or listen no longer. One that is dropped is refused.
    async fn listen(&self, pending: PendingListener, node: &Client) {
        let at = pending.at().clone();
        if pending.is_stop() {
            let effects = self.engine().stopped(&at);
            let known = !effects.is_empty();
            if known
                && self.perform(effects, 0, None).await
                && node.stop_listening(&at).await.is_ok()
            {
                pending.grant(0);
            }
            return;
        }
        let asked = self.engine().listen(&at);
        let effects = match asked {
            Ok(effects) => effects,
            Err(refusal) => {
                self.perform(refusal.effects, 0, None).await;
                return;
            }
        };
        if !self.perform(effects, 0, None).await {
            return;
        }
        let port = node.listen(&at).await.ok();
        let effects = self.engine().listening(&at, port);
        if self.perform(effects, 0, None).await
            && let Some(port) = port
        {
            pending.grant(port);
        }
    }

    /// Carries an open channel until both sides are done.
    async fn carry(&self, number: u32, near: Channel, far: Channel, node: &Client, speaks: bool) {
        let to_client = Arc::new(near.writer);
        if speaks {
            self.writers().insert(number, Arc::clone(&to_client));
        }
        let ends = Ends {
            to_client: &to_client,
            to_node: &far.writer,
        };
        if speaks {
            let greeting = self.engine().greeting(number);
            self.perform(greeting, number, Some(&ends)).await;
        }
        tokio::join!(
            self.pump(number, near.reader, &ends, None, Engine::client_said),
            self.pump(number, far.reader, &ends, Some(node), Engine::node_said),
        );
        self.writers().remove(&number);
        let effects = self.engine().closed(number, self.now());
        self.perform(effects, number, None).await;
    }

    /// One direction of a channel. The other direction waits for nothing that happens here. A channel that was closed
    /// by the loss of the connection to `node` is the end of the session.
    async fn pump(
        &self,
        channel: u32,
        mut reader: ChannelReader,
        ends: &Ends<'_>,
        node: Option<&Client>,
        decide: fn(&mut Engine, u32, Message, UnixTime) -> Vec<Effect>,
    ) {
        let mut ended = false;
        while let Some(message) = reader.next().await {
            ended |= matches!(
                message,
                Message::Request(Request::ExitStatus(_) | Request::ExitSignal { .. })
            );
            if let Some(node) = node
                && message == Message::Close
                && !ended
                && is_lost(node).await
            {
                return self.end(EndReason::NodeLeft);
            }
            let effects = decide(&mut self.engine(), channel, message, self.now());
            if !self.perform(effects, channel, Some(ends)).await {
                return;
            }
        }
    }

    /// Performs effects in order, up to the first that fails; `false` if one did. A failure to record or to report
    /// ends the session.
    async fn perform(&self, effects: Vec<Effect>, channel: u32, ends: Option<&Ends<'_>>) -> bool {
        for effect in effects {
            let done = match effect {
                Effect::Record(frame) => {
                    let mut recorder = self.recorder.lock().await;
                    match recorder.record(self.authority.now(), frame).await {
                        Ok(()) => Ok(()),
                        Err(error) => self.unrecorded(&mut recorder, error).await,
                    }
                }
                Effect::Report(fact) => {
                    if report(self.authority.as_ref(), &|stamp| {
                        self.facts.fact(stamp, channel, &fact)
                    })
                    .await
                    {
                        Ok(())
                    } else {
                        self.end(EndReason::ReportFailed);
                        Err(())
                    }
                }
                Effect::ToClient(message) => {
                    self.go_on().await;
                    send(ends.map(|ends| ends.to_client), message).await
                }
                Effect::ToNode(message) => {
                    self.go_on().await;
                    send(ends.map(|ends| ends.to_node), message).await
                }
                Effect::End(reason) => {
                    self.end(reason);
                    Ok(())
                }
            };
            if done.is_err() {
                return false;
            }
        }
        true
    }

    /// Only the first reason counts.
    fn end(&self, reason: EndReason) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            ending.get_or_insert(reason);
            first
        });
    }

    async fn say_goodbye(&self, reason: &EndReason) {
        let words = format!("\r\nmezite: session ended: {reason}\r\n");
        self.say(&words, true).await;
    }

    /// Says `words` on standard error of whatever is open, and closes it if that was the last.
    async fn say(&self, words: &str, last: bool) {
        let writers: Vec<_> = self.writers().values().cloned().collect();
        let mut said = JoinSet::new();
        for writer in writers {
            let words = Bytes::copy_from_slice(words.as_bytes());
            said.spawn(async move {
                let saying = async {
                    writer.send(Message::ExtendedData(1, words)).await?;
                    if last {
                        let status = Message::Request(Request::ExitStatus(OWN_FAILURE));
                        writer.send(status).await?;
                        writer.send(Message::Close).await?;
                    }
                    Ok::<(), SshError>(())
                };
                // A client that does not read is not waited for.
                drop(tokio::time::timeout(GOODBYE, saying).await);
            });
        }
        while said.join_next().await.is_some() {}
    }

    async fn finish(self: Arc<Self>, reason: EndReason) {
        if let EndReason::RecordingFailed(error) = &reason {
            report(self.authority.as_ref(), &|stamp| {
                self.facts.recording_failed(stamp, error)
            })
            .await;
        }
        let mut books = self.engine().close(self.now());
        if matches!(reason, EndReason::RecordingFailed(_)) {
            books.retain(|(_, effect)| matches!(effect, Effect::Report(_)));
        }
        for (channel, effect) in books {
            self.perform(vec![effect], channel, None).await;
        }
        let Some(session) = Arc::into_inner(self) else {
            return tracing::error!("a task of a finished session lives on");
        };
        let tally = session.engine().tally();
        let success = matches!(reason, EndReason::ClientLeft);
        let ending = Ending {
            success,
            reason: reason.to_string(),
            tally,
        };
        close_recording(
            session.authority.as_ref(),
            &session.facts,
            session.recorder.into_inner(),
            &ending,
        )
        .await;
        drop(session.enlisted);
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writers(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<ChannelWriter>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the connection is gone. Its channels may hear of that a moment before it shows.
async fn is_lost(node: &Client) -> bool {
    if !node.is_closed() {
        tokio::time::sleep(GONE).await;
    }
    node.is_closed()
}

/// Waits for a channel that the node wants to open.
async fn next_offer(offers: &mut Option<mpsc::Receiver<Offer>>) -> Option<Offer> {
    match offers {
        Some(offers) => offers.recv().await,
        None => None,
    }
}

/// Waits until others watch the session than at the last return; `None` at once where nobody would tell.
async fn changed(watchers: &mut Option<watch::Receiver<BTreeSet<String>>>) -> Option<()> {
    watchers.as_mut()?.changed().await.ok()
}

/// Waits for a reason to end.
async fn ended(ending: &mut watch::Receiver<Option<EndReason>>) -> EndReason {
    let reason = ending
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|reason| reason.clone());
    reason.unwrap_or(EndReason::Shutdown)
}

/// The two ends of a channel that can be written to.
struct Ends<'a> {
    to_client: &'a ChannelWriter,
    to_node: &'a ChannelWriter,
}

/// A side that has gone ends its channel by itself; what cannot be delivered any more is no failure of the session.
async fn send(end: Option<&ChannelWriter>, message: Message) -> Result<(), ()> {
    if let Some(end) = end
        && let Err(error) = end.send(message).await
    {
        tracing::debug!(%error, "a message could not be delivered");
    }
    Ok(())
}
