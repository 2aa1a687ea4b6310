//! Writing a list: sections by authority, then keys, then hashes, each in order, so that equal lists are equal bytes.

use super::{
    CERT_KEY_ID, CERT_SERIAL_LIST, CERT_SERIAL_RANGE, FORMAT_VERSION, Krl, KrlError, MAGIC,
    MAX_KRL_BYTES, Revoked, SECTION_CERTIFICATES, SECTION_EXPLICIT_KEY, SECTION_FINGERPRINT_SHA1,
    SECTION_FINGERPRINT_SHA256,
};
use crate::wire::Writer;

impl Krl {
    /// The list as `RevokedKeys` and `ssh-keygen -Q` read it.
    ///
    /// # Errors
    /// [`KrlError::TooLarge`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, KrlError> {
        let mut out = Writer::default();
        out.u64(MAGIC);
        out.u32(FORMAT_VERSION);
        out.u64(self.version);
        out.u64(self.generated.as_secs());
        out.u64(0); // flags: none are defined
        out.string(&[]); // reserved
        out.string(self.comment.as_bytes());
        for (authority, revoked) in &self.authorities {
            section(
                &mut out,
                SECTION_CERTIFICATES,
                &certificates(authority, revoked),
            );
        }
        strings(&mut out, SECTION_EXPLICIT_KEY, self.keys.iter());
        strings(&mut out, SECTION_FINGERPRINT_SHA1, self.sha1.iter());
        strings(&mut out, SECTION_FINGERPRINT_SHA256, self.sha256.iter());
        if out.0.len() > MAX_KRL_BYTES {
            return Err(KrlError::TooLarge(out.0.len()));
        }
        Ok(out.0)
    }
}

fn section(out: &mut Writer, section_type: u8, content: &Writer) {
    out.u8(section_type);
    out.string(&content.0);
}

fn strings<'a>(
    out: &mut Writer,
    section_type: u8,
    items: impl ExactSizeIterator<Item = &'a (impl AsRef<[u8]> + 'a)>,
) {
    if items.len() == 0 {
        return;
    }
    let mut content = Writer::default();
    for item in items {
        content.string(item.as_ref());
    }
    section(out, section_type, &content);
}

fn certificates(authority: &[u8], revoked: &Revoked) -> Writer {
    let mut content = Writer::default();
    content.string(authority);
    content.string(&[]); // reserved
    let (mut list, mut ranges) = (Writer::default(), Vec::new());
    for (first, last) in revoked.serials.ranges() {
        // A range takes 21 bytes, a number in the list 8.
        if last - first < 2 {
            (first..=last).for_each(|serial| list.u64(serial));
        } else {
            ranges.push((first, last));
        }
    }
    if !list.0.is_empty() {
        section(&mut content, CERT_SERIAL_LIST, &list);
    }
    for (first, last) in ranges {
        let mut range = Writer::default();
        range.u64(first);
        range.u64(last);
        section(&mut content, CERT_SERIAL_RANGE, &range);
    }
    strings(&mut content, CERT_KEY_ID, revoked.key_ids.iter());
    content
}
