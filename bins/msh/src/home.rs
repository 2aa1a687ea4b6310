//! The state directory: one directory per cluster, and which cluster is meant when none is named.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use mezite_ca::TrustBundle;
use mezite_core::{ClusterName, Secret, UnixTime, UserName};
use mezite_net::tls::Credentials;
use serde::{Deserialize, Serialize};

use crate::fail::Failure;
use crate::files;

/// Which cluster was logged in to last. No cluster's name starts with a dot.
const CURRENT: &str = ".current";

/// What is known of a login, beside its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// Who logged in.
    pub(crate) user: UserName,
    /// `host:port` of the hub's API.
    pub(crate) proxy: String,
    /// `host:port` of the gateway.
    pub(crate) gateway: String,
    /// Names for which the gateway's own certificate is good.
    pub(crate) gateway_names: Vec<String>,
    /// The user's roles at that time.
    pub(crate) roles: Vec<String>,
    /// When the login ends, in milliseconds since 1970.
    pub(crate) valid_before: UnixTime,
}

/// The chain of the TLS certificate as it is kept.
#[derive(Serialize, Deserialize)]
struct Chain {
    /// DER in base64, leaf first.
    chain: Vec<String>,
}

/// What a login brings, ready to be kept.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) profile: Profile,
    pub(crate) key: Secret<String>,
    pub(crate) certificate: String,
    pub(crate) tls: Credentials,
    pub(crate) trust: TrustBundle,
    pub(crate) known_hosts: String,
}

