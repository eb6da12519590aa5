//! Kernel settings below /proc/sys, read and written. Which ones is decided in `plan`.

use std::io::ErrorKind;

use weft_netlink::sysctl::{self, Originals};

use crate::{Error, Result, Sysctl};

impl Sysctl {
    /// Writes the value. Below `net` it is the calling thread's network namespace's.
    pub(crate) fn apply(&self) -> Result<()> {
        match sysctl::write(&self.key, self.value) {
            Ok(()) => Ok(()),
            Err(error) if self.optional && error.kind() == ErrorKind::NotFound => Ok(()),
            // Where /proc/sys is read-only, what is as it should be needs no writing.
            Err(_) if self.is_set() => Ok(()),
            Err(source) => Err(Error::Sysctl { key: self.key.clone(), value: self.value, source }),
        }
    }

    /// The same for the host's side: what a setting of the machine was is kept, to be put back by an uninstall.
    pub(crate) fn apply_to_host(&self, originals: &Originals) -> Result<()> {
        match self.of_machine {
            // Where it cannot be kept, the container matters more.
            true => originals.ensure(&self.key, self.value).map(drop).or_else(|_| self.apply()),
            false => self.apply(),
        }
    }

    /// Fails where the value could not be written. Writes nothing.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match sysctl::check_writable(&self.key) {
            Err(source) if !self.is_set() => {
                Err(Error::Sysctl { key: self.key.clone(), value: self.value, source })
            }
            _ => Ok(()),
        }
    }

    /// Whether the calling thread's network namespace has the value, or may lack the setting and does.
    pub(crate) fn is_set(&self) -> bool {
        match sysctl::read(&self.key) {
            Ok(found) => found == self.value,
            Err(error) => self.optional && error.kind() == ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_setting_is_an_error_unless_it_is_optional() {
        assert!(Sysctl::optional("net/ipv4/none", "1").apply().is_ok());
        let error = Sysctl::new("net/ipv4/none", "1").apply().unwrap_err();
        assert!(error.to_string().starts_with("cannot set /proc/sys/net/ipv4/none to 1: "), "{error}");
    }
}
