//! `login`, `logout`, `status`: a password becomes an identity whose private keys never leave this machine.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use mezite_api::request;
use mezite_api::v1::{LoginRequest, LoginResponse, PingRequest};
use mezite_ca::{Signer, SoftwareKey, TrustBundle, openssh, pin};
use mezite_core::{Clock, ClusterName, Secret, Span, UnixTime, UserName};
use mezite_net::clock::SystemClock;
use mezite_net::tls::{Accept, Credentials, OwnIdentity};
use serde_json::json;
use ssh_key::Certificate;

use crate::fail::Failure;
use crate::home::{Fresh, Home, Login, Profile};
use crate::out::{self, Format};
use crate::{files, hub, snippet};

/// Clocks that differ by more are refused by the hub.
const MAX_SKEW: Span = Span::from_secs(60);

/// Port of the hub's API when none is given.
const PORT: u16 = 3080;

/// Where a password may be found when nobody types it.
const PASSWORD: &str = "MEZITE_PASSWORD";

/// What `login` takes.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The hub, HOST:PORT; the port is 3080 when left out.
    #[arg(long, value_name = "HOST:PORT")]
    proxy: String,
    /// Your user name at the hub.
    #[arg(long, value_name = "NAME")]
    user: UserName,
    /// How long the login is to last, for example 8h; roles and the hub can make it shorter.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// The pin of the hub's authority; needed the first time.
    #[arg(long, value_name = "sha256:HEX")]
    ca_pin: Option<String>,
    /// Read the password from standard input instead of the terminal.
    #[arg(long)]
    password_stdin: bool,
    /// Write the SSH key and certificate to FILE and FILE-cert.pub, and keep nothing else.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace what lies at the place of --out.
    #[arg(long, requires = "out")]
    overwrite: bool,
}

/// What `logout` takes.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Forget the hub too: the next login needs its pin again.
    #[arg(long)]
    forget: bool,
}

/// Keys of a new login.
struct Keys {
    ssh: SoftwareKey,
    tls: SoftwareKey,
}

pub(crate) async fn login(args: &LoginArgs, home: &Home) -> Result<(), Failure> {
    let proxy = address(&args.proxy)?;
    let accept = accept(args, &proxy, home)?;
    let mut client = hub::access(&proxy, accept).await?;
    let pong = hub::within(client.ping(PingRequest {})).await?;
    check_clock(SystemClock.now(), UnixTime::from_millis(pong.now_ms))?;
    let password = password(args)?;
    let keys = Keys {
        ssh: SoftwareKey::generate(&mut mezite_net::random::rng()),
        tls: SoftwareKey::generate(&mut mezite_net::random::rng()),
    };
    let public = openssh::public_key(keys.ssh.public_key());
    let request = LoginRequest {
        user: args.user.to_string(),
        password: password.expose().clone(),
        ttl_seconds: args.ttl.map_or(0, Span::as_secs),
        ssh_public_key: public.to_openssh().map_err(Failure::failed)?,
        tls_public_key: keys.tls.public_key().to_vec(),
        client_time_ms: SystemClock.now().as_millis(),
    };
    let answer = hub::within(client.login(request)).await?;
    let fresh = check(answer, args, proxy, &keys, home)?;
    keep(&fresh, args, home)?;
    let Profile {
        cluster,
        user,
        valid_before,
        roles,
        ..
    } = &fresh.profile;
    let roles = roles.join(", ");
    out::line(out::plain(&format!(
        "logged in to {cluster} as {user} until {valid_before} (roles: {roles})"
    )))
}

/// The hub's address as the API takes it.
fn address(given: &str) -> Result<String, Failure> {
    let has_port = given
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let whole = if has_port {
        given.to_owned()
    } else {
        format!("{given}:{PORT}")
    };
    request::address(&whole).map_err(Failure::usage)
}

/// By whom the hub must be vouched for: by the pin, or by the authorities that an earlier login brought.
fn accept(args: &LoginArgs, proxy: &str, home: &Home) -> Result<Accept, Failure> {
    if let Some(pin) = &args.ca_pin {
        let digits = pin.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let shown = out::plain(pin);
            return Err(Failure::usage(format_args!(
                "`{shown}` is not a pin: expected sha256: and 64 hexadecimal digits"
            )));
        }
        return Ok(Accept::PinnedHub(pin.to_ascii_lowercase()));
    }
    let known = home
        .logins()?
        .into_iter()
        .find(|login| login.profile.proxy == proxy);
    let Some(login) = known else {
        return Err(Failure::usage(format_args!(
            "the hub at {proxy} is not known yet: give --ca-pin; its operator finds it with `mezctl ca status`"
        )));
    };
    Ok(hub::hubs_of(login.trust()?))
}

