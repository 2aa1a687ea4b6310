//! Which file belongs to which session. Both ways go through the parsed [`SessionId`].

use std::path::{Path, PathBuf};

use mezite_core::{SessionId, UnixTime};

/// One of the files of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Journal,
    Staged,
    Sealed,
    Index,
    /// An index that is being written.
    NewIndex,
}

impl File {
    fn suffix(self) -> &'static str {
        match self {
            Self::Journal => ".mzr.live",
            Self::Staged => ".mzr.part",
            Self::Sealed => ".mzr",
            Self::Index => ".mzi",
            Self::NewIndex => ".mzi.part",
        }
    }
}

/// The month in which the session began, by the time in its id (RFC 9562 section 5.7).
pub(crate) fn month_name(id: &SessionId) -> String {
    let [a, b, c, d, e, f, ..] = *id.as_bytes();
    let began = UnixTime::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    let month = began.to_string();
    // RFC 3339 up to the month; ids of the far future have longer years.
    let parts: Vec<_> = month.split('-').take(2).collect();
    parts.join("-")
}

/// The directory of the month in which the session began.
pub(crate) fn month(root: &Path, id: &SessionId) -> PathBuf {
    root.join(month_name(id))
}

/// The name of one file of a session.
pub(crate) fn name(id: &SessionId, file: File) -> String {
    format!("{id}{}", file.suffix())
}

/// The path of one file of a session.
pub(crate) fn path(root: &Path, id: &SessionId, file: File) -> PathBuf {
    month(root, id).join(name(id, file))
}

/// The session to which a file of this name belongs, if it is such a file.
pub(crate) fn session(name: &str, file: File) -> Option<SessionId> {
    name.strip_suffix(file.suffix())?.parse().ok()
}

pub(crate) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_of_the_month_and_read_back() {
        let id = SessionId::new(UnixTime::from_millis(1_767_225_600_000), [7; 16]);
        let path = path(Path::new("/r"), &id, File::Sealed);
        assert_eq!(path.to_str().unwrap(), format!("/r/2026-01/{id}.mzr"));
        assert_eq!(session(&format!("{id}.mzr"), File::Sealed), Some(id));
        assert_eq!(session(&format!("{id}.mzr.live"), File::Journal), Some(id));
        assert_eq!(session(&format!("{id}.mzr.live"), File::Sealed), None);
    }

    #[test]
    fn attack_50_no_id_leads_outside_the_directory() {
        for bytes in [[0; 16], [0xff; 16], [b'/'; 16], [b'.'; 16]] {
            let id = SessionId::from_bytes(bytes);
            let path = path(Path::new("/r"), &id, File::Journal);
            let names: Vec<_> = path
                .components()
                .map(|it| it.as_os_str().to_str().unwrap().to_owned())
                .collect();
            assert_eq!(names.len(), 4, "{path:?}");
            assert!(
                names.iter().skip(2).all(|name| !name.starts_with('.')),
                "{path:?}"
            );
        }
    }
}
