//! The principals that certificates carry: one per certificate, and never one that could be a Unix login by accident.
//!
//! A `:` cannot occur in a user name, login, node id or cluster name, so no two of these texts coincide.

use mezite_core::{ClusterName, Login, NodeId, UserName};

/// `mezite:<cluster>:<user>`, in identity certificates.
#[must_use]
pub fn identity(cluster: &ClusterName, user: &UserName) -> String {
    format!("mezite:{cluster}:{user}")
}

/// `mezite:<node-id>:<login>`, in session and break-glass certificates.
#[must_use]
pub fn session(node: &NodeId, login: &Login) -> String {
    format!("mezite:{node}:{login}")
}

/// `<node-id>.<cluster>`, in the host certificates of nodes.
#[must_use]
pub fn node_host(node: &NodeId, cluster: &ClusterName) -> String {
    format!("{node}.{cluster}")
}

/// What [`identity`] wrote, read back.
pub(crate) fn parse_identity(principal: &str) -> Option<(ClusterName, UserName)> {
    let (cluster, user) = principal.strip_prefix("mezite:")?.split_once(':')?;
    Some((cluster.parse().ok()?, user.parse().ok()?))
}

/// What [`session`] wrote, read back.
pub(crate) fn parse_session(principal: &str) -> Option<(NodeId, Login)> {
    let (node, login) = principal.strip_prefix("mezite:")?.split_once(':')?;
    Some((node.parse().ok()?, login.parse().ok()?))
}

/// Whether `name` may stand in a host certificate: a DNS name or an IP address, no pattern, no list.
///
/// `ssh` matches the principals of host certificates as patterns, so `*` and `?` would widen one.
pub(crate) fn is_host_name(name: &str) -> bool {
    let bounded = (1..=253).contains(&name.len());
    let dns = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    bounded && (dns || name.parse::<std::net::IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_04_host_names_are_no_patterns_and_no_lists() {
        for good in [
            "db1.example",
            "db1",
            "10.0.0.1",
            "::1",
            "xn--bcher-kva.example",
        ] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.example",
            "d?1",
            "a,b",
            "a b",
            "a\nb",
            "a\0",
            "../x",
            "-a",
            "a-",
            "a..b",
            "A",
            "bücher",
        ] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
        assert!(!is_host_name(&"a.".repeat(200)));
    }

    #[test]
    fn identity_principals_read_back() {
        let (cluster, user) = (
            "a.example".parse().unwrap(),
            "alice@example.com".parse().unwrap(),
        );
        assert_eq!(
            parse_identity(&identity(&cluster, &user)),
            Some((cluster, user))
        );
        for bad in [
            "alice",
            "mezite:alice",
            "mezite:a:b:c",
            "mezite:a:",
            "mezite::alice",
            "Mezite:a:alice",
        ] {
            assert_eq!(parse_identity(bad), None, "{bad}");
        }
    }
}
