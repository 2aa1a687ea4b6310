//! `roles`: what a change would do, whether roles are as written down, what looks odd, the schema of their documents.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mezite_api::v1::{DiffRolesRequest, LintRolesRequest, RoleFile, RoleLint};
use mezite_core::RoleName;
use mezite_rbac::{Cases, PolicySet, Report, Role, builtin_roles, role_schema};
use serde_json::{Value, json};

use crate::fail::{Code, Failure};
use crate::files;
use crate::hub::{Hub, Where, within};
use crate::out::{self, Format, Table};

/// Most bytes of the files that one question to the hub may hold.
const MAX_QUESTION: usize = 1_000_000;

/// What can be done with role documents.
#[derive(Debug, Subcommand)]
pub(crate) enum Roles {
    /// Say who would gain and who would lose what, if these roles were applied.
    #[command(
        after_help = "Examples:\n  mezctl roles diff -f backend-dev.yaml\n  mezctl roles diff -f roles/*.yaml --rm old-role -o json"
    )]
    Diff(DiffArgs),
    /// Check roles against cases that say what they are meant to allow. Needs no hub; exit code 1 if one fails.
    #[command(after_help = "Example:\n  mezctl roles test -f roles.yaml cases.yaml")]
    Test(TestArgs),
    /// Point out what is hardly meant: in these files, which needs no hub, or in the roles of the hub, seen with its users and
    /// nodes. Exit code 1 if something is likely a mistake.
    #[command(after_help = "Examples:\n  mezctl roles lint\n  mezctl roles lint -f roles/*.yaml")]
    Lint(LintArgs),
    /// Print the JSON schema of role documents, for editors.
    #[command(after_help = "Example:\n  mezctl roles schema > role.schema.json")]
    Schema,
}

/// What `roles diff` takes.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Role documents, YAML or JSON, that come new or replace those of the same name; `-` for standard input.
    #[arg(short, long = "file", value_name = "FILE", num_args = 1.., required_unless_present = "removed")]
    files: Vec<PathBuf>,
    /// Roles that would go.
    #[arg(long = "rm", value_name = "ROLE", num_args = 1..)]
    removed: Vec<RoleName>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `roles test` takes.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Documents `kind: role-cases` and `kind: role`; the built-in roles are there unless a document replaces them.
    #[arg(short, long = "file", value_name = "FILE", num_args = 1.., required = true)]
    files: Vec<PathBuf>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `roles lint` takes.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Role documents; the roles of the hub by default.
    #[arg(short, long = "file", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(command: &Roles, place: &Where) -> Result<(), Failure> {
    match command {
        Roles::Diff(args) => diff(args, &mut Hub::connect(place).await?).await,
        Roles::Test(args) => test(args),
        Roles::Lint(args) if args.files.is_empty() => {
            lint_hub(args, &mut Hub::connect(place).await?).await
        }
        Roles::Lint(args) => lint_files(args),
        Roles::Schema => out::json(&role_schema()),
    }
}

async fn diff(args: &DiffArgs, hub: &mut Hub) -> Result<(), Failure> {
    let mut files = Vec::new();
    let mut bytes = 0_usize;
    for path in &args.files {
        let text = files::read(path)?;
        bytes = bytes.saturating_add(text.len());
        files.push(RoleFile {
            name: path.display().to_string(),
            text,
        });
    }
    if bytes > MAX_QUESTION {
        return Err(Failure::usage(format_args!(
            "the files hold {bytes} bytes: at most {MAX_QUESTION} in one question, ask in parts"
        )));
    }
    let removed = args.removed.iter().map(ToString::to_string).collect();
    let request = DiffRolesRequest { files, removed };
    let mut answers = within(hub.client.diff_roles(request)).await?;
    let mut changes = Vec::new();
    let mut lines = Vec::new();
    while let Some(answer) = answers.message().await? {
        changes.push(serde_json::from_str::<Value>(&answer.change).map_err(Failure::failed)?);
        lines.push(answer.text);
    }
    match args.output {
        Format::Json => out::json(&changes.into()),
        Format::Yaml => out::yaml(&changes.into()),
        Format::Table if lines.is_empty() => out::line("nothing changes for anybody"),
        Format::Table => lines.iter().try_for_each(|text| out::lines(text)),
    }
}

fn test(args: &TestArgs) -> Result<(), Failure> {
    let mut roles = Vec::new();
    let mut cases = Vec::new();
    for path in &args.files {
        for (kind, text) in documents(path)? {
            let origin = path.display().to_string();
            match kind {
                Kind::Role => roles.extend(Role::parse(&text, &origin).map_err(Failure::usage)?),
                Kind::Cases => cases.extend(Cases::parse(&text, &origin).map_err(Failure::usage)?),
            }
        }
    }
    if cases.is_empty() {
        return Err(Failure::usage(
            "there is no case in these files: write a document with `kind: role-cases`",
        ));
    }
    let policy = compiled(roles)?;
    let mut report = Report::default();
    for one in &cases {
        report.add(one.run(&policy));
    }
    match args.output {
        Format::Table => out::lines(&report.to_string())?,
        Format::Json => out::json(&json!(report))?,
        Format::Yaml => out::yaml(&json!(report))?,
    }
    if report.is_passed() {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, ""))
}

