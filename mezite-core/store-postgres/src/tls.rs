//! TLS to the database: version 1.3, the server verified by name against the operator's authority.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::OpenError;

/// A connector that trusts the certificates in `authorities` (PEM), or nobody.
pub(crate) fn connector(authorities: Option<&[u8]>) -> Result<MakeRustlsConnect, OpenError> {
    let wrong = |why: &dyn std::fmt::Display| {
        OpenError::Options(format!("the database's authority cannot be used: {why}"))
    };
    let mut roots = RootCertStore::empty();
    if let Some(pem) = authorities {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"its file holds no certificate in PEM"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