/// The directory of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.path("key")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("key-cert.pub")
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// Whom this cluster's hubs are known by, if it is known.
    pub(crate) fn trust(&self) -> Result<Option<TrustBundle>, Failure> {
        self.json("trust.json")
    }

    pub(crate) fn profile(&self) -> Result<Option<Profile>, Failure> {
        self.json("profile.json")
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let path = self.path(name);
        let Some(content) = files::read(&path).map_err(Failure::failed)? else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&content).map_err(|error| {
            let path = path.display();
            Failure::failed(format_args!(
                "`{path}` is damaged ({error}): log in again after `msh logout --forget`"
            ))
        })?;
        Ok(Some(parsed))
    }

    /// Key and certificate for the API.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        let gone = || Failure::denied("you are logged out: run `msh login`");
        let Chain { chain } = self.json("tls.json")?.ok_or_else(gone)?;
        let chain = chain.iter().map(|der| BASE64.decode(der.as_bytes()));
        let chain = chain.collect::<Result<_, _>>().map_err(|error| {
            Failure::failed(format_args!(
                "`tls.json` is damaged ({error}): log in again"
            ))
        })?;
        let key = files::read(&self.path("tls.key")).map_err(Failure::failed)?;
        let pkcs8 = Secret::new(key.ok_or_else(gone)?);
        Ok(Credentials { chain, pkcs8 })
    }

    /// Keeps whom the hub is known by from now on. The hub's TLS key first: without it, there is no way to learn the rest.
    pub(crate) fn keep_trust(&self, trust: &TrustBundle, known_hosts: &str) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(trust).map_err(Failure::failed)?;
        for (name, content) in [
            ("trust.json", json.as_slice()),
            ("known_hosts", known_hosts.as_bytes()),
        ] {
            files::write(&self.path(name), content, 0o600).map_err(Failure::failed)?;
        }
        Ok(())
    }

    /// Removes the keys. Who the hub is stays known, so that the next login needs no pin.
    pub(crate) fn log_out(&self) -> Result<(), Failure> {
        for name in ["key", "key-cert.pub", "tls.key", "tls.json", "ssh_config"] {
            files::remove(&self.path(name)).map_err(Failure::failed)?;
        }
        Ok(())
    }

    /// Removes everything that is known of the cluster.
    pub(crate) fn forget(&self) -> Result<(), Failure> {
        self.log_out()?;
        for name in ["trust.json", "known_hosts", "profile.json"] {
            files::remove(&self.path(name)).map_err(Failure::failed)?;
        }
        match std::fs::remove_dir(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let path = self.0.display();
                Err(Failure::failed(format_args!(
                    "cannot remove `{path}`: {error}"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// A login that can be used now.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) place: Place,
    pub(crate) profile: Profile,
}

impl Login {
    /// Fails, with what to do, if the login has ended.
    pub(crate) fn check(&self, now: UnixTime) -> Result<(), Failure> {
        let Profile {
            cluster,
            valid_before,
            ..
        } = &self.profile;
        let again = self.again();
        if now >= *valid_before {
            return Err(Failure::denied(format_args!(
                "your login to `{cluster}` ended at {valid_before}: run `{again}`"
            )));
        }
        match files::read(&self.place.key()).map_err(Failure::failed)? {
            Some(_) => Ok(()),
            None => Err(Failure::denied(format_args!(
                "you are logged out of `{cluster}`: run `{again}`"
            ))),
        }
    }

    /// The command that logs in again.
    pub(crate) fn again(&self) -> String {
        let Profile { proxy, user, .. } = &self.profile;
        format!("msh login --proxy {proxy} --user {user}")
    }

    /// Whom the hub's certificate is checked against.
    pub(crate) fn trust(&self) -> Result<TrustBundle, Failure> {
        self.place
            .trust()?
            .ok_or_else(|| Failure::failed("`trust.json` is missing: log in again with --ca-pin"))
    }
}

/// The whole state directory.
#[derive(Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// The directory that was named, or `~/.msh`. It need not exist yet.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, Failure> {
        let path = match (given, std::env::var_os("HOME")) {
            (Some(path), _) if !path.as_os_str().is_empty() => path.to_owned(),
            (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".msh"),
            _ => {
                return Err(Failure::usage(
                    "there is no home directory: set HOME or MSH_HOME",
                ));
            }
        };
        std::path::absolute(path).map(Self).map_err(|error| {
            Failure::failed(format_args!("cannot find the state directory: {error}"))
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a cluster's state lies; it need not exist.
    pub(crate) fn place(&self, cluster: &ClusterName) -> Place {
        Place(self.0.join(cluster.as_str()))
    }

    /// Every cluster that was ever logged in to.
    pub(crate) fn logins(&self) -> Result<Vec<Login>, Failure> {
        let mut logins = Vec::new();
        for path in files::directories(&self.0).map_err(Failure::failed)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(cluster) = name.parse::<ClusterName>() else {
                continue;
            };
            let place = Place(path.clone());
            if let Some(profile) = place
                .profile()?
                .filter(|profile| profile.cluster == cluster)
            {
                logins.push(Login { place, profile });
            }
        }
        Ok(logins)
    }

    /// The login to `cluster`, or to the cluster that was logged in to last.
    pub(crate) fn login(&self, cluster: Option<&ClusterName>) -> Result<Login, Failure> {
        let current = self.current()?;
        let Some(cluster) = cluster.or(current.as_ref()) else {
            return Err(Failure::denied(
                "you are not logged in: run `msh login --proxy HOST:3080 --user NAME --ca-pin PIN`",
            ));
        };
        let place = self.place(cluster);
        let profile = place
            .profile()?
            .filter(|profile| profile.cluster == *cluster);
        let profile = profile.ok_or_else(|| {
            Failure::denied(format_args!(
                "you are not logged in to `{cluster}`: run `msh login --proxy HOST:3080 --user NAME --ca-pin PIN`"
            ))
        })?;
        Ok(Login { place, profile })
    }

    /// The cluster that was logged in to last.
    pub(crate) fn current(&self) -> Result<Option<ClusterName>, Failure> {
        let content = files::read(&self.0.join(CURRENT)).map_err(Failure::failed)?;
        let text = content.and_then(|content| String::from_utf8(content).ok());
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// Keeps a login and makes its cluster the current one.
    pub(crate) fn keep(&self, fresh: &Fresh) -> Result<Place, Failure> {
        let cluster = &fresh.profile.cluster;
        let place = self.place(cluster);
        let json = |value: serde_json::Result<Vec<u8>>| value.map_err(Failure::failed);
        let chain = fresh
            .tls
            .chain
            .iter()
            .map(|der| BASE64.encode(der))
            .collect();
        let contents: [(&str, &[u8], u32); 7] = [
            (
                "trust.json",
                &json(serde_json::to_vec_pretty(&fresh.trust))?,
                0o600,
            ),
            ("known_hosts", fresh.known_hosts.as_bytes(), 0o600),
            ("tls.key", fresh.tls.pkcs8.expose(), 0o600),
            (
                "tls.json",
                &json(serde_json::to_vec_pretty(&Chain { chain }))?,
                0o600,
            ),
            ("key", fresh.key.expose().as_bytes(), 0o600),
            ("key-cert.pub", fresh.certificate.as_bytes(), 0o600),
            // Last: it says that the rest is there.
            (
                "profile.json",
                &json(serde_json::to_vec_pretty(&fresh.profile))?,
                0o600,
            ),
        ];
        files::private_directory(&self.0).map_err(Failure::failed)?;
        files::private_directory(&place.0).map_err(Failure::failed)?;
        for (name, content, mode) in contents {
            files::write(&place.path(name), content, mode).map_err(Failure::failed)?;
        }
        let line = format!("{cluster}\n");
        files::write(&self.0.join(CURRENT), line.as_bytes(), 0o600).map_err(Failure::failed)?;
        Ok(place)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn profile() -> Profile {
        Profile {
            cluster: "example".parse().unwrap(),
            user: "alice".parse().unwrap(),
            proxy: "hub.example:3080".to_owned(),
            gateway: "hub.example:3023".to_owned(),
            gateway_names: vec!["hub.example".to_owned(), "10.0.0.1".to_owned()],
            roles: vec!["access".to_owned()],
            valid_before: UnixTime::from_secs(1_800_000_000),
        }
    }

    fn fresh() -> Fresh {
        Fresh {
            profile: profile(),
            key: Secret::new("the key\n".to_owned()),
            certificate: "the certificate\n".to_owned(),
            tls: Credentials {
                chain: vec![vec![1, 2], vec![3]],
                pkcs8: Secret::new(vec![4, 5]),
            },
            trust: TrustBundle::empty("example".parse().unwrap()),
            known_hosts: "@cert-authority …\n".to_owned(),
        }
    }

    #[test]
    fn a_login_reads_back_and_is_the_current_one() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::find(Some(&directory.path().join("state"))).unwrap();
        assert!(home.login(None).is_err());
        home.keep(&fresh()).unwrap();
        let login = home.login(None).unwrap();
        assert_eq!(login.profile, profile());
        assert_eq!(home.logins().unwrap().len(), 1);
        let credentials = login.place.credentials().unwrap();
        assert_eq!(credentials.chain, [vec![1, 2], vec![3]]);
        assert_eq!(credentials.pkcs8.expose(), &[4, 5]);
        assert_eq!(login.trust().unwrap(), fresh().trust);
    }

    #[test]
    fn a_login_ends_at_its_end_and_at_logout() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::find(Some(directory.path())).unwrap();
        home.keep(&fresh()).unwrap();
        let login = home.login(None).unwrap();
        let end = login.profile.valid_before;
        assert!(login.check(UnixTime::from_secs(end.as_secs() - 1)).is_ok());
        assert_eq!(login.check(end).unwrap_err().code.number(), 3);
        login.place.log_out().unwrap();
        let before = UnixTime::from_secs(0);
        assert_eq!(login.check(before).unwrap_err().code.number(), 3);
        assert!(login.place.trust().unwrap().is_some());
        login.place.forget().unwrap();
        assert!(home.logins().unwrap().is_empty());
    }
}
