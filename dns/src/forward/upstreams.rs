//! Which upstreams there are: from flags, or from the node's resolv.conf; and its search list. Files are read
//! by the caller; all that is looked up here are the numbers of interfaces.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use hickory_proto::rr::Name;
use nix::net::if_::if_nametoindex;

use crate::error::Error;

/// The port of DNS.
const PORT: u16 = 53;
const EXPECTED: &str =
    "expected ADDR or ADDR:PORT, such as 1.1.1.1, 1.1.1.1:53, [2606:4700:4700::1111]:53 or fe80::1%eth0";

/// The address of an upstream, with port 53 where none is written: `1.1.1.1`, `1.1.1.1:5353`, `[::1]:53`,
/// `::1`, `fe80::1%eth0`, `[fe80::1%eth0]:53`.
///
/// # Errors
/// A line that names the text and what is expected.
pub fn parse_upstream(text: &str) -> Result<SocketAddr, String> {
    if let Some(zoned) = zoned(text) {
        return zoned;
    }
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)))
        .map_err(|_| EXPECTED.to_owned())
}

/// An address with the interface that it is reached by (RFC 4007 section 11); none where there is no `%`.
fn zoned(text: &str) -> Option<Result<SocketAddr, String>> {
    let (start, rest) = text.split_once('%')?;
    let (address, zone, port) = match (start.strip_prefix('['), rest.rsplit_once("]:")) {
        (Some(address), Some((zone, port))) => (address, zone, port.parse().ok()),
        (None, None) => (start, rest, Some(PORT)),
        _ => return Some(Err(EXPECTED.to_owned())),
    };
    // An old kind of interface has a colon in its name: more likely it is a port without brackets.
    let (Ok(address), Some(port), false) = (address.parse(), port, zone.contains(':')) else {
        return Some(Err(EXPECTED.to_owned()));
    };
    let interface = zone.parse().or_else(|_| if_nametoindex(zone));
    let interface = interface.map_err(|_| format!("there is no interface {zone} here"));
    Some(interface.map(|interface| SocketAddrV6::new(address, port, 0, interface).into()))
}

/// The name servers of a resolv.conf (resolv.conf(5)). Lines that are not understood are left out, as libc
/// does.
pub fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    name_servers(text).filter_map(|(_, server)| server.ok()).collect()
}

/// What a resolv.conf names as name servers, but cannot be used: a line for each.
pub fn unusable(text: &str) -> Vec<String> {
    name_servers(text).filter_map(|(word, server)| Some(format!("{word}: {}", server.err()?))).collect()
}

/// Each word that stands for a name server, and what it means.
fn name_servers(text: &str) -> impl Iterator<Item = (&str, Result<SocketAddr, String>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let word = words.next().filter(|&word| word == "nameserver").and(words.next())?;
        Some((word, name_server(word)))
    })
}

/// An address without a port, which a resolv.conf has no place for.
fn name_server(word: &str) -> Result<SocketAddr, String> {
    match word.contains(['[', ']']) || word.parse::<SocketAddr>().is_ok() {
        true => Err("expected an address without a port".to_owned()),
        false => parse_upstream(word),
    }
}

/// The search list of a resolv.conf: the last line of it counts (resolv.conf(5)). What is no domain is left
/// out.
pub fn search_list(text: &str) -> Vec<Name> {
    let list = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let keyword = words.next()?;
        ["search", "domain"].contains(&keyword.as_str()).then(|| words.collect::<Vec<_>>())
    };
    let domain = |word: &String| {
        let mut name = Name::from_ascii(word).ok()?;
        name.set_fqdn(true);
        (!name.is_root()).then_some(name)
    };
    text.lines().filter_map(list).next_back().iter().flatten().filter_map(domain).collect()
}

/// The upstreams, if none of them is a listener of this server.
///
/// # Errors
/// The first upstream to which queries would loop.
pub fn foreign(upstreams: Vec<SocketAddr>, listeners: &[SocketAddr]) -> Result<Vec<SocketAddr>, Error> {
    match upstreams.iter().find(|upstream| listeners.iter().any(|listener| is_same(upstream, listener))) {
        Some(own) => Err(Error::OwnUpstream(*own)),
        None => Ok(upstreams),
    }
}

/// Whether a query to `upstream` would reach `listener`. A listener on all addresses is reached by loopback;
/// by which others is not known here.
pub(super) fn is_same(upstream: &SocketAddr, listener: &SocketAddr) -> bool {
    let address = upstream.ip();
    let reached = address == listener.ip() || address.is_unspecified();
    let all = listener.ip().is_unspecified() && address.is_loopback();
    upstream.port() == listener.port() && (reached || all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn upstreams_have_port_53() {
        assert_eq!(parse_upstream("1.1.1.1"), Ok("1.1.1.1:53".parse().unwrap()));
        assert_eq!(parse_upstream("1.1.1.1:5353"), Ok("1.1.1.1:5353".parse().unwrap()));
        assert_eq!(parse_upstream("::1"), Ok("[::1]:53".parse().unwrap()));
        assert!(parse_upstream("dns.example").is_err());
    }

    #[test]
    fn upstreams_have_zones() {
        // The loopback interface is there, and number 1.
        let expected: SocketAddr = "[fe80::1%1]:53".parse().unwrap();
        for text in ["fe80::1%lo", "fe80::1%1", "[fe80::1%lo]:53", "[fe80::1%1]:53"] {
            assert_eq!(parse_upstream(text), Ok(expected), "{text}");
        }
        for text in ["fe80::1%", "192.0.2.1%lo", "[fe80::1%lo]", "fe80::1%lo:53", "[fe80::1%lo]:dns"] {
            assert!(parse_upstream(text).is_err(), "{text}");
        }
        let problem = unusable("nameserver fe80::1%nothing9\nnameserver x\nnameserver 192.0.2.1\n");
        assert_eq!(problem.len(), 2);
        assert_eq!(problem[0], "fe80::1%nothing9: there is no interface nothing9 here");
    }

    #[test]
    fn resolv_conf_is_read_as_libc_does() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 192.0.2.1 \n\tnameserver\t2001:db8::1\nnameserver x\noptions ndots:5\n";
        assert_eq!(resolv_conf(text), addresses(&["192.0.2.1:53", "[2001:db8::1]:53"]));
    }

    #[test]
    fn the_last_search_list_counts() {
        let list = |text| search_list(text).iter().map(Name::to_ascii).collect::<Vec<_>>();
        assert_eq!(list("domain a\nsearch b.example C.\nnameserver 192.0.2.1\n"), ["b.example.", "C."]);
        assert_eq!(list("search a\ndomain b\n"), ["b."]);
        assert_eq!(list("search . a..b\n# search c\n"), [""; 0]);
    }

    #[test]
    fn an_upstream_that_is_ourselves_is_refused() {
        let listeners = addresses(&["10.96.0.10:53", "0.0.0.0:5300"]);
        for own in ["10.96.0.10:53", "127.0.0.1:5300", "127.0.0.53:5300"] {
            assert!(foreign(addresses(&["192.0.2.1:53", own]), &listeners).is_err(), "{own}");
        }
        let others = addresses(&["10.96.0.10:5353", "127.0.0.1:53", "192.0.2.1:53"]);
        assert_eq!(foreign(others.clone(), &listeners).unwrap(), others);
    }
}
