//! The corpora of the fuzz targets, for the tests that replay them and write their seeds. Included by path: what fuzzes is no
//! package of the workspace.

use std::path::{Path, PathBuf};

/// The corpora of one fuzz package: `fuzz/<package>/corpus/<target>`.
pub(crate) struct Corpora(pub(crate) &'static str);

impl Corpora {
    pub(crate) fn directory(&self, target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz")
            .join(self.0)
            .join("corpus")
            .join(target)
    }

    /// Gives `run` every input that was kept, whole, cut and edited.
    pub(crate) fn replay(&self, target: &str, run: fn(&[u8])) {
        let directory = self.directory(target);
        let entries =
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
        let mut count = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| run(&input));
            assert!(outcome.is_ok(), "{} fails", path.display());
            for cut in (0..input.len()).step_by(input.len() / 20 + 1) {
                let mut edited = input.clone();
                edited
                    .iter_mut()
                    .skip(cut)
                    .take(1)
                    .for_each(|byte| *byte ^= 0x41);
                let outcome = std::panic::catch_unwind(|| {
                    run(&edited);
                    run(input.split_at(cut).0);
                });
                assert!(outcome.is_ok(), "{} fails at {cut}", path.display());
            }
            count += 1;
        }
        assert!(count >= 3, "{directory:?} holds seeds");
    }

    /// Keeps a seed, if seeds are to be written.
    pub(crate) fn keep(&self, target: &str, name: &str, content: &[u8]) {
        if std::env::var_os("MEZITE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(self.directory(target)).unwrap();
            std::fs::write(self.directory(target).join(name), content).unwrap();
        }
    }
}
