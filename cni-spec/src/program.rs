//! A plugin as a program: environment and standard input in, one JSON object or nothing out. What it does for
//! which command is the handler's business.

use std::env;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use crate::{Code, Failure, Handler, Outcome, Version, dispatch};

/// The largest configuration that is read, in bytes: runtimes send some thousand.
const LARGEST: u64 = 16 << 20;

/// Serves the one call that the process was started for. `name` is the program's.
pub fn run(handler: &impl Handler, name: &'static str) -> ExitCode {
    // A runtime that gets no JSON cannot tell what went wrong.
    std::panic::set_hook(Box::new(move |panic| {
        let failure = Failure::new(Code::Internal, format!("{name} panicked: {panic}"));
        let _ = writeln!(io::stdout(), "{}", failure.to_json(Version::NEWEST));
    }));
    finish(&dispatch(handler, &variable, || read(io::stdin().lock())))
}

/// An environment variable's value. What is not UTF-8 is no valid value of any of them.
pub fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn read(stdin: impl Read + IsTerminal) -> io::Result<Vec<u8>> {
    // Who starts it by hand would wait for it, and it for them.
    if stdin.is_terminal() {
        return Ok(Vec::new());
    }
    let mut config = Vec::with_capacity(4096);
    stdin.take(LARGEST + 1).read_to_end(&mut config)?;
    match config.len() as u64 > LARGEST {
        true => Err(io::Error::other(format!("it is larger than {LARGEST} bytes"))),
        false => Ok(config),
    }
}

fn finish(outcome: &Outcome) -> ExitCode {
    // Whoever closed standard error does not read it. But a result that nobody learns of is no success: the
    // runtime calls DEL then.
    let _ = io::stderr().write_all(outcome.stderr.as_bytes());
    let told = io::stdout().write_all(outcome.stdout.as_bytes()).and_then(|()| io::stdout().flush());
    if outcome.success && told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use crate::{Args, Attachment, Invocation, Success};
    use serde_json::Value;

    use super::*;

    struct Panicking;

    impl Handler for Panicking {
        fn about(&self) -> &'static str {
            "panics"
        }
        fn add(&self, _: &Invocation, _: &Attachment, _: &Path, _: &Args) -> Result<Success, Failure> {
            unreachable!()
        }
        fn del(&self, _: &Invocation, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> {
            unreachable!()
        }
        fn check(&self, _: &Invocation, _: &Attachment, _: &Path, _: &Success) -> Result<(), Failure> {
            unreachable!()
        }
        fn gc(&self, _: &Invocation) -> Result<(), Failure> {
            panic!("a \"fault\" of its own")
        }
        fn status(&self, _: &Invocation) -> Result<(), Failure> {
            unreachable!()
        }
    }

    /// Runs itself once more as the program that panics.
    #[test]
    fn a_panic_is_told_once_and_as_json() {
        if variable("CNI_COMMAND").is_some() {
            run(&Panicking, "weft-panicking");
            return;
        }
        let this = "program::tests::a_panic_is_told_once_and_as_json";
        let config = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&config, r#"{"cniVersion": "1.1.0", "name": "blue"}"#).unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", this, "--nocapture", "--test-threads=1"])
            .env("CNI_COMMAND", "GC")
            .stdin(config.reopen().unwrap())
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let start = text.find('{').unwrap();
        let mut told = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        let error = told.next().unwrap().unwrap();
        assert_eq!(error["code"], 999, "{text}");
        assert!(error["msg"].as_str().unwrap().contains("a \"fault\" of its own"), "{text}");
        assert!(!text[start + 1..].contains("{\"cniVersion"), "{text}");
    }
}
