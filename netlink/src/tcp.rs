//! What BGP asks of TCP sockets: signed segments (RFC 2385), and that peers are no farther away than they
//! should be (RFC 5082).

use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use crate::error::Refusal;
use crate::{Error, Result};

/// `TCP_MD5SIG_MAXKEYLEN` of linux/tcp.h.
pub const LONGEST_PASSWORD: usize = 80;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Signature {
    address: Storage,
    flags: u8,
    prefix: u8,
    key_length: u16,
    link: i32,
    key: [u8; LONGEST_PASSWORD],
}

/// `struct sockaddr_storage`, as it lies in memory.
#[repr(C, align(8))]
struct Storage([u8; 128]);

/// Has all segments between that socket and that address signed by a password: those of one without the right
/// one are dropped. Of a socket that listens this goes for connections of that address; an empty password
/// ends it.
///
/// # Errors
/// ENOPROTOOPT where the kernel cannot do it, EINVAL where the password is longer than
/// [`LONGEST_PASSWORD`] bytes.
pub fn set_md5(socket: &impl AsFd, address: IpAddr, password: &[u8]) -> Result<()> {
    let operation = || format!("sign segments between this host and {address}");
    let mut key = [0; LONGEST_PASSWORD];
    let Some(place) = key.get_mut(..password.len()) else {
        return Err(refused(Errno::EINVAL).during(operation()));
    };
    place.copy_from_slice(password);
    let key_length = u16::try_from(password.len()).unwrap_or_default();
    let signature = Signature { address: storage(address), flags: 0, prefix: 0, key_length, link: 0, key };
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature).map_err(|error| error.during(operation()))
}

/// Sets how many routers, and one, a packet to that address may pass.
pub fn set_hops(socket: &impl AsFd, address: IpAddr, hops: u8) -> Result<()> {
    let (level, name) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    set(socket, level, name, &libc::c_int::from(hops))
        .map_err(|error| error.during(format!("limit the hops to {address}")))
}

/// Drops packets that come from farther away than `hops`, by senders who send with the greatest hop limit.
pub fn set_least_hops(socket: &impl AsFd, address: IpAddr, hops: u8) -> Result<()> {
    let (level, name) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    let least = libc::c_int::from(u8::MAX - hops.saturating_sub(1));
    set(socket, level, name, &least).map_err(|error| error.during(format!("limit the hops from {address}")))
}

/// `struct sockaddr_in` or `struct sockaddr_in6` with that address and port 0.
fn storage(address: IpAddr) -> Storage {
    let mut bytes = [0; 128];
    let (family, at) = match address {
        IpAddr::V4(_) => (libc::AF_INET, 4),
        IpAddr::V6(_) => (libc::AF_INET6, 8),
    };
    bytes[..2].copy_from_slice(&libc::sa_family_t::try_from(family).unwrap_or_default().to_ne_bytes());
    match address {
        IpAddr::V4(address) => bytes[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes[at..at + 16].copy_from_slice(&address.octets()),
    }
    Storage(bytes)
}

fn refused(errno: Errno) -> Error {
    Error::Refused(Refusal { sequence: 0, errno, reason: None })
}

#[allow(unsafe_code, reason = "nix has none of these options")]
fn set<T>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the value is live and as long as is said, and each option above reads as its value the
    // structure or the int that it is called with.
    match unsafe { libc::setsockopt(socket, level, name, std::ptr::from_ref(value).cast(), length) } {
        -1 => Err(refused(Errno::last())),
        _ => Ok(()),
    }
}
