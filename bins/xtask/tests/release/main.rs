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
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

mod operations;

const PROGRAMS: [&str; 4] = ["mezhub", "mezd", "msh", "mezctl"];

/// The release that `cargo xtask test` made.
fn release() -> PathBuf {
    let path = target().join("release-check");
    assert!(
        path.join("SHA256SUMS").exists(),
        "`{}` is missing: run `cargo xtask test -p xtask`, or `cargo xtask reproduce --profile dist-check --bin mezctl` first",
        path.display()
    );
    path
}

fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_owned()
}

/// The one file of the release whose name ends so.
fn artefact(end: &str) -> PathBuf {
    let mut found = fs::read_dir(release())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let found = found.find(|path| path.to_string_lossy().ends_with(end));
    found.unwrap_or_else(|| panic!("nothing in the release ends in {end}"))
}

/// A copy that may be changed.
fn copy() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(release()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    place
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `cargo xtask test` installs what is missing")
    })
}

/// Standard output; the command must have succeeded.
#[track_caller]
fn ok(command: &mut Command) -> String {
    let done = output(command);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{command:?}: {}\n{said}",
        done.status
    );
    String::from_utf8(done.stdout).unwrap()
}

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
    let here = [
        env!("CARGO_MANIFEST_DIR").to_owned(),
        target().display().to_string(),
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

/// A release that was signed with keys of the test, as RELEASING.md says.
struct Signed {
    place: TempDir,
    keys: TempDir,
}

impl Signed {
    fn new() -> Self {
        let (place, keys) = (copy(), tempfile::tempdir().unwrap());
        let key = |name: &str| keys.path().join(name);
        ok(Command::new("openssl")
            .args([
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
            ])
            .arg(key("release.pem")));
        ok(Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(key("release.pem"))
            .arg("-out")
            .arg(key("release.pub")));
        ok(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "release", "-f"])
            .arg(key("ssh")));
        let public = fs::read_to_string(key("ssh.pub")).unwrap();
        fs::write(
            key("allowed"),
            format!("release@mezite namespaces=\"file\" {public}"),
        )
        .unwrap();
        let mut sign = Command::new(env!("CARGO_BIN_EXE_xtask"));
        sign.arg("sign")
            .arg(place.path())
            .arg("--key")
            .arg(key("release.pem"))
            .arg("--ssh-key")
            .arg(key("ssh"));
        ok(&mut sign);
        Self { place, keys }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn key(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    /// As cosign verifies, by OpenSSL.
    fn openssl(&self, file: &str, signature: &Path) -> Command {
        let mut verify = Command::new("openssl");
        verify
            .args(["dgst", "-sha256", "-verify"])
            .arg(self.key("release.pub"))
            .arg("-signature")
            .arg(signature);
        verify.arg(self.path(file));
        verify
    }

    fn decoded(&self, base64: &str) -> PathBuf {
        let bytes = data_encoding::BASE64
            .decode(base64.trim().as_bytes())
            .unwrap();
        fs::write(self.key("signature"), bytes).unwrap();
        self.key("signature")
    }

    fn mezctl(&self, path: &Path, words: &[&str]) -> Command {
        let mut verify = Command::new(release().join("mezctl"));
        verify
            .arg("verify-release")
            .arg(path)
            .arg("--key")
            .arg(self.key("release.pub"))
            .args(words);
        verify
    }
}

#[test]
fn attack_81_signatures_verify_with_openssl_ssh_keygen_and_mezctl_and_nothing_changed_does() {
    let signed = Signed::new();
    for name in ["SHA256SUMS", "mezhub", "mezctl"] {
        let text = fs::read_to_string(signed.path(&format!("{name}.sig"))).unwrap();
        let signature = signed.decoded(&text);
        ok(&mut signed.openssl(name, &signature));
        // The bundle says the same in the other form.
        let bundle = fs::read_to_string(signed.path(&format!("{name}.sigstore.json"))).unwrap();
        let bundle: Value = serde_json::from_str(&bundle).unwrap();
        assert_eq!(
            bundle["mediaType"],
            "application/vnd.dev.sigstore.bundle.v0.3+json"
        );
        assert_eq!(bundle["messageSignature"]["signature"], text.trim());
        let digest = bundle["messageSignature"]["messageDigest"]["digest"]
            .as_str()
            .unwrap();
        let digest = data_encoding::BASE64.decode(digest.as_bytes()).unwrap();
        let sum = ok(Command::new("sha256sum").arg(signed.path(name)));
        assert!(
            sum.starts_with(&data_encoding::HEXLOWER.encode(&digest)),
            "{sum}"
        );
    }
    let ssh = || {
        let script = "ssh-keygen -Y verify -f \"$1\" -I release@mezite -n file -s \"$2/SHA256SUMS.sshsig\" < \"$2/SHA256SUMS\"";
        let mut verify = Command::new("sh");
        verify
            .args(["-c", script, "sh"])
            .arg(signed.key("allowed"))
            .arg(signed.place.path());
        verify
    };
    ok(&mut ssh());
    let said = ok(&mut signed.mezctl(signed.place.path(), &[]));
    assert!(
        said.starts_with("version ") && said.contains("good  mezhub\n"),
        "{said}"
    );
    ok(&mut signed.mezctl(&signed.path("mezd"), &[]));
    // Without the key nothing is trusted: this program carries none.
    let mut bare = Command::new(release().join("mezctl"));
    let said = fails(bare.arg("verify-release").arg(signed.place.path()));
    assert!(said.contains("--key"), "{said}");
    // A changed program, then a list that was changed with it.
    let mut bytes = fs::read(signed.path("mezd")).unwrap();
    bytes[4096] ^= 1;
    fs::write(signed.path("mezd"), &bytes).unwrap();
    let said = fails(&mut signed.mezctl(&signed.path("mezd"), &[]));
    assert!(said.contains("`mezd` is not the file"), "{said}");
    let list = ok(Command::new("sh")
        .args(["-c", "sha256sum mezhub mezd > SHA256SUMS"])
        .current_dir(signed.place.path()));
    assert_eq!(list, "");
    let said = fails(&mut signed.mezctl(&signed.path("mezd"), &[]));
    assert!(said.contains("not signed"), "{said}");
    let text = fs::read_to_string(signed.path("SHA256SUMS.sig")).unwrap();
    let signature = signed.decoded(&text);
    assert!(
        !output(&mut signed.openssl("SHA256SUMS", &signature))
            .status
            .success()
    );
    fails(&mut ssh());
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
    let version = fs::read_to_string(release().join("BUILDINFO")).unwrap();
    let version = version
        .lines()
        .find_map(|line| line.strip_prefix("version: "))
        .unwrap()
        .to_owned();
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
    let inside = child_named("mezhub", hub.id());
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

/// The process of that name among what `parent` started, directly or not.
fn child_named(name: &str, parent: u32) -> u32 {
    let mut open = vec![parent];
    while let Some(id) = open.pop() {
        let path = format!("/proc/{id}");
        if fs::read_to_string(format!("{path}/comm")).is_ok_and(|comm| comm.trim() == name) {
            return id;
        }
        let children = fs::read_to_string(format!("{path}/task/{id}/children")).unwrap_or_default();
        open.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    panic!("no process `{name}` below {parent}");
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
    let version = artefact("_amd64.deb");
    let version = version.file_name().unwrap().to_string_lossy().into_owned();
    let version = version.split('_').nth(1).unwrap().to_owned();
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

#[test]
fn the_procedure_of_releasing_works_as_it_is_written() {
    let place = tempfile::tempdir().unwrap();
    let programs = place.path().join("programs");
    fs::create_dir(&programs).unwrap();
    // `cargo xtask` is the tool under test; the long build is the one that the other tests look at.
    let xtask = env!("CARGO_BIN_EXE_xtask");
    let shim = format!(
        "#!/bin/sh\nshift\n[ \"$1\" = dist ] && exec cp -r {} \"$3\"\nexec {xtask} \"$@\"\n",
        release().display()
    );
    fs::write(programs.join("cargo"), shim).unwrap();
    ok(Command::new("chmod").arg("755").arg(programs.join("cargo")));
    fs::copy(release().join("mezctl"), programs.join("mezctl")).unwrap();
    let database = advisories(place.path());
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../RELEASING.md"))
        .unwrap();
    let mut blocks = 0;
    let mut rest = page.as_str();
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let (block, after) = after.split_once("```").unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", block]).current_dir(place.path());
        ok(shell
            .env("PATH", path)
            .env("ADVISORIES", &database)
            .env_remove("CARGO"));
        blocks += 1;
        rest = after;
    }
    assert_eq!(blocks, 6);
}

/// A database with one advisory, of today and of nothing that we use.
fn advisories(place: &Path) -> PathBuf {
    let database = place.join("advisories");
    let directory = database.join("crates/leftpad");
    fs::create_dir_all(&directory).unwrap();
    let today = ok(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let year = today.split('-').next().unwrap().to_owned();
    let text = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-{year}-0001\"\npackage = \"leftpad\"\ndate = \"{}\"\n\n[versions]\npatched = []\n```\n\n# Reads too far\n\nIt does.\n",
        today.trim()
    );
    fs::write(directory.join(format!("RUSTSEC-{year}-0001.md")), text).unwrap();
    database
}
