//! How a program is built so that it is static and its bytes depend on nothing but sources, toolchain and C library.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PROGRAMS, TARGET};
use crate::step::{self, Failure};
use crate::tree;

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may hold spaces.
const SEPARATOR: &str = "\u{1f}";

/// What of the caller's environment a build sees: where tools lie and how the registry is reached. Everything else
/// (flags, profiles, names of the user or the machine) is left out, because it could change the bytes.
const KEPT: [&str; 15] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_OFFLINE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
];

/// What C compilers take the date to be, 1980-01-01. Not that of the commit: cargo would build every C library anew for each.
pub(crate) const DATE: &str = "315532800";

const FLAGS: [&str; 3] = [
    "-Ctarget-feature=+crt-static",
    // In a static program the C library's getrandom(2) is not found by name, and /dev/urandom may be absent.
    "--cfg=getrandom_backend=\"linux_getrandom\"",
    "-Clink-arg=-Wl,--build-id=none",
];

/// For names that C compilers invent.
const SEED: &str = "-frandom-seed=mezite";

pub(crate) struct Recipe {
    pub(crate) profile: String,
    pub(crate) rustflags: Vec<String>,
    pub(crate) cflags: String,
    target: PathBuf,
    /// Directories of this machine, and what stands for each in the programs.
    places: Vec<(String, &'static str)>,
}

impl Recipe {
    pub(crate) fn new(profile: &str, target: &Path) -> Result<Self, Failure> {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
            .ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))?;
        let sysroot = step::read(rustc().args(["--print", "sysroot"]))?;
        let root = tree::root();
        let places = [
            (sysroot.trim().into(), "/rust"),
            (home, "/cargo"),
            (root, "/build"),
            (target.to_owned(), "/target"),
        ];
        let mut shown = Vec::new();
        for (path, stands) in places {
            let text = path
                .to_str()
                .filter(|text| !text.contains(char::is_whitespace));
            let text = text.ok_or_else(|| {
                Failure::new(format!(
                    "`{}` has a space in its name, which compiler flags cannot carry: build elsewhere",
                    path.display()
                ))
            })?;
            shown.push((text.to_owned(), stands));
        }
        // The last that fits wins, and one may lie in another.
        let mut inner_last: Vec<_> = shown.iter().collect();
        inner_last.sort_by_key(|(path, _)| path.len());
        let map = |option: &str| -> Vec<String> {
            let maps = inner_last
                .iter()
                .map(|(path, stands)| format!("{option}={path}={stands}"));
            maps.collect()
        };
        let rustflags = FLAGS.map(String::from).into_iter();
        Ok(Self {
            profile: profile.to_owned(),
            rustflags: rustflags.chain(map("--remap-path-prefix")).collect(),
            cflags: format!("{} {SEED}", map("-ffile-prefix-map").join(" ")),
            target: target.to_owned(),
            places: shown,
        })
    }

    /// Builds the programs; gives the directory that they lie in.
    pub(crate) fn build(&self, programs: &[String]) -> Result<PathBuf, Failure> {
        check_toolchain()?;
        step::run("programs", &mut self.command(programs))?;
        Ok(self.target.join(TARGET).join(&self.profile))
    }

    fn command(&self, programs: &[String]) -> Command {
        let mut build = step::cargo(["build", "--locked", "--target", TARGET]);
        build.args(["--profile", &self.profile]);
        // All packages, whatever is built of them: the features of what they share are the same then, and so are the bytes.
        for name in PROGRAMS {
            build.args(["--package", name]);
        }
        for name in programs {
            build.args(["--bin", name]);
        }
        clean(&mut build)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags.join(SEPARATOR))
            .env("CFLAGS", &self.cflags)
            .env("CXXFLAGS", &self.cflags)
            .env("SOURCE_DATE_EPOCH", DATE)
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        build
    }

    /// Directories of this machine that no program may name.
    pub(crate) fn secret_paths(&self) -> Vec<&str> {
        self.places.iter().map(|(path, _)| path.as_str()).collect()
    }

    /// The flags as anybody would give them: with the directories named by what stands for them.
    pub(crate) fn flags(&self) -> (String, String) {
        let map = |option: &str| {
            let maps = self.places.iter().map(|(_, stands)| {
                let name = stands.trim_start_matches('/').to_uppercase();
                format!("{option}=${name}={stands}")
            });
            maps.collect::<Vec<_>>().join(" ")
        };
        (
            format!("{} {}", FLAGS.join(" "), map("--remap-path-prefix")),
            format!("{} {SEED}", map("-ffile-prefix-map")),
        )
    }
}

