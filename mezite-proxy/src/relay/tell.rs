//! What a client hears that will not be served.

use std::time::Duration;

use mezite_net::ssh::{
    Channel, ChannelKind, Incoming, Message, OpenFailure, Request, Server, SshError,
};

use crate::gateway::Admission;
use crate::session::OWN_FAILURE;

/// How long a refused client has to start something, so that it can be told why.
const TELL: Duration = Duration::from_secs(10);

/// Says `words` to a client that will not be served: on standard error of whatever it starts first.
pub(crate) async fn tell(mut client: Server<Admission>, words: &str) {
    let told = tokio::time::timeout(TELL, async {
        let mut told = false;
        while let Some(incoming) = client.next().await {
            // A listener that is dropped is refused.
            let Incoming::Open(pending) = incoming else {
                continue;
            };
            if !told && *pending.kind() == ChannelKind::Session {
                tell_on(pending.accept().await, words).await?;
                told = true;
            } else {
                // The client leaves by itself; without waiting, the disconnect could overtake what it has not read.
                pending.refuse(OpenFailure::Prohibited, words).await;
            }
        }
        Ok::<(), SshError>(())
    });
    if !matches!(told.await, Ok(Ok(()))) {
        tracing::debug!(words, "a refused client left before it could be told");
    }
    client.disconnect(words).await;
}

async fn tell_on(channel: Channel, words: &str) -> Result<(), SshError> {
    let Channel { mut reader, writer } = channel;
    while let Some(message) = reader.next().await {
        let Message::Request(request) = message else {
            continue;
        };
        if !request.is_answered() {
            continue;
        }
        writer.send(Message::Success).await?;
        if matches!(
            request,
            Request::Shell | Request::Exec(_) | Request::Subsystem(_)
        ) {
            break;
        }
    }
    writer
        .send(Message::ExtendedData(
            1,
            format!("mezite: {words}\r\n").into(),
        ))
        .await?;
    writer
        .send(Message::Request(Request::ExitStatus(OWN_FAILURE)))
        .await?;
    writer.send(Message::Eof).await?;
    writer.send(Message::Close).await
}
