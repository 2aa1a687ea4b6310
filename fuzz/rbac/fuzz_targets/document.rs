//! Documents of roles and cases: no panic, and what is read comes back the same.
#![no_main]
#![allow(dead_code, reason = "each target uses a part of what the tests share")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../mezite-rbac/tests/model/checks.rs"]
mod checks;
#[path = "../../../mezite-rbac/tests/model/choices.rs"]
mod choices;
#[path = "../../../mezite-rbac/tests/model/forwards.rs"]
mod forwards;
#[path = "../../../mezite-rbac/tests/model/spec.rs"]
mod spec;

fuzz_target!(|data: &[u8]| checks::document(data));
