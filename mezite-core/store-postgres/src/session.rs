//! Connections.

use std::future::poll_fn;
use std::pin::pin;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Error, Notification};

use crate::Options;

/// The channel on which hubs tell each other what changed.
pub(crate) const CHANNEL: &str = "mezite";

/// A connection for statements.
pub(crate) async fn connect(options: &Options) -> Result<Client, Error> {
    let (client, connection) = options.config.connect(options.tls.clone()).await?;
    // Whoever uses the client learns of the connection's end from it.
    tokio::spawn(connection.map(drop));
    Ok(client)
}

/// A connection that hears what other hubs changed.
pub(crate) struct Listener {
    pub(crate) client: Client,
    pub(crate) heard: mpsc::UnboundedReceiver<Notification>,
}

/// Listens from now on. The queue ends with the connection.
pub(crate) async fn listen(options: &Options) -> Result<Listener, Error> {
    let (client, connection) = options.config.connect(options.tls.clone()).await?;
    let (hear, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message
                && hear.send(notification).is_err()
            {
                return;
            }
        }
    });
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    Ok(Listener { client, heard })
}
