//! The corpora of the fuzz targets, replayed on every run: what a fuzzer once found stays found.

use std::path::Path;

use crate::checks;

#[test]
fn the_corpus_of_decide_holds() {
    replay("decide", checks::decide);
}

#[test]
fn the_corpus_of_document_holds() {
    replay("document", checks::document);
}

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/rbac/corpus")
        .join(target);
    let entries = std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{corpus:?}: {error}"));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 10, "{corpus:?} holds {count} files");
}