/// Takes from a command what of the caller's environment a build must not see.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    command.env_clear();
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// The compiler that cargo takes in this tree.
pub(crate) fn rustc() -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(tree::root());
    command
}

/// The toolchain that rust-toolchain.toml pins, and no other.
fn check_toolchain() -> Result<(), Failure> {
    let pinned = pinned()?;
    let found = step::read(rustc().arg("--version"))?;
    if found.split(' ').nth(1) == Some(&pinned) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "rust-toolchain.toml pins {pinned}, and `rustc --version` says `{}`: another compiler makes other bytes; install it with `rustup toolchain install {pinned}`",
        found.trim()
    )))
}

/// The version in rust-toolchain.toml.
pub(crate) fn pinned() -> Result<String, Failure> {
    let text = tree::text(&tree::root().join("rust-toolchain.toml"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("channel = \""));
    line.and_then(|rest| rest.strip_suffix('"'))
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("rust-toolchain.toml has no line `channel = \"…\"`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_without_a_directory_of_this_machine() {
        let recipe = Recipe::new("dist", Path::new("/tmp/some/target")).unwrap();
        let (rust, c) = recipe.flags();
        for path in recipe.secret_paths() {
            assert!(
                recipe.rustflags.iter().any(|flag| flag.contains(path)),
                "{path}"
            );
            assert!(!rust.contains(&format!("={path}=")), "{rust}");
            assert!(!c.contains(&format!("={path}=")), "{c}");
        }
        assert!(
            rust.contains("--remap-path-prefix=$TARGET=/target"),
            "{rust}"
        );
    }

    #[test]
    fn attack_81_a_release_and_what_ci_runs_take_the_versions_of_the_lock_file() {
        let recipe = Recipe::new("dist", Path::new("/tmp/some/target")).unwrap();
        let build = recipe.command(&[String::from("msh")]);
        assert!(build.get_args().any(|word| word == "--locked"));
        let script = tree::text(&tree::root().join(".ci/run")).unwrap();
        let mut steps = 0;
        for line in script
            .lines()
            .filter(|line| line.contains("section ") && line.contains(" cargo "))
        {
            assert!(
                line.ends_with("--locked") || line.contains(" --locked "),
                "{line}"
            );
            steps += 1;
        }
        assert_eq!(steps, 3);
    }

    #[test]
    fn of_two_directories_the_inner_one_is_told() {
        let target = tree::root().join("some/target");
        let recipe = Recipe::new("dist", &target).unwrap();
        let at = |stands: &str| recipe.cflags.find(stands).unwrap();
        assert!(at("=/build ") < at("=/target "), "{}", recipe.cflags);
        let recipe = Recipe::new("dist", Path::new("/")).unwrap();
        let at = |stands: &str| recipe.cflags.find(stands).unwrap();
        assert!(at("=/target ") < at("=/build "), "{}", recipe.cflags);
    }

    #[test]
    fn a_directory_that_flags_cannot_carry_is_refused() {
        let failure = Recipe::new("dist", Path::new("/tmp/my target"))
            .err()
            .unwrap();
        assert!(failure.to_string().contains("/tmp/my target"), "{failure}");
    }
}
