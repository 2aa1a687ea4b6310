//! The login that `msh login` made, read from its state directory. Only `msh` writes there.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use mezite_ca::TrustBundle;
use mezite_core::{ClusterName, Secret, UnixTime, UserName};
use mezite_net::tls::Credentials;
use nix::fcntl::OFlag;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::fail::Failure;

/// No file there is larger.
const MAX_BYTES: u64 = 1024 * 1024;

/// Which login.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Profile {
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// Who logged in.
    pub(crate) user: UserName,
    /// `host:port` of the hub's API.
    pub(crate) proxy: String,
    /// When it ends.
    pub(crate) valid_before: UnixTime,
}

#[derive(Deserialize)]
struct Chain {
    chain: Vec<String>,
}

/// A login that has not ended.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) profile: Profile,
    pub(crate) credentials: Credentials,
    pub(crate) trust: TrustBundle,
}

/// The login to `cluster`, or the last one; `None` if nobody logged in.
pub(crate) fn login(
    home: Option<&Path>,
    cluster: Option<&ClusterName>,
    now: UnixTime,
) -> Result<Option<Login>, Failure> {
    let Some(home) = directory(home) else {
        return Ok(None);
    };
    let current = read(&home.join(".current"))?
        .and_then(|content| String::from_utf8(content).ok())
        .and_then(|text| text.trim().parse().ok());
    let Some(cluster) = cluster.or(current.as_ref()) else {
        return Ok(None);
    };
    let place = home.join(cluster.as_str());
    let Some(profile) =
        json::<Profile>(&place.join("profile.json"))?.filter(|profile| profile.cluster == *cluster)
    else {
        return Ok(None);
    };
    let Profile {
        proxy,
        user,
        valid_before,
        ..
    } = &profile;
    let again = format!("run `mezctl login --proxy {proxy} --user {user}`");
    if now >= *valid_before {
        return Err(Failure::denied(format_args!(
            "your login to `{cluster}` ended at {valid_before}: {again}"
        )));
    }
    let parts = (
        json::<Chain>(&place.join("tls.json"))?,
        read(&place.join("tls.key"))?,
        json(&place.join("trust.json"))?,
    );
    let (Some(Chain { chain }), Some(key), Some(trust)) = parts else {
        return Err(Failure::denied(format_args!(
            "you are logged out of `{cluster}`: {again}"
        )));
    };
    let chain = chain.iter().map(|der| BASE64.decode(der.as_bytes()));
    let chain = chain.collect::<Result<_, _>>().map_err(Failure::failed)?;
    let credentials = Credentials {
        chain,
        pkcs8: Secret::new(key),
    };
    Ok(Some(Login {
        profile,
        credentials,
        trust,
    }))
}

fn directory(given: Option<&Path>) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty());
    given
        .map(Path::to_owned)
        .or_else(|| Some(Path::new(&home()?).join(".msh")))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let Some(content) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&content).map(Some).map_err(|error| {
        let path = path.display();
        Failure::failed(format_args!("`{path}` is damaged ({error}): log in again"))
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let mut content = Vec::new();
    let result = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut content),
    };
    result.map(|_| Some(content)).map_err(|error| {
        let path = path.display();
        Failure::failed(format_args!("cannot read `{path}`: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(directory: &Path) {
        let place = directory.join("example");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(directory.join(".current"), "example\n").unwrap();
        let profile = r#"{"cluster":"example","user":"alice","proxy":"hub:3080","gateway":"hub:3023",
            "gateway_names":[],"roles":[],"valid_before":5000}"#;
        std::fs::write(place.join("profile.json"), profile).unwrap();
        std::fs::write(place.join("tls.json"), r#"{"chain":["AQI=","Aw=="]}"#).unwrap();
        std::fs::write(place.join("tls.key"), [4, 5]).unwrap();
        let trust = TrustBundle::empty("example".parse().unwrap());
        std::fs::write(
            place.join("trust.json"),
            serde_json::to_vec(&trust).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn reads_what_msh_wrote_until_the_login_ends() {
        let directory = tempfile::tempdir().unwrap();
        let find = |millis| login(Some(directory.path()), None, UnixTime::from_millis(millis));
        assert!(find(0).unwrap().is_none());
        state(directory.path());
        let found = find(4999).unwrap().unwrap();
        assert_eq!(found.profile.proxy, "hub:3080");
        assert_eq!(found.credentials.chain, [vec![1, 2], vec![3]]);
        assert_eq!(find(5000).unwrap_err().code.number(), 3);
        std::fs::remove_file(directory.path().join("example/tls.key")).unwrap();
        assert_eq!(find(0).unwrap_err().code.number(), 3);
    }
}
