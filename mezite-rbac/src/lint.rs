//! What in roles is allowed to be written but is hardly meant.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mezite_core::{LabelSource, RoleName};
use serde::Serialize;

use crate::admin::{Only, Owner, Resource, Rule, Verb};
use crate::budget::Budget;
use crate::document::EVERY_NODE;
use crate::once::AtNode;
use crate::policy::{Compiled, KeySelector, LabelSet, LoginSet, PolicySet};
use crate::reach::Inventory;
use crate::selector::Selector;
use crate::subject::Subject;
use crate::template::Template;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lint {
    /// The role.
    pub role: RoleName,
    /// Where in it: `deny.combined[0].logins`; empty for the whole role.
    pub place: String,
    /// What kind of thing.
    pub concern: Concern,
    /// What it is and what to do, in words. Control characters are escaped.
    pub message: String,
}

/// `backend-dev: allow.logins: root_everywhere: …`
impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.role)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}: {}", self.concern.as_str(), self.message)
    }
}

/// The kinds of things to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Concern {
    /// The role believes labels that a node's own agent reports.
    AgentLabels,
    /// A deny that no label or login can meet, or that meets nothing in the inventory.
    DenyNeverMatches,
    /// Forwarding is on without a place to lead to, or places are listed and it is not on.
    ForwardsNowhere,
    /// A pattern that stands for every text; `"*"` says so openly.
    MatchesEverything,
    /// Says again what the same role says already.
    Redundant,
    /// `root` on every node.
    RootEverywhere,
    /// Can never grant anything, as the same role is built.
    Unreachable,
    /// Somebody holds a role that is not there: everything is denied.
    UnknownRole,
    /// A trait that nobody has.
    UnknownTrait,
    /// A template under deny without a value denies everything.
    UnresolvedDeny,
    /// Nobody holds the role.
    Unused,
}

impl Concern {
    /// The kind as a word for machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentLabels => "agent_labels",
            Self::DenyNeverMatches => "deny_never_matches",
            Self::ForwardsNowhere => "forwards_nowhere",
            Self::MatchesEverything => "matches_everything",
            Self::Redundant => "redundant",
            Self::RootEverywhere => "root_everywhere",
            Self::Unreachable => "unreachable",
            Self::UnknownRole => "unknown_role",
            Self::UnknownTrait => "unknown_trait",
            Self::UnresolvedDeny => "unresolved_deny",
            Self::Unused => "unused",
        }
    }

    /// Whether it is likely to be a mistake, not only worth a look.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::AgentLabels | Self::Redundant | Self::Unused)
    }
}

/// Looks through every role. With an inventory, also at what its users and nodes make of them.
#[must_use]
pub fn lint(policy: &PolicySet, inventory: Option<&Inventory>) -> Vec<Lint> {
    let mut lints = Vec::new();
    for role in policy.compiled() {
        let mut look = Look {
            role,
            lints: &mut lints,
        };
        look.at_patterns();
        look.at_allow();
        look.at_deny();
        look.at_rules();
        look.at_forwards();
        match inventory {
            Some(inventory) => look.at_inventory(inventory),
            None => look.at_templates_under_deny(),
        }
    }
    if let Some(inventory) = inventory {
        lints.extend(unknown_roles(policy, inventory));
    }
    lints.sort();
    lints
}

fn unknown_roles(policy: &PolicySet, inventory: &Inventory) -> Vec<Lint> {
    let held = inventory.users.iter().flat_map(|user| &user.roles);
    let unknown: BTreeSet<&RoleName> = held.filter(|name| policy.get(name).is_none()).collect();
    let holders = |role: &RoleName| {
        let users = inventory.users.iter();
        names(users.filter(|user| user.roles.contains(role)))
    };
    let lint = |role: &RoleName| Lint {
        role: role.clone(),
        place: String::new(),
        concern: Concern::UnknownRole,
        message: format!(
            "there is no such role, so {} may do nothing: add it or take it away",
            holders(role)
        ),
    };
    unknown.into_iter().map(lint).collect()
}

/// Looking at one role.
struct Look<'a> {
    role: &'a Compiled,
    lints: &'a mut Vec<Lint>,
}

