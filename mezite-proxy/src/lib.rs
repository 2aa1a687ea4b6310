#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod authority;
pub mod dial;
pub mod gateway;
mod relay;
pub mod session;

pub use authority::Authority;
pub use dial::Dialer;
pub use gateway::Gateway;
