//! `users add`, `users passwd`.

use std::io::Read;

use clap::{Args, Subcommand};
use mezite_api::request::MAX_PASSWORD;
use mezite_api::v1::{CreateUserRequest, RemoveResourceRequest, SetPasswordRequest};
use mezite_core::{Login, RoleName, Secret, UserName};
use serde_json::json;

use super::shell_word;
use crate::fail::Failure;
use crate::hub::{Hub, Introduction, within};
use crate::out::{self, Format};

/// What `users` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Make a user; its password is shown this once.
    #[command(
        after_help = "Example:\n  mezctl users add alice --roles access --logins alice,deploy"
    )]
    Add(AddArgs),
    /// Give a user another password.
    #[command(after_help = "Example:\n  mezctl users passwd alice")]
    Passwd(PasswdArgs),
}

/// What `users add` takes.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The user's name.
    name: UserName,
    /// The user's roles, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    roles: Vec<RoleName>,
    /// The accounts on nodes that the role `access` lets the user be, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LOGINS")]
    logins: Vec<Login>,
    /// Take the password from standard input instead of a random one.
    #[arg(long)]
    password_stdin: bool,
    /// How the user reaches the hub, for the command that is printed.
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `users passwd` takes.
#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// The user's name.
    name: UserName,
    /// Take the password from standard input instead of a random one.
    #[arg(long)]
    password_stdin: bool,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(command: &Users, hub: &mut Hub) -> Result<(), Failure> {
    match command {
        Users::Add(args) => add(args, hub).await,
        Users::Passwd(args) => passwd(args, hub).await,
    }
}

async fn add(args: &AddArgs, hub: &mut Hub) -> Result<(), Failure> {
    let chosen = if args.password_stdin {
        Some(from_stdin()?)
    } else {
        None
    };
    let Introduction { address, pin } = hub.introduction(args.proxy.as_deref()).await?;
    let request = CreateUserRequest {
        name: args.name.to_string(),
        roles: args.roles.iter().map(ToString::to_string).collect(),
        logins: args.logins.iter().map(ToString::to_string).collect(),
        ..CreateUserRequest::default()
    };
    let mut password = within(hub.client.create_user(request)).await?.password;
    if let Some(chosen) = chosen {
        password = String::new();
        if let Err(failure) = set(hub, &args.name, &chosen).await {
            // A user whose password nobody knows is half made.
            let (kind, name) = ("user".to_owned(), args.name.to_string());
            within(
                hub.client
                    .remove_resource(RemoveResourceRequest { kind, name }),
            )
            .await?;
            return Err(failure);
        }
    }
    let login = login_line(&address, &args.name, &pin);
    let value = json!({ "user": args.name, "password": password, "ca_pin": pin, "login": login });
    match args.output {
        Format::Json => out::json(&value),
        Format::Yaml => out::yaml(&value),
        Format::Table => {
            out::line(format_args!("user:     {}", args.name))?;
            if !password.is_empty() {
                out::line(format_args!(
                    "password: {}   (shown this once)",
                    out::plain(&password)
                ))?;
            }
            out::line(format_args!("log in:   {login}"))
        }
    }
}

fn login_line(proxy: &str, user: &UserName, pin: &str) -> String {
    let (proxy, pin) = (shell_word(proxy), shell_word(pin));
    format!("msh login --proxy {proxy} --user {user} --ca-pin {pin}")
}

async fn passwd(args: &PasswdArgs, hub: &mut Hub) -> Result<(), Failure> {
    let chosen = if args.password_stdin {
        from_stdin()?
    } else {
        Secret::new(String::new())
    };
    let password = set(hub, &args.name, &chosen).await?;
    let value = json!({ "user": args.name, "password": password });
    match args.output {
        Format::Json => out::json(&value),
        Format::Yaml => out::yaml(&value),
        Format::Table if password.is_empty() => {
            out::line(format_args!("{} has a new password", args.name))
        }
        Format::Table => out::line(format_args!(
            "password: {}   (shown this once)",
            out::plain(&password)
        )),
    }
}

/// Sets a password; an empty one lets the hub make it, which it answers with.
async fn set(hub: &mut Hub, user: &UserName, password: &Secret<String>) -> Result<String, Failure> {
    let request = SetPasswordRequest {
        user: user.to_string(),
        password: password.expose().clone(),
    };
    Ok(within(hub.client.set_password(request)).await?.password)
}

fn from_stdin() -> Result<Secret<String>, Failure> {
    let limit = u64::try_from(MAX_PASSWORD).unwrap_or(u64::MAX) + 2;
    let mut read = String::new();
    let result = std::io::stdin()
        .lock()
        .take(limit)
        .read_to_string(&mut read);
    let whole = Secret::new(read);
    result.map_err(|error| Failure::usage(format_args!("cannot read the password: {error}")))?;
    let line = whole.expose().lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    Ok(Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_line_is_complete() {
        let line = login_line("hub:3080", &"alice".parse().unwrap(), "sha256:ab");
        assert_eq!(
            line,
            "msh login --proxy hub:3080 --user alice --ca-pin sha256:ab"
        );
    }
}
