//! `cargo xtask bench`: what the gateway costs, measured beside a direct connection and `ssh -J` in one run.
//!
//! Parts: [`stock`] starts the private OpenSSH servers, [`mezite`] the hub and the node, [`measure`] takes the
//! samples, [`stats`] sums them up, [`report`] prints, [`cleanup`] ends whatever was started.

mod cleanup;
mod measure;
mod mezite;
mod report;
mod stats;
mod stock;

use std::time::Duration;

use measure::Plan;

use crate::needs;
use crate::step::Failure;

pub(crate) const HELP: &str = "\
Measure a login, throughput, the echo of a keystroke and memory per idle session: direct, through
`ssh -J` over a stock sshd, and through the Mezite gateway with recording on. Samples are interleaved
in one run on loopback; everyone uses curve25519-sha256 and aes256-gcm.

Usage: cargo xtask bench [--quick] [--json] [--stock-only]

  --quick        few samples: ends within 60 s once the release binaries are built
  --json         print JSON instead of the table
  --stock-only   leave the Mezite gateway out

Compare ratios, not milliseconds: those belong to the machine. p99 of fewer than 100 samples is their
largest.
";

/// A way to reach the same target.
pub(crate) struct Way {
    /// Its column in the table.
    pub(crate) name: &'static str,
    /// The name that the `ssh` configuration of the run knows.
    pub(crate) host: String,
    /// The process in the middle, if there is one: its memory is what a session costs.
    pub(crate) bastion: Option<u32>,
}

pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    let (mut quick, mut json, mut stock_only) = (false, false, false);
    for option in options {
        match option.as_str() {
            "--quick" => quick = true,
            "--json" => json = true,
            "--stock-only" => stock_only = true,
            other => {
                return Err(Failure::usage(format!(
                    "unknown option `{other}`; `cargo xtask bench --help` lists them"
                )));
            }
        }
    }
    needs::provide(STOCK_NEEDS)?;
    cleanup::on_signals()?;
    let scratch = cleanup::Scratch::new()?;
    let programs = if stock_only {
        None
    } else {
        Some(mezite::build()?)
    };
    let lab = stock::Lab::start(scratch.path())?;
    let house = programs
        .map(|programs| mezite::House::start(&programs, &scratch.path().join("mezite"), &lab))
        .transpose()?;
    let ways: Vec<Way> = lab
        .ways()
        .into_iter()
        .chain(house.iter().flat_map(mezite::House::ways))
        .collect();
    let config = lab.client_config(house.as_ref().map_or("", mezite::House::client_config))?;
    let plan = if quick { QUICK } else { FULL };
    let results = measure::all(&config, &ways, &plan).inspect_err(|_| cleanup::wait_if_ending())?;
    if json {
        println!("{}", report::json(&results, quick));
    } else {
        print!("{}", report::table(&results));
    }
    Ok(())
}

const STOCK_NEEDS: &[needs::Need] = &[
    needs::Need {
        program: "ssh",
        package: "openssh-client",
        purpose: "the client that is timed",
    },
    needs::Need {
        program: "ssh-keygen",
        package: "openssh-client",
        purpose: "keys for the private servers",
    },
    needs::Need {
        program: "sshd",
        package: "openssh-server",
        purpose: "target and jump host",
    },
];

/// Limits add up to 46 s, which leaves time for starting, warming up and ending.
const QUICK: Plan = Plan {
    logins: 25,
    transfers: 3,
    bytes: 64 << 20,
    keystrokes: 200,
    idle_sessions: 8,
    limit: Duration::from_secs(14),
};

const FULL: Plan = Plan {
    logins: 200,
    transfers: 8,
    bytes: 512 << 20,
    keystrokes: 2_000,
    idle_sessions: 40,
    limit: Duration::from_secs(300),
};
