//! What is released, judged by programs that are not ours: packages installed, the image unpacked and run, lists and signatures
//! verified, static programs watched. `cargo xtask test` builds the release that is looked at.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

mod made;
mod operations;
mod signatures;

use made::{artefact, child_named, ok, output, release, target, version};

const PROGRAMS: [&str; 4] = ["mezhub", "mezd", "msh", "mezctl"];

/// Standard error; the command must have failed.
#[track_caller]
fn fails(command: &mut Command) -> String {
    let done = output(command);
    assert!(!done.status.success(), "{command:?} succeeded");
    String::from_utf8(done.stderr).unwrap()
}

/// A root with one program, nobody's home, no library, no configuration and no network.
fn empty_root(program: &str) -> Command {
    let mut bwrap = Command::new("bwrap");
    bwrap.args([
        "--unshare-all",
        "--clearenv",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
    ]);
    bwrap.args(["--uid", "65534", "--gid", "65534", "--ro-bind"]);
    bwrap.arg(release().join(program)).arg("/m").arg("/m");
    bwrap
}

#[test]
fn every_digest_is_what_sha256sum_finds() {
    let listed = ok(Command::new("sha256sum")
        .args(["--check", "SHA256SUMS"])
        .current_dir(release()));
    assert_eq!(
        listed.lines().count() + 1,
        fs::read_dir(release()).unwrap().count()
    );
    assert!(
        listed.lines().all(|line| line.ends_with(": OK")),
        "{listed}"
    );
}

#[test]
fn every_program_runs_in_an_empty_root_and_opens_nothing_there() {
    let place = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        for (words, expected) in [
            (&["version"][..], program),
            // Something that looks up a name, which is not there, and who it is that asks.
            (
                &[
                    "login",
                    "--proxy",
                    "hub.example:1",
                    "--user",
                    "a",
                    "--password-stdin",
                ],
                "",
            ),
        ] {
            let log = place.path().join("log");
            let mut traced = Command::new("strace");
            traced
                .args(["-f", "-qq", "-e", "trace=execve,open,openat", "-o"])
                .arg(&log);
            let root = empty_root(program);
            traced
                .arg(root.get_program())
                .args(root.get_args())
                .args(words);
            let done = output(&mut traced);
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(said.starts_with(expected), "{program}: {said}");
            let log = fs::read_to_string(&log).unwrap();
            let own = log
                .split_once("execve(\"/m\"")
                .unwrap_or_else(|| panic!("{program}: {log}"))
                .1;
            for bad in [
                ".so",
                "nsswitch",
                "ld.so",
                "/dev/urandom",
                "gconv",
                "/usr/lib",
            ] {
                let line = own.lines().find(|line| line.contains(bad));
                assert_eq!(line, None, "{program} {words:?}");
            }
        }
    }
}

#[test]
fn attack_81_somebody_else_in_another_directory_gets_the_same_bytes() {
    let (ours, theirs) = (
        release().join("mezctl"),
        target().join("reproduce/out/mezctl"),
    );
    assert!(
        fs::read(ours).unwrap() == fs::read(theirs).unwrap(),
        "the programs differ"
    );
}

#[test]
fn nothing_of_the_machine_that_built_it_is_in_a_program() {
    let home = std::env::home_dir().unwrap();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let compiler = ok(Command::new("rustc").args(["--print", "sysroot"]));
    let here = [
        target().display().to_string(),
        cargo.display().to_string(),
        compiler.trim().to_owned(),
    ];
    for program in PROGRAMS {
        let path = release().join(program);
        let bytes = fs::read(&path).unwrap();
        for path in &here {
            let found = memchr::memmem::find(&bytes, path.as_bytes()).is_some();
            assert!(!found, "{program} names {path}");
        }
        let headers = ok(Command::new("readelf").arg("-lWd").arg(&path));
        assert!(
            !headers.contains("INTERP") && !headers.contains("NEEDED"),
            "{program}: {headers}"
        );
    }
}

