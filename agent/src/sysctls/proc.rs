//! Puts kernel settings of this process's network namespace into effect.

use weft_netlink::sysctl::{Originals, read};

use crate::sysctls::plan::{Sysctl, written};
use crate::{Error, Result};

/// Makes sure that a setting has its value, and that it is known what it had. Returns whether it had to be
/// changed.
pub fn set(sysctl: &Sysctl, originals: &Originals) -> Result<bool> {
    let failed = |problem| Error::Sysctl { name: sysctl.name.clone(), value: sysctl.value, problem };
    originals.ensure(&sysctl.name, sysctl.value).map_err(failed)
}

/// Lets an interface take a packet by which its sender is not reached, where it would not: for a moment two
/// nodes see the way between them differently. The setting is the larger of `all` and the interface's own
/// (ip-sysctl, rp_filter). Returns whether it had to be changed.
pub fn loosen(link: &str, originals: &Originals) -> Result<bool> {
    let name = |link: &str| format!("net.ipv4.conf.{}.rp_filter", written(link));
    let value = |link| read(&name(link)).ok()?.parse::<u8>().ok();
    match value("all").max(value(link)) {
        Some(1) => set(&Sysctl { name: name(link), value: "2" }, originals),
        _ => Ok(false),
    }
}
