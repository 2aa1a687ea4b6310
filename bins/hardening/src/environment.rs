//! The environment. Variables that are read once and then gone: from the process, and from what `/proc/PID/environ` shows of it; and those that
//! libraries are told by.

use std::ffi::{OsStr, OsString};

use crate::sys;

/// The value of a variable, which is not there any more afterwards. To be called while there is one thread.
pub(crate) fn take(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    sys::forget_variable(name);
    Some(value)
}

/// Overwrites the values of secret variables, after they were read. To be called while there is one thread.
pub fn forget(names: &[&str]) {
    for name in names {
        drop(take(name));
    }
}

/// Sets a variable that libraries read. To be called while there is one thread.
pub fn set(name: &str, value: &OsStr) {
    sys::set_variable(name, value);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// A process of its own: its environment is looked at from inside, where it lies in memory.
    #[test]
    fn what_is_forgotten_is_gone_from_memory_too() {
        if std::env::var_os("MEZITE_TEST_CHILD").is_some() {
            super::forget(&["MEZITE_TEST_SECRET", "MEZITE_TEST_ABSENT"]);
            assert_eq!(std::env::var_os("MEZITE_TEST_SECRET"), None);
            let left = std::fs::read("/proc/self/environ").unwrap();
            let found = |word: &[u8]| left.windows(word.len()).any(|window| window == word);
            assert!(found(b"MEZITE_TEST_OTHER=stays"));
            assert!(!found(b"open sesame"));
            return;
        }
        let name = "environment::tests::what_is_forgotten_is_gone_from_memory_too";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--test-threads=1"]);
        let child = child
            .env("MEZITE_TEST_CHILD", "1")
            .env("MEZITE_TEST_OTHER", "stays")
            .env("MEZITE_TEST_SECRET", "open sesame")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
