//! What `msh` and `mezctl` share, so that both answer alike: exit codes and their messages, what reaches the terminal, how long a
//! hub may take, recordings as they arrive.
#![forbid(unsafe_code)]

pub mod call;
pub mod fail;
pub mod out;
pub mod recording;
