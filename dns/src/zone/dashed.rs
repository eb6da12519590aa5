//! Addresses as labels: `10-244-1-7`, `fd00-10--5`. They name pods, and endpoints without a hostname. Pure.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

/// An address as a label: `172-0-0-2`, `5678-abcd--1` (at most 39 bytes).
pub(super) fn dashed(address: IpAddr) -> Box<[u8]> {
    let text = address.to_string().replace(['.', ':'], "-");
    let mut wire = vec![text.len() as u8];
    wire.extend(text.bytes());
    wire.into()
}

/// The address that a pod's label spells: `10-244-1-7`, `fd00-10--5`.
pub(crate) fn pod_address(label: &[u8]) -> Option<IpAddr> {
    let mut text = [0; 39];
    let text = text.get_mut(..label.len())?;
    let dashes = label.iter().filter(|&&byte| byte == b'-').count();
    let v4 = dashes == 3 && !label.windows(2).any(|pair| pair == b"--");
    let separator = if v4 { b'.' } else { b':' };
    for (to, &from) in text.iter_mut().zip(label) {
        // A separator that is there already would give one address two names.
        *to = match from {
            b'-' => separator,
            byte if byte.is_ascii_hexdigit() => byte,
            _ => return None,
        };
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a label is the one name of the address: IPv6 knows many spellings.
pub(super) fn spells(address: Ipv6Addr, label: &[u8]) -> bool {
    let mut text = [0; 45];
    let mut rest = &mut text[..];
    // There is room for every address.
    let written = write!(rest, "{address}").map(|()| 45 - rest.len());
    written.is_ok_and(|length| {
        let same = |(&a, &b): (&u8, &u8)| a == b || (b == b'-' && matches!(a, b':' | b'.'));
        length == label.len() && text[..length].iter().zip(label).all(same)
    })
}
