//! What stock OpenSSH is told: lines for `ssh_config`, and for `known_hosts`. No name from a hub and no path of this
//! machine can add a line, an option or a command to them.

use std::path::{Path, PathBuf};

use mezite_ca::TrustBundle;
use mezite_ca::openssh::{self, OpensshError};
use mezite_core::{ClusterName, NodeName};
use thiserror::Error;

use crate::home::{Place, Profile};

/// Why no lines were written.
#[derive(Debug, Error)]
pub(crate) enum SnippetError {
    #[error(
        "`{0}` cannot be written into ssh_config: use a path without quotes, backslashes, `$` and control characters (MSH_HOME chooses the state directory)"
    )]
    Path(String),
    #[error("the hub's name `{0}` cannot be written into ssh_config")]
    Name(String),
    #[error(transparent)]
    Openssh(#[from] OpensshError),
}

/// Where the lines point to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths<'a> {
    /// This program.
    pub(crate) program: &'a Path,
    /// The state directory.
    pub(crate) home: &'a Path,
    /// The cluster's part of it.
    pub(crate) place: &'a Place,
}

/// For whom the lines are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    /// The user's own `ssh_config`, where other hosts are too. These nodes may be called by their bare names.
    Shared(&'a [NodeName]),
    /// `msh ssh` and `msh scp`, where every bare name is a node.
    Private,
}

/// The `known_hosts` lines of a cluster: one authority for all its nodes and for the hub's own names.
pub(crate) fn known_hosts(profile: &Profile, trust: &TrustBundle) -> Result<String, SnippetError> {
    let mut patterns = vec![format!("*.{}", profile.cluster)];
    let port = port(&profile.gateway).filter(|port| *port != "22");
    for name in &profile.gateway_names {
        patterns.push(name.clone());
        patterns.extend(port.map(|port| format!("[{name}]:{port}")));
    }
    Ok(openssh::known_hosts_line(
        &profile.cluster,
        &patterns,
        &trust.gateway,
    )?)
}

/// The `ssh_config` lines of a login.
pub(crate) fn ssh_config(
    profile: &Profile,
    paths: Paths<'_>,
    scope: Scope<'_>,
) -> Result<String, SnippetError> {
    let Profile {
        cluster,
        user,
        valid_before,
        ..
    } = profile;
    let identity = identity(paths)?;
    let proxy = proxy_command(cluster, paths)?;
    let mut text = format!("# Mezite cluster {cluster}, as {user} until {valid_before}\n");
    let hubs = hub_names(profile)?;
    if !hubs.is_empty() {
        text.push_str(&format!("\nHost {}\n    User {user}\n", hubs.join(" ")));
        if let Some(port) = port(&profile.gateway) {
            text.push_str(&format!("    Port {port}\n"));
        }
        text.push_str(&identity);
    }
    let excluded: String = hubs.iter().map(|name| format!(" !{name}")).collect();
    text.push_str(&format!("\nHost *.{cluster}{excluded}\n{identity}{proxy}"));
    let aliases = match scope {
        Scope::Shared(nodes) => nodes.iter().map(|node| format!(" {node}")).collect(),
        Scope::Private => format!(" * !*.*{excluded}"),
    };
    if !aliases.is_empty() {
        text.push_str(&format!(
            "\nHost{aliases}\n    HostName %h.{cluster}\n{identity}{proxy}"
        ));
    }
    Ok(text)
}

fn identity(paths: Paths<'_>) -> Result<String, SnippetError> {
    let Paths { place, .. } = paths;
    Ok(format!(
        "    IdentityFile {}\n    CertificateFile {}\n    IdentitiesOnly yes\n    UserKnownHostsFile {}\n    \
         StrictHostKeyChecking yes\n",
        value(&place.key())?,
        value(&place.certificate())?,
        value(&place.known_hosts())?,
    ))
}

/// The rest of the line goes to a shell: everything in it is quoted.
fn proxy_command(cluster: &ClusterName, paths: Paths<'_>) -> Result<String, SnippetError> {
    let program = shell_word(paths.program)?;
    let home = shell_word(paths.home)?;
    Ok(format!(
        "    ProxyCommand {program} --home {home} --cluster {cluster} proxy '%h:%p'\n"
    ))
}