/// The roles of these documents, and the built-in ones that they do not replace.
fn compiled(roles: Vec<Role>) -> Result<PolicySet, Failure> {
    let replaced = |own: &Role| roles.iter().any(|role| role.name() == own.name());
    let mut all: Vec<Role> = builtin_roles()
        .into_iter()
        .filter(|own| !replaced(own))
        .collect();
    all.extend(roles);
    PolicySet::compile(all).map_err(Failure::usage)
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cases,
    Role,
}

/// The documents of a file, each behind as many empty lines as stand before it, so that errors name the lines of the file.
fn documents(path: &Path) -> Result<Vec<(Kind, String)>, Failure> {
    let text = files::read(path)?;
    let mut found = Vec::new();
    for (line, document) in super::resources::split_at(&text) {
        // Only to see what it is: whoever takes it reads it strictly.
        let value = serde_saphyr::from_str::<Value>(&document).ok();
        let kind = value.as_ref().and_then(|value| value.get("kind"));
        let kind = match kind.and_then(Value::as_str) {
            Some("role-cases") => Kind::Cases,
            // What cannot be read is a role as well as anything else: its reader says what is wrong with it.
            Some("role") | None => Kind::Role,
            Some(other) => {
                return Err(Failure::usage(format_args!(
                    "{}: a document of kind `{other}` is not for this: write `role` or `role-cases`",
                    path.display()
                )));
            }
        };
        found.push((kind, "\n".repeat(line) + &document));
    }
    Ok(found)
}

fn lint_files(args: &LintArgs) -> Result<(), Failure> {
    let mut roles = Vec::new();
    for path in &args.files {
        let text = files::read(path)?;
        let origin = path.display().to_string();
        roles.extend(Role::parse(&text, &origin).map_err(Failure::usage)?);
    }
    let policy = PolicySet::compile(roles).map_err(Failure::usage)?;
    let lints = mezite_rbac::lint(&policy, None);
    let lints: Vec<RoleLint> = lints
        .into_iter()
        .map(|lint| RoleLint {
            role: lint.role.to_string(),
            place: lint.place,
            concern: lint.concern.as_str().to_owned(),
            message: lint.message,
            warning: lint.concern.is_warning(),
        })
        .collect();
    show(&lints, args.output)
}

async fn lint_hub(args: &LintArgs, hub: &mut Hub) -> Result<(), Failure> {
    let answer = within(hub.client.lint_roles(LintRolesRequest {})).await?;
    show(&answer.lints, args.output)
}

fn show(lints: &[RoleLint], format: Format) -> Result<(), Failure> {
    let value = |lint: &RoleLint| {
        json!({
            "role": lint.role, "place": lint.place, "concern": lint.concern,
            "message": lint.message, "warning": lint.warning,
        })
    };
    if lints.is_empty() && format == Format::Table {
        return out::line("nothing looks odd");
    }
    let values: Value = lints.iter().map(value).collect();
    out::show(format, &values, || table(lints))?;
    if lints.iter().any(|lint| lint.warning) {
        return Err(Failure::new(Code::Failed, ""));
    }
    Ok(())
}

fn table(lints: &[RoleLint]) -> Table {
    let mut table = Table::new(&["", "ROLE", "PLACE", "CONCERN", "WHAT"]);
    for lint in lints {
        let mark = if lint.warning { "!" } else { "" };
        table.row(&[
            mark.to_owned(),
            lint.role.clone(),
            lint.place.clone(),
            lint.concern.clone(),
            lint.message.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_file_may_hold_both_kinds_and_errors_name_its_lines() {
        let both = file(
            "kind: role\nversion: v1\nmetadata: { name: a }\n---\nkind: role-cases\nversion: v1\nusers: {}\ncases:\n  - name: x\n    expect: maybe\n",
        );
        let found = documents(both.path()).unwrap();
        let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Role, Kind::Cases]);
        let error = Cases::parse(&found[1].1, "f").unwrap_err().to_string();
        assert!(error.starts_with("f:10:"), "{error}");
        let other = file("kind: user\n");
        let error = documents(other.path()).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert!(error.to_string().contains("`user`"), "{error}");
    }

    #[test]
    fn built_in_roles_are_there_unless_they_are_replaced() {
        let own = "kind: role\nversion: v1\nmetadata: { name: access, description: mine }\n";
        let policy = compiled(Role::parse(own, "own").unwrap()).unwrap();
        let access: Vec<&Role> = policy
            .roles()
            .filter(|role| role.name().as_str() == "access")
            .collect();
        assert_eq!(access.len(), 1);
        assert_eq!(access[0].description(), "mine");
        assert!(policy.roles().any(|role| role.name().as_str() == "admin"));
    }
}
