//! Nothing stands in the catalogue that no program reports.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use mezite_audit::catalogue;

/// The text of every source below `directory` that goes into a program.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let other = [
            "target",
            "tests",
            "benches",
            "examples",
            "fuzz",
            "mezite-audit",
            "gen",
        ];
        if path.is_dir() {
            if !name.starts_with('.') && !other.contains(&name) {
                sources(&path, text);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_constructor_of_the_catalogue_is_used() {
    let mut text = String::new();
    sources(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        &mut text,
    );
    let unused: Vec<_> = catalogue::all()
        .iter()
        .filter(|entry| {
            let name = entry.constructor;
            // Built, or handed to the macro that builds it.
            !text.contains(&format!("{name} {{")) && !text.contains(&format!("({name},"))
        })
        .map(|entry| entry.event_type)
        .collect();
    assert!(unused.is_empty(), "nobody reports {unused:?}");
}
