//! `cargo xtask fence`: the rules of ARCHITECTURE.md about who may know whom, executed.
//!
//! Three tables: one line per package (allowed edges, forbidden dependencies, the reason), the libraries that
//! only one package may name, and the module in which it may name them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::step::{self, Failure, cargo};
use crate::tree;

pub(crate) const HELP: &str = "\
Check the dependency and source rules of ARCHITECTURE.md.

Usage: cargo xtask fence

Every package of the workspace has a line in the table of `bins/xtask/src/fence.rs`: which packages of the
house it may depend on (normal and build dependencies; tests are free), which libraries it must never
reach, and why. Libraries with one owner may be named in one module only.
";

/// The pure crates: each is compiled alone by `cargo xtask lint`.
pub(crate) const PURE: [&str; 5] = [
    "mezite-core",
    "mezite-rbac",
    "mezite-ca",
    "mezite-audit",
    "mezite-record",
];

/// What makes a crate impure: runtimes, transports, wire formats, databases.
const RUNTIME_AND_IO: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "hyper",
    "tonic",
    "prost",
    "axum",
    "reqwest",
    "russh",
    "rustls",
    "openssl",
    "rusqlite",
    "libsqlite3-sys",
    "sqlx",
    "tokio-postgres",
];

/// What keeps clients and agents small: no database comes along.
const DATABASES: &[&str] = &["rusqlite", "libsqlite3-sys", "sqlx", "tokio-postgres"];

/// Which packages of the house a package may depend on.
enum Edges {
    /// Composition roots choose freely.
    Any,
    Only(&'static [&'static str]),
}

