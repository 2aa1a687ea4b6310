//! What each program is made of, as a CycloneDX document: the crates that are linked in, with licence, digest and who needs
//! whom, and the C library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::{Release, TARGET, buildinfo, list, recipe, text};
use crate::step::{self, Failure, cargo};
use crate::tree;

/// A package as `cargo tree` names it.
type Package = (String, String);

/// Writes `NAME.cdx.json`.
pub(crate) fn write(
    out: &Path,
    program: &str,
    release: &Release,
    metadata: &Value,
) -> Result<(), Failure> {
    let linked = linked(program)?;
    let checksums = checksums(&tree::text(&tree::root().join("Cargo.lock"))?);
    let mut components: Vec<Value> = list(metadata, "packages")
        .iter()
        .filter(|package| text(package, "name") != program && linked.contains(&name_of(package)))
        .map(|package| component(package, &checksums))
        .collect();
    components.extend(buildinfo::libc_version().map(|version| {
        json!({
            "type": "library",
            "bom-ref": format!("pkg:deb/debian/glibc@{version}"),
            "purl": format!("pkg:deb/debian/glibc@{version}"),
            "name": "glibc",
            "version": version,
            "description": "the static C library",
            "licenses": [{ "expression": "LGPL-2.1-or-later" }],
        })
    }));
    let subject = json!({
        "type": "application",
        "bom-ref": reference(&(program.to_owned(), release.version.clone())),
        "name": program,
        "version": release.version,
        "licenses": [{ "license": { "name": "Mezite Commercial License" } }],
        "hashes": [{ "alg": "SHA-256", "content": super::sha256(&super::read(&out.join(program))?) }],
    });
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": subject },
        "components": components,
        "dependencies": dependencies(metadata, &linked),
    });
    // The number says what is in it and not when it was made, so that it is the same each time.
    let number = super::sha256(document.to_string().as_bytes());
    if let Some(map) = document.as_object_mut() {
        map.insert(String::from("serialNumber"), json!(uuid(&number)));
    }
    let written = serde_json::to_vec_pretty(&document)
        .map_err(|error| Failure::new(format!("the SBOM cannot be written: {error}")))?;
    super::write(&out.join(format!("{program}.cdx.json")), written)
}

/// The packages whose code is in the program, with the features that it has there.
fn linked(program: &str) -> Result<BTreeSet<Package>, Failure> {
    let listing = step::read(recipe::clean(&mut cargo([
        "tree",
        "--locked",
        "--package",
        program,
        "--edges",
        "normal,no-proc-macro",
        "--target",
        TARGET,
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])))?;
    Ok(listing
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((
                words.next()?.to_owned(),
                words.next()?.strip_prefix('v')?.to_owned(),
            ))
        })
        .collect())
}

fn component(package: &Value, checksums: &BTreeMap<Package, String>) -> Value {
    let name = name_of(package);
    let licence = match package.get("license").and_then(Value::as_str) {
        // The form that crates used before SPDX expressions.
        Some(expression) => json!([{ "expression": expression.replace('/', " OR ") }]),
        None => json!([{ "license": { "name": "Mezite Commercial License" } }]),
    };
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(&name),
        "purl": reference(&name),
        "name": name.0,
        "version": name.1,
        "licenses": licence,
    });
    if let (Some(map), Some(digest)) = (component.as_object_mut(), checksums.get(&name)) {
        map.insert(
            String::from("hashes"),
            json!([{ "alg": "SHA-256", "content": digest }]),
        );
    }
    component
}

/// Who needs whom, among what is linked.
fn dependencies(metadata: &Value, linked: &BTreeSet<Package>) -> Vec<Value> {
    let names: BTreeMap<&str, Package> = list(metadata, "packages")
        .iter()
        .map(|package| (text(package, "id"), name_of(package)))
        .filter(|(_, name)| linked.contains(name))
        .collect();
    let nodes = metadata
        .get("resolve")
        .map_or(&[][..], |resolve| list(resolve, "nodes"));
    let mut found = Vec::new();
    for node in nodes {
        let Some(name) = names.get(text(node, "id")) else {
            continue;
        };
        let needs: BTreeSet<String> = list(node, "deps")
            .iter()
            .filter(|dependency| is_normal(dependency))
            .filter_map(|dependency| names.get(text(dependency, "pkg")))
            .map(reference)
            .collect();
        found.push(json!({ "ref": reference(name), "dependsOn": needs }));
    }
    found
}

/// Neither for tests nor for build scripts.
fn is_normal(dependency: &Value) -> bool {
    list(dependency, "dep_kinds")
        .iter()
        .any(|kind| kind.get("kind").is_none_or(Value::is_null))
}

/// The digests of Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<Package, String> {
    let value = |entry: &str, key: &str| {
        entry.lines().find_map(|line| {
            let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
            rest.strip_suffix('"').map(str::to_owned)
        })
    };
    lock.split("[[package]]")
        .filter_map(|entry| {
            let name = (value(entry, "name")?, value(entry, "version")?);
            Some((name, value(entry, "checksum")?))
        })
        .collect()
}

fn name_of(package: &Value) -> Package {
    (
        text(package, "name").to_owned(),
        text(package, "version").to_owned(),
    )
}

fn reference((name, version): &Package) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// A UUID of version 8 (RFC 9562: the bits are the maker's) from a digest.
fn uuid(digest: &str) -> String {
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 15),
        part(15, 18),
        part(18, 30)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_packages_of_the_house_have_none() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("a".to_owned(), "1.0".to_owned())], "00ff");
    }

    #[test]
    fn the_agent_has_no_database_in_it_and_no_tool_of_the_build() {
        let linked = linked("mezd").unwrap();
        let has = |wanted: &str| linked.iter().any(|(name, _)| name == wanted);
        assert!(has("tokio") && has("mezite-node"));
        assert!(!has("libsqlite3-sys") && !has("serde_derive") && !has("cc"));
    }

    #[test]
    fn numbers_are_uuids() {
        let digest = super::super::sha256(b"x");
        assert_eq!(uuid(&digest).len(), "urn:uuid:".len() + 36);
    }
}
