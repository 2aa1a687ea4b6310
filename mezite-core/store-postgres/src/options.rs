//! Where the database is and how to get in. The password is in here and nowhere else.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{OpenError, tls};

/// A server that does not answer for so long is taken for gone.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection whose bytes are not acknowledged for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(10);

/// How to reach a database.
#[derive(Clone)]
pub struct Options {
    pub(crate) config: Config,
    pub(crate) tls: MakeRustlsConnect,
    place: String,
}

impl Options {
    /// Reads a connection string, `postgres://user@host/database?…` or `host=… user=… dbname=…`, as libpq takes them
    /// ([PostgreSQL manual, 34.1.1]). Several hosts may be named; the one that takes writes is used.
    ///
    /// Over TCP the connection is always TLS 1.3 and the server's name is verified (libpq calls it `verify-full`), against
    /// the certificates in `authorities` (PEM); only an explicit `sslmode=disable` turns it off. Unix sockets need none.
    /// `password`, if given, wins over one in the string.
    ///
    /// [PostgreSQL manual, 34.1.1]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
    ///
    /// # Errors
    /// [`OpenError::Options`]. It never quotes the string, as a password may be in it.
    pub fn parse(
        string: &str,
        password: Option<&str>,
        authorities: Option<&[u8]>,
    ) -> Result<Self, OpenError> {
        // What libpq calls so is what `require` means here.
        let string = string.replace("sslmode=verify-full", "sslmode=require");
        let mut config: Config = string.parse().map_err(|error| unreadable(&error))?;
        check_hosts(&config)?;
        if let Some(password) = password {
            config.password(password);
        }
        config.connect_timeout(*config.get_connect_timeout().unwrap_or(&CONNECT));
        config.tcp_user_timeout(*config.get_tcp_user_timeout().unwrap_or(&SILENCE));
        config.keepalives_idle(SILENCE);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("mezite");
        }
        let place = place(&config);
        let over_tcp = !config.get_hostaddrs().is_empty()
            || config
                .get_hosts()
                .iter()
                .any(|host| matches!(host, Host::Tcp(_)));
        let authorities = if over_tcp && config.get_ssl_mode() != SslMode::Disable {
            config.ssl_mode(SslMode::Require);
            Some(authorities.ok_or_else(|| {
                OpenError::Options(format!(
                    "the connection to {place} needs the certificate of the authority that signed the server's: \
                     name its file, or say `sslmode=disable` to send passwords and keys in the clear"
                ))
            })?)
        } else {
            config.ssl_mode(SslMode::Disable);
            None
        };
        let tls = tls::connector(authorities)?;
        Ok(Self { config, tls, place })
    }
}

/// Says where, and never the password.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Options").field(&self.place).finish()
    }
}

fn unreadable(error: &tokio_postgres::Error) -> OpenError {
    use std::error::Error;
    let why = error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string);
    OpenError::Options(format!(
        "the connection string cannot be read ({why}): write postgres://USER@HOST/DATABASE"
    ))
}

fn check_hosts(config: &Config) -> Result<(), OpenError> {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(OpenError::Options(String::from(
            "the connection string names no host: write postgres://USER@HOST/DATABASE",
        )));
    }
    // An `@` in a password that was not escaped: what is taken for the host's name holds the password's end.
    let torn = |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', '/', ' ']));
    if config.get_hosts().iter().any(torn) {
        return Err(OpenError::Options(String::from(
            "the connection string's host holds an `@`, a `/` or a space: write these as %40, %2F and %20 in a password, \
             or put the password into a file",
        )));
    }
    Ok(())
}

fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    let mut names: Vec<String> = hosts.collect();
    if names.is_empty() {
        names.extend(addresses);
    }
    let ports = config.get_ports();
    for (index, name) in names.iter_mut().enumerate() {
        let port = ports.get(index).or_else(|| ports.first()).unwrap_or(&5432);
        name.push_str(&format!(":{port}"));
    }
    let database = config
        .get_dbname()
        .or_else(|| config.get_user())
        .unwrap_or("?");
    format!("database `{database}` at {}", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(string: &str) -> String {
        Options::parse(string, None, None).unwrap_err().to_string()
    }

    #[test]
    fn the_place_is_told_without_the_password() {
        let string =
            "postgres://mezite:hunter2@db1.example:6000,db2.example:6001/hub?sslmode=disable";
        let options = Options::parse(string, None, None).unwrap();
        assert_eq!(
            options.to_string(),
            "database `hub` at db1.example:6000,db2.example:6001"
        );
        assert!(!format!("{options:?}").contains("hunter2"));
        let options = Options::parse("host=/run/postgresql user=mezite", Some("hunter2"), None);
        assert_eq!(
            options.unwrap().to_string(),
            "database `mezite` at /run/postgresql:5432"
        );
    }

    #[test]
    fn over_tcp_there_is_tls_or_a_word_that_says_no() {
        let error = refused("postgres://mezite@db.example/hub");
        assert!(
            error.contains("authority") && error.contains("sslmode=disable"),
            "{error}"
        );
        let error = refused("postgres://mezite@db.example/hub?sslmode=prefer");
        assert!(
            error.contains("authority"),
            "what may be stripped on the way is no TLS: {error}"
        );
        let pem = Options::parse("postgres://mezite@db.example/hub", None, Some(b"no PEM"));
        assert!(pem.unwrap_err().to_string().contains("no certificate"));
    }

    #[test]
    fn attack_73_no_error_quotes_a_password() {
        for string in [
            "postgres://mezite:hunter2@db.example:port/hub",
            "postgres://mezite:hun@ter2@db.example/hub",
            "postgres://mezite:hun/ter2@db.example/hub",
            "postgres://mezite:hunter2@db.example/hub?nothing=known",
            "postgres://mezite:hunter2@/hub",
            "host=db.example password=hunter2 port=many",
            "host=db.example password='hunter2",
            "password=hunter2",
        ] {
            let error = refused(string);
            assert!(!error.contains("ter2"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused("postgres://a@b/c?nothing=known").contains("`nothing`"));
        assert!(refused("host=b port=many").contains("`port`"));
        assert!(refused("user=a").contains("names no host"));
    }
}