/// The hub's names, each once, in the form `Host` patterns have.
fn hub_names(profile: &Profile) -> Result<Vec<&str>, SnippetError> {
    let mut names: Vec<&str> = Vec::new();
    for name in &profile.gateway_names {
        let plain = name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:".contains(&byte)
        });
        if name.is_empty() || !plain || name.starts_with('-') {
            return Err(SnippetError::Name(name.escape_default().to_string()));
        }
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn port(address: &str) -> Option<&str> {
    let (_, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok().map(|_| port)
}

/// A path as a value: `%` is doubled because ssh expands tokens, quotes keep spaces together.
fn value(path: &Path) -> Result<String, SnippetError> {
    let text = checked(path)?;
    Ok(if is_plain(&text) {
        text
    } else {
        format!("\"{text}\"")
    })
}

fn shell_word(path: &Path) -> Result<String, SnippetError> {
    let text = checked(path)?;
    Ok(if is_plain(&text) {
        text
    } else {
        format!("'{text}'")
    })
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@:,%".contains(&byte))
}

fn checked(path: &Path) -> Result<String, SnippetError> {
    let refused = || SnippetError::Path(path.to_string_lossy().escape_default().to_string());
    let text = path.to_str().ok_or_else(refused)?;
    let harmful = |c: char| c.is_control() || "\"'\\$`".contains(c);
    if !path.is_absolute() || text.contains(harmful) {
        return Err(refused());
    }
    Ok(text.replace('%', "%%"))
}

/// This program, as a configuration file can name it.
pub(crate) fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::home::Home;
    use crate::home::tests::profile;

    fn written(home: &str, profile: &Profile, scope: Scope<'_>) -> Result<String, SnippetError> {
        let Ok(home) = Home::find(Some(Path::new(home))) else {
            return Err(SnippetError::Path(home.to_owned()));
        };
        let place = home.place(&profile.cluster);
        let paths = Paths {
            program: Path::new("/usr/bin/msh"),
            home: home.path(),
            place: &place,
        };
        ssh_config(profile, paths, scope)
    }

    /// What the real `ssh` understands for `host`, without connecting.
    fn understood(config: &str, host: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        std::fs::write(&file, config).unwrap();
        let mut ssh = Command::new("ssh");
        let output = ssh
            .arg("-G")
            .arg("-F")
            .arg(&file)
            .arg(host)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}\n{config}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn nodes_go_through_the_proxy_and_the_hub_does_not() {
        let nodes = ["web".parse().unwrap()];
        let config = written("/home/a/.msh", &profile(), Scope::Shared(&nodes)).unwrap();
        let command =
            "proxycommand /usr/bin/msh --home /home/a/.msh --cluster example proxy '%h:%p'\n";
        let node = understood(&config, "db1.example");
        for line in [
            command,
            "identityfile /home/a/.msh/example/key\n",
            "certificatefile /home/a/.msh/example/key-cert.pub\n",
            "identitiesonly yes\n",
            "userknownhostsfile /home/a/.msh/example/known_hosts\n",
            "stricthostkeychecking true\n",
        ] {
            assert!(node.contains(line), "{line}{node}");
        }
        let alias = understood(&config, "web");
        assert!(alias.contains("hostname web.example\n"), "{alias}");
        assert!(alias.contains(command), "{alias}");
        let hub = understood(&config, "hub.example");
        assert!(!hub.contains("proxycommand"), "{hub}");
        assert!(
            hub.contains("port 3023\n") && hub.contains("user alice\n"),
            "{hub}"
        );
        assert!(
            !understood(&config, "github").contains("mezite"),
            "{config}"
        );
        assert!(
            !understood(&config, "example.org").contains("msh"),
            "{config}"
        );
    }

    #[test]
    fn every_bare_name_is_a_node_for_msh_itself() {
        let config = written("/home/a/.msh", &profile(), Scope::Private).unwrap();
        assert!(understood(&config, "web").contains("hostname web.example\n"));
        assert!(understood(&config, "web.example").contains("hostname web.example\n"));
        assert!(!understood(&config, "example.org").contains("msh"));
    }

    #[test]
    fn attack_82_paths_stay_one_word() {
        let config = written("/home/a b/100%/.msh", &profile(), Scope::Private).unwrap();
        let node = understood(&config, "web.example");
        let known_hosts = "userknownhostsfile /home/a b/100%/.msh/example/known_hosts\n";
        assert!(node.contains(known_hosts), "{node}");
        assert!(
            node.contains("--home '/home/a b/100%%/.msh' --cluster"),
            "{node}"
        );
        for bad in [
            "/a\nProxyCommand touch /tmp/x",
            "/a\"b",
            "/a'; touch x; '",
            "/a$(touch x)",
            "/a`id`",
            "/a\\b",
        ] {
            let refused = written(bad, &profile(), Scope::Private);
            assert!(matches!(refused, Err(SnippetError::Path(_))), "{bad:?}");
        }
    }

    /// A submodule's address or a line in a script may name the host (CVE-2023-51385).
    #[test]
    fn attack_82_a_host_name_runs_no_command() {
        let directory = tempfile::tempdir().unwrap();
        let (file, touched) = (directory.path().join("config"), directory.path().join("x"));
        std::fs::write(
            &file,
            written("/home/a/.msh", &profile(), Scope::Private).unwrap(),
        )
        .unwrap();
        let touch = format!("touch {}", touched.display());
        for host in [
            format!("a';{touch};'.example"),
            format!("$({touch}).example"),
            format!("`{touch}`.example"),
            format!("a;{touch};.example"),
            format!("a\n{touch}\n.example"),
            format!("a';{touch};'"),
            format!("%h';{touch};'.example"),
        ] {
            let mut ssh = Command::new("ssh");
            ssh.arg("-F").arg(&file).arg("--").arg(&host).arg("true");
            let output = ssh.output().unwrap();
            assert!(!output.status.success(), "{host:?}");
            assert!(!touched.exists(), "{host:?} ran a command");
        }
    }

    #[test]
    fn attack_82_names_of_a_hub_cannot_add_options() {
        for bad in [
            "",
            "a b",
            "*",
            "!x",
            "a\n    ProxyCommand touch x",
            "-oProxyCommand=x",
            "a,b",
            "a\"b",
            "a%h",
            "a#b",
        ] {
            let mut hostile = profile();
            hostile.gateway_names.push(bad.to_owned());
            let refused = written("/home/a/.msh", &hostile, Scope::Private);
            assert!(matches!(refused, Err(SnippetError::Name(_))), "{bad:?}");
            let mut trust = TrustBundle::empty(hostile.cluster.clone());
            trust.gateway.push(openssh::public_key([7; 32]));
            assert!(known_hosts(&hostile, &trust).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_authority_line_names_the_nodes_and_the_hub() {
        let mut trust = TrustBundle::empty("example".parse().unwrap());
        trust.gateway.push(openssh::public_key([7; 32]));
        let line = known_hosts(&profile(), &trust).unwrap();
        let head = "@cert-authority *.example,hub.example,[hub.example]:3023,10.0.0.1,[10.0.0.1]:3023 ssh-ed25519 ";
        assert!(line.starts_with(head), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
