//! The hub's container image, from scratch, as an OCI archive: one layer with two static programs and the directories that a
//! runtime mounts over. Nobody but user 65534 is in it, and nothing in it is written to except two volumes.

use std::path::Path;

use serde_json::{Value, json};

use super::archive::{Owner, ROOT, Tar, gzip};
use super::{ARCHITECTURE, Release, read, sha256};
use crate::step::Failure;

/// `nobody` on every Linux: no file of a host is its own.
const USER: u64 = 65534;

/// What the hub writes to.
const VOLUMES: [&str; 2] = ["var/lib/mezite", "var/log/mezite"];

/// Writes `mezhub_VERSION_ARCHITECTURE.oci.tar`.
pub(crate) fn write(out: &Path, release: &Release) -> Result<(), Failure> {
    let layer = layer(out, release)?;
    let packed = gzip(&layer)?;
    let mut config = json!({
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": ["/mezhub"],
            "Cmd": ["start"],
            "WorkingDir": "/",
            "Env": ["PATH=/"],
            "ExposedPorts": { "3023/tcp": {}, "3024/tcp": {}, "3025/tcp": {}, "3080/tcp": {} },
            "Volumes": VOLUMES.map(|path| (format!("/{path}"), json!({}))).into_iter().collect::<serde_json::Map<_, _>>(),
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "mezhub",
                "org.opencontainers.image.version": release.version,
                "org.opencontainers.image.revision": release.commit.as_deref().unwrap_or("unknown"),
            },
            // Not of the OCI specification, but read by those who run images.
            "Healthcheck": { "Test": ["CMD", "/mezhub", "health"], "Interval": 30_000_000_000_u64, "Timeout": 10_000_000_000_u64, "StartPeriod": 60_000_000_000_u64, "Retries": 3 },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "history": [{ "created_by": "cargo xtask dist" }],
    });
    if let (Some(map), Some(created)) = (config.as_object_mut(), &release.created) {
        map.insert(String::from("created"), json!(created));
    }
    let config = bytes(&config)?;
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    if let Some(map) = entry.as_object_mut() {
        map.insert(
            String::from("annotations"),
            json!({ "org.opencontainers.image.ref.name": release.version }),
        );
    }
    let index = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }))?;
    let mut layout = Tar::new(release.epoch);
    layout.directory("blobs", 0o755, ROOT)?;
    layout.directory("blobs/sha256", 0o755, ROOT)?;
    for blob in [&config, &manifest, &packed] {
        layout.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob)?;
    }
    layout.file("index.json", 0o644, &index)?;
    layout.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let name = format!("mezhub_{}_{ARCHITECTURE}.oci.tar", release.version);
    super::write(&out.join(name), layout.finish()?)
}

/// The one layer.
fn layer(out: &Path, release: &Release) -> Result<Vec<u8>, Failure> {
    let owner = Owner(USER);
    let mut tar = Tar::new(release.epoch);
    for path in [
        "dev",
        "etc",
        "etc/mezite",
        "proc",
        "sys",
        "var",
        "var/lib",
        "var/log",
    ] {
        tar.directory(path, 0o755, ROOT)?;
    }
    tar.directory("tmp", 0o1777, ROOT)?;
    for path in VOLUMES {
        tar.directory(path, 0o700, owner)?;
    }
    tar.file(
        "etc/passwd",
        0o644,
        format!("mezite:x:{USER}:{USER}::/var/lib/mezite:/nonexistent\n").as_bytes(),
    )?;
    tar.file("etc/group", 0o644, format!("mezite:x:{USER}:\n").as_bytes())?;
    for name in ["mezctl", "mezhub"] {
        tar.file(name, 0o755, &read(&out.join(name))?)?;
    }
    tar.finish()
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len() })
}

fn bytes(value: &Value) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value)
        .map_err(|error| Failure::new(format!("the image cannot be described: {error}")))
}
