//! Connections to servers that are not Mezite's: receivers of the audit log. Their certificates are checked by name
//! against authorities that the operator names.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{HANDSHAKE, TlsError, provider};
use crate::ByteStream;

/// Makes connections to one kind of server outside of the house: over TLS 1.3, or over plain TCP.
#[derive(Clone)]
pub struct Outside(Option<TlsConnector>);

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "Outside(TLS)",
            None => "Outside(TCP)",
        })
    }
}

impl Outside {
    /// Accepts servers whose certificate an authority in `pem` vouches for.
    ///
    /// # Errors
    /// [`TlsError::Credentials`] if there is no certificate in it, or one that is broken.
    pub fn tls(pem: &[u8]) -> Result<Self, TlsError> {
        let bad = |error: &dyn fmt::Display| TlsError::Credentials(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(&error))?;
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        if roots.is_empty() {
            return Err(bad(&"there is no certificate (BEGIN CERTIFICATE)"));
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }

    /// Anybody on the way can read and change what is sent.
    #[must_use]
    pub fn dangerously_plain() -> Self {
        Self(None)
    }

    /// Connects to `host` (a name, or an address without brackets) within ten seconds. Addresses that no receiver
    /// has (link-local ones, where clouds serve credentials, multicast, unspecified) are never dialled, whatever the
    /// name resolves to.
    ///
    /// # Errors
    /// [`TlsError`]; each says the address.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn ByteStream>, TlsError> {
        let address = format!("{host}:{port}");
        tokio::time::timeout(HANDSHAKE, self.shake(host, port, &address))
            .await
            .unwrap_or_else(|_| Err(TlsError::Timeout(address.clone())))
    }

    async fn shake(
        &self,
        host: &str,
        port: u16,
        address: &str,
    ) -> Result<Box<dyn ByteStream>, TlsError> {
        let stream = dial(host, port)
            .await
            .map_err(|error| TlsError::Unreachable {
                address: address.to_owned(),
                error,
            })?;
        let Some(connector) = &self.0 else {
            return Ok(Box::new(stream));
        };
        let failed = |error| TlsError::Handshake {
            address: address.to_owned(),
            error,
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let tls = connector.connect(name, stream).await.map_err(failed)?;
        Ok(Box::new(tls))
    }
}

/// The first address that answers.
async fn dial(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut refused = std::io::Error::other("the name has no address");
    for address in lookup_host((host, port)).await? {
        if !may_be_dialled(address.ip()) {
            refused = std::io::Error::other(format!(
                "{} is link-local, multicast or unspecified: no receiver is dialled there",
                address.ip()
            ));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn may_be_dialled(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_link_local() || ip.is_multicast() || ip.is_unspecified() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_79_addresses_where_no_receiver_is_are_not_dialled() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(!may_be_dialled(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.7", "203.0.113.7", "::1", "2001:db8::7"] {
            assert!(may_be_dialled(good.parse().unwrap()), "{good}");
        }
    }

    #[tokio::test]
    async fn attack_79_the_metadata_service_is_refused_before_a_packet_is_sent() {
        let error = Outside::dangerously_plain()
            .connect("169.254.169.254", 80)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("link-local"), "{error}");
    }

    #[test]
    fn authorities_that_are_none_are_refused() {
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(matches!(
                Outside::tls(bad.as_bytes()),
                Err(TlsError::Credentials(_))
            ));
        }
    }
}
