//! Which upstreams there are: from flags, or from the node's resolv.conf; and its search list. Pure: files are read by
//! the caller.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::Name;

use crate::error::Error;

/// The port of DNS.
const PORT: u16 = 53;

/// The address of an upstream, with port 53 where none is written: `1.1.1.1`, `1.1.1.1:5353`, `[::1]:53`, `::1`.
///
/// # Errors
/// A line that names the text and what is expected.
pub fn parse_upstream(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)))
        .map_err(|_| {
            "expected ADDR or ADDR:PORT, such as 1.1.1.1, 1.1.1.1:53 or [2606:4700:4700::1111]:53".to_owned()
        })
}

/// The name servers of a resolv.conf (resolv.conf(5)). Lines that are not understood are left out, as libc does.
pub fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|&word| word == "nameserver").and(words.next())?;
        // A zone index such as %eth0 has no place in the lists that clusters write.
        Some(SocketAddr::new(address.parse().ok()?, PORT))
    };
    text.lines().filter_map(server).collect()
}

/// The search list of a resolv.conf: the last line of it counts (resolv.conf(5)). What is no domain is left out.
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
/// The first upstream to which questions would go in circles.
pub fn foreign(upstreams: Vec<SocketAddr>, listeners: &[SocketAddr]) -> Result<Vec<SocketAddr>, Error> {
    match upstreams.iter().find(|upstream| listeners.iter().any(|listener| is_same(upstream, listener))) {
        Some(own) => Err(Error::OwnUpstream(*own)),
        None => Ok(upstreams),
    }
}

/// Whether a question to `upstream` would reach `listener`. A listener on all addresses is reached by loopback;
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
