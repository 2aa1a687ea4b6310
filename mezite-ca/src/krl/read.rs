//! Reading a list without trust: bounded, every byte accounted for, and nothing passed over that could revoke.

use mezite_core::UnixTime;
use ssh_key::public::KeyData;

use super::{
    CERT_EXTENSION, CERT_KEY_ID, CERT_SERIAL_BITMAP, CERT_SERIAL_LIST, CERT_SERIAL_RANGE,
    FORMAT_VERSION, Krl, KrlError, MAGIC, MAX_KRL_BYTES, SECTION_CERTIFICATES,
    SECTION_EXPLICIT_KEY, SECTION_EXTENSION, SECTION_FINGERPRINT_SHA1, SECTION_FINGERPRINT_SHA256,
};
use crate::kind::escaped;
use crate::wire::Reader;

/// Most bytes of a bitmap, as OpenSSH reads them: 2^24 bits.
const MAX_BITMAP_BYTES: usize = 1 << 21;

impl Krl {
    /// Reads what OpenSSH or [`Krl::to_bytes`] wrote. Sections that OpenSSH does not know, or that carry a signature
    /// (which it refuses since 9.4), refuse the list.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, KrlError> {
        if bytes.len() > MAX_KRL_BYTES {
            return Err(KrlError::TooLarge(bytes.len()));
        }
        let mut reader = Reader(bytes);
        let mut list = header(&mut reader)?;
        while !reader.is_empty() {
            let section_type = reader.u8("section type")?;
            if !KNOWN.contains(&section_type) {
                return Err(KrlError::UnknownSection(section_type));
            }
            let mut content = Reader(reader.string("section")?);
            match section_type {
                SECTION_CERTIFICATES => list.read_certificates(&mut content)?,
                SECTION_EXTENSION => extension(&mut content)?,
                keys => list.read_keys(keys, &mut content)?,
            }
        }
        Ok(list)
    }

    fn read_keys(&mut self, section_type: u8, content: &mut Reader<'_>) -> Result<(), KrlError> {
        while !content.is_empty() {
            let item = content.string("key or hash")?;
            self.add(1)?;
            let malformed = |_| KrlError::Malformed("hash");
            match section_type {
                SECTION_FINGERPRINT_SHA1 => {
                    self.sha1.insert(item.try_into().map_err(malformed)?);
                }
                SECTION_FINGERPRINT_SHA256 => {
                    self.sha256.insert(item.try_into().map_err(malformed)?);
                }
                _ => {
                    plain_key(item)?;
                    self.keys.insert(item.to_vec());
                }
            }
        }
        Ok(())
    }

    fn read_certificates(&mut self, content: &mut Reader<'_>) -> Result<(), KrlError> {
        let authority = content.string("authority")?;
        if !authority.is_empty() {
            plain_key(authority)?;
        }
        content.string("reserved")?;
        while !content.is_empty() {
            let section_type = content.u8("section type")?;
            let mut part = Reader(content.string("section")?);
            match section_type {
                CERT_SERIAL_LIST => {
                    while !part.is_empty() {
                        let serial = part.u64("serial list")?;
                        self.insert_serials(authority.to_vec(), serial, serial)?;
                    }
                }
                CERT_SERIAL_RANGE => {
                    let (first, last) = (part.u64("serial range")?, part.u64("serial range")?);
                    self.insert_serials(authority.to_vec(), first, last)?;
                }
                CERT_SERIAL_BITMAP => self.read_bitmap(authority, &mut part)?,
                CERT_KEY_ID => {
                    while !part.is_empty() {
                        let key_id = part.string("key id")?;
                        self.insert_key_id(authority.to_vec(), key_id)?;
                    }
                }
                CERT_EXTENSION => extension(&mut part)?,
                unknown => return Err(KrlError::UnknownSection(unknown)),
            }
            part.finish("section")?;
        }
        Ok(())
    }

    /// An offset and an mpint (RFC 4251 section 5) whose bit N stands for the serial number offset + N. Runs of bits
    /// become ranges.
    fn read_bitmap(&mut self, authority: &[u8], part: &mut Reader<'_>) -> Result<(), KrlError> {
        const FIELD: &str = "serial bitmap";
        let offset = part.u64(FIELD)?;
        let bitmap = part.string(FIELD)?;
        // One more byte than the bits need keeps an mpint positive.
        if bitmap.len() > MAX_BITMAP_BYTES + 1 || bitmap.first().is_some_and(|byte| *byte >= 0x80) {
            return Err(KrlError::Malformed(FIELD));
        }
        let bits = bitmap
            .iter()
            .rev()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let mut run: Option<(u64, u64)> = None;
        for (at, set) in (0_u64..).zip(bits.chain(std::iter::once(false))) {
            match (set, run) {
                (true, None) => {
                    let first = offset.checked_add(at).ok_or(KrlError::Malformed(FIELD))?;
                    run = Some((first, first));
                }
                (true, Some((first, last))) => {
                    let last = last.checked_add(1).ok_or(KrlError::Malformed(FIELD))?;
                    run = Some((first, last));
                }
                (false, Some((first, last))) => {
                    self.insert_serials(authority.to_vec(), first, last)?;
                    run = None;
                }
                (false, None) => {}
            }
        }
        Ok(())
    }
}

/// Section types that are read. The signature section (4) has another form, and OpenSSH refuses it since 9.4.
const KNOWN: [u8; 5] = [
    SECTION_CERTIFICATES,
    SECTION_EXPLICIT_KEY,
    SECTION_FINGERPRINT_SHA1,
    SECTION_FINGERPRINT_SHA256,
    SECTION_EXTENSION,
];

fn header(reader: &mut Reader<'_>) -> Result<Krl, KrlError> {
    if reader.u64("magic") != Ok(MAGIC) {
        return Err(KrlError::Magic);
    }
    let format = reader.u32("format version")?;
    if format != FORMAT_VERSION {
        return Err(KrlError::Version(format));
    }
    let (version, generated) = (reader.u64("version")?, reader.u64("generated")?);
    reader.u64("flags")?; // none are defined
    reader.string("reserved")?;
    let comment = String::from_utf8_lossy(reader.string("comment")?);
    Ok(Krl::new(version, UnixTime::from_secs(generated), &comment))
}

/// Refuses a certificate by its name, unread, and what is no key.
fn plain_key(blob: &[u8]) -> Result<(), KrlError> {
    const FIELD: &str = "key";
    let mut reader = Reader(blob);
    let algorithm = reader.text(FIELD)?;
    if algorithm.is_empty() || algorithm.contains("-cert-") {
        return Err(KrlError::Malformed(FIELD));
    }
    let mut fields = blob;
    let parsed = <KeyData as ssh_key::encoding::Decode>::decode(&mut fields);
    if parsed.is_err() || !fields.is_empty() {
        return Err(KrlError::Malformed(FIELD));
    }
    Ok(())
}

/// Passes over an extension that may be passed over.
fn extension(content: &mut Reader<'_>) -> Result<(), KrlError> {
    let name = content.string("extension")?;
    let critical = content.u8("extension")? != 0;
    content.string("extension")?;
    content.finish("extension")?;
    if critical {
        return Err(KrlError::UnknownExtension(escaped(
            &String::from_utf8_lossy(name),
        )));
    }
    Ok(())
}
