//! `ca sign-host`, `ca export`; `ca status`, `ca rotate` and `ca adopted` below, revocations beside it.

mod rotation;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mezite_api::v1::{GetTrustRequest, GetTrustResponse, SignHostRequest};
use mezite_ca::{TrustBundle, openssh};
use mezite_core::{NodeName, Span, UnixTime};

use super::{break_glass, revocations};
use crate::fail::Failure;
use crate::files::{self, Output};
use crate::hub::{Hub, within};
use crate::out::{self, Format};

/// What `ca` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Sign the host key of a node that runs a stock sshd.
    #[command(
        name = "sign-host",
        after_help = "Example:\n  mezctl ca sign-host db1 --public-key ssh_host_ed25519_key.pub --out ssh_host_ed25519_key-cert.pub"
    )]
    SignHost(SignHostArgs),
    /// Show the keys of all authorities, how far each one's rotation is and who holds it up, and the pin for `msh login`
    /// and `mezd join`.
    #[command(after_help = "Example:\n  mezctl ca status")]
    Status {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Replace keys of the authorities, step by step, while everything runs.
    #[command(long_about = rotation::ABOUT, after_help = rotation::EXAMPLES)]
    Rotate(rotation::RotateArgs),
    /// State that a node without an agent trusts every session key of now: nobody else can tell.
    #[command(
        after_help = "Example:\n  mezctl ca export --format user-ca --out mezite_user_ca.pub   # copy it to the node, then\n  mezctl ca adopted db1"
    )]
    Adopted {
        /// The node.
        name: NodeName,
    },
    /// Offline keys whose certificates open one login on one node while the hub is down.
    #[command(
        name = "break-glass",
        subcommand,
        after_help = "Example:\n  mezctl ca break-glass new night-shift --out /media/usb/night-shift"
    )]
    BreakGlass(break_glass::BreakGlass),
    /// Revoke certificates, a key, or an authority. It works at once: logins, sessions and calls end within a second.
    #[command(
        after_help = "Examples:\n  mezctl ca revoke --serial 4711 --reason 'laptop lost'\n  mezctl ca revoke --key id_ed25519.pub"
    )]
    Revoke(revocations::RevokeArgs),
    /// List what is revoked.
    #[command(after_help = "Example:\n  mezctl ca revocations")]
    Revocations {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a revocation back.
    #[command(after_help = "Example:\n  mezctl ca unrevoke 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Unrevoke(revocations::UnrevokeArgs),
    /// Write what is revoked as a list for sshd's RevokedKeys; the hub gives the same out at https://HUB:3080/v1/krl.
    #[command(after_help = "Example:\n  mezctl ca krl --out /etc/ssh/mezite.krl")]
    Krl(revocations::KrlArgs),
    /// Write the public keys in the form that other programs read.
    #[command(
        after_help = "Example:\n  mezctl ca export --format known-hosts >> /etc/ssh/ssh_known_hosts"
    )]
    Export(ExportArgs),
}

/// What `ca sign-host` takes.
#[derive(Debug, Args)]
pub(crate) struct SignHostArgs {
    /// The node.
    name: NodeName,
    /// The file with its public host key.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// How long the certificate is good; 24h, the default, at most.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// Where the certificate goes; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `ca export` takes.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// For whom.
    #[arg(long, value_enum, default_value_t)]
    format: Keys,
    /// Where to; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// For whom keys are written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Keys {
    /// Everything, as Mezite's programs exchange it.
    #[default]
    Trust,
    /// For ssh: the line that makes it trust the hub and the nodes behind it.
    KnownHosts,
    /// For sshd: the file that TrustedUserCAKeys names.
    UserCa,
    /// For curl and others that check the hub's TLS certificate: its authorities, as PEM.
    TlsCa,
}

pub(crate) async fn run(command: &Ca, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Ca::SignHost(args) => sign_host(args, hub).await,
        Ca::Status { output } => rotation::status(*output, hub).await,
        Ca::Rotate(args) => rotation::rotate(args, hub).await,
        Ca::Adopted { name } => rotation::adopted(name, hub).await,
        Ca::Export(args) => export(args, hub).await,
        Ca::BreakGlass(command) => break_glass::run(command, hub).await,
        Ca::Revoke(args) => revocations::revoke(args, hub).await,
        Ca::Revocations { output } => revocations::list(*output, hub).await,
        Ca::Unrevoke(args) => revocations::unrevoke(args, hub).await,
        Ca::Krl(args) => revocations::krl(args, hub).await,
    }
}

async fn sign_host(args: &SignHostArgs, hub: &mut Hub) -> Result<(), Failure> {
    let public_key = files::read(&args.public_key)?.trim().to_owned();
    let request = SignHostRequest {
        node: args.name.to_string(),
        public_key,
        ttl_seconds: args.ttl.map_or(0, |ttl| ttl.as_secs()),
    };
    let signed = within(hub.client.sign_host(request)).await?;
    write(
        args.out.as_ref(),
        &format!("{}\n", out::plain(signed.certificate.trim())),
    )?;
    if args.out.is_some() {
        out::note(format_args!(
            "good until {}",
            UnixTime::from_millis(signed.valid_before_ms)
        ));
    }
    Ok(())
}

fn write(path: Option<&PathBuf>, text: &str) -> Result<(), Failure> {
    let mut output = Output::open(path.map(PathBuf::as_path))?;
    output
        .write_all(text.as_bytes())
        .map_err(|error| Failure::output(&error))?;
    output.finish()
}

async fn trust(hub: &mut Hub) -> Result<(TrustBundle, GetTrustResponse), Failure> {
    let answer = within(hub.client.get_trust(GetTrustRequest {})).await?;
    let trust = serde_json::from_str(&answer.trust).map_err(Failure::failed)?;
    Ok((trust, answer))
}

async fn export(args: &ExportArgs, hub: &mut Hub) -> Result<(), Failure> {
    let (trust, answer) = trust(hub).await?;
    let text = match args.format {
        Keys::Trust => format!(
            "{}\n",
            serde_json::to_string_pretty(&trust).map_err(Failure::failed)?
        ),
        Keys::KnownHosts => answer.known_hosts,
        Keys::UserCa => {
            openssh::authorized_ca_keys(&trust.cluster, &trust.session).map_err(Failure::failed)?
        }
        Keys::TlsCa => trust.host_tls.iter().map(|der| pem(der)).collect(),
    };
    write(args.out.as_ref(), &text)
}

/// RFC 7468 section 5.
fn pem(der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
