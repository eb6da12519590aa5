//! Checksum offload of an interface: whether the kernel leaves the checksums of what it sends to the device.
//! By ethtool's ioctl, which has no netlink form of its own that would be shorter.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::error::Refusal;
use crate::{Error, Result};

/// Commands of linux/ethtool.h.
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
/// The request of linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the interface's device, not the kernel, makes the checksums of what is sent. In the calling
/// thread's network namespace.
pub fn tx_checksum(link: &str) -> Result<bool> {
    let mut value = Value { command: ETHTOOL_GTXCSUM, data: 0 };
    ethtool(link, &mut value)
        .map_err(|error| refused(&error).during(format!("ask for the offload of {link}")))?;
    Ok(value.data != 0)
}

/// Has the device make the checksums, or the kernel.
pub fn set_tx_checksum(link: &str, on: bool) -> Result<()> {
    let mut value = Value { command: ETHTOOL_STXCSUM, data: on.into() };
    let operation = || format!("turn checksum offload of {link} {}", if on { "on" } else { "off" });
    ethtool(link, &mut value).map_err(|error| refused(&error).during(operation()))
}

fn refused(error: &io::Error) -> Error {
    let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    Error::Refused(Refusal { sequence: 0, errno, reason: None })
}

#[allow(unsafe_code, reason = "the ioctl takes a pointer inside of its request")]
fn ethtool(link: &str, value: &mut Value) -> io::Result<()> {
    // Any socket of the namespace does.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut name = [0; libc::IFNAMSIZ];
    if link.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (slot, byte) in name.iter_mut().zip(link.bytes()) {
        *slot = byte as libc::c_char;
    }
    let data = std::ptr::from_mut(value).cast();
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data } };
    // SAFETY: the request names a live, whole `struct ethtool_value`, which is all that these two commands
    // read and write; both outlive the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
