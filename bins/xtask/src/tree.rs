//! Where the repository lies and which sources are in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::step::{self, Failure};

/// The workspace's root: two floors above this package.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .ancestors()
        .nth(2)
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Every Rust source below the root, as paths relative to it, in order; build output is left out.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn sources(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        let unreadable = |error: std::io::Error| {
            Failure::new(format!("cannot read `{}`: {error}", directory.display()))
        };
        for entry in directory.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type().map_err(unreadable)?.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    open.push(path);
                }
            } else if name.ends_with(".rs") {
                found.push(
                    path.strip_prefix(root)
                        .map_or_else(|_| path.clone(), Path::to_path_buf),
                );
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Makes `to` hold what the tree holds and version control knows or would take, and nothing else. What is the same is left
/// alone, so that cargo builds nothing anew.
///
/// # Errors
/// When something cannot be listed, read or written.
pub(crate) fn copy(to: &Path) -> Result<(), Failure> {
    let root = root();
    let mut list = Command::new("git");
    list.arg("-C").arg(&root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let list = step::read(&mut list)?;
    let names: BTreeSet<&Path> = list
        .split('\0')
        .map(Path::new)
        .filter(|name| root.join(name).is_file())
        .collect();
    let failed = |error: std::io::Error| Failure::new(format!("`{}`: {error}", to.display()));
    std::fs::create_dir_all(to).map_err(failed)?;
    let mut open = vec![to.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in directory.read_dir().map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if !path.strip_prefix(to).is_ok_and(|name| names.contains(name)) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
    }
    for name in names {
        let (from, to) = (root.join(name), to.join(name));
        let bytes = std::fs::read(&from).map_err(failed)?;
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::copy(&from, &to).map_err(failed)?;
    }
    Ok(())
}

/// The text of one file of the tree.
///
/// # Errors
/// When it cannot be read as UTF-8.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace_and_sources_are_relative_to_it() {
        assert!(root().join("clippy.toml").is_file());
        assert!(
            sources(&root())
                .unwrap()
                .contains(&PathBuf::from("bins/xtask/src/tree.rs"))
        );
    }
}
