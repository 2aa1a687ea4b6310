//! The contract between the hub and everybody who talks to it: messages, clients and servers generated from
//! `proto/mezite/v1`, the parsed types that requests become, and the table of error codes.
//!
//! Nothing behind this crate sees a protobuf message: "everything is optional" ends in [`request`], [`document`] and
//! [`revocation`].
#![forbid(unsafe_code)]

pub mod document;
pub mod error;
pub mod request;
pub mod revocation;

#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::exhaustive_enums,
    clippy::missing_errors_doc,
    clippy::as_conversions,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "gen/mezite.v1.rs"]
pub mod v1;

#[rustfmt::skip]
#[path = "gen/methods.rs"]
mod methods;

pub use methods::METHODS;
