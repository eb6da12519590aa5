//! Ethernet addresses. Who gets which is not decided here.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An Ethernet address, 48 bits. Prints and parses as `0a:58:0a:f4:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is not six pairs of hexadecimal digits between colons.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no MAC address of the form 0a:58:0a:f4:00:01")]
pub struct InvalidMac(pub String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let pair = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(pair).collect();
        let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Mac).ok_or_else(|| InvalidMac(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_parses() {
        let mac: Mac = "0A:58:0a:f4:00:01".parse().unwrap();
        assert_eq!(mac, Mac([0x0a, 0x58, 0x0a, 0xf4, 0, 1]));
        assert_eq!(mac.to_string(), "0a:58:0a:f4:00:01");
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        for text in ["", "0a:58:0a:f4:00", "0a:58:0a:f4:00:01:02", "0a:58:0a:f4:00:1", "+a:58:0a:f4:00:01"] {
            assert_eq!(text.parse::<Mac>(), Err(InvalidMac(text.to_owned())));
        }
    }
}
