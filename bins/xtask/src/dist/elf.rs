//! What a released program must be: static, without interpreter, and silent about the machine it was built on.

use std::path::Path;
use std::process::Command;

use crate::step::{self, Failure};

/// Looks at the program with binutils and at its bytes.
pub(crate) fn check(program: &Path, paths: &[&str]) -> Result<(), Failure> {
    let headers = step::read(Command::new("readelf").args(["-lWd"]).arg(program))?;
    let mut faults = faults(&headers);
    let bytes = super::read(program)?;
    for path in paths {
        if memchr::memmem::find(&bytes, path.as_bytes()).is_some() {
            faults.push(format!("it names the directory `{path}` of this machine"));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`{}` cannot be released: {}",
        program.display(),
        faults.join("; ")
    )))
}

/// Reads what `readelf -lWd` says.
fn faults(headers: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let has = |word: &str| headers.lines().any(|line| line.contains(word));
    if has(" INTERP ") {
        faults.push(String::from("it wants an interpreter"));
    }
    if let Some(line) = headers.lines().find(|line| line.contains("(NEEDED)")) {
        let library = line.rsplit('[').next().unwrap_or_default();
        faults.push(format!(
            "it loads the library {}",
            library.trim_end_matches(']')
        ));
    }
    if !has(" GNU_RELRO ") {
        faults.push(String::from("its relocations stay writable (no RELRO)"));
    }
    let stack = headers.lines().find(|line| line.contains(" GNU_STACK "));
    if stack.is_none_or(|line| line.contains("RWE")) {
        faults.push(String::from("its stack is executable"));
    }
    if !headers.contains("DYN (") {
        faults.push(String::from("it is not position-independent (static-pie)"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
Elf file type is DYN (Position-Independent Executable file)
Program Headers:
  LOAD           0x000000 0x0000000000000000 0x0000000000000000 0x1f0 0x1f0 R   0x1000
  GNU_STACK      0x000000 0x0000000000000000 0x0000000000000000 0x000000 0x000000 RW  0x10
  GNU_RELRO      0x000000 0x0000000000000000 0x0000000000000000 0x1f0 0x1f0 R   0x1
";

    #[test]
    fn a_static_program_passes_and_each_fault_is_named() {
        assert!(faults(GOOD).is_empty(), "{:?}", faults(GOOD));
        for (from, to, fault) in [
            ("LOAD", "INTERP ", "interpreter"),
            (
                "Program Headers:",
                " 0x1 (NEEDED) Shared library: [libc.so.6]",
                "libc.so.6",
            ),
            ("GNU_RELRO", "NOTE", "RELRO"),
            ("RW  0x10", "RWE 0x10", "executable"),
            ("DYN (", "EXEC (", "position-independent"),
        ] {
            let changed = GOOD.replace(from, to);
            assert!(faults(&changed).join(" ").contains(fault), "{fault}");
        }
    }

    #[test]
    fn a_program_of_the_system_is_refused() {
        let failure = check(Path::new("/bin/sh"), &["/usr/share"]).unwrap_err();
        assert!(failure.to_string().contains("interpreter"), "{failure}");
    }
}