/// One package of the table.
struct Rule {
    package: &'static str,
    edges: Edges,
    forbidden: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        package: "mezite-core",
        edges: Edges::Only(&[]),
        forbidden: RUNTIME_AND_IO,
        why: "core is vocabulary: no runtime, no I/O, no wire format",
    },
    Rule {
        package: "mezite-rbac",
        edges: Edges::Only(&["mezite-core"]),
        forbidden: RUNTIME_AND_IO,
        why: "the policy engine is a pure function",
    },
    Rule {
        package: "mezite-ca",
        edges: Edges::Only(&["mezite-core"]),
        forbidden: RUNTIME_AND_IO,
        why: "integrators embed the CA without a runtime",
    },
    Rule {
        package: "mezite-audit",
        edges: Edges::Only(&["mezite-core"]),
        forbidden: RUNTIME_AND_IO,
        why: "the log can be verified by a stranger; sinks do the I/O",
    },
    Rule {
        package: "mezite-sinks",
        edges: Edges::Only(&["mezite-core", "mezite-audit", "mezite-net"]),
        forbidden: DATABASES,
        why: "a sink is handed events; it reads no store and knows nobody who acts",
    },
    Rule {
        package: "mezite-record",
        edges: Edges::Only(&["mezite-core"]),
        forbidden: RUNTIME_AND_IO,
        why: "a recording must be readable offline",
    },
    Rule {
        package: "mezite-store-sqlite",
        edges: Edges::Only(&["mezite-core"]),
        forbidden: &["tonic", "russh", "rustls", "tokio-postgres"],
        why: "a store knows the Store seam and its database, nothing else",
    },
    Rule {
        package: "mezite-store-postgres",
        edges: Edges::Only(&["mezite-core"]),
        forbidden: &["tonic", "russh", "rusqlite"],
        why: "a store knows the Store seam and its database, nothing else",
    },
    Rule {
        package: "mezite-api",
        edges: Edges::Only(&[
            "mezite-core",
            "mezite-ca",
            "mezite-rbac",
            "mezite-audit",
            "mezite-record",
        ]),
        forbidden: &["russh", "rusqlite", "libsqlite3-sys", "tokio-postgres"],
        why: "the contract knows the leaves' types and the wire, no transport of ours and no database",
    },
    Rule {
        package: "mezite-net",
        edges: Edges::Only(&["mezite-core", "mezite-ca"]),
        forbidden: DATABASES,
        why: "transport proves who is there; what they may do is decided above it",
    },
    Rule {
        package: "mezite-vault",
        edges: Edges::Only(&["mezite-core", "mezite-record"]),
        forbidden: &[
            "tonic",
            "russh",
            "rusqlite",
            "libsqlite3-sys",
            "tokio-postgres",
        ],
        why: "a vault stores bytes it cannot read",
    },
    Rule {
        package: "mezite-auth",
        edges: Edges::Only(&[
            "mezite-core",
            "mezite-ca",
            "mezite-rbac",
            "mezite-audit",
            "mezite-api",
            "mezite-net",
        ]),
        forbidden: DATABASES,
        why: "the auth service sees the Store seam; binaries choose the backend",
    },
    Rule {
        package: "mezite-proxy",
        edges: Edges::Only(&[
            "mezite-core",
            "mezite-ca",
            "mezite-rbac",
            "mezite-audit",
            "mezite-record",
            "mezite-net",
        ]),
        forbidden: DATABASES,
        why: "the proxy asks the auth service; it has no database",
    },
    Rule {
        package: "mezite-node",
        edges: Edges::Only(&[
            "mezite-core",
            "mezite-ca",
            "mezite-rbac",
            "mezite-audit",
            "mezite-record",
            "mezite-api",
            "mezite-net",
            "mezite-proxy",
        ]),
        forbidden: DATABASES,
        why: "an agent runs on every machine: no database comes along",
    },
    Rule {
        package: "mezite-console",
        edges: Edges::Only(&["mezite-core", "mezite-record", "mezite-api", "mezite-net"]),
        forbidden: DATABASES,
        why: "it shows what a hub says, to users and administrators alike",
    },
    Rule {
        package: "mezite-hardening",
        edges: Edges::Only(&[]),
        forbidden: &["tokio"],
        why: "what gives up privileges runs before any thread and knows nothing of what runs after it",
    },
    Rule {
        package: "mezite-standalone",
        edges: Edges::Only(&[]),
        forbidden: DATABASES,
        why: "it stands beneath every program and knows none of them",
    },
    Rule {
        package: "mezhub",
        edges: Edges::Any,
        forbidden: &[],
        why: "",
    },
    Rule {
        package: "mezd",
        edges: Edges::Any,
        forbidden: DATABASES,
        why: "an agent runs on every machine: no database comes along",
    },
    Rule {
        package: "msh",
        edges: Edges::Any,
        forbidden: DATABASES,
        why: "a client needs no database",
    },
    Rule {
        package: "mezctl",
        edges: Edges::Any,
        forbidden: DATABASES,
        why: "administration goes through the hub, never around it into the database",
    },
    Rule {
        package: "mezite-examples",
        edges: Edges::Any,
        forbidden: &[],
        why: "",
    },
    Rule {
        package: "xtask",
        edges: Edges::Only(&[]),
        forbidden: &["tokio"],
        why: "the tools compile before and without the house",
    },
];

/// A library with one owner: who may depend on it, and in which sources its name may stand.
struct Owner {
    library: &'static str,
    /// Packages whose manifest may list it.
    packages: &'static [&'static str],
    /// The names it has in code, and the start of the paths that may say them.
    names: &'static [&'static str],
    modules: &'static [&'static str],
    why: &'static str,
}

const OWNERS: &[Owner] = &[
    Owner {
        library: "russh",
        packages: &["mezite-net"],
        names: &["russh"],
        modules: &["mezite-proxy/net/src/ssh"],
        why: "the SSH engine stays replaceable behind the facade `mezite_net::ssh`",
    },
    Owner {
        library: "rustls",
        packages: &["mezite-net", "mezite-store-postgres"],
        names: &["rustls"],
        modules: &[
            "mezite-proxy/net/src/tls",
            "mezite-core/store-postgres/src/tls",
        ],
        why: "one module decides versions, suites and who is verified; one more for the database, whose certificate is by the \
              operator's authority and not by ours",
    },
    Owner {
        library: "tokio-rustls",
        packages: &["mezite-net"],
        names: &["tokio_rustls"],
        modules: &["mezite-proxy/net/src/tls"],
        why: "one module decides versions, suites and who is verified",
    },
];

pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    if let Some(other) = options.first() {
        return Err(Failure::usage(format!("unknown option `{other}`")));
    }
    let packages = workspace()?;
    let mut broken = Vec::new();
    for package in &packages {
        match RULES.iter().find(|rule| rule.package == package.name) {
            None => broken.push(format!(
                "`{}` has no line in the table: add one to `bins/xtask/src/fence.rs`",
                package.name
            )),
            Some(rule) => broken.extend(edges_broken(rule, package, &packages)),
        }
        broken.extend(owners_broken(package));
    }
    for rule in RULES.iter().filter(|rule| {
        !rule.forbidden.is_empty() && packages.iter().any(|package| package.name == rule.package)
    }) {
        broken.extend(reaches_broken(rule, &listing(rule.package)?));
    }
    let root = tree::root();
    for path in tree::sources(&root)? {
        broken.extend(names_broken(&path, &tree::text(&root.join(&path))?));
    }
    if broken.is_empty() {
        println!("fence: ok ({} packages)", packages.len());
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} rules broken\n{}",
        broken.len(),
        broken.join("\n")
    )))
}

/// A member of the workspace and what its manifest lists outside of tests.
struct Package {
    name: String,
    dependencies: BTreeSet<String>,
}

fn workspace() -> Result<Vec<Package>, Failure> {
    let text = step::read(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("`cargo metadata` is not JSON: {error}")))?;
    let packages: Vec<Package> = list(&metadata, "packages").iter().map(package).collect();
    if packages.is_empty() {
        return Err(Failure::new("`cargo metadata` lists no package"));
    }
    Ok(packages)
}

