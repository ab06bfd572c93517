//! Shell completions and man pages, made from the command line's definition.

use crate::cli::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Arguments of `pilotfish completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete. bash: `source <(pilotfish completions bash)`; fish: `pilotfish completions fish |
    /// source`; zsh: write it to `_pilotfish` in a directory of `$fpath`.
    pub shell: Shell,
}

/// Arguments of `pilotfish man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write every page, one for each subcommand, into this directory, which is made if it is not there. Without it
    /// the main page goes to standard output.
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}

/// Runs `pilotfish completions`; the result is the exit code.
pub fn completions(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pilotfish", &mut script);
    print(&script).context("cannot write the completion script to standard output")?;
    Ok(0)
}

/// Runs `pilotfish man`; the result is the exit code.
pub fn man(args: &ManArgs) -> Result<u8> {
    if let Some(directory) = &args.dir {
        write_pages(directory)?;
    } else {
        let mut page = Vec::new();
        Man::new(definition()).render(&mut page)?;
        print(&page).context("cannot write the man page to standard output")?;
    }
    Ok(0)
}

fn write_pages(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(definition(), directory))
        .with_context(|| {
            format!(
                "cannot write man pages into {}; name a writable directory with --dir",
                directory.display()
            )
        })
}

fn definition() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, process::Command};

    fn script(shell: Shell) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "pilotfish", &mut script);
        String::from_utf8(script).unwrap()
    }

    fn subcommands() -> BTreeSet<String> {
        let mut definition = Cli::command();
        definition.build();
        let commands = definition.get_subcommands();
        commands
            .map(|command| command.get_name().to_owned())
            .collect()
    }

    /// bash itself reads the script and completes the words.
    fn completed(words: &[&str]) -> BTreeSet<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pilotfish.bash");
        std::fs::write(&path, script(Shell::Bash)).unwrap();
        let checked = Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        let program = r#"
            source "$1"; shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _pilotfish pilotfish "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let output = Command::new("bash")
            .args(["-c", program, "bash"])
            .arg(&path)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let answer = String::from_utf8(output.stdout).unwrap();
        answer.lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_subcommands_flags_and_values() {
        assert_eq!(
            completed(&["pilotfish", "side"]),
            BTreeSet::from(["sidecar".to_owned()])
        );
        assert!(completed(&["pilotfish", ""]).is_superset(&subcommands()));
        let flags = completed(&["pilotfish", "sidecar", "--print"]);
        assert!(
            flags.contains("--print") && flags.contains("--print-file"),
            "{flags:?}"
        );
        let values = completed(&["pilotfish", "sidecar", "--print", ""]);
        let expected = ["live", "text", "json", "none"].map(str::to_owned);
        assert_eq!(values, BTreeSet::from(expected));
    }

    #[test]
    fn every_shell_has_a_script_that_knows_the_subcommands() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let script = script(shell);
            for command in subcommands() {
                assert!(script.contains(&command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn every_subcommand_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let pages = directory.path().join("share/man1");
        write_pages(&pages).unwrap();
        let found: BTreeSet<String> = std::fs::read_dir(&pages)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut expected = BTreeSet::from(["pilotfish.1".to_owned()]);
        let commands = subcommands()
            .into_iter()
            .filter(|command| command != "help");
        expected.extend(commands.map(|command| format!("pilotfish-{command}.1")));
        assert_eq!(found, expected);
        let page = std::fs::read_to_string(pages.join("pilotfish-sidecar.1")).unwrap();
        for part in [
            ".TH pilotfish-sidecar 1",
            "PILOTFISH_PRINT_FILE",
            "\\-\\-annotations\\-file",
        ] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
        let error = write_pages(&pages.join("pilotfish.1")).unwrap_err();
        assert!(error.to_string().contains("--dir"), "{error}");
    }

    /// groff is part of Debian's man-db, which is where pages are read.
    #[test]
    fn groff_sets_every_page_without_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let output = Command::new("groff")
                .args(["-ww", "-man", "-Tutf8", "-Kutf8", "-z"])
                .arg(entry.unwrap().path())
                .output()
                .expect("groff is installed (Debian package groff-base)");
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && complaints.is_empty(),
                "{complaints}"
            );
        }
    }
}
