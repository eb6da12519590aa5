//! Other programs, run for what they print.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a program in the calling thread's namespace, which must succeed. Returns what it printed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    succeed(Command::new(program).args(arguments))
}

/// The same with that text as its standard input.
#[track_caller]
pub fn run_with_input(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    printed(&format!("{command:?}"), &child.wait_with_output().unwrap())
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
