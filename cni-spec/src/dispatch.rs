//! From a call to the plugin that serves it and back to what the runtime reads: checks that hold for every
//! plugin, in the protocol's order. Pure: the environment, standard input and the plugin are given.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::json::parse;
use crate::{
    Args, Attachment, Call, Code, Failure, InvalidCniName, Network, NetworkName, Success, UnknownVersion,
    Version,
};

/// A plugin: what it does for each command.
pub trait Handler {
    /// One line that says what it is, for people who start it by hand.
    fn about(&self) -> &'static str;

    /// ADD: attaches a container and tells what it made.
    fn add(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        args: &Args,
    ) -> Result<Success, Failure>;

    /// DEL: takes an attachment away. What is gone already is no error (SPEC section 2, "DEL").
    fn del(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: Option<&Path>,
    ) -> Result<(), Failure>;

    /// CHECK: compares what is with what ADD told, `previous`.
    fn check(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        previous: &Success,
    ) -> Result<(), Failure>;

    /// GC: frees what belongs to none of the valid attachments of the configuration.
    fn gc(&self, invocation: &Invocation) -> Result<(), Failure>;

    /// STATUS: whether an ADD could succeed now.
    fn status(&self, invocation: &Invocation) -> Result<(), Failure>;
}

/// What every command but VERSION comes with.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The version of the protocol to answer in.
    pub version: Version,
    /// The network's name.
    pub network: NetworkName,
    /// The part of the configuration that all plugins share.
    pub config: Network,
    /// The whole configuration, as [`crate::parse`] gives it, for the plugin's own options.
    pub json: Value,
    /// The same as it came, for other plugins.
    pub stdin: Vec<u8>,
    /// `CNI_PATH`: the folders in which other plugins are.
    pub plugin_path: Vec<PathBuf>,
}

/// What the process is to print, and how it is to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output: a result, an error object, or nothing.
    pub stdout: String,
    /// For standard error: text for people.
    pub stderr: String,
    /// Whether to exit with 0.
    pub success: bool,
}

/// Decodes a plugin's own options from the configuration.
///
/// # Errors
/// Code 6, naming the field.
pub fn decode<T: DeserializeOwned>(config: &Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(config).map_err(|error| {
        let field = match error.path().to_string().as_str() {
            "." => String::new(),
            path => format!("{path}: "),
        };
        undecodable(format!("{field}{}", error.inner()))
    })
}

/// Reads a configuration as it comes on standard input.
///
/// # Errors
/// Code 6, where it is no JSON.
pub fn read_config(text: &[u8]) -> Result<Value, Failure> {
    parse(text).map_err(undecodable)
}

fn undecodable(why: impl fmt::Display) -> Failure {
    Failure::new(Code::Decode, format!("cannot decode the network configuration: {why}"))
}

