//! What a plugin says when it fails (SPEC section 5, "Error").

use std::fmt;

use serde_json::{Value, json};

use crate::Version;

/// The protocol's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// 1: the configuration asks for a version that the plugin or the command does not have.
    Version,
    /// 2: a field's value is not supported; the message says which.
    UnsupportedField,
    /// 3: the container is not known.
    UnknownContainer,
    /// 4: environment variables are missing or invalid; the message says which.
    Environment,
    /// 5: reading or writing failed, the configuration on standard input included.
    Io,
    /// 6: the configuration cannot be decoded.
    Decode,
    /// 7: the configuration is invalid.
    Config,
    /// 8: the namespace is the plugin's own.
    Namespace,
    /// 11: something passing; the runtime should try again.
    TryAgain,
    /// 50: ADD would fail now.
    Unavailable,
    /// 51: ADD would fail now, and existing containers may be impaired too.
    Impaired,
    /// 100: IPAM has no address left or cannot give the one asked for. Codes from 100 are the plugin's own.
    NoAddress,
    /// 101: the kernel refused what was asked of it.
    Kernel,
    /// 102: CHECK found something missing or changed.
    CheckFailed,
    /// 103: another plugin, run by this one, failed.
    Delegate,
    /// 104: another container has a port of the host that this one asks for.
    HostPortTaken,
    /// 999: a fault of the plugin's own.
    Internal,
}

impl Code {
    /// All codes.
    const ALL: [Code; 17] = [
        Code::Version,
        Code::UnsupportedField,
        Code::UnknownContainer,
        Code::Environment,
        Code::Io,
        Code::Decode,
        Code::Config,
        Code::Namespace,
        Code::TryAgain,
        Code::Unavailable,
        Code::Impaired,
        Code::NoAddress,
        Code::Kernel,
        Code::CheckFailed,
        Code::Delegate,
        Code::HostPortTaken,
        Code::Internal,
    ];

    /// The code that a number from another plugin stands for; none for numbers of that plugin's own.
    pub fn of_number(number: u64) -> Option<Code> {
        let shared = |code: &Code| !(100..999).contains(&code.number());
        Code::ALL.into_iter().filter(shared).find(|code| u64::from(code.number()) == number)
    }

    /// The code's number.
    pub fn number(self) -> u32 {
        match self {
            Code::Version => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::Environment => 4,
            Code::Io => 5,
            Code::Decode => 6,
            Code::Config => 7,
            Code::Namespace => 8,
            Code::TryAgain => 11,
            Code::Unavailable => 50,
            Code::Impaired => 51,
            Code::NoAddress => 100,
            Code::Kernel => 101,
            Code::CheckFailed => 102,
            Code::Delegate => 103,
            Code::HostPortTaken => 104,
            Code::Internal => 999,
        }
    }
}

/// An error as it is told to the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of error.
    pub code: Code,
    /// One line: what failed, on which object.
    pub msg: String,
    /// What to do about it, or more about the cause; may be empty.
    pub details: String,
}

impl Failure {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Failure {
        Failure { code, msg: msg.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Failure {
        self.details = details.into();
        self
    }

    /// The error object, in that version of the protocol.
    pub fn to_json(&self, version: Version) -> Value {
        let mut error = json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            error["details"] = self.details.clone().into();
        }
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.details.as_str() {
            "" => f.write_str(&self.msg),
            details => write!(f, "{}; {details}", self.msg),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_protocols_own_numbers_mean_the_same_to_every_plugin() {
        assert_eq!(Code::of_number(11), Some(Code::TryAgain));
        assert_eq!(Code::of_number(999), Some(Code::Internal));
        assert_eq!((Code::of_number(100), Code::of_number(12)), (None, None));
    }

    #[test]
    fn the_error_object_has_the_fields_of_the_specification() {
        let failure = Failure::new(Code::Config, "no name").with_details("give the network a name");
        assert_eq!(
            failure.to_json(Version::V1_0_0),
            json!({"cniVersion": "1.0.0", "code": 7, "msg": "no name", "details": "give the network a name"})
        );
        let bare = Failure::new(Code::TryAgain, "busy").to_json(Version::V0_4_0);
        assert_eq!(bare, json!({"cniVersion": "0.4.0", "code": 11, "msg": "busy"}));
    }
}