fn package(entry: &Value) -> Package {
    let outside_tests =
        |dependency: &&Value| dependency.get("kind").and_then(Value::as_str) != Some("dev");
    let dependencies = list(entry, "dependencies")
        .iter()
        .filter(outside_tests)
        .map(|dependency| word(dependency, "name"))
        .collect();
    Package {
        name: word(entry, "name"),
        dependencies,
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn word(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn edges_broken(rule: &Rule, package: &Package, all: &[Package]) -> Vec<String> {
    let Edges::Only(allowed) = rule.edges else {
        return Vec::new();
    };
    let in_the_house = |name: &&String| all.iter().any(|other| &other.name == *name);
    let stray = package
        .dependencies
        .iter()
        .filter(in_the_house)
        .filter(|name| !allowed.contains(&name.as_str()));
    stray
        .map(|name| {
            let Rule { package, why, .. } = rule;
            format!("{package} -> {name} is not an allowed edge: {why}\n  cargo tree -p {package} -e normal,build --depth 1")
        })
        .collect()
}

fn owners_broken(package: &Package) -> Vec<String> {
    let stray = |owner: &&Owner| {
        package.dependencies.contains(owner.library)
            && !owner.packages.contains(&package.name.as_str())
    };
    let line = |Owner {
                    library,
                    packages,
                    why,
                    ..
                }: &Owner| {
        let name = &package.name;
        format!(
            "{name} depends on {library}, which only {} may: {why}\n  cargo tree -p {name} -e normal,build --depth 1",
            packages.join(", ")
        )
    };
    OWNERS.iter().filter(stray).map(line).collect()
}

/// All package names in the normal dependency tree, the package itself included.
fn listing(package: &str) -> Result<BTreeSet<String>, Failure> {
    let text = step::read(&mut cargo([
        "tree",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]))?;
    let names: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    if names.contains(package) {
        Ok(names)
    } else {
        Err(Failure::new(format!(
            "`cargo tree -p {package}` does not list `{package}`"
        )))
    }
}

fn reaches_broken(rule: &Rule, reached: &BTreeSet<String>) -> Vec<String> {
    let Rule {
        package,
        forbidden,
        why,
        ..
    } = rule;
    let stray = forbidden.iter().filter(|name| reached.contains(**name));
    stray
        .map(|name| {
            format!(
                "{package} reaches {name}: {why}\n  cargo tree -p {package} -e normal -i {name}"
            )
        })
        .collect()
}

/// Code lines of programs and libraries that name a library outside of its module; tests and benches are free.
fn names_broken(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display().to_string();
    if !shown.contains("src/") {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for (owner, name) in OWNERS
        .iter()
        .flat_map(|owner| owner.names.iter().map(move |name| (owner, name)))
    {
        if owner.modules.iter().any(|module| shown.starts_with(module)) {
            continue;
        }
        for (line, _) in text
            .lines()
            .zip(1_u32..)
            .filter(|(line, _)| says(line, name))
            .map(|(line, number)| (number, line))
        {
            let Owner { modules, why, .. } = owner;
            let modules = modules.join("*`, `");
            broken.push(format!("{shown}:{line} names {name}, which only `{modules}*` may: {why}\n  grep -nw {name} {shown}"));
        }
    }
    broken
}

/// True where code, not a comment, uses the crate: `name::…`, `use name`, `extern crate name`.
fn says(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let part_of_a_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (
            code.get(..at).unwrap_or_default(),
            code.get(at + name.len()..).unwrap_or_default(),
        );
        let whole = !before.ends_with(part_of_a_word) && !after.starts_with(part_of_a_word);
        // In `crate::name::…` it is a module of ours; in `::name::…` it is the crate.
        let head = before.strip_suffix("::").unwrap_or(before);
        let path_head = !head.ends_with(part_of_a_word) || head.len() == before.len();
        let used = after.trim_start().starts_with("::")
            || before.trim_end().ends_with("use")
            || before.trim_end().ends_with("crate");
        whole && path_head && used
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn rule(package: &str) -> &'static Rule {
        RULES.iter().find(|rule| rule.package == package).unwrap()
    }

    #[test]
    fn a_leaf_that_imports_a_leaf_is_found() {
        let all = [
            house("mezite-core", &[]),
            house("mezite-ca", &[]),
            house("mezite-rbac", &["mezite-core", "mezite-ca", "serde"]),
        ];
        let broken = edges_broken(rule("mezite-rbac"), &all[2], &all);
        assert_eq!(broken.len(), 1);
        assert!(
            broken[0].starts_with("mezite-rbac -> mezite-ca is not an allowed edge"),
            "{broken:?}"
        );
    }

    #[test]
    fn a_pure_crate_that_reaches_a_runtime_is_found_with_reason_and_command() {
        let reached = ["mezite-rbac", "serde", "tokio"].map(str::to_owned).into();
        let broken = reaches_broken(rule("mezite-rbac"), &reached);
        assert_eq!(
            broken,
            [
                "mezite-rbac reaches tokio: the policy engine is a pure function\n  cargo tree -p mezite-rbac -e normal -i tokio"
            ]
        );
    }

    #[test]
    fn an_owned_library_in_a_foreign_manifest_is_found() {
        assert_eq!(
            owners_broken(&house("mezite-net", &["russh"])),
            Vec::<String>::new()
        );
        assert_eq!(owners_broken(&house("mezite-proxy", &["russh"])).len(), 1);
    }

    #[test]
    fn only_code_counts_as_naming_a_library() {
        let library = "russh";
        assert!(says(&format!("use {library}::server;"), library));
        assert!(says(
            &format!("    let x = {library}::client::Config::default();"),
            library
        ));
        assert!(says(&format!("use {library} as engine;"), library));
        assert!(!says(
            &format!("// {library}::server re-opens the window"),
            library
        ));
        assert!(!says(
            &format!("let text = \"{library} refuses it\";"),
            library
        ));
        assert!(!says(
            &format!("{library}_sftp::server::run(stream)"),
            library
        ));
        assert!(!says(&format!("crate::{library}::x"), library));
    }

    #[test]
    fn a_name_is_free_in_its_module_and_in_tests_only() {
        let line = concat!("use rus", "sh::client;");
        assert!(names_broken(Path::new("mezite-proxy/net/src/ssh/engine.rs"), line).is_empty());
        assert!(names_broken(Path::new("mezite-proxy/tests/hostile.rs"), line).is_empty());
        assert_eq!(
            names_broken(Path::new("mezite-proxy/src/gateway.rs"), line).len(),
            1
        );
        assert_eq!(
            names_broken(Path::new("mezite-proxy/net/src/tls.rs"), line).len(),
            1
        );
    }

    #[test]
    fn the_table_has_each_package_once_and_every_pure_crate_is_fenced() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.package).collect();
        assert_eq!(names.len(), RULES.len());
        for package in PURE {
            assert_eq!(rule(package).forbidden, RUNTIME_AND_IO, "{package}");
        }
    }
}
