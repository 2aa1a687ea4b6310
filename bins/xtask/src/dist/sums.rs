//! SHA256SUMS: the digest of every file of a release, in the form that `sha256sum --check` reads. Its signature covers all.

use std::path::Path;

use crate::step::Failure;

pub(crate) const NAME: &str = "SHA256SUMS";

/// Lists everything that lies in `out`; gives names and sizes.
pub(crate) fn write(out: &Path) -> Result<Vec<(String, usize)>, Failure> {
    let mut lines = String::new();
    let mut listed = Vec::new();
    for name in names(out)? {
        let bytes = super::read(&out.join(&name))?;
        lines.push_str(&format!("{}  {name}\n", super::sha256(&bytes)));
        listed.push((name, bytes.len()));
    }
    super::write(&out.join(NAME), lines)?;
    Ok(listed)
}

/// The files of a directory, in order.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("`{}`: {error}", directory.display()));
    let mut names = Vec::new();
    for entry in directory.read_dir().map_err(failed)? {
        names.push(
            entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}
