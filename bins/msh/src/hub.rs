//! Connections to the hub: as nobody, for login, or with the certificate of a login.

use std::sync::Arc;

use mezite_api::v1::access_client::AccessClient;
use mezite_api::v1::hub_client::HubClient;
use mezite_api::v1::{GetTrustRequest, GetTrustResponse};
use mezite_ca::{KeyKind, PeerKind, TrustBundle};
use mezite_console::call;
pub(crate) use mezite_console::call::within;
use mezite_net::ByteStream;
use mezite_net::clock::SystemClock;
use mezite_net::grpc;
use mezite_net::tls::{Accept, Connector, OwnIdentity, Protocol, TlsError};
use tonic::transport::Channel;

use crate::fail::Failure;
use crate::home::Login;
use crate::{out, snippet};

/// Hubs that an authority of `trust` vouches for.
pub(crate) fn hubs_of(trust: TrustBundle) -> Accept {
    let trust = Arc::new(trust);
    Accept::Kinds(Arc::new(move || Arc::clone(&trust)), &[PeerKind::Hub])
}

/// The calls for everybody.
pub(crate) async fn access(
    address: &str,
    accept: Accept,
) -> Result<AccessClient<Channel>, Failure> {
    let connector = Connector::new(None, accept, Protocol::Grpc, Arc::new(SystemClock))?;
    let channel = grpc::connect(connector, address).await.map_err(hinted)?;
    Ok(AccessClient::new(channel))
}

/// The calls for those who are known. On the way, what is trusted from now on is kept: while the hub replaces a key of its
/// authorities, whoever comes by learns the new one.
pub(crate) async fn hub(login: &Login) -> Result<HubClient<Channel>, Failure> {
    let connector = connector(login, Protocol::Grpc)?;
    let channel = grpc::connect(connector, &login.profile.proxy)
        .await
        .map_err(hinted)?;
    let mut client = call::client(channel);
    // The call that follows meets a refusal too, and tells it.
    if let Ok(answer) = within(client.get_trust(GetTrustRequest {})).await
        && let Err(failure) = refresh(login, &answer)
    {
        out::note(format_args!(
            "what this hub's authorities are now cannot be kept: {failure}"
        ));
    }
    Ok(client)
}

fn refresh(login: &Login, answer: &GetTrustResponse) -> Result<(), Failure> {
    let told: TrustBundle = serde_json::from_str(&answer.trust).map_err(Failure::failed)?;
    let usable = told.cluster == login.profile.cluster
        && !told.gateway.is_empty()
        && !told.host_tls.is_empty();
    if !usable {
        return Err(Failure::failed("the hub's answer is not usable"));
    }
    // A client checks gateways and hubs, nobody else.
    let trust = TrustBundle {
        generations: told.notes_on(&[KeyKind::Gateway, KeyKind::HostTls]),
        gateway: told.gateway,
        host_tls: told.host_tls,
        ..TrustBundle::empty(told.cluster)
    };
    if login.trust()? == trust {
        return Ok(());
    }
    let known_hosts = snippet::known_hosts(&login.profile, &trust).map_err(Failure::failed)?;
    login.place.keep_trust(&trust, &known_hosts)
}

/// A stream that will speak SSH.
pub(crate) async fn ssh_stream(login: &Login) -> Result<impl ByteStream + use<>, Failure> {
    let connector = connector(login, Protocol::Ssh)?;
    connector
        .connect(&login.profile.proxy)
        .await
        .map_err(hinted)
}

fn connector(login: &Login, protocol: Protocol) -> Result<Connector, Failure> {
    let own = OwnIdentity::new(&login.place.credentials()?)?;
    let accept = hubs_of(login.trust()?);
    Ok(Connector::new(
        Some(own),
        accept,
        protocol,
        Arc::new(SystemClock),
    )?)
}

/// Adds what to look at when the hub's certificate is refused.
fn hinted(error: TlsError) -> Failure {
    let text = error.to_string();
    let hint = if text.contains("UnknownIssuer") {
        "; the hub is not the one that is known or pinned, or its keys were replaced meanwhile: ask its operator for the \
         pin (`mezctl ca status`), and log in with --ca-pin"
    } else if text.contains("Expired") || text.contains("NotValidYet") {
        "; is the clock of this machine right?"
    } else {
        return error.into();
    };
    let failure = Failure::from(error);
    Failure::new(failure.code, format_args!("{text}{hint}"))
}
