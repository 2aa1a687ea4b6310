//! Where the files of a release come from, as an in-toto statement with SLSA provenance (version 1): what was built, from which
//! commit, with which recipe. It says what the builder claims; the signature over SHA256SUMS says who claims it.

use std::path::Path;

use serde_json::{Value, json};

use super::recipe::{self, Recipe};
use super::{Release, TARGET, sums};
use crate::step::{self, Failure};
use crate::tree;

pub(crate) const NAME: &str = "provenance.json";

/// Covers every file that is there by now.
pub(crate) fn write(
    out: &Path,
    release: &Release,
    recipe: &Recipe,
    builder: &str,
) -> Result<(), Failure> {
    let mut subjects = Vec::new();
    for name in sums::names(out)? {
        let digest = super::sha256(&super::read(&out.join(&name))?);
        subjects.push(json!({ "name": name, "digest": { "sha256": digest } }));
    }
    let (rustflags, cflags) = recipe.flags();
    let lock = super::sha256(&super::read(&tree::root().join("Cargo.lock"))?);
    let rustc = step::read(recipe::rustc().arg("--version"))?;
    let mut inputs = vec![
        json!({ "name": "Cargo.lock", "digest": { "sha256": lock } }),
        json!({ "name": "rustc", "uri": format!("pkg:generic/rustc@{}", rustc.split(' ').nth(1).unwrap_or("unknown")) }),
    ];
    if let Some(commit) = &release.commit {
        inputs.push(json!({ "name": "source", "digest": { "gitCommit": commit } }));
    }
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:mezite:build:xtask-dist:1",
                "externalParameters": {
                    "version": release.version,
                    "commit": release.commit.as_ref().map_or(Value::Null, |commit| json!(commit)),
                    "treeChanged": release.changed,
                },
                "internalParameters": {
                    "command": "cargo xtask dist",
                    "profile": recipe.profile,
                    "target": TARGET,
                    "rustflags": rustflags,
                    "cflags": cflags,
                    "sourceDateEpoch": release.epoch,
                    "compiledAsOf": recipe::DATE,
                },
                "resolvedDependencies": inputs,
            },
            "runDetails": { "builder": { "id": builder } },
        },
    });
    let written = serde_json::to_vec_pretty(&statement)
        .map_err(|error| Failure::new(format!("the statement cannot be written: {error}")))?;
    super::write(&out.join(NAME), written)
}
