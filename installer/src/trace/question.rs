//! What is to be followed, as people write it: `shop/web -> db.shop:5432/tcp`. Pure.

use std::fmt;
use std::net::IpAddr;

use weft_types::{NamespacedName, Protocol};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// A pod; or a Service, where there is no such pod.
    Pod(NamespacedName),
    Service(NamespacedName),
    Node(String),
    Address(IpAddr),
    /// A name that the other end resolves.
    Name(String),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Pod(key) => write!(f, "Pod {key}"),
            Party::Service(key) => write!(f, "Service {key}"),
            Party::Node(name) => write!(f, "Node {name}"),
            Party::Address(address) => write!(f, "{address}"),
            Party::Name(name) => f.write_str(name),
        }
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) from: Party,
    pub(super) to: Party,
    /// Nothing for ping.
    pub(super) protocol: Option<Protocol>,
    /// Nothing where a Service has only one.
    pub(super) port: Option<u16>,
}

/// How it is written.
const FORM: &str = "expected FROM TO[:PORT][/PROTOCOL], each NAMESPACE/POD, svc/NAMESPACE/SERVICE, node/NODE, an \
                    address, or (TO) a DNS name: shop/web db.shop:5432";

impl Question {
    /// Reads the words of a command line, in as many as the shell makes of them.
    pub(super) fn parse(words: &[String]) -> Result<Question, String> {
        let line = words.join(" ");
        let parts: Vec<&str> = line.split_whitespace().filter(|word| *word != "->").collect();
        match parts[..] {
            // What the shell leaves of `FROM -> TO`.
            [_, "-"] => {
                Err("quote the arrow ('FROM -> TO') or leave it out: the shell takes > for a file".to_owned())
            }
            [from, to] => {
                let from = match party(from).ok_or_else(|| format!("{from:?}: {FORM}"))? {
                    Party::Service(key) => {
                        return Err(format!("Service {key} sends nothing: name a pod, a node or an address"));
                    }
                    Party::Name(name) => return Err(format!("{name:?} as FROM: {FORM}")),
                    party => party,
                };
                target(to, from)
            }
            _ => Err(FORM.to_owned()),
        }
    }
}

fn party(text: &str) -> Option<Party> {
    let parts: Vec<&str> = text.split('/').collect();
    let key = |namespace: &str, name: &str| {
        let fits = |key: &NamespacedName| is_name(&key.name);
        format!("{namespace}/{name}").parse::<NamespacedName>().ok().filter(fits)
    };
    match parts[..] {
        [address] if address.parse::<IpAddr>().is_ok() => address.parse().ok().map(Party::Address),
        [name] => is_name(name).then(|| Party::Name(name.to_owned())),
        ["node", name] => is_name(name).then(|| Party::Node(name.to_owned())),
        ["pod", namespace, name] => key(namespace, name).map(Party::Pod),
        ["svc" | "service", namespace, name] => key(namespace, name).map(Party::Service),
        [namespace, name] => key(namespace, name).map(Party::Pod),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !text.is_empty() && !text.starts_with(['.', '-']) && text.chars().all(fits)
}

/// `TO[:PORT][/PROTOCOL]`
fn target(text: &str, from: Party) -> Result<Question, String> {
    let wrong = || format!("{text:?}: {FORM}");
    // A pod may be called tcp: then what is before the slash is not all of it.
    let suffixed = text.rsplit_once('/').filter(|(place, _)| place.contains([':', '/', '.']));
    let suffixed = suffixed.and_then(|(place, name)| Some((place, protocol(name)?)));
    let (place, named) = suffixed.map_or((text, None), |(place, protocol)| (place, Some(protocol)));
    let (to, port) = place_and_port(place).ok_or_else(wrong)?;
    let is_service = matches!(to, Party::Service(_));
    let protocol = match (named, port) {
        (Some(None), Some(_)) => return Err(format!("{text:?}: ICMP has no ports")),
        (Some(None), None) => None,
        (Some(protocol), _) => protocol,
        (None, None) if !is_service => None,
        (None, _) => Some(Protocol::Tcp),
    };
    Ok(Question { from, to, protocol, port })
}

/// `TO[:PORT]`; an IPv6 address with a port is in brackets.
fn place_and_port(text: &str) -> Option<(Party, Option<u16>)> {
    if let Some(party) = party(text) {
        return Some((party, None));
    }
    let bare = |text: &str| {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        inner.map_or_else(|| party(text), |inner| inner.parse().ok().map(Party::Address))
    };
    if let Some(party) = bare(text) {
        return Some((party, None));
    }
    let (place, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((bare(place)?, Some(port)))
}

/// A protocol by its name; inside, nothing for ping.
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

    #[test]
    fn ends_are_pods_services_nodes_addresses_and_names() {
        use Protocol::{Tcp, Udp};
        let pod = |text: &str| Party::Pod(text.parse().unwrap());
        let service = |text: &str| Party::Service(text.parse().unwrap());
        let name = |text: &str| Party::Name(text.to_owned());
        let address = |text: &str| Party::Address(text.parse().unwrap());
        for (to, party, protocol, port) in [
            ("b/y:80", pod("b/y"), Some(Tcp), Some(80)),
            ("pod/b/y:80/TCP", pod("b/y"), Some(Tcp), Some(80)),
            ("b/tcp", pod("b/tcp"), None, None),
            ("b/y/icmp", pod("b/y"), None, None),
            ("svc/b/y", service("b/y"), Some(Tcp), None),
            ("svc/b/y/udp", service("b/y"), Some(Udp), None),
            ("db.shop:5432/tcp", name("db.shop"), Some(Tcp), Some(5432)),
            ("db", name("db"), None, None),
            ("node/node1:30080", Party::Node("node1".to_owned()), Some(Tcp), Some(30080)),
            ("192.0.2.1:53/udp", address("192.0.2.1"), Some(Udp), Some(53)),
            ("2001:db8::1", address("2001:db8::1"), None, None),
            ("[2001:db8::1]:443", address("2001:db8::1"), Some(Tcp), Some(443)),
        ] {
            let asked = Question { from: pod("a/x"), to: party, protocol, port };
            assert_eq!(parse(&format!("a/x -> {to}")), Ok(asked.clone()), "{to}");
            assert_eq!(parse(&format!("a/x {to}")), Ok(asked), "{to}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_answered_by_how_it_is_written() {
        for (line, told) in [
            ("a/x", "expected FROM TO"),
            ("a/x -", "quote the arrow"),
            ("web b/y", "\"web\" as FROM: expected"),
            ("svc/a/x b/y", "Service a/x sends nothing"),
            ("a/x b/y:0", "\"b/y:0\": expected"),
            ("a/x b/y:80/icmp", "ICMP has no ports"),
            ("a/x b/y/z/w", "expected FROM TO"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