/// Serves one call. `lookup` gives an environment variable's value; `read` reads standard input to its end,
/// which is done only for commands that have a configuration.
pub fn dispatch(
    handler: &impl Handler,
    lookup: &dyn Fn(&str) -> Option<String>,
    read: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Outcome {
    if lookup("CNI_COMMAND").is_none_or(|command| command.is_empty()) {
        return about(handler);
    }
    let mut version = Version::NEWEST;
    match serve(handler, lookup, read, &mut version) {
        Ok(stdout) => Outcome { stdout, stderr: String::new(), success: true },
        Err(failure) => Outcome { stdout: line(&failure.to_json(version)), ..Outcome::default() },
    }
}

fn about(handler: &impl Handler) -> Outcome {
    let versions = Version::ALL.map(Version::as_str).join(", ");
    let stderr = format!("{}\nCNI protocol versions supported: {versions}\n", handler.about());
    Outcome { stdout: String::new(), stderr, success: true }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn serve(
    handler: &impl Handler,
    lookup: &dyn Fn(&str) -> Option<String>,
    read: impl FnOnce() -> io::Result<Vec<u8>>,
    version: &mut Version,
) -> Result<String, Failure> {
    let call =
        Call::from_environment(lookup).map_err(|error| Failure::new(Code::Environment, error.to_string()))?;
    if call == Call::Version {
        return Ok(line(&supported(read)));
    }
    let stdin = read().map_err(|error| {
        Failure::new(Code::Io, format!("cannot read the network configuration from standard input: {error}"))
    })?;
    let invocation = invocation(&call, stdin, lookup, version)?;
    run(handler, &call, &invocation)
}

/// The answer repeats the version that the runtime gave, if it gave one (SPEC section 5, "VERSION Success").
/// Many give nothing, and that is no error either.
fn supported(read: impl FnOnce() -> io::Result<Vec<u8>>) -> Value {
    let config = read().ok().and_then(|stdin| parse(&stdin).ok());
    let given = config.as_ref().and_then(|config| config.get("cniVersion")?.as_str());
    json!({
        "cniVersion": given.unwrap_or(Version::NEWEST.as_str()),
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
}

fn invocation(
    call: &Call,
    stdin: Vec<u8>,
    lookup: &dyn Fn(&str) -> Option<String>,
    version: &mut Version,
) -> Result<Invocation, Failure> {
    let mut json = read_config(&stdin)?;
    if let Value::Object(config) = &mut json {
        unneeded(call).iter().for_each(|key| drop(config.remove(*key)));
    }
    let config: Network = decode(&json)?;
    *version = match &config.cni_version {
        Some(text) => {
            text.parse().map_err(|error: UnknownVersion| Failure::new(Code::Version, error.to_string()))?
        }
        None => Version::V0_1_0,
    };
    let network = network_name(&config)?;
    let path = lookup("CNI_PATH").unwrap_or_default();
    let plugin_path = path.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
    Ok(Invocation { version: *version, network, config, json, stdin, plugin_path })
}

fn network_name(config: &Network) -> Result<NetworkName, Failure> {
    let name = config.name.as_deref().unwrap_or_default();
    name.parse().map_err(|error: InvalidCniName| {
        let msg = if name.is_empty() { "missing network name".to_owned() } else { error.to_string() };
        Failure::new(Code::Config, msg).with_details("set \"name\" in the network configuration")
    })
}

/// What a command that takes away takes no notice of: whatever is wrong with it must not keep anything from
/// being freed.
fn unneeded(call: &Call) -> &'static [&'static str] {
    match call {
        Call::Del { .. } => &["runtimeConfig", "args", "prevResult", "cni.dev/valid-attachments"],
        Call::Gc => &["runtimeConfig", "args", "prevResult"],
        _ => &[],
    }
}

fn run(handler: &impl Handler, call: &Call, invocation: &Invocation) -> Result<String, Failure> {
    match call {
        Call::Add { attachment, netns, args } => {
            let success = handler.add(invocation, attachment, netns, args)?;
            return success.to_json(invocation.version).map(|result| line(&result)).map_err(|error| {
                // Nobody learns what was made, so it must not stay; the first error is the one to report.
                let _ = handler.del(invocation, attachment, Some(netns));
                Failure::new(Code::Version, error.to_string())
            });
        }
        Call::Del { attachment, netns } => handler.del(invocation, attachment, netns.as_deref())?,
        Call::Check { attachment, netns } => {
            since(Version::V0_4_0, "CHECK", invocation)?;
            handler.check(invocation, attachment, netns, &previous(invocation)?)?;
        }
        Call::Gc => {
            since(Version::V1_1_0, "GC", invocation)?;
            handler.gc(invocation)?;
        }
        Call::Status => {
            since(Version::V1_1_0, "STATUS", invocation)?;
            handler.status(invocation)?;
        }
        // Answered before there was a configuration.
        Call::Version => {}
    }
    Ok(String::new())
}

/// A command exists only from some version of the protocol on (SPEC section 2).
fn since(first: Version, command: &str, invocation: &Invocation) -> Result<(), Failure> {
    if invocation.version >= first {
        return Ok(());
    }
    let msg = format!("config version {} does not allow {command}", invocation.version);
    Err(Failure::new(Code::Version, msg).with_details(format!("it needs cniVersion {first} or newer")))
}

fn previous(invocation: &Invocation) -> Result<Success, Failure> {
    invocation.previous()?.ok_or_else(|| {
        Failure::new(Code::Config, "CHECK needs prevResult, which the network configuration lacks")
    })
}

impl Invocation {
    /// What a configuration alone says, for whoever acts on a network without a runtime's call.
    ///
    /// # Errors
    /// Code 6 where it cannot be decoded, 7 where it has no valid name.
    pub fn of_config(stdin: &[u8]) -> Result<Invocation, Failure> {
        let json = read_config(stdin)?;
        let config: Network = decode(&json)?;
        let network = network_name(&config)?;
        let (version, stdin) = (Version::NEWEST, stdin.to_vec());
        Ok(Invocation { version, network, config, json, stdin, plugin_path: Vec::new() })
    }

    /// The result of the plugins before this one in the list, or, on CHECK and DEL, of ADD.
    ///
    /// # Errors
    /// Code 6 where it is there and no result.
    pub fn previous(&self) -> Result<Option<Success>, Failure> {
        let unreadable = |error| Failure::new(Code::Decode, format!("cannot decode prevResult: {error}"));
        self.config.prev_result.as_ref().map(Success::from_json).transpose().map_err(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Notes what it is called for, and fails where it is told to.
    #[derive(Default)]
    struct Fake {
        calls: RefCell<Vec<&'static str>>,
        failure: Option<Failure>,
    }

    impl Fake {
        fn note(&self, call: &'static str) -> Result<(), Failure> {
            self.calls.borrow_mut().push(call);
            self.failure.clone().map_or(Ok(()), Err)
        }
    }

    impl Handler for Fake {
        fn about(&self) -> &'static str {
            "a fake"
        }
        fn add(&self, _: &Invocation, _: &Attachment, _: &Path, _: &Args) -> Result<Success, Failure> {
            self.note("add").map(|()| Success::default())
        }
        fn del(&self, _: &Invocation, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> {
            self.note("del")
        }
        fn check(&self, _: &Invocation, _: &Attachment, _: &Path, _: &Success) -> Result<(), Failure> {
            self.note("check")
        }
        fn gc(&self, _: &Invocation) -> Result<(), Failure> {
            self.note("gc")
        }
        fn status(&self, _: &Invocation) -> Result<(), Failure> {
            self.note("status")
        }
    }

    fn call(handler: &Fake, command: &str, config: &str) -> Outcome {
        let lookup = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_CONTAINERID" => Some("c1".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_NETNS" => Some("/run/netns/x".to_owned()),
            _ => None,
        };
        dispatch(handler, &lookup, || Ok(config.as_bytes().to_vec()))
    }

    fn code(outcome: &Outcome) -> u64 {
        assert!(!outcome.success);
        let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
        error["code"].as_u64().unwrap()
    }

    #[test]
    fn no_command_is_for_people() {
        let outcome = call(&Fake::default(), "", "");
        assert!(outcome.success && outcome.stdout.is_empty());
        assert!(outcome.stderr.starts_with("a fake\nCNI protocol versions supported: 0.1.0,"));
    }

    #[test]
    fn version_repeats_the_version_that_it_is_given_and_needs_none() {
        let answer = |config: &str| -> Value {
            serde_json::from_str(&call(&Fake::default(), "VERSION", config).stdout).unwrap()
        };
        assert_eq!(answer(r#"{"cniVersion": "0.4.0"}"#)["cniVersion"], json!("0.4.0"));
        for config in ["", "garbage", "{}", r#"{"cniVersion": 1}"#] {
            assert_eq!(answer(config)["cniVersion"], json!("1.1.0"), "{config}");
        }
        let lookup = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".to_owned());
        let outcome = dispatch(&Fake::default(), &lookup, || Err(io::Error::other("closed")));
        let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(
            answer["supportedVersions"],
            json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }

    #[test]
    fn only_add_prints_on_success() {
        let fake = Fake::default();
        let config = r#"{"cniVersion": "1.1.0", "name": "n", "prevResult": {}}"#;
        assert_eq!(call(&fake, "ADD", config).stdout, "{\"cniVersion\":\"1.1.0\"}\n");
        for command in ["DEL", "CHECK", "GC", "STATUS"] {
            assert_eq!(
                call(&fake, command, config),
                Outcome { success: true, ..Outcome::default() },
                "{command}"
            );
        }
        assert_eq!(*fake.calls.borrow(), ["add", "del", "check", "gc", "status"]);
    }

    #[test]
    fn commands_newer_than_the_configuration_are_refused() {
        let fake = Fake::default();
        for (command, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
            let config = format!(r#"{{"cniVersion": "{version}", "name": "n", "prevResult": {{}}}}"#);
            assert_eq!(code(&call(&fake, command, &config)), 1, "{command}");
        }
        assert!(fake.calls.borrow().is_empty());
    }

    #[test]
    fn every_fault_of_the_configuration_has_its_code() {
        let cases = [
            ("", 6),
            ("{", 6),
            (r#"{"cniVersion": 1}"#, 6),
            (r#"{"cniVersion": "9.0.0", "name": "n"}"#, 1),
            (r#"{"cniVersion": "1.1.0"}"#, 7),
            (r#"{"cniVersion": "1.1.0", "name": "a/b"}"#, 7),
            (r#"{"cniVersion": "1.1.0", "name": ""}"#, 7),
            (r#"{"cniVersion": "1.1.0", "name": "n"} trailing"#, 6),
        ];
        for (config, expected) in cases {
            assert_eq!(code(&call(&Fake::default(), "ADD", config)), expected, "{config}");
        }
        let check = r#"{"cniVersion": "1.1.0", "name": "n"}"#;
        assert_eq!(code(&call(&Fake::default(), "CHECK", check)), 7, "no prevResult");
    }

    #[test]
    fn what_a_command_does_not_need_does_not_stop_it() {
        let config = |key: &str, value: &str| {
            format!(r#"{{"cniVersion": "1.1.0", "name": "n", "prevResult": {{}}, "{key}": {value}}}"#)
        };
        let commands = ["ADD", "DEL", "CHECK", "GC", "STATUS"];
        for key in ["runtimeConfig", "args", "prevResult", "ipam", "cni.dev/valid-attachments"] {
            for command in commands.iter().filter(|command| (key, **command) != ("prevResult", "CHECK")) {
                let outcome = call(&Fake::default(), command, &config(key, "null"));
                assert!(outcome.success, "{command} {key}: {outcome:?}");
            }
            assert!(call(&Fake::default(), "DEL", &config(key, r#""nonsense""#)).success, "{key}");
        }
        let nonsense = config("runtimeConfig", r#"{"ips": "nonsense"}"#);
        assert!(call(&Fake::default(), "GC", &nonsense).success);
        assert_eq!(code(&call(&Fake::default(), "ADD", &nonsense)), 6);
        let valid = config("cni.dev/valid-attachments", r#""nonsense""#);
        assert_eq!(code(&call(&Fake::default(), "GC", &valid)), 6, "nothing is valid is another thing");
    }

    #[test]
    fn no_version_is_the_first() {
        for version in ["null", "\"\""] {
            let config = format!(r#"{{"cniVersion": {version}, "name": "n"}}"#);
            assert_eq!(call(&Fake::default(), "DEL", &config).stdout, "");
            assert_eq!(code(&call(&Fake::default(), "STATUS", &config)), 1, "STATUS is of 1.1.0");
        }
    }

    #[test]
    fn what_cannot_be_told_is_undone() {
        let fake = Fake::default();
        assert_eq!(code(&call(&fake, "ADD", r#"{"cniVersion": "0.2.0", "name": "n"}"#)), 1);
        assert_eq!(*fake.calls.borrow(), ["add", "del"]);
    }

    #[test]
    fn a_decoding_error_names_the_field() {
        let config = r#"{"cniVersion": "1.1.0", "name": "n", "runtimeConfig": {"ips": [1]}}"#;
        let outcome = call(&Fake::default(), "ADD", config);
        assert!(outcome.stdout.contains("runtimeConfig.ips[0]: invalid type"), "{}", outcome.stdout);
    }

    #[test]
    fn an_unreadable_standard_input_is_code_5() {
        let lookup = |name: &str| (name == "CNI_COMMAND").then(|| "GC".to_owned());
        let outcome = dispatch(&Fake::default(), &lookup, || Err(io::Error::other("gone")));
        assert_eq!(code(&outcome), 5);
    }

    #[test]
    fn an_error_is_told_in_the_configurations_version() {
        let fake = Fake { failure: Some(Failure::new(Code::TryAgain, "busy")), ..Fake::default() };
        let outcome = call(&fake, "ADD", r#"{"cniVersion": "0.4.0", "name": "n"}"#);
        assert_eq!(outcome.stdout, "{\"cniVersion\":\"0.4.0\",\"code\":11,\"msg\":\"busy\"}\n");
    }
}
