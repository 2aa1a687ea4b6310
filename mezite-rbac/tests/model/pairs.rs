//! Many pairs of policy and request: `MEZITE_MODEL_PAIRS=1000000 cargo test -p mezite-rbac --test model pairs`.

use std::collections::BTreeMap;

use mezite_rbac::Reason;

use crate::choices::Choices;
use crate::forwards::permitted;
use crate::spec::{Case, WORDS, allowing, decide, engine};

/// Pairs compared when nobody asks for another number.
const PAIRS: usize = 100_000;
/// Requests put to each policy: subjects, nodes, and every word as login.
const SUBJECTS: usize = 3;
const NODES: usize = 5;

#[test]
fn engine_and_model_agree_on_many_pairs() {
    let wanted = std::env::var("MEZITE_MODEL_PAIRS").map_or(PAIRS, |count| count.parse().unwrap());
    let mut random = Random(0x6d65_7a69_7465);
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut forwards: BTreeMap<bool, usize> = BTreeMap::new();
    let mut compared = 0;
    while compared < wanted {
        let bytes: Vec<u8> = (0..192).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut choices = Choices(&bytes);
        let mut case = choices.case();
        let policy = case.policy();
        for _ in 0..SUBJECTS {
            case.subject = choices.subject(case.roles.keys());
            for _ in 0..NODES {
                case.node = choices.node();
                case.source = choices.source();
                for login in WORDS {
                    case.login = login.parse().unwrap();
                    case.forward = choices.forward();
                    let found = engine(&policy, &case);
                    assert_eq!(found, decide(&case), "{case:#?}");
                    if found.is_ok() {
                        let roles = allowing(&case).unwrap();
                        let forwarded = permitted(&roles, &case.forward);
                        *forwards.entry(forwarded).or_default() += 1;
                    }
                    let answer = found.map_or_else(Reason::as_str, |_| "allowed");
                    *answers.entry(answer).or_default() += 1;
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} pairs: {answers:?}, forwards {forwards:?}");
    for permitted in [true, false] {
        let count = forwards.get(&permitted).copied().unwrap_or_default();
        assert!(count * 1000 > compared, "{forwards:?}");
    }
    assert_answers(&answers, compared);
}

/// No answer is so rare that the comparison says little about it.
fn assert_answers(answers: &BTreeMap<&str, usize>, compared: usize) {
    for answer in [
        "allowed",
        "denied",
        "not_allowed",
        "source_network",
        "unknown_role",
    ] {
        let count = answers.get(answer).copied().unwrap_or_default();
        assert!(count * 100 > compared, "{answer} is rare: {answers:?}");
    }
}

/// The bytes run out without the case noticing if they are too few: then all would be the same.
#[test]
fn one_text_of_bytes_suffices_for_a_case_and_its_requests() {
    let mut random = Random(7);
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..192).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut choices = Choices(&bytes);
        let case: Case = choices.case();
        for _ in 0..SUBJECTS {
            choices.subject(case.roles.keys());
            for _ in 0..NODES {
                drop((choices.node(), choices.source()));
                for _ in WORDS {
                    choices.forward();
                }
            }
        }
        assert!(!choices.0.is_empty());
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
