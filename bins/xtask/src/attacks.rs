//! `cargo xtask attacks`: ATTACKS.md and the tests it names say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::step::Failure;
use crate::tree;

pub(crate) const HELP: &str = "\
Check ATTACKS.md against the tests in the tree.

Usage: cargo xtask attacks [--write]

Every row from 1 to 85 stands once and has a verdict: `tested`, `open` or `does not apply`. A test
named `attack_NN_…` in the table exists in the tree, and one in the tree stands in row NN.

  --write   fill the tests found in the tree into the table; verdicts stay as they are
";

/// Rows of the checklist.
const ROWS: u32 = 85;
const VERDICTS: [&str; 3] = ["tested", "open", "does not apply"];

/// Test names by row.
type Tests = BTreeMap<u32, BTreeSet<String>>;

pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    let root = tree::root();
    let page = root.join("ATTACKS.md");
    let mut text = tree::text(&page)?;
    let tests = in_the_tree(&root)?;
    match options {
        [] => {}
        [only] if only == "--write" => {
            text = written(&text, &tests);
            std::fs::write(&page, &text).map_err(|error| {
                Failure::new(format!("cannot write `{}`: {error}", page.display()))
            })?;
        }
        [other, ..] => {
            return Err(Failure::usage(format!(
                "unknown option `{other}`; known is `--write`"
            )));
        }
    }
    let faults = faults(&text, &tests);
    if !faults.is_empty() {
        return Err(Failure::new(format!(
            "ATTACKS.md does not hold\n  {}",
            faults.join("\n  ")
        )));
    }
    let verdict = |wanted: &str| {
        rows(&text)
            .iter()
            .filter(|row| row.verdict == wanted)
            .count()
    };
    println!(
        "attacks: ok ({} tested, {} open, {} do not apply)",
        verdict("tested"),
        verdict("open"),
        verdict("does not apply")
    );
    Ok(())
}

/// Every `fn attack_NN_…` in the sources.
fn in_the_tree(root: &Path) -> Result<Tests, Failure> {
    let mut tests = Tests::new();
    for path in tree::sources(root)? {
        for line in tree::text(&root.join(path))?.lines() {
            let code = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("async ");
            if let Some((row, name)) = code.strip_prefix("fn ").and_then(test_name) {
                tests.entry(row).or_default().insert(name);
            }
        }
    }
    Ok(tests)
}

/// The row and the name of a test at the start of `text`.
fn test_name(text: &str) -> Option<(u32, String)> {
    let name: String = text
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect();
    let (number, _) = name.strip_prefix("attack_")?.split_once('_')?;
    Some((number.parse().ok()?, name))
}

/// A line of the table: number, attack, verdict, tests and remarks.
struct Row {
    number: u32,
    verdict: String,
    last: String,
}

fn rows(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    let [number, _, verdict, last] = cells.as_slice() else {
        return None;
    };
    Some(Row {
        number: number.parse().ok()?,
        verdict: (*verdict).to_owned(),
        last: (*last).to_owned(),
    })
}

/// The tests that the last cell names, in backticks.
fn named(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(test_name)
        .map(|(_, name)| name)
        .collect()
}

/// What the last cell says besides its tests.
fn remark(cell: &str) -> String {
    let words = cell
        .split('`')
        .enumerate()
        .filter(|(at, part)| at % 2 == 0 || test_name(part).is_none());
    let text: String = words
        .map(|(at, part)| {
            if at % 2 == 0 {
                part.to_owned()
            } else {
                format!("`{part}`")
            }
        })
        .collect();
    text.trim_matches([',', ' ', ';']).to_owned()
}

fn faults(text: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let rows = rows(text);
    for number in 1..=ROWS {
        let found: Vec<&Row> = rows.iter().filter(|row| row.number == number).collect();
        match found.as_slice() {
            [row] => faults.extend(row_faults(
                row,
                tests.get(&number).unwrap_or(&BTreeSet::new()),
            )),
            other => faults.push(format!(
                "row {number} stands {} times, not once",
                other.len()
            )),
        }
    }
    let beyond = rows
        .iter()
        .map(|row| row.number)
        .chain(tests.keys().copied())
        .filter(|number| !(1..=ROWS).contains(number));
    faults.extend(
        beyond.map(|number| format!("there is no attack {number}: the rows are 1 to {ROWS}")),
    );
    faults
}

