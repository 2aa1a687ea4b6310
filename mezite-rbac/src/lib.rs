#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod budget;

mod admin;
mod builtin;
mod cases;
mod decide;
mod diff;
mod document;
mod explain;
mod forward;
mod lint;
mod once;
mod options;
mod policy;
mod reach;
mod schema;
mod selector;
mod subject;
mod survey;
mod template;
mod word;

pub use admin::{Owner, Resource, Verb, allows};
pub use builtin::builtin_roles;
pub use cases::{Cases, CasesError, Difference, Failure, Report};
pub use decide::{
    Decision, Denial, Permit, Reason, Request, authorize, can, conditions, identity_ttl, logins,
    sees,
};
pub use diff::{Call, ConditionDiff, Diff, TargetDiff, UserDiff, diff, differences};
pub use document::{Role, RoleError};
pub use explain::{Explanation, Finding, Outcome, RoleFindings, RuleFindings, explain};
pub use forward::{Destination, DestinationError, ForwardRefusal, Names, Place};
pub use lint::{Concern, Lint, lint};
pub use options::{Action, Network, NetworkError, Obligations, OnFailure, RecordObligation};
pub use policy::{PolicyError, PolicySet};
pub use reach::{Access, Inventory, Reach, reach, who_can};
pub use schema::role_schema;
pub use selector::SelectorError;
pub use subject::{Node, NodeLabels, Subject, TraitError, Traits};
pub use template::TemplateError;
pub use word::UnknownWord;
