//! `health`: whether the hub of this machine answers, and its database answers it.

use std::path::Path;
use std::time::Duration;

use mezite_api::v1::StatusRequest;
use mezite_api::v1::hub_client::HubClient;
use mezite_net::grpc;

use crate::config::Config;

/// The most that the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks over the administrators' socket.
///
/// # Errors
/// One sentence: what does not answer.
pub(crate) fn check(path: &Path) -> Result<String, String> {
    let config = Config::load(path, &crate::environment()).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let socket = config.data_dir.join("mezctl.sock");
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(&socket)).await });
    answer.unwrap_or_else(|_| {
        let (socket, seconds) = (socket.display(), PATIENCE.as_secs());
        Err(format!(
            "unhealthy: the hub at `{socket}` gave no answer within {seconds} s"
        ))
    })
}

async fn ask(socket: &Path) -> Result<String, String> {
    let shown = socket.display();
    let channel = grpc::connect_local(socket.to_owned()).await;
    let channel = channel.map_err(|error| {
        format!(
            "unhealthy: no hub answers at `{shown}` ({error}): is it running, as this user or root?"
        )
    })?;
    let status = HubClient::new(channel).status(StatusRequest {}).await;
    let status = status.map_err(|status| {
        let why = status.message();
        format!("unhealthy: the hub at `{shown}` runs and cannot answer: {why}")
    })?;
    let status = status.into_inner();
    let room = if status.disk_full {
        "; its disk is full, so it takes no new sessions"
    } else {
        ""
    };
    Ok(format!(
        "healthy: the hub of cluster {} answers, with {} events and {} sessions{room}",
        status.cluster, status.events, status.sessions
    ))
}
