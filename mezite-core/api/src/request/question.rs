//! Questions to the rules.

use std::net::IpAddr;

use mezite_core::{Login, NodeName, RoleName, UserName};

use super::{ParseError, text};
use crate::v1;

/// May somebody log in somewhere?
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Can {
    /// Who.
    pub user: UserName,
    /// As which account.
    pub login: Login,
    /// Where.
    pub node: NodeName,
    /// What for, as a word; `None`: a shell.
    pub action: Option<String>,
    /// From where; `None`: from wherever the roles admit.
    pub client_ip: Option<IpAddr>,
}

impl TryFrom<v1::CanRequest> for Can {
    type Error = ParseError;

    fn try_from(message: v1::CanRequest) -> Result<Self, ParseError> {
        Ok(Self {
            user: message.user.parse()?,
            login: message.login.parse()?,
            node: message.node.parse()?,
            action: text(message.action),
            client_ip: text(message.client_ip).as_deref().map(ip).transpose()?,
        })
    }
}

/// Who may log in where? `None` asks about all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WhoCan {
    /// Who.
    pub user: Option<UserName>,
    /// Where.
    pub node: Option<NodeName>,
    /// As which account.
    pub login: Option<Login>,
}

impl TryFrom<v1::WhoCanRequest> for WhoCan {
    type Error = ParseError;

    fn try_from(message: v1::WhoCanRequest) -> Result<Self, ParseError> {
        Ok(Self {
            user: text(message.user).map(|name| name.parse()).transpose()?,
            node: text(message.node).map(|name| name.parse()).transpose()?,
            login: text(message.login).map(|name| name.parse()).transpose()?,
        })
    }
}

/// What would change with these roles?
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiffRoles {
    /// Name and text of each file.
    pub files: Vec<(String, String)>,
    /// Roles that go.
    pub removed: Vec<RoleName>,
}

impl TryFrom<v1::DiffRolesRequest> for DiffRoles {
    type Error = ParseError;

    fn try_from(message: v1::DiffRolesRequest) -> Result<Self, ParseError> {
        let files = message.files.into_iter().map(|file| (file.name, file.text));
        let removed = message.removed.iter().map(|name| name.parse());
        Ok(Self {
            files: files.collect(),
            removed: removed.collect::<Result<_, _>>()?,
        })
    }
}

fn ip(text: &str) -> Result<IpAddr, ParseError> {
    text.parse()
        .map_err(|_| ParseError::Ip(text.escape_default().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_question_is_checked() {
        let good = v1::CanRequest {
            user: "alice".into(),
            login: "deploy".into(),
            node: "web".into(),
            ..v1::CanRequest::default()
        };
        let parsed = Can::try_from(good.clone()).unwrap();
        assert_eq!((parsed.action, parsed.client_ip), (None, None));
        for bad in [
            v1::CanRequest {
                user: "Alice".into(),
                ..good.clone()
            },
            v1::CanRequest {
                user: String::new(),
                ..good.clone()
            },
            v1::CanRequest {
                login: "a b".into(),
                ..good.clone()
            },
            v1::CanRequest {
                node: "*".into(),
                ..good.clone()
            },
            v1::CanRequest {
                client_ip: "10.0.0.0/8".into(),
                ..good
            },
        ] {
            assert!(Can::try_from(bad.clone()).is_err(), "{bad:?}");
        }
        let all = WhoCan::try_from(v1::WhoCanRequest::default()).unwrap();
        assert_eq!((all.user, all.node, all.login), (None, None, None));
        let odd = v1::WhoCanRequest {
            node: "web*".into(),
            ..v1::WhoCanRequest::default()
        };
        assert!(WhoCan::try_from(odd).is_err());
        let odd = v1::DiffRolesRequest {
            removed: vec!["a role".into()],
            ..v1::DiffRolesRequest::default()
        };
        assert!(DiffRoles::try_from(odd).is_err());
    }
}
