//! Reading an SSH certificate (PROTOCOL.certkeys) without trust: bounded, not recursive, every byte accounted for.
//!
//! ssh-key's own reader follows a certificate in the signature key without end; here it is met before it is entered.

use std::borrow::Cow;

use ssh_key::Algorithm;
use ssh_key::public::KeyData;

use super::VerifyError;
use crate::kind::escaped;
use crate::ssh::{MAX_CERTIFICATE_BYTES, MAX_PRINCIPALS};
use crate::wire::Reader;

/// Most options or extensions that are read.
const MAX_OPTIONS: usize = 64;
const CERTIFICATE_SUFFIX: &str = "-cert-v01@openssh.com";

/// The fields of a certificate, form checked, meaning not.
#[derive(Debug)]
pub(super) struct Blob<'a> {
    pub(super) public_key: KeyData,
    pub(super) serial: u64,
    pub(super) cert_type: u32,
    pub(super) key_id: &'a str,
    pub(super) principals: Vec<&'a str>,
    pub(super) valid_after: u64,
    pub(super) valid_before: u64,
    pub(super) critical_options: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) extensions: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) authority: [u8; 32],
    pub(super) signature: [u8; 64],
    /// What the signature is over.
    pub(super) signed: &'a [u8],
}

impl<'a> Blob<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, VerifyError> {
        if bytes.len() > MAX_CERTIFICATE_BYTES {
            return Err(VerifyError::TooLarge(bytes.len()));
        }
        let mut reader = Reader(bytes);
        let algorithm = reader.text("type")?;
        if reader.string("nonce")?.is_empty() {
            return Err(VerifyError::Malformed("nonce"));
        }
        let public_key = subject_key(algorithm, &mut reader)?;
        let serial = reader.u64("serial")?;
        let cert_type = reader.u32("type")?;
        let key_id = reader.text("key id")?;
        let principals = principals(reader.string("valid principals")?)?;
        let (valid_after, valid_before) = (reader.u64("valid after")?, reader.u64("valid before")?);
        let critical_options = options("critical options", reader.string("critical options")?)?;
        let extensions = options("extensions", reader.string("extensions")?)?;
        // "The reserved field is currently unused and is ignored."
        reader.string("reserved")?;
        let authority = authority_key(reader.string("signature key")?)?;
        let signed = bytes
            .strip_suffix(reader.0)
            .ok_or(VerifyError::Malformed("signature"))?;
        let signature = signature(reader.string("signature")?)?;
        reader.finish("certificate")?;
        Ok(Self {
            public_key,
            serial,
            cert_type,
            key_id,
            principals,
            valid_after,
            valid_before,
            critical_options,
            extensions,
            authority,
            signature,
            signed,
        })
    }
}

/// The certified key, whose fields stand between the nonce and the serial number.
fn subject_key(certificate_type: &str, reader: &mut Reader<'_>) -> Result<KeyData, VerifyError> {
    let refused = || VerifyError::SubjectKey(escaped(certificate_type));
    // How many strings the key has; what is not listed is not accepted.
    let (plain, strings) = match certificate_type {
        "ssh-ed25519-cert-v01@openssh.com" => ("ssh-ed25519", 1),
        "ecdsa-sha2-nistp256-cert-v01@openssh.com" => ("ecdsa-sha2-nistp256", 2),
        "ecdsa-sha2-nistp384-cert-v01@openssh.com" => ("ecdsa-sha2-nistp384", 2),
        "ecdsa-sha2-nistp521-cert-v01@openssh.com" => ("ecdsa-sha2-nistp521", 2),
        "sk-ssh-ed25519-cert-v01@openssh.com" => ("sk-ssh-ed25519@openssh.com", 2),
        "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => ("sk-ecdsa-sha2-nistp256@openssh.com", 3),
        _ => return Err(refused()),
    };
    let before = reader.0;
    for _ in 0..strings {
        reader.string("public key")?;
    }
    let mut fields = before
        .strip_suffix(reader.0)
        .ok_or(VerifyError::Malformed("public key"))?;
    let algorithm = Algorithm::new(plain).map_err(|_| refused())?;
    let key = KeyData::decode_as(&mut fields, algorithm)
        .map_err(|_| VerifyError::Malformed("public key"))?;
    if !fields.is_empty() {
        return Err(VerifyError::TrailingBytes("public key"));
    }
    if crate::ssh::subject_is_sound(&key) {
        Ok(key)
    } else {
        Err(refused())
    }
}