#[test]
fn the_lists_of_components_are_valid_and_say_what_is_linked() {
    let python = target().join("tools/cyclonedx/bin/python");
    let script = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
for name in sys.argv[1:]:
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(name).read())
    if fault: sys.exit(f'{name}: {fault.data}')
";
    let mut check = Command::new(python);
    check.args(["-c", script]);
    let lists = PROGRAMS.map(|name| release().join(format!("{name}.cdx.json")));
    ok(check.args(&lists));
    // And it refuses what is none.
    let broken = tempfile::tempdir().unwrap();
    let path = broken.path().join("broken.json");
    fs::write(
        &path,
        fs::read_to_string(&lists[0])
            .unwrap()
            .replacen("\"type\"", "\"typ\"", 1),
    )
    .unwrap();
    fails(
        Command::new(target().join("tools/cyclonedx/bin/python"))
            .args(["-c", script])
            .arg(&path),
    );
    for (list, program) in lists.iter().zip(PROGRAMS) {
        let list: Value = serde_json::from_str(&fs::read_to_string(list).unwrap()).unwrap();
        let names: Vec<&str> = list["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["name"].as_str().unwrap())
            .collect();
        assert!(
            names.contains(&"glibc") && names.contains(&"rustls"),
            "{program}"
        );
        assert_eq!(
            names.contains(&"libsqlite3-sys"),
            program == "mezhub",
            "{program}"
        );
        let digest = list["metadata"]["component"]["hashes"][0]["content"]
            .as_str()
            .unwrap();
        let sums = fs::read_to_string(release().join("SHA256SUMS")).unwrap();
        assert!(
            sums.contains(&format!("{digest}  {program}\n")),
            "{program}"
        );
    }
}

#[test]
fn the_provenance_names_every_file_and_the_recipe() {
    let text = fs::read_to_string(release().join("provenance.json")).unwrap();
    let statement: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    let sums = fs::read_to_string(release().join("SHA256SUMS")).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    for subject in subjects {
        let line = format!(
            "{}  {}\n",
            subject["digest"]["sha256"].as_str().unwrap(),
            subject["name"].as_str().unwrap()
        );
        assert!(sums.contains(&line), "{line}");
    }
    assert_eq!(subjects.len() + 1, sums.lines().count());
    let recipe = &statement["predicate"]["buildDefinition"]["internalParameters"];
    assert!(
        recipe["rustflags"]
            .as_str()
            .unwrap()
            .contains("+crt-static")
    );
}

/// The image's file system, and what it says of itself.
fn image(place: &Path) -> (PathBuf, Value) {
    let archive = artefact(".oci.tar");
    let layout = place.join("layout");
    fs::create_dir(&layout).unwrap();
    ok(Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout));
    let version = version();
    let config = ok(Command::new("skopeo")
        .args(["inspect", "--config"])
        .arg(format!("oci-archive:{}", archive.display())));
    let bundle = place.join("bundle");
    let mut unpack = Command::new("umoci");
    unpack
        .arg("unpack")
        .arg("--image")
        .arg(format!("{}:{version}", layout.display()));
    ok(unpack.args(["--rootless"]).arg(&bundle));
    (
        bundle.join("rootfs"),
        serde_json::from_str(&config).unwrap(),
    )
}

