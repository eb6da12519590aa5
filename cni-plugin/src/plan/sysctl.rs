//! Kernel settings below /proc/sys, as values.

use std::fmt;

/// A setting and the value that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The path below /proc/sys, for instance `net/ipv4/ip_forward`; interface names may hold dots.
    pub key: String,
    /// The value.
    pub value: &'static str,
    /// Whether it may be missing, as all of IPv6 is on hosts that are booted without it.
    pub optional: bool,
    /// Whether it is the machine's, and so outlives the plugin's interfaces.
    pub of_machine: bool,
}

impl Sysctl {
    /// A setting that must exist.
    pub(crate) fn new(key: impl Into<String>, value: &'static str) -> Sysctl {
        Sysctl { key: key.into(), value, optional: false, of_machine: false }
    }

    /// A setting of the machine, which must exist.
    pub(crate) fn of_machine(key: impl Into<String>, value: &'static str) -> Sysctl {
        Sysctl { of_machine: true, ..Sysctl::new(key, value) }
    }

    /// A setting that may be missing.
    pub(crate) fn optional(key: impl Into<String>, value: &'static str) -> Sysctl {
        Sysctl { optional: true, ..Sysctl::new(key, value) }
    }
}

/// As the sysctl(8) program takes it.
impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sysctl -w {}={}", self.key, self.value)
    }
}
