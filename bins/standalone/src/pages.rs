//! Manual pages and shell completions, made from the commands that the program really has.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate_to};

/// Writes `man/*.1` (one page for each command) and `completions/*` for bash, zsh and fish below `directory`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(command: &Command, directory: &Path) -> io::Result<()> {
    let man = directory.join("man");
    let completions = directory.join("completions");
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(command.clone(), &man)?;
    let name = command.get_name();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command.clone(), name, &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_shell_its_file() {
        let scratch = tempfile::tempdir().unwrap();
        let hidden = Command::new("secret").hide(true);
        let command = Command::new("tool")
            .about("Does it")
            .subcommand(Command::new("start").about("Begin"))
            .subcommand(hidden);
        write(&command, scratch.path()).unwrap();
        let list = |directory: &str| {
            let entries = fs::read_dir(scratch.path().join(directory)).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert!(list("man").contains(&"tool.1".to_owned()));
        assert!(list("man").contains(&"tool-start.1".to_owned()));
        assert!(!list("man").contains(&"tool-secret.1".to_owned()));
        assert_eq!(list("completions"), ["_tool", "tool.bash", "tool.fish"]);
    }
}
