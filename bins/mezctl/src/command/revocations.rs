//! `ca revoke`, `ca revocations`, `ca unrevoke`, `ca krl`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use mezite_api::document::Document;
use mezite_api::revocation::{
    KeyIdText, KeyLine, RevocationMetadata, RevocationSpec, Revoked, Serials, Sha256Fingerprint,
};
use mezite_api::v1::{
    ApplyResourceRequest, GetRevocationListRequest, ListResourcesRequest, RemoveResourceRequest,
    Resource,
};
use serde_json::{Value, json};
use ssh_key::Certificate;

use crate::fail::Failure;
use crate::files::{self, Output};
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `ca revoke` takes.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    what: What,
    /// Kept in the log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What is revoked: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Certificates of this cluster by serial number or range, as `ssh-keygen -L` and the log show it. A user's SSH and
    /// TLS certificates of one login have one serial number, a node's too.
    #[arg(long, value_name = "N[-M]")]
    serial: Option<Serials>,
    /// A public key, or the key in a certificate, by its file; with every certificate for it.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A key by its fingerprint, with every certificate for it.
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Option<Sha256Fingerprint>,
    /// Every certificate with this key id, past and future.
    #[arg(long, value_name = "TEXT")]
    key_id: Option<KeyIdText>,
    /// An authority's key by its fingerprint, with everything that it ever signed. Nobody gets past it until it is
    /// replaced or this is taken back.
    #[arg(long, value_name = "SHA256:…")]
    authority: Option<Sha256Fingerprint>,
}

/// What `ca unrevoke` takes.
#[derive(Debug, Args)]
pub(crate) struct UnrevokeArgs {
    /// The revocation, as `mezctl ca revoke` answered and `mezctl ca revocations` lists it.
    id: String,
}

/// What `ca krl` takes.
#[derive(Debug, Args)]
pub(crate) struct KrlArgs {
    /// Where the list goes; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl What {
    fn revoked(&self) -> Result<Revoked, Failure> {
        Ok(match self {
            Self {
                serial: Some(serials),
                ..
            } => Revoked::Serial(*serials),
            Self {
                key: Some(path), ..
            } => Revoked::Key(key(path)?),
            Self {
                fingerprint: Some(print),
                ..
            } => Revoked::Fingerprint(*print),
            Self {
                key_id: Some(id), ..
            } => Revoked::KeyId(id.clone()),
            Self {
                authority: Some(print),
                ..
            } => Revoked::Authority(*print),
            _ => return Err(Failure::usage("say what is to be revoked")),
        })
    }
}

/// The key in a file: a public key's, or a certificate's.
fn key(path: &Path) -> Result<KeyLine, Failure> {
    let text = files::read(path)?;
    let line = match Certificate::from_openssh(text.trim()) {
        Ok(certificate) => ssh_key::PublicKey::from(certificate.public_key().clone())
            .to_openssh()
            .map_err(Failure::failed)?,
        Err(_) => text,
    };
    line.parse()
        .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}

pub(crate) async fn revoke(args: &RevokeArgs, hub: &mut Hub) -> Result<(), Failure> {
    let spec = RevocationSpec {
        revoked: args.what.revoked()?,
        reason: args.reason.clone(),
    };
    let shown = spec.revoked.to_string();
    let document = Document::v1("revocation", RevocationMetadata::default(), spec);
    let request = ApplyResourceRequest {
        document: json!(document).to_string(),
        create_only: true,
    };
    let made = within(hub.client.apply_resource(request)).await?.resource;
    let made = made.ok_or_else(|| Failure::failed("the hub answered without the revocation"))?;
    let value = parsed(&made)?;
    match args.output {
        Format::Json => out::json(&value),
        Format::Yaml => out::yaml(&value),
        Format::Table => out::line(out::plain(&format!(
            "{shown} is revoked; to undo: mezctl ca unrevoke {}",
            made.name
        ))),
    }
}

pub(crate) async fn list(format: Format, hub: &mut Hub) -> Result<(), Failure> {
    let request = ListResourcesRequest {
        kind: "revocation".to_owned(),
    };
    let found = within(hub.client.list_resources(request)).await?.resources;
    let documents: Vec<Value> = found.iter().map(parsed).collect::<Result<_, _>>()?;
    out::show(format, &json!(documents), || {
        let mut table = Table::new(&["REVOCATION", "KIND", "REVOKED", "REASON"]);
        for document in &documents {
            let spec: Option<RevocationSpec> = document
                .get("spec")
                .and_then(|spec| serde_json::from_value(spec.clone()).ok());
            let name = document.pointer("/metadata/name").and_then(Value::as_str);
            let (kind, value, reason) = spec.map_or_else(Default::default, |spec| {
                let kind = spec.revoked.kind().to_owned();
                (kind, spec.revoked.value(), spec.reason)
            });
            table.row(&[name.unwrap_or_default().to_owned(), kind, value, reason]);
        }
        table
    })
}

fn parsed(resource: &Resource) -> Result<Value, Failure> {
    serde_json::from_str(&resource.document).map_err(|error| {
        Failure::failed(format_args!("the hub sent an unreadable document: {error}"))
    })
}

pub(crate) async fn unrevoke(args: &UnrevokeArgs, hub: &mut Hub) -> Result<(), Failure> {
    let request = RemoveResourceRequest {
        kind: "revocation".to_owned(),
        name: args.id.clone(),
    };
    within(hub.client.remove_resource(request)).await?;
    out::line(out::plain(&format!("revocation {} removed", args.id)))
}

pub(crate) async fn krl(args: &KrlArgs, hub: &mut Hub) -> Result<(), Failure> {
    let list = within(hub.client.get_revocation_list(GetRevocationListRequest {})).await?;
    let mut output = Output::open(args.out.as_deref())?;
    output
        .write_all(&list.krl)
        .map_err(|error| Failure::output(&error))?;
    output.finish()?;
    if let Some(path) = &args.out {
        out::note(format_args!(
            "list {} is in {}: name it as RevokedKeys in sshd_config",
            list.number,
            path.display()
        ));
    }
    Ok(())
}