fn check_clock(own: UnixTime, hub: UnixTime) -> Result<(), Failure> {
    let skew = own.since(hub).max(hub.since(own));
    if skew <= MAX_SKEW {
        return Ok(());
    }
    Err(Failure::failed(format_args!(
        "the clocks differ by {}: this machine says {own}, the hub says {hub}; set the wrong one right",
        Span::from_secs(skew.as_secs())
    )))
}

fn password(args: &LoginArgs) -> Result<Secret<String>, Failure> {
    let password = if args.password_stdin {
        from_stdin()?
    } else if let Ok(password) = std::env::var(PASSWORD) {
        Secret::new(password)
    } else {
        let asked = rpassword::prompt_password(format!("Password of {}: ", args.user));
        Secret::new(asked.map_err(|error| {
            Failure::usage(format_args!(
                "there is no terminal to ask for the password ({error}): give --password-stdin"
            ))
        })?)
    };
    if password.expose().is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    Ok(password)
}

/// The first line.
fn from_stdin() -> Result<Secret<String>, Failure> {
    let mut text = Secret::new(String::new());
    let limit = u64::try_from(request::MAX_PASSWORD).unwrap_or(u64::MAX) + 2;
    let mut read = String::new();
    let result = std::io::stdin()
        .lock()
        .take(limit)
        .read_to_string(&mut read);
    let whole = Secret::new(read);
    result.map_err(|error| Failure::usage(format_args!("cannot read the password: {error}")))?;
    if let Some(line) = whole.expose().lines().next() {
        text = Secret::new(line.to_owned());
    }
    Ok(text)
}

/// Believes nothing of the answer that can be checked here.
fn check(
    answer: LoginResponse,
    args: &LoginArgs,
    proxy: String,
    keys: &Keys,
    home: &Home,
) -> Result<Fresh, Failure> {
    let wrong =
        |what: &str| Failure::failed(format_args!("the hub's answer is not usable: {what}"));
    let cluster: ClusterName = answer.cluster.parse().map_err(Failure::failed)?;
    let trust: TrustBundle =
        serde_json::from_str(&answer.trust).map_err(|error| wrong(&error.to_string()))?;
    if trust.cluster != cluster {
        return Err(wrong("its trust bundle is of another cluster"));
    }
    check_trust(&trust, args, home)?;
    let certificate = Certificate::from_openssh(&answer.ssh_certificate)
        .map_err(|error| wrong(&error.to_string()))?;
    let own = openssh::public_key(keys.ssh.public_key());
    if certificate.public_key() != own.key_data() {
        return Err(wrong("its certificate is for another key"));
    }
    let tls = Credentials {
        chain: answer.tls_chain,
        pkcs8: openssh::pkcs8(keys.tls.seed()),
    };
    OwnIdentity::new(&tls)?;
    let profile = Profile {
        cluster,
        user: args.user.clone(),
        proxy,
        gateway: request::address(&answer.gateway_address)
            .map_err(|error| wrong(&error.to_string()))?,
        gateway_names: answer.gateway_names,
        roles: answer.roles,
        valid_before: UnixTime::from_millis(answer.valid_before_ms),
    };
    let comment = format!("mezite {}@{}", profile.user, profile.cluster);
    Ok(Fresh {
        known_hosts: snippet::known_hosts(&profile, &trust).map_err(Failure::failed)?,
        key: openssh::private_key(keys.ssh.seed(), &comment).map_err(Failure::failed)?,
        certificate: format!("{}\n", answer.ssh_certificate.trim()),
        profile,
        tls,
        trust,
    })
}

