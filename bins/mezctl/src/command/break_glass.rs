//! `ca break-glass new`, `add`, `ls`, `revoke`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mezite_api::document::Document;
use mezite_api::revocation::{BreakGlassMetadata, BreakGlassSpec, KeyLine, Sha256Fingerprint};
use mezite_api::v1::{
    ApplyResourceRequest, GetTrustRequest, ListResourcesRequest, RemoveResourceRequest, Resource,
};
use mezite_ca::{Signer, SoftwareKey, TrustBundle, openssh};
use serde_json::{Value, json};

use crate::fail::Failure;
use crate::files;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

/// What `ca break-glass` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum BreakGlass {
    /// Make a key here, and tell the nodes to trust its public half. The private half goes into a file and nowhere else.
    #[command(
        after_help = "Example:\n  mezctl ca break-glass new night-shift --out /media/usb/night-shift\n  ssh-keygen -p -f /media/usb/night-shift"
    )]
    New(NewArgs),
    /// Tell the nodes to trust a key that was made elsewhere, for example with `ssh-keygen -t ed25519`.
    #[command(
        after_help = "Example:\n  mezctl ca break-glass add night-shift /media/usb/night-shift.pub"
    )]
    Add(AddArgs),
    /// List the keys that nodes trust.
    #[command(after_help = "Example:\n  mezctl ca break-glass ls")]
    Ls {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a key back: nodes that are connected trust it no longer at once, the others when they connect.
    #[command(after_help = "Example:\n  mezctl ca break-glass revoke night-shift")]
    Revoke {
        /// The key's name.
        name: String,
    },
}

/// What `ca break-glass new` takes.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// What the key is called.
    name: String,
    /// Where the private key goes (0600), and with `.pub` the public one; the name by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `ca break-glass add` takes.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What the key is called.
    name: String,
    /// The file with its public half.
    #[arg(value_name = "PUBLIC_KEY_FILE")]
    public_key: PathBuf,
}

pub(crate) async fn run(command: &BreakGlass, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        BreakGlass::New(args) => new(args, hub).await,
        BreakGlass::Add(args) => {
            let text = files::read(&args.public_key)?;
            let key: KeyLine = text.parse().map_err(|error| {
                Failure::usage(format_args!("{}: {error}", args.public_key.display()))
            })?;
            add(&args.name, key, hub).await?;
            explain(&args.public_key.with_extension(""), hub).await
        }
        BreakGlass::Ls { output } => list(*output, hub).await,
        BreakGlass::Revoke { name } => {
            let request = RemoveResourceRequest {
                kind: "break_glass".to_owned(),
                name: name.clone(),
            };
            within(hub.client.remove_resource(request)).await?;
            out::line(out::plain(&format!("break-glass key {name} is revoked")))
        }
    }
}

/// The private key is on the disk before anybody trusts it: a key that is trusted and lost would be worse than one that
/// is there and trusted by nobody.
async fn new(args: &NewArgs, hub: &mut Hub) -> Result<(), Failure> {
    let place = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(&args.name));
    let key = SoftwareKey::generate(&mut mezite_net::random::rng());
    let comment = format!("mezite break-glass {}", args.name);
    let private = openssh::private_key(key.seed(), &comment).map_err(Failure::failed)?;
    let mut public = openssh::public_key(key.public_key());
    public.set_comment(comment.as_str());
    let line = public.to_openssh().map_err(Failure::failed)?;
    let shared = PathBuf::from(format!("{}.pub", place.display()));
    create(&place, private.expose().as_bytes(), 0o600)?;
    create(&shared, format!("{}\n", line.trim()).as_bytes(), 0o644)?;
    let key: KeyLine = line.parse().map_err(Failure::failed)?;
    if let Err(failure) = add(&args.name, key, hub).await {
        // Nobody trusts it, and nobody was told of it.
        drop(std::fs::remove_file(&place));
        drop(std::fs::remove_file(&shared));
        return Err(failure);
    }
    out::note(format_args!(
        "the private key is in {}: keep it offline, and give it a passphrase with `ssh-keygen -p -f {}`",
        place.display(),
        super::shell_word(&place.display().to_string())
    ));
    explain(&place, hub).await
}

/// A file that was not there before.
fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    })();
    written.map_err(|error: std::io::Error| {
        Failure::failed(format_args!("cannot write `{}`: {error}", path.display()))
    })
}

async fn add(name: &str, key: KeyLine, hub: &mut Hub) -> Result<(), Failure> {
    let print = Sha256Fingerprint::of(key.key());
    let metadata = BreakGlassMetadata {
        name: name.to_owned(),
    };
    let document = Document::v1("break_glass", metadata, BreakGlassSpec { public_key: key });
    let request = ApplyResourceRequest {
        document: json!(document).to_string(),
        create_only: true,
    };
    within(hub.client.apply_resource(request)).await?;
    out::line(out::plain(&format!(
        "break-glass key {name} ({print}) is trusted by the nodes"
    )))
}

/// What whoever needs it in the night should have written down.
async fn explain(place: &Path, hub: &mut Hub) -> Result<(), Failure> {
    let answer = within(hub.client.get_trust(GetTrustRequest {})).await?;
    let trust: TrustBundle = serde_json::from_str(&answer.trust).map_err(Failure::failed)?;
    let hosts = openssh::known_hosts_line(
        &trust.cluster,
        &[format!("*.{}", trust.cluster)],
        &trust.node,
    )
    .map_err(Failure::failed)?;
    let place = super::shell_word(&place.display().to_string());
    out::line(format_args!(
        "\nwhile the hub is down, for one login on one node and for at most an hour:\n\
         \n  ssh-keygen -s {place} -I 'who and why' -n mezite:NODE-ID:LOGIN -V +15m id_ed25519.pub\n  \
         ssh -o HostKeyAlias=NODE-ID.{} -o UserKnownHostsFile=FILE LOGIN@ADDRESS\n\
         \nNODE-ID is what `mezctl get nodes` shows; FILE holds the nodes' authorities:\n\n{}",
        trust.cluster,
        hosts.lines().map(out::plain).collect::<Vec<_>>().join("\n"),
    ))
}

async fn list(format: Format, hub: &mut Hub) -> Result<(), Failure> {
    let request = ListResourcesRequest {
        kind: "break_glass".to_owned(),
    };
    let found = within(hub.client.list_resources(request)).await?.resources;
    let documents: Vec<Value> = found.iter().map(parsed).collect::<Result<_, _>>()?;
    out::show(format, &json!(documents), || {
        let mut table = Table::new(&["KEY", "FINGERPRINT"]);
        for document in &documents {
            let spec: Option<BreakGlassSpec> = document
                .get("spec")
                .and_then(|spec| serde_json::from_value(spec.clone()).ok());
            let print = spec.map(|spec| Sha256Fingerprint::of(spec.public_key.key()).to_string());
            let name = document.pointer("/metadata/name").and_then(Value::as_str);
            table.row(&[
                name.unwrap_or_default().to_owned(),
                print.unwrap_or_default(),
            ]);
        }
        table
    })
}

fn parsed(resource: &Resource) -> Result<Value, Failure> {
    serde_json::from_str(&resource.document).map_err(|error| {
        Failure::failed(format_args!("the hub sent an unreadable document: {error}"))
    })
}
