//! How results are shown: a table with ratios to the direct way, or JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measure::Results;
use super::stats::Samples;

/// A line of the table: what, unit, and the figure of one way.
type Line = (&'static str, fn(&Results) -> Option<f64>);

const LINES: [Line; 8] = [
    ("`ssh host true`, median, ms", |way| way.login.median()),
    ("`ssh host true`, p99, ms", |way| way.login.percentile(99)),
    ("echo of a keystroke, median, µs", |way| way.echo.median()),
    ("echo of a keystroke, p99, µs", |way| {
        way.echo.percentile(99)
    }),
    ("upload, median, MiB/s", |way| way.upload.median()),
    ("download, median, MiB/s", |way| way.download.median()),
    ("bastion memory per idle session, KiB", |way| way.idle),
    ("logins measured", |way| {
        u32::try_from(way.login.len()).ok().map(f64::from)
    }),
];

/// A Markdown table: one line per measure, one column per way; the ratio to the first way in brackets.
pub(crate) fn table(results: &[Results]) -> String {
    let mut text = String::from("| |");
    results
        .iter()
        .for_each(|way| text.push_str(&format!(" {} |", way.way)));
    text.push_str("\n| --- |");
    results.iter().for_each(|_| text.push_str(" ---: |"));
    text.push('\n');
    for (name, figure) in LINES {
        let _ = write!(text, "| {name} |");
        let first = results.first().and_then(figure);
        for (at, way) in results.iter().enumerate() {
            let ratio = first.filter(|_| at > 0 && name != "logins measured");
            let _ = write!(text, " {} |", cell(figure(way), ratio));
        }
        text.push('\n');
    }
    text
}

fn cell(figure: Option<f64>, first: Option<f64>) -> String {
    match (figure, first) {
        (None, _) => "–".to_owned(),
        (Some(figure), None) => format!("{figure:.0}"),
        (Some(figure), Some(first)) => format!("{figure:.0} ({:.2})", figure / first),
    }
}

pub(crate) fn json(results: &[Results], quick: bool) -> Value {
    let ways: Vec<Value> = results.iter().map(way).collect();
    json!({ "quick": quick, "key_exchange": "curve25519-sha256", "cipher": "aes256-gcm@openssh.com", "ways": ways })
}

fn way(results: &Results) -> Value {
    json!({
        "way": results.way,
        "login_ms": samples(&results.login),
        "upload_mib_per_s": samples(&results.upload),
        "download_mib_per_s": samples(&results.download),
        "echo_us": samples(&results.echo),
        "idle_session_pss_kib": results.idle,
    })
}

fn samples(samples: &Samples) -> Value {
    json!({ "samples": samples.len(), "median": samples.median(), "p99": samples.percentile(99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Vec<Results> {
        let one = |value: f64| [value].into_iter().collect::<Samples>();
        let way = |way, login, idle| Results {
            way,
            login: one(login),
            upload: one(100.0),
            download: one(200.0),
            echo: one(500.0),
            idle,
        };
        vec![
            way("direct", 140.0, None),
            way("ssh -J", 245.0, Some(1830.0)),
        ]
    }

    #[test]
    fn the_table_shows_figures_ratios_and_gaps() {
        let table = table(&results());
        assert!(
            table.starts_with("| | direct | ssh -J |\n| --- | ---: | ---: |\n"),
            "{table}"
        );
        assert!(
            table.contains("| `ssh host true`, median, ms | 140 | 245 (1.75) |\n"),
            "{table}"
        );
        assert!(
            table.contains("| bastion memory per idle session, KiB | – | 1830 |\n"),
            "{table}"
        );
    }

    #[test]
    fn json_has_the_same_figures() {
        let json = json(&results(), true);
        assert_eq!(json["ways"][1]["login_ms"]["median"], 245.0);
        assert_eq!(json["ways"][0]["idle_session_pss_kib"], Value::Null);
    }
}
