//! The user name of an outer connection: who, or `login+node`.

use std::str::FromStr;

use mezite_core::{Login, NodeName, UserName};

/// What the user name of an outer connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `user`: jumps will follow.
    Jump(UserName),
    /// `login+node`: this connection is the session.
    Direct {
        /// As whom.
        login: Login,
        /// Where.
        node: NodeName,
    },
}

impl FromStr for Way {
    type Err = String;

    /// A user name may hold a `+` too, but what follows it there would have to be a node's name and what stands
    /// before it a login; then the session is meant.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((login, node)) = text.rsplit_once('+')
            && let (Ok(login), Ok(node)) = (login.parse(), node.parse())
        {
            return Ok(Self::Direct { login, node });
        }
        text.parse()
            .map(Self::Jump)
            .map_err(|error: mezite_core::name::NameError| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_users_from_login_and_node() {
        assert_eq!("alice".parse(), Ok(Way::Jump("alice".parse().unwrap())));
        assert_eq!("alice@x".parse(), Ok(Way::Jump("alice@x".parse().unwrap())));
        let direct = Way::Direct {
            login: "root".parse().unwrap(),
            node: "db1".parse().unwrap(),
        };
        assert_eq!("root+db1".parse(), Ok(direct));
        assert!(
            "root+db1.example"
                .parse::<Way>()
                .is_ok_and(|way| matches!(way, Way::Jump(_)))
        );
        assert!("Root db1".parse::<Way>().is_err());
    }
}
