//! Other programs, run for what they print.

use std::process::{Command, Output};

/// Runs a program in the calling thread's namespace, which must succeed. Returns what it printed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    succeed(Command::new(program).args(arguments))
}

/// Runs a command, which must succeed. Returns what it printed.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    printed(&format!("{command:?}"), &output)
}

/// What a program that ended well printed; panics with its errors where it did not.
#[track_caller]
pub fn printed(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}{stderr}", output.status);
    stdout
}