fn row_faults(row: &Row, tests: &BTreeSet<String>) -> Vec<String> {
    let Row {
        number,
        verdict,
        last,
    } = row;
    let named = named(last);
    let mut faults = Vec::new();
    if !VERDICTS.contains(&verdict.as_str()) {
        faults.push(format!(
            "row {number}: verdict `{verdict}` is none of {}",
            VERDICTS.join(", ")
        ));
    }
    faults.extend(
        named
            .difference(tests)
            .map(|name| format!("row {number} names `{name}`, and no such test is in the tree")),
    );
    faults.extend(tests.difference(&named).map(|name| {
        format!("row {number} does not name `{name}`; `cargo xtask attacks --write` adds it")
    }));
    if verdict == "tested" && named.is_empty() {
        faults.push(format!("row {number} is `tested` by no test"));
    }
    if verdict == "does not apply" && remark(last).is_empty() {
        faults.push(format!("row {number} does not apply, and nobody says why"));
    }
    faults
}

/// The page with the tests of the tree filled in, remarks and verdicts kept.
fn written(text: &str, tests: &Tests) -> String {
    let mut page = String::with_capacity(text.len());
    for line in text.lines() {
        match row(line) {
            Some(found) => {
                let keep = line.rsplitn(3, '|').nth(2).unwrap_or_default();
                let names = tests
                    .get(&found.number)
                    .into_iter()
                    .flatten()
                    .map(|name| format!("`{name}`"));
                let cell: Vec<String> = names
                    .chain(Some(remark(&found.last)).filter(|text| !text.is_empty()))
                    .collect();
                page.push_str(&format!("{keep}| {} |", cell.join(", ")).replace("|  |", "| |"));
            }
            None => page.push_str(line),
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: &str) -> String {
        let others: String = (2..=ROWS)
            .map(|number| format!("| {number:02} | something | open | |\n"))
            .collect();
        format!(
            "# Attacks\n\n| row | attack | verdict | tests |\n| --- | --- | --- | --- |\n{first}\n{others}"
        )
    }

    fn tests(names: &[&str]) -> Tests {
        let mut tests = Tests::new();
        for (row, name) in names.iter().filter_map(|name| test_name(name)) {
            tests.entry(row).or_default().insert(name);
        }
        tests
    }

    const NESTED: &str = concat!("attack", "_01_nested");
    const DEEP: &str = concat!("attack", "_01_deep");

    #[test]
    fn a_page_that_agrees_with_the_tree_has_no_faults() {
        assert_eq!(
            faults(
                &page(&format!("| 01 | nested | tested | `{NESTED}` |")),
                &tests(&[NESTED])
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            faults(
                &page("| 01 | nested | does not apply | no nesting |"),
                &tests(&[])
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_disagreement_is_a_fault() {
        let one = |line: &str, names: &[&str]| faults(&page(line), &tests(names));
        assert_eq!(
            one(&format!("| 01 | nested | tested | `{NESTED}` |"), &[]).len(),
            1
        );
        assert_eq!(one("| 01 | nested | open | |", &[NESTED]).len(), 1);
        assert_eq!(one("| 01 | nested | tested | |", &[]).len(), 1);
        assert_eq!(one("| 01 | nested | fine | |", &[]).len(), 1);
        assert_eq!(one("| 01 | nested | does not apply | |", &[]).len(), 1);
        assert_eq!(one("", &[]), ["row 1 stands 0 times, not once"]);
        assert_eq!(
            one("| 01 | nested | open | |", &[concat!("attack", "_86_new")]).len(),
            1
        );
    }

    #[test]
    fn writing_fills_in_tests_and_keeps_verdict_and_remark() {
        let before = page("| 01 | nested | open | the `mezd` side is missing |");
        let found = tests(&[NESTED, DEEP]);
        let after = written(&before, &found);
        assert!(
            after.contains(&format!(
                "| 01 | nested | open | `{DEEP}`, `{NESTED}`, the `mezd` side is missing |"
            )),
            "{after}"
        );
        assert_eq!(faults(&after, &found), Vec::<String>::new());
        assert_eq!(written(&after, &found), after);
    }
}
