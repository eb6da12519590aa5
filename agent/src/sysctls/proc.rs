//! Kernel settings of this process's network namespace, by way of /proc/sys.

use std::fs;
use std::path::PathBuf;

use crate::sysctls::plan::{Sysctl, written};
use crate::{Error, Result};

/// Makes sure that a setting has its value. Returns whether it had to be changed.
pub fn set(sysctl: &Sysctl) -> Result<bool> {
    let failed = |problem| Error::Sysctl { name: sysctl.name.clone(), value: sysctl.value, problem };
    // Read first: writing `ip_forward`, even what it holds, resets other settings of the namespace.
    if fs::read_to_string(path(&sysctl.name)).map_err(failed)?.trim() == sysctl.value {
        return Ok(false);
    }
    fs::write(path(&sysctl.name), sysctl.value).map_err(failed)?;
    Ok(true)
}

/// Lets an interface take a packet by which its sender is not reached, where it would not: for a moment two
/// nodes see the way between them differently. The setting is the larger of `all` and the interface's own
/// (ip-sysctl, rp_filter). Returns whether it had to be changed.
pub fn loosen(link: &str) -> Result<bool> {
    let name = |link: &str| format!("net.ipv4.conf.{}.rp_filter", written(link));
    let value = |link| fs::read_to_string(path(&name(link))).ok()?.trim().parse::<u8>().ok();
    match value("all").max(value(link)) {
        Some(1) => set(&Sysctl { name: name(link), value: "2" }),
        _ => Ok(false),
    }
}

/// The file of a setting by its name, as sysctl(8) has it.
fn path(name: &str) -> PathBuf {
    let swapped = name.chars().map(|letter| match letter {
        '.' => '/',
        '/' => '.',
        letter => letter,
    });
    // /proc/sys/net is the namespace of the thread that asks.
    PathBuf::from("/proc/sys").join(swapped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_may_have_a_dot_in_its_name() {
        assert_eq!(path("net.ipv4.ip_forward"), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        let vlan = path("net.ipv6.conf.eth0/5.accept_ra");
        assert_eq!(vlan, PathBuf::from("/proc/sys/net/ipv6/conf/eth0.5/accept_ra"));
    }
}
