//! The commands of the guide to the audit log, as they stand there.

use std::fs;

use crate::house::{House, program, run, stock, text};

const GUIDE: &str = include_str!("../../../../mezite-audit/GUIDE.md");

/// The blocks in a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = GUIDE.split(&*fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_command_of_the_guide_works() {
    let house = House::start_with(|_| String::from("audit: { retention: { default: 400d } }\n"));
    house.agent("web");
    house.user("alice");
    let commands = blocks("sh");
    assert!(commands.len() >= 7, "{commands:?}");
    let programs = program("mezctl").parent().unwrap().display().to_string();
    for block in commands {
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        let mut shell = stock("sh");
        shell
            .args(["-euc", block])
            .current_dir(house.path("."))
            .env("PATH", path)
            .env("HOME", house.path("."))
            .env("MEZITE_SOCKET", house.path("hub/mezctl.sock"));
        run(&mut shell).ok();
    }
    assert!(fs::metadata(house.path("mezite.checkpoint")).unwrap().len() > 100);
    assert!(
        fs::read_to_string(house.path("events.csv"))
            .unwrap()
            .lines()
            .count()
            > 5
    );
    let backups = house.events();
    let backups = backups
        .iter()
        .filter(|event| text(event, "event_type") == "backup.created");
    assert_eq!(backups.count(), 1);
}

#[test]
fn every_configuration_of_the_guide_is_good() {
    let house = House::start();
    let base = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    let certificate = house.path("ca.pem");
    let key = house.path("ca.key");
    run(stock("openssl")
        .args([
            "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=siem", "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate))
    .ok();
    for block in blocks("yaml") {
        // Paths of the test in the place of those of a machine.
        let block = block
            .replace(
                "/var/log/mezite/",
                &format!("{}/", house.path(".").display()),
            )
            .replace("/etc/mezite/siem-ca.pem", certificate.to_str().unwrap())
            .replace("/etc/mezite/alerts.token", key.to_str().unwrap())
            .replace(
                "token_file:",
                &format!("ca_file: {}, token_file:", certificate.display()),
            );
        crate::house::write(&house.path("mezite.yaml"), base.clone() + &block);
        house.mezhub(&["check-config"]).ok();
    }
}