#[test]
fn attack_80_the_image_runs_as_nobody_on_a_root_that_cannot_be_written() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, config) = image(scratch.path());
    let config = &config["config"];
    assert_eq!(config["User"], "65534:65534");
    let volumes: Vec<&String> = config["Volumes"].as_object().unwrap().keys().collect();
    assert_eq!(volumes, ["/var/lib/mezite", "/var/log/mezite"]);
    let mut files = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        files.push(entry.unwrap().file_name().into_string().unwrap());
    }
    files.sort();
    assert_eq!(
        files,
        [
            "dev", "etc", "mezctl", "mezhub", "proc", "sys", "tmp", "var"
        ]
    );
    let etc = scratch.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("sealing.key"), "11".repeat(32)).unwrap();
    let listen = "listen: { https: '127.0.0.1:3080', ssh: '127.0.0.1:3023', tunnel: '127.0.0.1:3024', auth: '127.0.0.1:3025' }";
    fs::write(
        etc.join("mezite.yaml"),
        format!("cluster: example\nnames: [localhost]\nsealing: {{ key_file: /etc/mezite/sealing.key }}\n{listen}\n"),
    )
    .unwrap();
    open_to_nobody(scratch.path());
    let mut contained = Command::new("bwrap");
    if fs::metadata("/proc/self")
        .is_ok_and(|facts| std::os::unix::fs::MetadataExt::uid(&facts) == 0)
    {
        contained = Command::new("setpriv");
        contained.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "bwrap",
        ]);
    }
    contained.args([
        "--unshare-all",
        "--clearenv",
        "--new-session",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
    ]);
    contained
        .args(["--uid", "65534", "--gid", "65534", "--ro-bind"])
        .arg(&root)
        .arg("/");
    contained
        .args(["--proc", "/proc", "--dev", "/dev", "--ro-bind"])
        .arg(&etc)
        .arg("/etc/mezite");
    for volume in volumes {
        contained.args(["--perms", "0700", "--tmpfs", volume]);
    }
    let log = scratch.path().join("log");
    let mut hub = contained
        .args(["/mezhub", "start"])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let said = fs::read_to_string(&log).unwrap();
        if said.contains(" ready") {
            break;
        }
        assert!(
            Instant::now() < deadline && hub.try_wait().unwrap().is_none(),
            "{said}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // The process that serves, seen from outside.
    let inside = child_named("mezhub", hub.id()).unwrap();
    let status = fs::read_to_string(format!("/proc/{inside}/status")).unwrap();
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let mounts = fs::read_to_string(format!("/proc/{inside}/mountinfo")).unwrap();
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
    ok(Command::new("kill").arg(inside.to_string()));
    while hub.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the hub did not stop");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Everything below a directory can be read by everybody, and the configuration is nobody's own.
fn open_to_nobody(place: &Path) {
    ok(Command::new("chmod").args(["-R", "go+rX"]).arg(place));
    let etc = place.join("etc");
    ok(Command::new("chmod")
        .arg("600")
        .arg(etc.join("sealing.key")));
    let root = fs::metadata("/proc/self")
        .is_ok_and(|facts| std::os::unix::fs::MetadataExt::uid(&facts) == 0);
    if root {
        ok(Command::new("chown").args(["-R", "65534:65534"]).arg(etc));
    }
}

/// A root with nothing in it but what dpkg keeps, and account files.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for directory in [
            "var/lib/dpkg/updates",
            "var/lib/dpkg/info",
            "var/lib/dpkg/triggers",
            "etc",
            "var/log",
        ] {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        fs::write(root.path("var/lib/dpkg/status"), "").unwrap();
        fs::write(root.path("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(root.path("etc/group"), "root:x:0:\n").unwrap();
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dpkg(&self, words: &[&str]) -> Command {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.path().display()));
        dpkg.args(["--force-script-chrootless", "--log=/dev/null"]);
        dpkg.args(words)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        dpkg
    }
}

