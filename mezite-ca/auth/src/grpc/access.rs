//! The calls that need no client certificate.

use mezite_api::request;
use mezite_api::v1::access_server::Access;
use mezite_api::v1::{
    JoinRequest, JoinResponse, LoginRequest, LoginResponse, PingRequest, PingResponse,
};
use mezite_ca::TrustBundle;
use ssh_key::Certificate;
use tonic::{Request, Response, Status};

use super::source;
use crate::auth::Auth;
use crate::error::Error;

/// Ping, login, join.
#[derive(Clone, Debug)]
pub struct AccessService {
    auth: Auth,
}

impl AccessService {
    /// The service on top of `auth`.
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        Self { auth }
    }
}

#[tonic::async_trait]
impl Access for AccessService {
    async fn ping(&self, _request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {
            cluster: self.auth.cluster().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.auth.now().as_millis(),
        }))
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let source = source(&request);
        let login = request::Login::try_from(request.into_inner()).map_err(Error::from)?;
        let identity = self.auth.login(login, source).await?;
        let settings = self.auth.settings();
        Ok(Response::new(LoginResponse {
            ssh_certificate: openssh(&identity.ssh_certificate)?,
            tls_chain: identity.tls_chain,
            valid_before_ms: identity.valid_before.as_millis(),
            cluster: self.auth.cluster().to_string(),
            trust: json(&self.auth.trust_for_users())?,
            gateway_address: settings.gateway_address.clone(),
            gateway_names: settings.gateway_names.clone(),
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            known_hosts: self.auth.known_hosts()?,
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let source = source(&request);
        let join = request::Join::try_from(request.into_inner()).map_err(Error::from)?;
        let node = self.auth.join(&join, source).await?;
        Ok(Response::new(JoinResponse {
            node_id: node.id.to_string(),
            node_name: node.name.to_string(),
            cluster: self.auth.cluster().to_string(),
            host_certificate: openssh(&node.host_certificate)?,
            tls_chain: node.tls_chain,
            trust: json(&self.auth.trust_for_nodes())?,
            tunnel_address: self.auth.settings().tunnel_address.clone(),
            valid_before_ms: node.valid_before.as_millis(),
        }))
    }
}

/// A certificate as one line of OpenSSH text.
pub(super) fn openssh(certificate: &Certificate) -> Result<String, Error> {
    certificate
        .to_openssh()
        .map_err(|error| Error::Corrupt(error.to_string()))
}

pub(super) fn json(trust: &TrustBundle) -> Result<String, Error> {
    serde_json::to_string(trust).map_err(|error| Error::Corrupt(error.to_string()))
}
