//! Which parts of the log can hold the events of a time. Times rise with the sequence only nearly: clocks of hubs differ,
//! and a node may report what happened long ago. A store keeps the earliest and the latest time of each block of
//! sequences, and a question that names a time reads blocks which can hold an answer, and no others.

use super::{LogQuery, Order};

/// So many sequences are one block: sequence / `BLOCK` is its number.
pub const BLOCK: u64 = 4096;

/// Consecutive sequences, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends read it")]
pub struct Run {
    /// The lowest sequence.
    pub first: u64,
    /// The highest sequence.
    pub last: u64,
    /// Every event in it is of the time that was asked for; otherwise each has to be looked at.
    pub certain: bool,
}

impl Run {
    /// All that a query without a time looks at.
    #[must_use]
    pub fn all(query: &LogQuery) -> Self {
        Self {
            first: query.after.saturating_add(1),
            last: query
                .before
                .map_or(u64::MAX, |before| before.saturating_sub(1)),
            certain: true,
        }
    }
}

/// The runs that a query has to look at, in its order. `blocks` are the numbers of those that overlap its time, rising, and
/// whether all of their events are of it: never of the newest block, which is still being filled.
#[must_use]
pub fn runs(query: &LogQuery, blocks: impl IntoIterator<Item = (u64, bool)>) -> Vec<Run> {
    let all = Run::all(query);
    let mut runs: Vec<Run> = Vec::new();
    for (number, certain) in blocks {
        let first = number.saturating_mul(BLOCK);
        let last = first.saturating_add(BLOCK - 1);
        match runs.last_mut() {
            Some(run) if run.certain == certain && run.last.checked_add(1) == Some(first) => {
                run.last = last;
            }
            _ => runs.push(Run {
                first,
                last,
                certain,
            }),
        }
    }
    for run in &mut runs {
        run.first = run.first.max(all.first);
        run.last = run.last.min(all.last);
    }
    runs.retain(|run| run.first <= run.last);
    if query.order == Order::NewestFirst {
        runs.reverse();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64, certain: bool) -> Run {
        Run {
            first,
            last,
            certain,
        }
    }

    #[test]
    fn neighbours_of_one_kind_are_one_run_cut_to_the_cursors() {
        let query = LogQuery {
            after: 10,
            before: Some(5 * BLOCK + 7),
            ..LogQuery::default()
        };
        let blocks = [(0, false), (1, true), (2, true), (4, true), (5, false)];
        let found = [
            run(11, BLOCK - 1, false),
            run(BLOCK, 3 * BLOCK - 1, true),
            run(4 * BLOCK, 5 * BLOCK - 1, true),
            run(5 * BLOCK, 5 * BLOCK + 6, false),
        ];
        assert_eq!(runs(&query, blocks), found);
        let backward = LogQuery {
            order: Order::NewestFirst,
            ..query
        };
        let found: Vec<_> = found.into_iter().rev().collect();
        assert_eq!(runs(&backward, blocks), found);
    }

    #[test]
    fn outside_of_the_cursors_there_is_nothing() {
        let query = LogQuery {
            after: BLOCK,
            before: Some(BLOCK + 1),
            ..LogQuery::default()
        };
        assert_eq!(runs(&query, [(0, true), (1, true), (2, false)]), []);
        assert_eq!(runs(&query, []), []);
    }
}