impl Look<'_> {
    fn say(&mut self, place: impl Into<String>, concern: Concern, message: impl Into<String>) {
        self.lints.push(Lint {
            role: self.role.role.name().clone(),
            place: place.into(),
            concern,
            message: message.into(),
        });
    }

    fn at_patterns(&mut self) {
        for list in lists(self.role) {
            for selector in list.values.iter().filter(|selector| selector.is_pattern()) {
                if list
                    .probes
                    .iter()
                    .all(|probe| selector.surely_matches(probe))
                {
                    let text = quoted(selector);
                    let message =
                        format!("{text} matches everything: write \"*\" if that is meant");
                    self.say(&list.place, Concern::MatchesEverything, message);
                }
            }
            let open = list.values.iter().any(Selector::is_any);
            if open && list.values.len() > 1 {
                let message = "\"*\" makes the other values needless";
                self.say(&list.place, Concern::Redundant, message);
                continue;
            }
            let mut seen = BTreeSet::new();
            for selector in list.values.iter().filter(|one| !seen.insert(one.text())) {
                let message = format!("{} stands here twice", quoted(selector));
                self.say(&list.place, Concern::Redundant, message);
            }
        }
    }

    fn at_allow(&mut self) {
        let role = self.role;
        if role.role.spec.allow.sources().hold(LabelSource::Agent) {
            self.say(
                "allow.node_label_sources",
                Concern::AgentLabels,
                "whoever controls a node's agent decides whether this role reaches the node",
            );
        }
        let logins = &role.allow_logins;
        let Some(labels) = &role.allow_labels else {
            if !logins.values.is_empty() {
                let message = "grants no node without allow.node_labels: add them, \"*\": \"*\" for every node";
                self.say("allow.logins", Concern::Unreachable, message);
            }
            return;
        };
        if logins.values.is_empty() {
            let message = "grants no login without allow.logins";
            self.say("allow.node_labels", Concern::Unreachable, message);
        }
        self.at_denied_allow(labels, logins);
        for selector in logins
            .values
            .iter()
            .filter(|selector| !can_be_login(selector))
        {
            let message = format!("{} never gives a login", quoted(selector));
            self.say("allow.logins", Concern::Unreachable, message);
        }
        let root_is_granted = logins.values.iter().any(|one| one.surely_matches("root"));
        let root_is_denied = role
            .deny_logins
            .values
            .iter()
            .any(|one| one.surely_matches("root"));
        if is_everywhere(labels) && root_is_granted && !root_is_denied {
            let message = "root on every node: narrow node_labels, or deny the login root";
            self.say("allow", Concern::RootEverywhere, message);
        }
    }

    /// What the role allows and denies at once.
    fn at_denied_allow(&mut self, labels: &LabelSet, logins: &LoginSet) {
        let role = self.role;
        if role.deny_logins.values.iter().any(Selector::is_any) {
            let message = "the same role denies every login";
            self.say("allow", Concern::Unreachable, message);
        } else {
            let denied = |one: &&Selector| {
                let mut denying = role.deny_logins.values.iter();
                one.is_exact() && denying.any(|deny| deny.surely_matches(one.text()))
                    || role
                        .deny_logins
                        .values
                        .iter()
                        .any(|deny| deny.text() == one.text())
            };
            for selector in logins.values.iter().filter(denied) {
                let message = format!("the same role denies {}", quoted(selector));
                self.say("allow.logins", Concern::Unreachable, message);
            }
        }
        if role
            .deny_labels
            .as_ref()
            .is_some_and(|deny| covers(deny, labels))
        {
            let message = "the same role denies every node that this selects";
            self.say("allow.node_labels", Concern::Unreachable, message);
        }
    }

    fn at_deny(&mut self) {
        let role = self.role;
        let combined = role.combined.iter().enumerate();
        let login_sets = std::iter::once(("deny.logins".to_owned(), &role.deny_logins));
        let all = login_sets.chain(
            combined
                .clone()
                .map(|(index, (_, logins))| (format!("deny.combined[{index}].logins"), logins)),
        );
        for (place, logins) in all {
            for selector in logins
                .values
                .iter()
                .filter(|selector| !can_be_login(selector))
            {
                let message = format!("{} is never a login", quoted(selector));
                self.say(place.clone(), Concern::DenyNeverMatches, message);
            }
        }
        let label_places =
            std::iter::once(("deny.node_labels".to_owned(), role.deny_labels.as_ref()));
        let label_sets = label_places.chain(combined.clone().map(|(index, (labels, _))| {
            (format!("deny.combined[{index}].node_labels"), Some(labels))
        }));
        for (place, labels) in label_sets {
            let keys = labels.map_or(&[][..], LabelSet::keys);
            for key in keys.iter().filter(|key| !can_be_label(key)) {
                self.say(
                    format!("{place}.{}", key.key),
                    Concern::DenyNeverMatches,
                    "no label has a value so long",
                );
            }
        }
        for (index, (labels, logins)) in combined {
            let by_labels = role
                .deny_labels
                .as_ref()
                .is_some_and(|deny| covers(deny, labels));
            let by_logins = logins
                .values
                .iter()
                .all(|one| is_among(one, &role.deny_logins.values));
            if by_labels || by_logins {
                let other = if by_labels {
                    "deny.node_labels"
                } else {
                    "deny.logins"
                };
                let message = format!("{other} denies all of this already");
                self.say(
                    format!("deny.combined[{index}]"),
                    Concern::Redundant,
                    message,
                );
            }
        }
    }

    fn at_rules(&mut self) {
        let role = self.role;
        for (index, rule) in role.allow_rules().iter().enumerate() {
            let place = format!("allow.rules[{index}]");
            let earlier: Vec<&Rule> = role.allow_rules().iter().take(index).collect();
            let denied = |(resource, verb, owner)| {
                let mut rules = role.deny_rules().iter();
                rules.any(|deny| deny.refuses(resource, verb, owner))
            };
            let said = |(resource, verb, owner)| {
                let mut rules = earlier.iter();
                rules.any(|other| other.grants(resource, verb, owner))
            };
            if granted(rule).all(denied) {
                let message = "deny.rules of the same role deny all of this";
                self.say(place, Concern::Unreachable, message);
            } else if granted(rule).all(said) {
                let message = "earlier rules grant all of this already";
                self.say(place, Concern::Redundant, message);
            }
        }
    }

    fn at_forwards(&mut self) {
        let options = self.role.options();
        let allowed = options.port_forwarding == Some(true);
        let lists = [
            (
                "options.forward_destinations",
                &options.forward_destinations,
            ),
            ("options.forward_listen", &options.forward_listen),
        ];
        let listed: Vec<&str> = lists
            .iter()
            .filter_map(|(place, list)| list.as_ref().map(|_| *place))
            .collect();
        if allowed && listed.is_empty() {
            let message = "permits no forward: list places in options.forward_destinations or options.forward_listen";
            self.say("options.port_forwarding", Concern::ForwardsNowhere, message);
        }
        for place in listed.into_iter().filter(|_| !allowed) {
            let message =
                "permits no forward: add options.port_forwarding: true, or leave the list out";
            self.say(place, Concern::ForwardsNowhere, message);
        }
    }

    /// Without an inventory nobody knows who has which trait: every template under deny is worth a look.
    fn at_templates_under_deny(&mut self) {
        for (place, template) in templates(self.role) {
            let name = template.trait_name();
            if let Some(name) = name.filter(|_| place.starts_with("deny")) {
                let message = format!(
                    "denies everything to users without the trait `{}`: give it to every holder",
                    name.escape_debug()
                );
                self.say(place, Concern::UnresolvedDeny, message);
            }
        }
    }

    fn at_inventory(&mut self, inventory: &Inventory) {
        let name = self.role.role.name();
        let users = inventory.users.iter();
        let holders: Vec<&Subject> = users.filter(|user| user.roles.contains(name)).collect();
        if holders.is_empty() {
            self.say("", Concern::Unused, "nobody holds this role");
        }
        for (place, template) in templates(self.role) {
            let budget = Budget::default();
            let lacking = holders
                .iter()
                .copied()
                .filter(|user| !template.resolves(user, &budget));
            let lacking: Vec<&Subject> = lacking.collect();
            if place.starts_with("deny") && !lacking.is_empty() {
                let message = format!(
                    "the template gives nothing for {}: everything is denied to them here",
                    names(lacking.iter().copied())
                );
                self.say(place.clone(), Concern::UnresolvedDeny, message);
            }
            let unknown = template.trait_name().filter(|_| {
                let mut users = inventory.users.iter();
                !users.any(|user| template.has_source(user))
            });
            if let Some(unknown) = unknown {
                let unknown = unknown.escape_debug();
                let message = format!("no user has the trait `{unknown}`: check its spelling");
                self.say(place, Concern::UnknownTrait, message);
            }
        }
        self.at_idle_denies(&holders, inventory);
    }

    /// Denied labels that no node has.
    fn at_idle_denies(&mut self, holders: &[&Subject], inventory: &Inventory) {
        let role = self.role;
        if holders.is_empty() || inventory.nodes.is_empty() {
            return;
        }
        let combined = role.combined.iter().enumerate();
        let combined = combined
            .map(|(index, (labels, _))| (format!("deny.combined[{index}].node_labels"), labels));
        let sets = role
            .deny_labels
            .iter()
            .map(|labels| ("deny.node_labels".to_owned(), labels));
        for (place, labels) in sets.chain(combined) {
            let depends = labels.selectors().any(|one| one.template().is_some());
            // Without templates one holder stands for all.
            let asked = if depends {
                holders
            } else {
                holders.get(..1).unwrap_or_default()
            };
            let matches = inventory.nodes.iter().any(|node| {
                let mut asked = asked.iter();
                asked.any(|user| {
                    let budget = Budget::default();
                    labels.refuses(&AtNode::new(user, &node.labels, &budget))
                })
            });
            if !matches {
                let message = "matches none of the present nodes: check keys and values";
                self.say(place, Concern::DenyNeverMatches, message);
            }
        }
    }
}

