//! The roles that every cluster has. They are documents like any others, written in YAML.

use crate::document::Role;

/// `admin`, `access`, `auditor`, `node` and `proxy`.
#[must_use]
pub fn builtin_roles() -> Vec<Role> {
    // A test parses each: what is written here cannot fail in the field.
    DOCUMENTS
        .iter()
        .flat_map(|text| Role::parse(text, "built-in").unwrap_or_default())
        .collect()
}

const DOCUMENTS: [&str; 5] = [
    include_str!("builtin/admin.yaml"),
    include_str!("builtin/access.yaml"),
    include_str!("builtin/auditor.yaml"),
    include_str!("builtin/node.yaml"),
    include_str!("builtin/proxy.yaml"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Resource, Verb};

    #[test]
    fn every_document_is_a_role() {
        let names: Vec<String> = builtin_roles()
            .iter()
            .map(|role| role.name().to_string())
            .collect();
        assert_eq!(names, ["admin", "access", "auditor", "node", "proxy"]);
    }

    #[test]
    fn admin_may_do_everything_administrative() {
        let roles = builtin_roles();
        let rules = &roles[0].spec.allow.rules;
        for resource in Resource::ALL {
            for verb in Verb::ALL {
                assert!(
                    rules.iter().any(|rule| rule.resources.contains(resource)
                        && rule.verbs.contains(verb)
                        && rule.only.is_none()),
                    "{verb} {resource}"
                );
            }
        }
        assert!(roles[0].spec.allow.logins.is_empty());
    }
}
