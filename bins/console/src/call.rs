//! Calls to the hub: how long one may take and how large an answer may be.

use std::time::Duration;

use mezite_api::v1::hub_client::HubClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::fail::Failure;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The calls for those who are known.
#[must_use]
pub fn client(channel: Channel) -> HubClient<Channel> {
    HubClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}

/// One answer, within half a minute.
///
/// # Errors
/// What the hub says, or that it says nothing.
pub async fn within<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::unavailable(format_args!(
            "the hub did not answer within {} seconds",
            PATIENCE.as_secs()
        ))),
    }
}
