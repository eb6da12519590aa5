//! The names of chains that kube-proxy gives: what a guide's output shows can be computed from a Service's
//! name.

use data_encoding::BASE32;
use ring::digest::{SHA256, digest};
use weft_nftables::Name;
use weft_types::{NamespacedName, Protocol};

/// So many characters of the hash are part of a name: with what stands before them they are as long as a
/// chain's name may be.
const HASH: usize = 16;

/// What kube-proxy calls a Service port: `namespace/name:port`, or `namespace/name` where the port has no
/// name.
pub(super) fn port_name(service: &NamespacedName, port: &str) -> String {
    match port {
        "" => service.to_string(),
        port => format!("{service}:{port}"),
    }
}

/// The chain of a Service port that begins with `prefix`.
pub(super) fn of_port(prefix: &str, port_name: &str, protocol: Protocol) -> Name {
    hashed(prefix, &format!("{port_name}{}", word(protocol)))
}

/// The chain of an endpoint of a Service port.
pub(super) fn of_endpoint(port_name: &str, protocol: Protocol, endpoint: &str) -> Name {
    hashed("KUBE-SEP-", &format!("{port_name}{}{endpoint}", word(protocol)))
}

/// A protocol as iptables spells it.
pub(super) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn hashed(prefix: &str, text: &str) -> Name {
    let encoded = BASE32.encode(digest(&SHA256, text.as_bytes()).as_ref());
    format!("{prefix}{}", &encoded[..HASH]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that `iptables -t nat -S` printed in clusters with kube-proxy, as their users published them.
    #[test]
    fn chains_have_the_names_that_kube_proxy_gives_them() {
        let port = |name: &str, port: &str| port_name(&NamespacedName::new("kube-system", name), port);
        let dns = port("kube-dns", "dns");
        assert_eq!(&*of_port("KUBE-SVC-", &dns, Protocol::Udp), "KUBE-SVC-TCOU7JCQXEZGVUNU");
        let dns_tcp = port("kube-dns", "dns-tcp");
        assert_eq!(&*of_port("KUBE-SVC-", &dns_tcp, Protocol::Tcp), "KUBE-SVC-ERIFXISQEP7F7OF4");
        assert_eq!(&*of_endpoint(&dns, Protocol::Udp, "172.31.20.89:53"), "KUBE-SEP-5G5ZT6GHEYO6CPKS");
        let api = port_name(&NamespacedName::new("default", "kubernetes"), "https");
        assert_eq!(&*of_port("KUBE-SVC-", &api, Protocol::Tcp), "KUBE-SVC-NPX46M4PTMTKRN6Y");
        assert_eq!(&*of_endpoint(&api, Protocol::Tcp, "172.31.14.42:443"), "KUBE-SEP-A7FK4LHINPNK7Q5J");
        let unnamed = port_name(&NamespacedName::new("game-2048", "service-2048"), "");
        assert_eq!(&*of_port("KUBE-EXT-", &unnamed, Protocol::Tcp), "KUBE-EXT-V7WHPSTR7G6YHTBY");
        assert_eq!(&*of_endpoint(&unnamed, Protocol::Tcp, "192.168.2.92:80"), "KUBE-SEP-6RLR7GMXHKSBV5ON");
    }
}
