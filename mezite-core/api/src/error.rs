//! One table: which kind of failure is which gRPC code, and back.

use std::fmt;

use tonic::{Code, Status};

/// What went wrong, as far as a caller may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request itself is wrong: a name that is none, a field that is missing.
    Invalid,
    /// Nobody known, or a wrong password or token.
    Unauthenticated,
    /// Somebody known who may not.
    Denied,
    /// It is not there, or the caller may not see it.
    NotFound,
    /// It is there already.
    Exists,
    /// Somebody else changed it first.
    Conflict,
    /// The request is right but not now: clocks differ, a token is used up.
    Precondition,
    /// Too often, or too much.
    Exhausted,
    /// The hub cannot make it durable at the moment. Trying again may help.
    Unavailable,
    /// The hub is at fault.
    Internal,
}

/// The table. Each kind once; `of` reads it from right to left.
const TABLE: [(Kind, Code); 10] = [
    (Kind::Invalid, Code::InvalidArgument),
    (Kind::Unauthenticated, Code::Unauthenticated),
    (Kind::Denied, Code::PermissionDenied),
    (Kind::NotFound, Code::NotFound),
    (Kind::Exists, Code::AlreadyExists),
    (Kind::Conflict, Code::Aborted),
    (Kind::Precondition, Code::FailedPrecondition),
    (Kind::Exhausted, Code::ResourceExhausted),
    (Kind::Unavailable, Code::Unavailable),
    (Kind::Internal, Code::Internal),
];

impl Kind {
    /// The gRPC code of this kind.
    #[must_use]
    pub fn code(self) -> Code {
        TABLE
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(Code::Internal, |(_, code)| *code)
    }

    /// The answer that a caller gets: the code and a message that is meant for it.
    #[must_use]
    pub fn status(self, message: impl fmt::Display) -> Status {
        Status::new(self.code(), message.to_string())
    }

    /// What a received answer means. A broken connection or a passed deadline counts as [`Kind::Unavailable`].
    #[must_use]
    pub fn of(status: &Status) -> Self {
        if matches!(
            status.code(),
            Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        ) {
            return Self::Unavailable;
        }
        TABLE
            .iter()
            .find(|(_, code)| *code == status.code())
            .map_or(Self::Internal, |(kind, _)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_code_and_reads_back() {
        for (kind, code) in TABLE {
            assert_eq!(kind.code(), code);
            assert_eq!(Kind::of(&kind.status("x")), kind);
        }
    }

    #[test]
    fn a_lost_connection_is_unavailable_and_an_unknown_code_internal() {
        assert_eq!(
            Kind::of(&Status::unknown("transport error")),
            Kind::Unavailable
        );
        assert_eq!(Kind::of(&Status::deadline_exceeded("")), Kind::Unavailable);
        assert_eq!(Kind::of(&Status::unimplemented("")), Kind::Internal);
    }
}
