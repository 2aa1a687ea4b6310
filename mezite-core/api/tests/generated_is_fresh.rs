//! The checked-in code is what `proto/` gives.

#[path = "../examples/codegen/generate.rs"]
mod generate;

#[test]
fn regenerating_gives_the_same_bytes() {
    let fresh = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("gen");
    std::fs::create_dir_all(&fresh).unwrap();
    generate::generate(&fresh).unwrap();
    for file in ["mezite.v1.rs", "methods.rs"] {
        let written = std::fs::read_to_string(fresh.join(file)).unwrap();
        let checked_in =
            std::fs::read_to_string(generate::package().join("src/gen").join(file)).unwrap();
        assert!(
            written == checked_in,
            "{file} is stale: run `cargo run -p mezite-api --example codegen`"
        );
    }
}
