//! Why a request was not done, in the words of the protocol.

use std::io;

use nix::libc;
use russh_sftp::protocol::{Packet, StatusCode};

/// A status other than success, and its text.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    code: StatusCode,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The reply to request `id`.
    pub(super) fn reply(&self, id: u32) -> Packet {
        Packet::status(id, self.code, &self.message, "en")
    }
}

impl From<StatusCode> for Refusal {
    fn from(code: StatusCode) -> Self {
        Self::new(code, code.to_string())
    }
}

impl From<io::Error> for Refusal {
    /// The codes that OpenSSH's server gives; the text is the system's.
    fn from(error: io::Error) -> Self {
        let code = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::EBADF | libc::ELOOP) => {
                StatusCode::NoSuchFile
            }
            Some(libc::EPERM | libc::EACCES | libc::EFAULT | libc::EROFS) => {
                StatusCode::PermissionDenied
            }
            Some(libc::ENAMETOOLONG | libc::EINVAL) => StatusCode::BadMessage,
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => StatusCode::OpUnsupported,
            Some(_) => StatusCode::Failure,
            None if error.kind() == io::ErrorKind::Unsupported => StatusCode::OpUnsupported,
            None => StatusCode::Failure,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_the_codes_clients_know() {
        for (errno, code) in [
            (libc::ENOENT, StatusCode::NoSuchFile),
            (libc::EACCES, StatusCode::PermissionDenied),
            (libc::EEXIST, StatusCode::Failure),
            (libc::EOPNOTSUPP, StatusCode::OpUnsupported),
        ] {
            let refusal = Refusal::from(io::Error::from_raw_os_error(errno));
            assert_eq!(refusal.code, code);
            assert!(!refusal.message.is_empty());
        }
    }
}
