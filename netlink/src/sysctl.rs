//! Kernel settings by way of /proc/sys. Those below `net` are the calling thread's network namespace's.

mod originals;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

pub use originals::{Original, Originals, Restored};

/// A setting's value, without the end of its line.
///
/// # Errors
/// Where the kernel has no such setting, or it is not to be read.
pub fn read(name: &str) -> io::Result<String> {
    fs::read_to_string(path(name)).map(|text| text.trim().to_owned())
}

/// Writes a value, whatever the setting holds.
///
/// # Errors
/// Where the kernel has no such setting, refuses the value, or /proc/sys is read-only.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

/// Makes sure that a setting has its value. Returns whether it had to be changed. To write `ip_forward`
/// resets other settings of the namespace, even with the value that it has.
///
/// # Errors
/// As of [`read`] and [`write`].
pub fn ensure(name: &str, value: &str) -> io::Result<bool> {
    let is_other = read(name)? != value;
    if is_other {
        write(name, value)?;
    }
    Ok(is_other)
}

/// Fails where a setting could not be written. Writes nothing.
///
/// # Errors
/// Why it could not.
pub fn check_writable(name: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path(name)).map(drop)
}

/// Whether bridged packets pass netfilter: br_netfilter is loaded, and on.
pub fn bridge_netfilter() -> bool {
    // Without the module the settings are not there.
    let is_on = |family| read(&format!("net.bridge.bridge-nf-call-{family}")).is_ok_and(|value| value != "0");
    ["iptables", "ip6tables"].into_iter().any(is_on)
}

/// The file of a setting. As sysctl(8) has it, its name's parts are set apart by dots or by slashes,
/// whichever comes first in it; the other sign then stands for what it is not.
fn path(name: &str) -> PathBuf {
    let has_dots = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('.'));
    let swapped = name.chars().map(|letter| match letter {
        '.' if has_dots => '/',
        '/' if has_dots => '.',
        letter => letter,
    });
    PathBuf::from("/proc/sys").join(swapped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_may_have_a_dot_in_its_name() {
        assert_eq!(path("net.ipv4.ip_forward"), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/ip_forward"), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        let of_vlan = PathBuf::from("/proc/sys/net/ipv6/conf/eth0.5/accept_ra");
        assert_eq!(path("net.ipv6.conf.eth0/5.accept_ra"), of_vlan);
        assert_eq!(path("net/ipv6/conf/eth0.5/accept_ra"), of_vlan);
    }

    #[test]
    fn a_setting_that_has_its_value_is_not_written() {
        let held = read("kernel.ostype").unwrap();
        assert!(!ensure("kernel/ostype", &held).unwrap(), "it could not be");
        assert_eq!(read("net.none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