/// The bundle must hold what was pinned, and no hub can take the place of another cluster's.
fn check_trust(trust: &TrustBundle, args: &LoginArgs, home: &Home) -> Result<(), Failure> {
    if let Some(wanted) = &args.ca_pin {
        let wanted = wanted.to_ascii_lowercase();
        let found = trust
            .host_tls
            .iter()
            .any(|der| pin(der).is_ok_and(|pin| pin == wanted));
        if !found {
            return Err(Failure::failed(
                "the hub's trust bundle does not hold the authority that was pinned",
            ));
        }
    }
    let Some(known) = home.place(&trust.cluster).trust()? else {
        return Ok(());
    };
    if known
        .host_tls
        .iter()
        .any(|der| trust.host_tls.contains(der))
    {
        return Ok(());
    }
    Err(Failure::failed(format_args!(
        "a cluster `{0}` with other authorities is known already: if it was set up anew, or all its keys were replaced since \
         you logged in, run `msh --cluster {0} logout --forget` first",
        trust.cluster
    )))
}

fn keep(fresh: &Fresh, args: &LoginArgs, home: &Home) -> Result<(), Failure> {
    let Some(path) = &args.out else {
        home.keep(fresh)?;
        return Ok(());
    };
    let mut certificate = path.clone().into_os_string();
    certificate.push("-cert.pub");
    let write = if args.overwrite {
        files::write
    } else {
        files::write_new
    };
    write(path, fresh.key.expose().as_bytes(), 0o600).map_err(Failure::failed)?;
    let written = write(Path::new(&certificate), fresh.certificate.as_bytes(), 0o644);
    if written.is_err() && !args.overwrite {
        // We made it a moment ago; alone it is of no use.
        files::remove(path).map_err(Failure::failed)?;
    }
    written.map_err(Failure::failed)
}

pub(crate) fn logout(
    args: &LogoutArgs,
    home: &Home,
    cluster: Option<&ClusterName>,
) -> Result<(), Failure> {
    let current = home.current()?;
    let Some(cluster) = cluster.or(current.as_ref()) else {
        return out::line("you are not logged in");
    };
    let place = home.place(cluster);
    if args.forget {
        place.forget()?;
    } else {
        place.log_out()?;
    }
    out::line(format_args!("logged out of {cluster}"))
}

pub(crate) fn status(
    format: Format,
    home: &Home,
    cluster: Option<&ClusterName>,
) -> Result<(), Failure> {
    let login = home.login(cluster)?;
    let now = SystemClock.now();
    let state = login.check(now);
    let Login { profile, .. } = &login;
    let left = profile.valid_before.since(now);
    let value = json!({
        "cluster": profile.cluster, "user": profile.user, "roles": profile.roles, "proxy": profile.proxy,
        "gateway": profile.gateway, "valid_before": profile.valid_before.to_string(), "valid": state.is_ok(),
    });
    match format {
        Format::Json => out::json(&value)?,
        Format::Yaml => out::yaml(&value)?,
        Format::Table => {
            let left = Span::from_secs(left.as_secs());
            let roles = out::plain(&profile.roles.join(", "));
            out::line(format_args!("cluster:  {}", profile.cluster))?;
            out::line(format_args!("user:     {}", profile.user))?;
            out::line(format_args!("roles:    {roles}"))?;
            out::line(format_args!("proxy:    {}", profile.proxy))?;
            out::line(format_args!("gateway:  {}", profile.gateway))?;
            out::line(format_args!(
                "until:    {} ({left} left)",
                profile.valid_before
            ))?;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_port() {
        assert_eq!(address("hub.example").unwrap(), "hub.example:3080");
        assert_eq!(address("10.0.0.1:1234").unwrap(), "10.0.0.1:1234");
        assert_eq!(address("[::1]:1234").unwrap(), "[::1]:1234");
        for bad in ["", "-oProxyCommand=x", "a b:1", "https://hub"] {
            assert_eq!(address(bad).unwrap_err().code.number(), 2, "{bad}");
        }
    }

    #[test]
    fn a_skew_over_a_minute_is_said_with_both_times() {
        let at = UnixTime::from_secs;
        assert!(check_clock(at(1000), at(1060)).is_ok());
        let failure = check_clock(at(1000), at(1061)).unwrap_err().to_string();
        assert!(
            failure.contains("by 1m1s")
                && failure.contains("00:16:40.000Z")
                && failure.contains("00:17:41.000Z"),
            "{failure}"
        );
        assert!(check_clock(at(1061), at(1000)).is_err());
    }
}
