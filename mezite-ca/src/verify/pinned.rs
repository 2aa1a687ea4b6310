//! The first contact: a newcomer knows only the pin of the Host CA's TLS key.

use rustls_pki_types::CertificateDer;

use super::{Root, VerifyError};
use crate::TrustBundle;

/// The bundle that trusts exactly the authority with `pin` (see [`crate::pin`]), found among the certificates that the
/// hub shows. Verify the hub's own certificate against it next, with [`super::peer`].
///
/// # Errors
/// [`VerifyError::UnknownAuthority`] with the pin if no certificate fits it, [`VerifyError::BadSignature`] if somebody
/// else than the key's holder wrote the certificate that does.
pub fn pinned(chain: &[CertificateDer<'_>], pin: &str) -> Result<TrustBundle, VerifyError> {
    let unknown = || VerifyError::UnknownAuthority(format!("pinned as {pin}"));
    let fits = |der: &&CertificateDer<'_>| crate::pin(der).is_ok_and(|found| found == pin);
    let der = chain.iter().take(4).find(fits).ok_or_else(unknown)?;
    // The pin covers the key alone; that the key's holder wrote the rest is what the signature says.
    let root = Root::parse_self_signed(der)?;
    let cluster = root
        .uri
        .strip_prefix("mezite://")
        .and_then(|rest| rest.strip_suffix("/ca/host-tls"));
    let cluster = cluster
        .and_then(|cluster| cluster.parse().ok())
        .ok_or_else(unknown)?;
    let mut trust = TrustBundle::empty(cluster);
    trust.host_tls.push(der.to_vec());
    Ok(trust)
}