/// Texts of many kinds: what matches all of them is taken to match everything.
const LABEL_PROBES: &[&str] = &[
    "a",
    "Z",
    "0",
    "-",
    "~",
    " ",
    "\u{e4}",
    "\u{1f512}",
    "prod",
    "a b",
    "x=y;z",
    "10.0.0.1",
    "0123456789abcdef-/_.:",
];
/// The same within what a login can be.
const LOGIN_PROBES: &[&str] = &[
    "a",
    "Z",
    "_",
    "root",
    "_apt",
    "www-data",
    "a.b",
    "A9",
    "x-",
    "abcdefghijklmnopqrstuvwxyz_01234",
];

/// Every template of a role and where it stands.
fn templates(role: &Compiled) -> Vec<(String, &Template)> {
    let mut all = Vec::new();
    for list in lists(role) {
        let templates = list.values.iter().filter_map(Selector::template);
        all.extend(templates.map(|template| (list.place.clone(), template)));
    }
    all
}

/// A list of values, where it stands, and what could meet it.
struct List<'a> {
    place: String,
    values: &'a [Selector],
    probes: &'static [&'static str],
}

/// Every list of values of a role.
fn lists(role: &Compiled) -> Vec<List<'_>> {
    let mut lists = Vec::new();
    if let Some(set) = &role.allow_labels {
        lists.extend(label_lists("allow.node_labels", set));
    }
    lists.push(login_list("allow.logins", &role.allow_logins));
    if let Some(set) = &role.deny_labels {
        lists.extend(label_lists("deny.node_labels", set));
    }
    lists.push(login_list("deny.logins", &role.deny_logins));
    for (index, (set, logins)) in role.combined.iter().enumerate() {
        lists.extend(label_lists(
            &format!("deny.combined[{index}].node_labels"),
            set,
        ));
        lists.push(login_list(
            &format!("deny.combined[{index}].logins"),
            logins,
        ));
    }
    lists
}

