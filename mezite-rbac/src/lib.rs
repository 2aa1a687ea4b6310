#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod budget;

mod admin;
mod builtin;
mod decide;
mod document;
mod explain;
mod options;
mod policy;
mod selector;
mod subject;
mod template;

pub use admin::{Resource, UnknownWord, Verb, allows};
pub use builtin::builtin_roles;
pub use decide::{
    Decision, Denial, Permit, Reason, Request, authorize, identity_ttl, logins, sees,
};
pub use document::{Role, RoleError};
pub use explain::{Explanation, Finding, Outcome, RoleFindings, RuleFindings, explain};
pub use options::{Network, NetworkError, Obligations, OnFailure, RecordObligation};
pub use policy::{PolicyError, PolicySet};
pub use selector::SelectorError;
pub use subject::{Node, NodeLabels, Subject, TraitError, Traits};
pub use template::TemplateError;
