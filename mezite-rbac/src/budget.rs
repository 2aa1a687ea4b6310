//! The bounds of documents and decisions. Each one that is exceeded is an error or a denial of its own.

use std::cell::Cell;

/// Most bytes of one text given to [`Role::parse`](crate::Role::parse).
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Most roles in one [`PolicySet`](crate::PolicySet).
pub const MAX_ROLES: usize = 1000;
/// Most patterns (`^…$` and `regexp.replace`) in one [`PolicySet`](crate::PolicySet).
pub const MAX_PATTERNS: usize = 2000;
/// Most label keys in one `node_labels`.
pub const MAX_LABEL_KEYS: usize = 64;
/// Most values in one list of values, logins or networks.
pub const MAX_VALUES: usize = 256;
/// Most entries in `forward_destinations` and in `forward_listen`.
pub const MAX_FORWARDS: usize = 32;
/// Most entries in `rules` and in `deny.combined`.
pub const MAX_RULES: usize = 64;
/// Most bytes of one value in a role document.
pub const MAX_VALUE_BYTES: usize = 1024;
/// Most bytes that one compiled pattern may take.
pub const MAX_PATTERN_PROGRAM_BYTES: usize = 128 * 1024;
/// Most bytes that a template may give for one trait value.
pub const MAX_EXPANSION_BYTES: usize = 1024;
/// Most traits in one [`Traits`](crate::Traits).
pub const MAX_TRAITS: usize = 64;
/// Most values of one trait.
pub const MAX_TRAIT_VALUES: usize = 256;
/// Most bytes of one trait value.
pub const MAX_TRAIT_VALUE_BYTES: usize = 1024;
/// Most roles that one subject may hold.
pub const MAX_SUBJECT_ROLES: usize = 64;
/// Most steps of one decision: one for each selector tried and each value compared, more for patterns.
pub const MAX_STEPS: u32 = 1_000_000;

/// What one decision may still spend. Once empty it stays empty, and the decision is a denial.
#[derive(Debug)]
pub(crate) struct Budget(Cell<u32>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MAX_STEPS))
    }
}

impl Budget {
    /// Takes `steps`; false when there are not so many.
    pub(crate) fn spend(&self, steps: u32) -> bool {
        let left = self.0.get().saturating_sub(steps);
        self.0.set(left);
        left > 0
    }

    /// Takes the steps of running a pattern over `text`.
    pub(crate) fn spend_pattern(&self, text: &str) -> bool {
        self.spend(8_u32.saturating_add(u32::try_from(text.len()).unwrap_or(u32::MAX)))
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.0.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_budget_stays_empty() {
        let budget = Budget::default();
        assert!(budget.spend(MAX_STEPS - 1) && !budget.is_exhausted());
        assert!(!budget.spend_pattern("a long text"));
        assert!(budget.is_exhausted() && !budget.spend(0));
    }
}
