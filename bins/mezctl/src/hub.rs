//! The connection to the hub: over its Unix socket on its own machine, or over TLS with the login that `msh` keeps.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mezite_api::v1::GetTrustRequest;
use mezite_api::v1::hub_client::HubClient;
use mezite_ca::PeerKind;
use mezite_console::call;
pub(crate) use mezite_console::call::within;
use mezite_core::{Clock, ClusterName};
use mezite_net::clock::SystemClock;
use mezite_net::grpc;
use mezite_net::tls::{Accept, Connector, OwnIdentity, Protocol};
use tonic::transport::Channel;

use crate::fail::Failure;
use crate::state::{self, Login};

/// Where a hub listens when its configuration does not say otherwise.
const SOCKET: &str = "/var/lib/mezite/mezctl.sock";

/// Which hub.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The hub's Unix socket; /var/lib/mezite/mezctl.sock if it is there.
    #[arg(long, global = true, env = "MEZITE_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Use the login to this cluster (`mezctl login`) instead of a socket.
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "socket")]
    cluster: Option<ClusterName>,
    /// Where logins are kept; ~/.msh by default.
    #[arg(long, global = true, env = "MSH_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

/// A hub that answers.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) client: HubClient<Channel>,
    /// `host:port` of its API, when we know it because we came that way.
    proxy: Option<String>,
}

impl Hub {
    pub(crate) async fn connect(place: &Where) -> Result<Self, Failure> {
        let default = Path::new(SOCKET);
        if let Some(socket) = &place.socket {
            return Self::local(socket).await;
        }
        if place.cluster.is_none() && default.exists() {
            return Self::local(default).await;
        }
        let login = state::login(
            place.home.as_deref(),
            place.cluster.as_ref(),
            SystemClock.now(),
        )?;
        let Some(login) = login else {
            return Err(Failure::unavailable(format_args!(
                "there is no hub at `{SOCKET}` and no login: give --socket on the hub's machine, or `mezctl login` elsewhere"
            )));
        };
        Self::remote(login).await
    }

    async fn local(socket: &Path) -> Result<Self, Failure> {
        let channel = grpc::connect_local(socket.to_owned()).await;
        let channel = channel.map_err(|error| unreachable(socket, &error))?;
        Ok(Self {
            client: call::client(channel),
            proxy: None,
        })
    }

    async fn remote(login: Login) -> Result<Self, Failure> {
        let Login {
            profile,
            credentials,
            trust,
        } = login;
        let trust = Arc::new(trust);
        let accept = Accept::Kinds(Arc::new(move || Arc::clone(&trust)), &[PeerKind::Hub]);
        let own = OwnIdentity::new(&credentials)?;
        let connector = Connector::new(Some(own), accept, Protocol::Grpc, Arc::new(SystemClock))?;
        let channel = grpc::connect(connector, &profile.proxy).await?;
        Ok(Self {
            client: call::client(channel),
            proxy: Some(profile.proxy),
        })
    }

    /// What those need who come for the first time; `given` is an address that is known better here.
    pub(crate) async fn introduction(
        &mut self,
        given: Option<&str>,
    ) -> Result<Introduction, Failure> {
        let trust = within(self.client.get_trust(GetTrustRequest {})).await?;
        let known = given.map(str::to_owned).or_else(|| self.proxy.clone());
        Ok(Introduction {
            address: known.unwrap_or(trust.api_address),
            pin: trust.ca_pin,
        })
    }
}

/// Where a hub is, and how to know that it is the right one.
pub(crate) struct Introduction {
    /// `host:port` of its API.
    pub(crate) address: String,
    /// The pin of its authority.
    pub(crate) pin: String,
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Failure::denied(format_args!(
            "you may not open `{path}`: only the hub's own account and root may; or use `mezctl login`"
        ));
    }
    Failure::unavailable(format_args!(
        "no hub answers at `{path}` ({error}): is it running, and is `data_dir` another one? Give --socket"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_socket_is_unavailable_and_a_closed_one_denied() {
        let path = Path::new("/x/mezctl.sock");
        let code = |kind: io::ErrorKind| unreachable(path, &kind.into()).code.number();
        assert_eq!(code(io::ErrorKind::NotFound), 4);
        assert_eq!(code(io::ErrorKind::ConnectionRefused), 4);
        assert_eq!(code(io::ErrorKind::PermissionDenied), 3);
    }
}
