//! Which boot of the machine a reservation belongs to. No container lives through a reboot, whatever became
//! of its DEL.

use std::fmt;
use std::fs;

/// Where /proc does not tell; not to be taken for a boot.
const UNKNOWN: &str = "0";

/// A boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot(String);

impl Boot {
    /// The present one: digits of the kernel's random number for it.
    pub fn current() -> Boot {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        Boot(if digits.is_empty() { UNKNOWN.to_owned() } else { digits })
    }

    /// One that is written somewhere.
    pub fn of_text(text: &str) -> Boot {
        Boot(text.to_owned())
    }

    /// Whether it is certain that the machine was started anew since.
    pub fn is_over(&self, present: &Boot) -> bool {
        self != present && self.0 != UNKNOWN && present.0 != UNKNOWN
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_over_when_another_is_known_to_be_present() {
        let (now, other, unknown) = (Boot::current(), Boot::of_text("ab12"), Boot::of_text(UNKNOWN));
        assert_eq!(now.to_string().len(), 16);
        assert!(other.is_over(&now) && !now.is_over(&Boot::current()));
        assert!(!unknown.is_over(&now) && !other.is_over(&unknown));
    }
}
