//! The two programs on certificates do what they say, and OpenSSH agrees.
#![cfg(feature = "ca")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str], directory: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(all).unwrap()
}

#[test]
fn issue_certificate_writes_what_ssh_and_sshd_need() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let login = text(&run("id", &["-un"], path));
    let login = login.trim();
    let example = env!("CARGO_BIN_EXE_issue-certificate");
    let output = run(example, &[".", login], path);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let told = |word: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(word));
        line.unwrap().to_owned()
    };
    let read = text(&run("ssh-keygen", &["-L", "-f", "id-cert.pub"], path));
    assert!(read.contains(&told("principal: ")), "{read}");

    // A stock sshd with these settings, started by ssh itself in place of a network.
    let settings = std::fs::read_to_string(path.join("sshd_config")).unwrap();
    let more = "StrictModes no\nUsePAM no\nPermitRootLogin yes\nAuthorizedKeysFile none\nPasswordAuthentication no\n";
    std::fs::write(path.join("sshd_config"), settings + more).unwrap();
    let target = format!("{login}@{}", told("host name: "));
    let arguments = [
        "-F",
        "none",
        "-i",
        "id",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "IdentityAgent=none",
        "-o",
        "UserKnownHostsFile=known_hosts",
        "-o",
        "GlobalKnownHostsFile=none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "ProxyCommand=/usr/sbin/sshd -i -e -f $PWD/sshd_config",
        &target,
        "echo in",
    ];
    let output = run("ssh", &arguments, path);
    assert_eq!(output.stdout, b"in\n", "{}", text(&output));
}

#[test]
fn kms_signer_has_everything_signed_elsewhere() {
    let output = run(env!("CARGO_BIN_EXE_kms-signer"), &[], Path::new("."));
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for line in [
        "SSH: alice until 2027-01-15T16:00:00.000Z",
        "TLS: mezite://example/user/alice until 2027-01-15T16:00:00.000Z",
        "the wrong key: refused",
    ] {
        assert!(
            said.lines().any(|found| found == line),
            "{line} is not in\n{said}"
        );
    }
    assert_eq!(said.matches("service: ").count(), 4, "{said}");
}
