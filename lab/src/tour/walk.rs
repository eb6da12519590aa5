//! Goes the tour's steps: runs each command until it shows what it must, and prints it with its output.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Look, STEPS};
use crate::error::{Error, Result};

/// How long a command may take to show what it must: the network learns of changes within moments.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is tried.
const PERIOD: Duration = Duration::from_millis(100);
/// How wide text is, in columns.
const WIDTH: usize = 100;

/// Where the tour is.
#[derive(Debug)]
pub struct Place {
    /// What the names in braces stand for.
    pub names: BTreeMap<&'static str, String>,
    /// The folder of Weft's programs.
    pub bin_dir: PathBuf,
    /// The lab's kubeconfig.
    pub kubeconfig: PathBuf,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// For a terminal.
    Text,
    /// For a page of the documentation.
    Markdown,
}

/// Goes all steps. `wait` is called before each but the first.
///
/// # Errors
/// The first command that does not show what it must, and what it shows.
pub fn walk(
    place: &Place,
    printed: Printed,
    out: &mut impl Write,
    mut wait: impl FnMut() -> io::Result<()>,
) -> Result<()> {
    let failed = Error::io("print", "the tour");
    let mut show = || -> io::Result<Result<()>> {
        for (number, step) in STEPS.iter().enumerate() {
            if number > 0 {
                wait()?;
            }
            writeln!(out, "\n## {}. {}", number + 1, step.title)?;
            for look in step.looks {
                let command = place.filled(look.command);
                match place.see(look, &command) {
                    Ok(seen) => print(out, printed, (look.says, &command, &seen))?,
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        Ok(Ok(()))
    };
    show().map_err(failed)?
}

fn print(
    out: &mut impl Write,
    printed: Printed,
    (says, command, seen): (&str, &str, &str),
) -> io::Result<()> {
    writeln!(out, "\n{}\n", wrapped(says))?;
    match printed {
        Printed::Text => {
            writeln!(out, "    $ {command}")?;
            seen.lines().try_for_each(|line| writeln!(out, "    {}", line.trim_end()))
        }
        Printed::Markdown => {
            writeln!(out, "```console\n$ {command}")?;
            seen.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))?;
            writeln!(out, "```")
        }
    }
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

impl Place {
    fn filled(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    /// Runs the command until its output has what it must.
    fn see(&self, look: &Look, command: &str) -> Result<String> {
        let wanted: Vec<String> = look.shows.iter().map(|part| self.filled(part)).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.run(command)?;
            let missing = wanted.iter().find(|part| !seen.contains(part.as_str()));
            match missing {
                None => return Ok(seen),
                Some(part) if Instant::now() > deadline => {
                    let reason = format!("does not show {part:?}, but:\n{seen}");
                    return Err(Error::Probe { what: command.to_owned(), reason });
                }
                Some(_) => sleep(PERIOD),
            }
        }
    }

    /// What a shell prints for a command, with the lab's cluster and Weft's programs at hand.
    fn run(&self, command: &str) -> Result<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.bin_dir.clone()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(folders)
            .map_err(|error| Error::Probe { what: "PATH".to_owned(), reason: error.to_string() })?;
        let output = Command::new("sh")
            .args(["-c", command])
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Spawn { program: "sh".to_owned(), source })?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            names: BTreeMap::from([("web", "10.96.1.1".to_owned())]),
            bin_dir: "/nowhere".into(),
            kubeconfig: "/nowhere/kubeconfig".into(),
        }
    }

    #[test]
    fn names_in_braces_are_filled_in_and_nft_s_braces_stay() {
        let text = place().filled("nft get element ip weft frontends '{ {web} . tcp . 80 }'");
        assert_eq!(text, "nft get element ip weft frontends '{ 10.96.1.1 . tcp . 80 }'");
    }

    #[test]
    fn a_command_is_shown_with_its_sentence_and_its_output() {
        let mut text = Vec::new();
        print(&mut text, Printed::Markdown, ("It is so.", "echo a", "a  \n")).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "\nIt is so.\n\n```console\n$ echo a\na\n```\n");
        let mut text = Vec::new();
        print(&mut text, Printed::Text, ("It is so.", "echo a", "a\nb\n")).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "\nIt is so.\n\n    $ echo a\n    a\n    b\n");
        let long = "word ".repeat(60);
        assert!(wrapped(&long).lines().all(|line| line.len() <= WIDTH && !line.ends_with(' ')));
    }

    #[test]
    fn what_a_command_prints_is_seen_on_both_of_its_outputs() {
        let look = Look { says: "", command: "", shows: &["{web}", "KUBECONFIG=/nowhere/kubeconfig"] };
        let seen = place().see(&look, "echo 10.96.1.1; env | grep KUBECONFIG >&2").unwrap();
        assert_eq!(seen, "10.96.1.1\nKUBECONFIG=/nowhere/kubeconfig\n");
    }
}
