//! Verifies an export of a hub's audit log with `mezite-audit` alone: no hub, no account, no network, no database.
//!
//! ```sh
//! mezctl audit export --format bundle --out log.bundle
//! cargo run -p mezite-examples --no-default-features --features audit --bin verify-audit-log -- log.bundle [KEY]
//! ```
//!
//! `KEY` is the line of the audit key that you were given; without it, the log is only held to the key that comes with it.
//! Without any argument, the example makes a small log of its own, then plays somebody who edits it.

#![expect(clippy::print_stdout, reason = "a program whose result is text")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};

use ed25519_dalek::{Signer, SigningKey};
use mezite_audit::bundle::{self, Check, Verified};
use mezite_audit::catalogue::UserLogin;
use mezite_audit::keeper::Head;
use mezite_audit::{NoteKey, Stamp, checkpoint};
use mezite_core::store::StoredEvent;
use mezite_core::{ClusterName, RoleName, UnixTime, UserName};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        return story();
    };
    let keys = arguments.map(|line| NoteKey::parse(&line));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let lines = BufReader::new(File::open(path)?).split(b'\n');
    let verified = verify(lines.collect::<Result<Vec<_>, _>>()?, keys)?;
    tell(&verified);
    Ok(())
}

fn verify(lines: Vec<Vec<u8>>, keys: Vec<NoteKey>) -> Result<Verified, bundle::BundleError> {
    let mut check = Check::default().with_keys(keys);
    for line in lines {
        check.take_line(&line)?;
    }
    check.finish()
}

fn tell(verified: &Verified) {
    let report = &verified.report;
    println!(
        "verified: {} events, {} of them vouched for by a signature, {} removed by rule",
        report.size, report.vouched, report.pruned
    );
    for key in &verified.keys {
        println!("signed by {}", key.to_line());
    }
}

/// Three logins, a checkpoint, an edit.
fn story() -> Result<(), Box<dyn Error>> {
    let cluster: ClusterName = "example".parse()?;
    let roles: [RoleName; 1] = ["access".parse()?];
    let mut events = Vec::new();
    for (sequence, name) in (1..).zip(["alice", "bob", "carol"]) {
        let user: UserName = name.parse()?;
        let login = UserLogin {
            user_name: &user,
            user_roles: &roles,
            client_ip: Some("203.0.113.7".parse()?),
            client_version: None,
            method: "password",
        };
        let stamp = Stamp {
            now: UnixTime::from_secs(1_769_846_400 + sequence),
            // Fresh random bits for each event: here they are fixed.
            random: [[1; 16], [2; 16]],
            cluster: &cluster,
        };
        events.push(StoredEvent {
            sequence,
            body: login.event(&stamp).render(sequence),
        });
    }
    let signing = SigningKey::from_bytes(&[7; 32]);
    let origin = checkpoint::origin(&cluster);
    let key = NoteKey::new(&origin, &signing.verifying_key().to_bytes())?;
    let made = Head::default().advance(&events)?.checkpoint(&origin);
    let note = checkpoint::finish(
        &made,
        &key,
        &signing.sign(made.body().as_bytes()).to_bytes(),
    )?;
    let header = bundle::header(&cluster, &origin, &[key]);
    let mut lines = vec![
        header.into_bytes(),
        bundle::checkpoint_line(&note).into_bytes(),
    ];
    lines.extend(events.into_iter().map(|event| event.body));
    tell(&verify(lines.clone(), Vec::new())?);

    let edit = |line: Vec<u8>| match String::from_utf8(line) {
        Ok(text) => text.replace("bob", "eve").into_bytes(),
        Err(error) => error.into_bytes(),
    };
    let edited = lines.clone().into_iter().map(edit).collect();
    if let Err(error) = verify(edited, Vec::new()) {
        println!("somebody edited it: {error}");
    }
    lines.pop();
    if let Err(error) = verify(lines, Vec::new()) {
        println!("somebody cut its end: {error}");
    }
    Ok(())
}
