//! What makes Mezite's programs stand alone. [`names`] takes the place of the C library's name service, so that a static
//! program loads no library at run time; [`pages`] writes a program's manual and completions from its own commands.
//!
//! A program is linked with both by calling [`pages::write`] or by `use mezite_standalone as _;`.

pub mod names;
pub mod pages;
