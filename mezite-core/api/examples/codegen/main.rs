//! Writes `src/gen` anew from `proto/`: `cargo run -p mezite-api --example codegen`.

mod generate;

fn main() -> std::io::Result<()> {
    generate::generate(&generate::package().join("src/gen"))
}