fn principals(packed: &[u8]) -> Result<Vec<&str>, VerifyError> {
    let mut reader = Reader(packed);
    let mut principals: Vec<&str> = Vec::new();
    while !reader.0.is_empty() {
        if principals.len() == MAX_PRINCIPALS {
            return Err(VerifyError::TooMany("principals"));
        }
        let principal = reader.text("valid principals")?;
        if principals.contains(&principal) {
            return Err(VerifyError::Duplicate(escaped(principal)));
        }
        principals.push(principal);
    }
    Ok(principals)
}

/// Pairs of a name and data; the data is empty or holds one string. "Sequences of options must be lexically ordered
/// by name", each name once.
fn options<'a>(
    field: &'static str,
    packed: &'a [u8],
) -> Result<Vec<(&'a str, Cow<'a, str>)>, VerifyError> {
    let mut reader = Reader(packed);
    let mut options: Vec<(&str, Cow<'_, str>)> = Vec::new();
    while !reader.0.is_empty() {
        if options.len() == MAX_OPTIONS {
            return Err(VerifyError::TooMany(field));
        }
        let name = reader.text(field)?;
        let data = reader.string(field)?;
        match options.last() {
            Some((last, _)) if *last == name => return Err(VerifyError::Duplicate(escaped(name))),
            Some((last, _)) if *last > name => return Err(VerifyError::OptionOrder(escaped(name))),
            _ => options.push((name, value(field, data)?)),
        }
    }
    Ok(options)
}

fn value<'a>(field: &'static str, data: &'a [u8]) -> Result<Cow<'a, str>, VerifyError> {
    if data.is_empty() {
        return Ok(Cow::Borrowed(""));
    }
    let mut reader = Reader(data);
    match reader.string(field) {
        Ok(inner) if reader.0.is_empty() => Ok(String::from_utf8_lossy(inner)),
        // Another authority's extension may have another form; ours and all critical ones are checked by value.
        _ if field == "extensions" => Ok(Cow::Borrowed("")),
        Ok(_) => Err(VerifyError::TrailingBytes(field)),
        Err(fault) => Err(fault.into()),
    }
}

/// Refuses a certificate by its name, unread.
fn authority_key(packed: &[u8]) -> Result<[u8; 32], VerifyError> {
    let mut reader = Reader(packed);
    let algorithm = reader.text("signature key")?;
    if algorithm.ends_with(CERTIFICATE_SUFFIX) {
        return Err(VerifyError::AuthorityIsCertificate);
    }
    if algorithm != "ssh-ed25519" {
        return Err(VerifyError::AuthorityAlgorithm(escaped(algorithm)));
    }
    let key = reader.string("signature key")?;
    reader.finish("signature key")?;
    key.try_into()
        .map_err(|_| VerifyError::Malformed("signature key"))
}

fn signature(packed: &[u8]) -> Result<[u8; 64], VerifyError> {
    let mut reader = Reader(packed);
    let algorithm = reader.text("signature")?;
    if algorithm != "ssh-ed25519" {
        return Err(VerifyError::AuthorityAlgorithm(escaped(algorithm)));
    }
    let signature = reader.string("signature")?;
    reader.finish("signature")?;
    signature
        .try_into()
        .map_err(|_| VerifyError::Malformed("signature"))
}
