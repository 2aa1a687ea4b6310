//! The crate as others see it: every kind of certificate at every verifier, the attack rows, and OpenSSH and OpenSSL
//! as independent judges.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod attacks;
mod attacks_tls;
mod break_glass;
mod corpus;
mod fixture;
mod forge;
mod judges;
mod krl;
mod matrix;
mod prepared;
mod rotation;
