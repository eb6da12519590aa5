//! Kernel settings of this process's network namespace, by way of /proc/sys.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::plan::Sysctl;
use crate::{Error, Result};

/// Makes sure that a setting has its value. Returns whether it had to be changed.
pub fn set(sysctl: &Sysctl) -> Result<bool> {
    let failed = |problem| Error::Sysctl { name: sysctl.name, value: sysctl.value, problem };
    // Read first: writing `ip_forward`, even what it holds, resets other settings of the namespace.
    if fs::read_to_string(path(sysctl)).map_err(failed)?.trim() == sysctl.value {
        return Ok(false);
    }
    write(sysctl).map_err(failed)?;
    Ok(true)
}

fn write(sysctl: &Sysctl) -> io::Result<()> {
    fs::write(path(sysctl), sysctl.value)
}

fn path(sysctl: &Sysctl) -> PathBuf {
    // /proc/sys/net is the namespace of the thread that asks.
    PathBuf::from("/proc/sys").join(sysctl.name.replace('.', "/"))
}