fn label_lists<'a>(place: &str, set: &'a LabelSet) -> Vec<List<'a>> {
    let list = |key: &'a Arc<KeySelector>| List {
        place: format!("{place}.{}", key.key),
        values: &key.values,
        probes: LABEL_PROBES,
    };
    set.keys().iter().map(list).collect()
}

fn login_list<'a>(place: &str, logins: &'a LoginSet) -> List<'a> {
    List {
        place: place.to_owned(),
        values: &logins.values,
        probes: LOGIN_PROBES,
    }
}

/// Everything that the rule grants.
fn granted(rule: &Rule) -> impl Iterator<Item = (Resource, Verb, Owner)> {
    let owners: &'static [Owner] = match rule.only {
        None => &Owner::ALL,
        Some(Only::Own) => &[Owner::Own],
    };
    rule.resources.iter().flat_map(move |resource| {
        rule.verbs
            .iter()
            .flat_map(move |verb| owners.iter().map(move |owner| (*resource, *verb, *owner)))
    })
}

/// Whether `wide` surely denies every node that `narrow` selects: each of its keys is there, with no value beyond its own.
fn covers(wide: &LabelSet, narrow: &LabelSet) -> bool {
    wide.keys().iter().all(|key| {
        key.key == EVERY_NODE
            || narrow.keys().iter().any(|other| {
                other.key == key.key && other.values.iter().all(|one| is_among(one, &key.values))
            })
    })
}

/// Whether everything that `one` matches is matched by one of `list`, as far as can be seen from the texts.
fn is_among(one: &Selector, list: &[Selector]) -> bool {
    list.iter().any(|other| {
        other.is_any()
            || other.text() == one.text()
            || one.is_exact() && other.surely_matches(one.text())
    })
}

/// Whether every node is selected.
fn is_everywhere(labels: &LabelSet) -> bool {
    labels.keys().iter().all(|key| key.key == EVERY_NODE)
}

/// Whether a login can come out: not with plain text around a template that no login can hold.
fn can_be_login(selector: &Selector) -> bool {
    let Some(template) = selector.template() else {
        return true;
    };
    let (before, after) = template.around();
    let with = |middle: &str| format!("{before}{middle}{after}").parse::<mezite_core::Login>();
    with("a").is_ok() || with("").is_ok()
}

/// Whether a label can have one of these values.
fn can_be_label(key: &KeySelector) -> bool {
    key.values
        .iter()
        .any(|value| !value.is_exact() || value.text().len() <= 255)
}

/// A value as messages show it.
fn quoted(selector: &Selector) -> String {
    let cut: String = selector.text().chars().take(80).collect();
    format!("`{}`", cut.escape_debug())
}

/// The first few names of users, and how many more there are.
fn names<'a>(users: impl Iterator<Item = &'a Subject>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<&str> = users.map(|user| user.user.as_str()).collect();
    let first: Vec<&str> = all.iter().take(SHOWN).copied().collect();
    match all.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
