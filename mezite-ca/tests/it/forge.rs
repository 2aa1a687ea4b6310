//! SSH certificates with any content (PROTOCOL.certkeys), written byte by byte, signed by any key.

use mezite_ca::{Signer, SoftwareKey};

use crate::fixture::{NOW, key, login, node_id, session_id};

/// Every field of a certificate, at first those of a good session or identity certificate.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) algorithm: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) serial: u64,
    pub(crate) cert_type: u32,
    pub(crate) key_id: Vec<u8>,
    /// Packed strings.
    pub(crate) principals: Vec<u8>,
    pub(crate) valid_after: u64,
    pub(crate) valid_before: u64,
    /// Packed pairs.
    pub(crate) critical_options: Vec<u8>,
    /// Packed pairs.
    pub(crate) extensions: Vec<u8>,
    pub(crate) reserved: Vec<u8>,
    /// `None`: the signer's key.
    pub(crate) signature_key: Option<Vec<u8>>,
    pub(crate) signature_algorithm: Vec<u8>,
    /// Appended inside the signature.
    pub(crate) signature_tail: Vec<u8>,
}

impl Forge {
    pub(crate) fn identity() -> Self {
        Self {
            algorithm: b"ssh-ed25519-cert-v01@openssh.com".to_vec(),
            nonce: vec![5; 32],
            public_key: string(&key(100).public_key()),
            serial: 42,
            cert_type: 1,
            key_id: b"forged".to_vec(),
            principals: string(b"mezite:example:alice"),
            valid_after: NOW.as_secs() - 60,
            valid_before: NOW.as_secs() + 60,
            critical_options: Vec::new(),
            extensions: Vec::new(),
            reserved: Vec::new(),
            signature_key: None,
            signature_algorithm: b"ssh-ed25519".to_vec(),
            signature_tail: Vec::new(),
        }
    }

    pub(crate) fn session() -> Self {
        let principal = format!("mezite:{}:{}", node_id(), login());
        Self {
            principals: string(principal.as_bytes()),
            extensions: options(&[
                ("session-id@mezite", &session_id().to_string()),
                ("user@mezite", "alice"),
            ]),
            ..Self::identity()
        }
    }

    pub(crate) fn gateway() -> Self {
        Self {
            cert_type: 2,
            principals: string(b"db1.example"),
            ..Self::identity()
        }
    }

    pub(crate) fn sign(&self, signer: &SoftwareKey) -> Vec<u8> {
        let mut blob = string(&self.algorithm);
        blob.extend(string(&self.nonce));
        blob.extend(&self.public_key);
        blob.extend(self.serial.to_be_bytes());
        blob.extend(self.cert_type.to_be_bytes());
        blob.extend(string(&self.key_id));
        blob.extend(string(&self.principals));
        blob.extend(self.valid_after.to_be_bytes());
        blob.extend(self.valid_before.to_be_bytes());
        blob.extend(string(&self.critical_options));
        blob.extend(string(&self.extensions));
        blob.extend(string(&self.reserved));
        let own = || [string(b"ssh-ed25519"), string(&signer.public_key())].concat();
        blob.extend(string(&self.signature_key.clone().unwrap_or_else(own)));
        let signature = string(&signer.sign(&blob).unwrap());
        blob.extend(string(
            &[
                string(&self.signature_algorithm),
                signature,
                self.signature_tail.clone(),
            ]
            .concat(),
        ));
        blob
    }
}

/// `uint32 length, bytes` (RFC 4251 section 5).
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [length.to_be_bytes().as_slice(), bytes].concat()
}

/// Packed strings.
pub(crate) fn strings<T: AsRef<[u8]>>(list: &[T]) -> Vec<u8> {
    list.iter().flat_map(|item| string(item.as_ref())).collect()
}

/// Packed pairs of name and data, in the given order.
pub(crate) fn options(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs
        .iter()
        .flat_map(|(name, value)| {
            [string(name.as_bytes()), string(&string(value.as_bytes()))].concat()
        })
        .collect()
}
