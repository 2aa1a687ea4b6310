//! `hardening:` who the hub becomes, and what it does without.

use mezite_core::Login;
use mezite_hardening::{Account, Measure};
use mezite_node::account;
use serde::Deserialize;

/// All of `hardening:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hardening {
    /// The account that a hub started as root becomes, by name or number.
    user: Option<String>,
    /// Its only group, by name or number; by default the account's own.
    group: Option<String>,
    /// Do not start on a kernel that lacks a measure.
    pub(crate) strict: bool,
    /// Measures that are left out.
    pub(crate) dangerously_off: Vec<Measure>,
}

impl Hardening {
    /// Whom to become.
    pub(crate) fn account(&self) -> Result<Option<Account>, String> {
        let Some(user) = &self.user else {
            return match &self.group {
                None => Ok(None),
                Some(_) => Err("hardening.group means nothing without hardening.user".to_owned()),
            };
        };
        let mut account = account(user)?;
        if let Some(group) = &self.group {
            account.gid = self::group(group)?;
        }
        Ok(Some(account))
    }
}

/// A number needs no line in the password file, which containers do not have.
fn account(user: &str) -> Result<Account, String> {
    if let Ok(uid) = user.parse() {
        let name = user.to_owned();
        return Ok(Account {
            name,
            uid,
            gid: uid,
        });
    }
    let wrong = |why: String| format!("hardening.user: {why}");
    let login: Login = user.parse().map_err(|error| wrong(format!("{error}")))?;
    let found = account::Account::lookup(&login).map_err(|error| wrong(error.to_string()))?;
    Ok(Account {
        name: user.to_owned(),
        uid: found.uid(),
        gid: found.gid(),
    })
}

fn group(name: &str) -> Result<u32, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let text = std::fs::read_to_string("/etc/group");
    let text = text.map_err(|error| format!("hardening.group: cannot read /etc/group: {error}"))?;
    find_group(&text, name).ok_or_else(|| {
        let name = name.escape_default();
        format!("hardening.group: there is no group `{name}` in /etc/group")
    })
}

/// `name:password:gid:members`.
fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account_of(text: &str) -> Result<Option<Account>, String> {
        let hardening: Hardening =
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        hardening.account()
    }

    #[test]
    fn accounts_go_by_name_or_number() {
        assert_eq!(account_of("strict: true").unwrap(), None);
        let nobody = account_of("user: \"65534\"").unwrap().unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65534, 65534));
        let root = account_of("{ user: root, group: \"7\" }").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.name.as_str()), (0, 7, "root"));
        for (text, word) in [
            ("user: no-such-account", "no-such-account"),
            ("user: \"a b\"", "hardening.user"),
            ("{ user: root, group: no-such-group }", "no-such-group"),
            ("group: root", "without hardening.user"),
        ] {
            let error = account_of(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn groups_are_found_by_whole_names() {
        let text = "root:x:0:\nadm:x:4:a,b\nbad:x:y:\n";
        assert_eq!(find_group(text, "adm"), Some(4));
        for name in ["ad", "bad", "a", ""] {
            assert_eq!(find_group(text, name), None, "{name}");
        }
    }

    #[test]
    fn an_unknown_measure_is_refused() {
        let wrong = serde_saphyr::from_str::<Hardening>("dangerously_off: [landlok]");
        assert!(wrong.unwrap_err().to_string().contains("landlok"));
    }
}
