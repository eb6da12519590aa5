//! IPAM plugins of others, run as programs (SPEC section 4, "Plugin Delegation"). Which addresses they give
//! is their business.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::{Code, Failure, Invocation, Success, parse};
use serde_json::Value;

/// An IPAM plugin's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    program: PathBuf,
}

impl Delegate {
    /// Finds the program in the folders of `CNI_PATH`.
    ///
    /// # Errors
    /// Code 4 where none of them has it.
    pub fn find(kind: &str, invocation: &Invocation) -> Result<Delegate, Failure> {
        // A name with a slash would lead out of those folders.
        let name = Some(kind).filter(|kind| !kind.contains('/'));
        let candidates = invocation.plugin_path.iter().filter_map(|folder| Some(folder.join(name?)));
        let program = candidates.into_iter().find(|path| path.is_file());
        program.map(|program| Delegate { program }).ok_or_else(|| {
            let folders: Vec<_> =
                invocation.plugin_path.iter().map(|path| path.display().to_string()).collect();
            let msg = format!("network {}: no IPAM plugin {kind:?} in CNI_PATH", invocation.network);
            let details = format!("install it in one of {:?}, or use ipam.type weft-ipam", folders.join(":"));
            Failure::new(Code::Environment, msg).with_details(details)
        })
    }

    /// ADD: the addresses that it leases.
    pub fn add(&self, invocation: &Invocation) -> Result<Success, Failure> {
        let stdout = self.call("ADD", invocation)?;
        let result = parse(&stdout).map_err(|error| self.unreadable(&error))?;
        let lease = Success::from_json(&result).map_err(|error| self.unreadable(&error))?;
        let none = || Failure::new(Code::Delegate, format!("{} gave no address", self.program.display()));
        if lease.ips.is_empty() { Err(none()) } else { Ok(lease) }
    }

    /// DEL, CHECK, GC or STATUS, which print nothing.
    pub fn run(&self, command: &str, invocation: &Invocation) -> Result<(), Failure> {
        self.call(command, invocation).map(drop)
    }

    /// The environment is passed on as it is, apart from the command.
    fn call(&self, command: &str, invocation: &Invocation) -> Result<Vec<u8>, Failure> {
        let output = self.start(command, &invocation.stdin).map_err(|error| {
            Failure::new(Code::Delegate, format!("cannot run {}: {error}", self.program.display()))
        })?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failure(command, &output)) }
    }

    fn start(&self, command: &str, stdin: &[u8]) -> io::Result<Output> {
        let mut child = Command::new(&self.program)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // One that does not read it says why in its answer.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(stdin));
        child.wait_with_output()
    }

    /// Its own code and words where it gives them.
    fn failure(&self, command: &str, output: &Output) -> Failure {
        let error = parse(&output.stdout).unwrap_or_default();
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let program = self.program.display();
        let msg = match text("msg") {
            "" => format!("{program}: {command} failed: {}", output.status),
            msg => format!("{program}: {msg}"),
        };
        let number = error.get("code").and_then(Value::as_u64);
        Failure::new(number.and_then(Code::of_number).unwrap_or(Code::Delegate), msg)
            .with_details(text("details"))
    }

    fn unreadable(&self, error: &dyn std::error::Error) -> Failure {
        let program = self.program.display();
        Failure::new(Code::Delegate, format!("cannot decode the result of {program}: {error}"))
    }
}