#[test]
fn packages_are_installed_started_removed_and_purged() {
    let root = Root::new();
    let version = version();
    for name in ["mezhub", "mezd"] {
        let package = artefact(&format!("{name}_{version}_amd64.deb"));
        let facts = ok(Command::new("dpkg-deb").arg("--info").arg(&package));
        assert!(
            facts.contains(&format!("Package: {name}")) && !facts.contains("Depends:"),
            "{facts}"
        );
        let listing = ok(Command::new("dpkg-deb").arg("--contents").arg(&package));
        assert!(
            listing
                .lines()
                .all(|line| line.contains(" root/root ") || line.contains(" 0/0 ")),
            "{listing}"
        );
        ok(&mut root.dpkg(&["--install", package.to_str().unwrap()]));
    }
    for file in [
        "usr/bin/mezhub",
        "usr/bin/mezctl",
        "usr/bin/msh",
        "usr/bin/mezd",
        "usr/lib/systemd/system/mezhub.service",
        "usr/lib/systemd/system/mezhub.socket",
        "usr/lib/systemd/system/mezd.service",
        "usr/share/man/man1/mezhub-start.1.gz",
        "usr/share/man/man1/mezctl-verify-release.1.gz",
        "usr/share/bash-completion/completions/msh",
        "usr/share/doc/mezd/copyright",
        "etc/mezite/mezite.yaml",
    ] {
        assert!(root.path(file).is_file(), "{file}");
    }
    let accounts = fs::read_to_string(root.path("etc/passwd")).unwrap();
    for account in ["mezite", "mezite-node"] {
        let line = accounts
            .lines()
            .find(|line| line.starts_with(&format!("{account}:")));
        assert!(
            line.is_some_and(|line| line.ends_with("nologin")),
            "{accounts}"
        );
        let home = fs::metadata(root.path(&format!("var/lib/{account}"))).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&home.permissions()) & 0o777,
            0o700,
            "{account}"
        );
    }
    // The manual is one that man can read, and the shell takes the completions.
    let page = ok(Command::new("gzip")
        .args(["-dc"])
        .arg(root.path("usr/share/man/man1/mezd.1.gz")));
    assert!(page.contains(".TH mezd 1"), "{page}");
    ok(Command::new("bash")
        .arg("-n")
        .arg(root.path("usr/share/bash-completion/completions/mezhub")));
    // Started in that root, where there is no library and no shell: it says that the cluster has no name yet.
    let mut start = Command::new("bwrap");
    start
        .args(["--unshare-all", "--bind"])
        .arg(root.0.path())
        .args(["/", "/usr/bin/mezhub", "start"]);
    let said = fails(&mut start);
    assert!(
        said.contains("/etc/mezite/mezite.yaml") && said.contains("cluster"),
        "{said}"
    );
    // The operator's own configuration outlives an upgrade and a removal, but not a purge; data outlives all.
    let own = "cluster: example\nsealing: { key_file: /etc/mezite/sealing.key }\n";
    fs::write(root.path("etc/mezite/mezite.yaml"), own).unwrap();
    fs::write(root.path("etc/mezite/sealing.key"), "11".repeat(32)).unwrap();
    ok(Command::new("chmod")
        .arg("600")
        .arg(root.path("etc/mezite/sealing.key")));
    fs::write(root.path("var/lib/mezite/mezhub.db"), "evidence").unwrap();
    let package = artefact(&format!("mezhub_{version}_amd64.deb"));
    ok(&mut root.dpkg(&["--install", package.to_str().unwrap()]));
    assert_eq!(
        fs::read_to_string(root.path("etc/mezite/mezite.yaml")).unwrap(),
        own
    );
    ok(&mut root.dpkg(&["--remove", "mezhub", "mezd"]));
    assert!(!root.path("usr/bin/mezhub").exists() && root.path("etc/mezite/mezite.yaml").exists());
    let purged = output(&mut root.dpkg(&["--purge", "mezhub", "mezd"]));
    let said = String::from_utf8_lossy(&purged.stderr).into_owned();
    assert!(
        purged.status.success() && said.contains("/var/lib/mezite is kept"),
        "{said}"
    );
    assert!(!root.path("etc/mezite/mezite.yaml").exists());
    assert_eq!(
        fs::read_to_string(root.path("var/lib/mezite/mezhub.db")).unwrap(),
        "evidence"
    );
}
