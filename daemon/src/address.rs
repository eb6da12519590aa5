//! Addresses as flags take them: those that people know from kube-proxy, and those that Kubernetes gives a
//! pod of its own.

use std::net::{IpAddr, SocketAddr};

/// An address whose port may be left out, and whose brackets need a port only: `10.0.0.1:53`, `10.0.0.1`,
/// `[fd00::1]:53`, `[fd00::1]`, `fd00::1`.
///
/// # Errors
/// In words for a command line.
pub fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, port)),
        Err(_) => text.parse().map_err(|_| "neither an address nor one with a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out_and_then_the_brackets_too() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5353", "10.0.0.1:5353"),
            ("fd00::5", "[fd00::5]:53"),
            ("[fd00::5]", "[fd00::5]:53"),
            ("[fd00::5]:5353", "[fd00::5]:5353"),
            ("::", "[::]:53"),
        ] {
            assert_eq!(address(text, 53), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "53", ":53", "[10.0.0.1", "dns.example:53", "[fd00::5]5353"] {
            assert!(address(text, 53).is_err(), "{text}");
        }
    }
}
