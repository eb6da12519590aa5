//! What is asked, as people write it: `shop/web -> shop/db:5432/tcp`. Pure.

use std::fmt;
use std::net::IpAddr;

use weft_types::{NamespacedName, Protocol};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Party {
    Pod(NamespacedName),
    Address(IpAddr),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Pod(key) => write!(f, "Pod {key}"),
            Party::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Whether one may reach the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) from: Party,
    pub(super) to: Party,
    /// Nothing for traffic without ports, as of ping.
    pub(super) port: Option<(Protocol, u16)>,
}

/// How it is written.
const FORM: &str =
    "expected FROM TO[:PORT][/PROTOCOL], each a pod (NAMESPACE/POD) or an address: shop/web shop/db:5432";

impl Question {
    /// Reads the words of a command line: `FROM TO`, or `FROM -> TO`, in as many words as the shell makes of
    /// it.
    pub(super) fn parse(words: &[String]) -> Result<Question, String> {
        let line = words.join(" ");
        let parts: Vec<&str> = line.split_whitespace().filter(|word| *word != "->").collect();
        match parts[..] {
            // What the shell leaves of `FROM -> TO`.
            [_, "-"] => {
                Err("quote the arrow ('FROM -> TO') or leave it out: the shell takes > for a file".to_owned())
            }
            [from, to] => {
                let from = party(from).ok_or_else(|| format!("{from:?}: {FORM}"))?;
                let (to, port) = target(to)?;
                Ok(Question { from, to, port })
            }
            _ => Err(FORM.to_owned()),
        }
    }
}

fn party(text: &str) -> Option<Party> {
    match text.parse() {
        Ok(address) => Some(Party::Address(address)),
        Err(_) => text.parse().ok().filter(|_| !text.contains([':', '['])).map(Party::Pod),
    }
}

/// `TO[:PORT][/PROTOCOL]`
fn target(text: &str) -> Result<(Party, Option<(Protocol, u16)>), String> {
    let wrong = || format!("{text:?}: {FORM}");
    // A pod may be called tcp: then what is before the slash is no end of a connection.
    let split = text.rsplit_once('/').and_then(|(place, name)| {
        let (to, port) = place_and_port(place)?;
        Some((to, port, protocol(name)?))
    });
    match split {
        Some((to, port, Some(protocol))) => match port {
            Some(port) => Ok((to, Some((protocol, port)))),
            None => {
                Err(format!("{text:?}: {protocol} needs a port, as in {to}:80/{protocol}", to = shown(&to)))
            }
        },
        Some((to, None, None)) => Ok((to, None)),
        Some((_, Some(_), None)) => Err(format!("{text:?}: ICMP has no ports")),
        None => {
            let (to, port) = place_and_port(text).ok_or_else(wrong)?;
            Ok((to, port.map(|port| (Protocol::Tcp, port))))
        }
    }
}

/// As it is written.
fn shown(party: &Party) -> String {
    match party {
        Party::Pod(key) => key.to_string(),
        Party::Address(IpAddr::V6(address)) => format!("[{address}]"),
        Party::Address(address) => address.to_string(),
    }
}

/// `TO[:PORT]`; an IPv6 address with a port is in brackets.
fn place_and_port(text: &str) -> Option<(Party, Option<u16>)> {
    if let Some(party) = party(text) {
        return Some((party, None));
    }
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some((Party::Address(address.parse().ok()?), None));
    }
    let (place, port) = text.rsplit_once(':')?;
    let bare = place.strip_prefix('[').and_then(|place| place.strip_suffix(']')).unwrap_or(place);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((party(bare)?, Some(port)))
}

/// A protocol by its name; inside, nothing for one without ports.
fn protocol(name: &str) -> Option<Option<Protocol>> {
    match name.to_ascii_lowercase().as_str() {
        "icmp" => Some(None),
        "tcp" => Some(Some(Protocol::Tcp)),
        "udp" => Some(Some(Protocol::Udp)),
        "sctp" => Some(Some(Protocol::Sctp)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Question, String> {
        Question::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn pod(name: &str) -> Party {
        Party::Pod(name.parse().unwrap())
    }

    fn address(text: &str) -> Party {
        Party::Address(text.parse().unwrap())
    }

    #[test]
    fn ends_are_pods_or_addresses_with_a_port_and_a_protocol() {
        use Protocol::{Sctp, Tcp, Udp};
        for (line, from, to, port) in [
            ("a/x -> b/y:80", pod("a/x"), pod("b/y"), Some((Tcp, 80))),
            ("a/x b/y:80/TCP", pod("a/x"), pod("b/y"), Some((Tcp, 80))),
            ("a/x b/y:53/udp", pod("a/x"), pod("b/y"), Some((Udp, 53))),
            ("a/x b/y", pod("a/x"), pod("b/y"), None),
            ("a/x b/y/icmp", pod("a/x"), pod("b/y"), None),
            ("a/x b/tcp", pod("a/x"), pod("b/tcp"), None),
            ("a/x b/tcp:80", pod("a/x"), pod("b/tcp"), Some((Tcp, 80))),
            ("192.0.2.1 a/x:1/sctp", address("192.0.2.1"), pod("a/x"), Some((Sctp, 1))),
            ("a/x 192.0.2.1:443", pod("a/x"), address("192.0.2.1"), Some((Tcp, 443))),
            ("a/x 2001:db8::1", pod("a/x"), address("2001:db8::1"), None),
            ("a/x [2001:db8::1]:443/udp", pod("a/x"), address("2001:db8::1"), Some((Udp, 443))),
        ] {
            assert_eq!(parse(line), Ok(Question { from, to, port }), "{line}");
        }
        assert_eq!(Question::parse(&["a/x -> b/y:80".to_owned()]), parse("a/x b/y:80"), "as one word");
    }

    #[test]
    fn what_cannot_be_read_is_answered_by_how_it_is_written() {
        for (line, told) in [
            ("a/x", "expected FROM TO"),
            ("a/x b/y c/z", "expected FROM TO"),
            ("a/x -", "quote the arrow"),
            ("web b/y", "\"web\": expected FROM TO"),
            ("a/x b/y:0", "\"b/y:0\": expected"),
            ("a/x b/y:http", "\"b/y:http\": expected"),
            ("a/x b/y/udp", "udp needs a port, as in b/y:80/udp"),
            ("a/x b/y:80/icmp", "ICMP has no ports"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
