//! A lease: what a server gave, and for how long.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::message::{Message, option};

/// Where the server says nothing, as the reference daemon has it.
const DEFAULT_SECONDS: u32 = 3600;
/// What stands for ever (RFC 2131 section 3.3).
const FOR_EVER: u32 = u32::MAX;

/// The server, or the relay before it, as it is reached from the container's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// The server's address.
    pub address: Ipv4Addr,
    /// Who sent its last message over the link.
    pub mac: [u8; 6],
}

/// For how long an address may be used, in seconds from the request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// T1: its server is asked to prolong it.
    pub renew: u32,
    /// T2: any server is.
    pub rebind: u32,
    /// It is over.
    pub end: u32,
}

/// A route that the server told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Network,
    /// The next hop; unspecified where the destination is on the link (RFC 3442).
    pub router: Ipv4Addr,
}

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address, with its network's prefix.
    pub address: Ipv4Network,
    /// The first router.
    pub gateway: Option<Ipv4Addr>,
    /// All routes, the default one too.
    pub routes: Vec<Route>,
    /// For how long; none is for ever.
    pub term: Option<Term>,
    /// Whose it is.
    pub server: Station,
}

impl Lease {
    /// What an OFFER or ACK gives.
    ///
    /// # Errors
    /// Why a container can make nothing of it, in words about the server.
    pub fn of(message: &Message, mac: [u8; 6]) -> Result<Lease, String> {
        let server = message.address(option::SERVER);
        let server = server.ok_or("a server does not say who it is (option 54)")?;
        let unusable = |what: &str| format!("server {server} {what}");
        let address = message.yiaddr;
        if address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_loopback()
        {
            return Err(unusable(&format!("gives {address}, which no container can have")));
        }
        let mask = message.address(option::SUBNET_MASK);
        let mask = mask.ok_or_else(|| unusable("tells no subnet mask (option 1)"))?;
        let address = Ipv4Network::with_netmask(address, mask)
            .map_err(|_| unusable(&format!("tells {mask} for a subnet mask (option 1)")))?;
        let routers = message.options.get(&option::ROUTERS);
        let gateway = routers.and_then(|routers| Some(Ipv4Addr::from(*routers.first_chunk::<4>()?)));
        let gateway = gateway.filter(|gateway| !gateway.is_unspecified());
        Ok(Lease {
            address,
            gateway,
            routes: routes(message, gateway).map_err(unusable)?,
            term: Term::of(message).map_err(unusable)?,
            server: Station { address: server, mac },
        })
    }

    /// The same, prolonged by another message. Nobody tells the container of anything else that changed.
    pub fn prolonged(&self, by: &Lease) -> Lease {
        Lease { term: by.term, server: by.server, ..self.clone() }
    }
}

impl Term {
    fn of(message: &Message) -> Result<Option<Term>, &'static str> {
        let end = match message.number(option::LEASE_TIME).unwrap_or(DEFAULT_SECONDS) {
            0 => return Err("gives an address for 0 seconds (option 51)"),
            FOR_EVER => return Ok(None),
            end => end,
        };
        let told = message.number(option::RENEWAL_TIME).zip(message.number(option::REBINDING_TIME));
        // T1 and T2 in order, or those of RFC 2131 section 4.4.5.
        let is_usable = |(renew, rebind): &(u32, u32)| 0 < *renew && renew < rebind && *rebind < end;
        let eighths = |count: u64| (u64::from(end) * count / 8) as u32;
        let (renew, rebind) = told.filter(is_usable).unwrap_or((eighths(4), eighths(7)));
        Ok(Some(Term { renew, rebind, end }))
    }
}

/// Of option 121 alone where it is there (RFC 3442), else of options 33 and 3.
fn routes(message: &Message, gateway: Option<Ipv4Addr>) -> Result<Vec<Route>, &'static str> {
    if let Some(classless) = message.options.get(&option::CLASSLESS_ROUTES) {
        return classless_routes(classless).ok_or("tells broken routes (option 121)");
    }
    let told = message.options.get(&option::STATIC_ROUTES).map(Vec::as_slice).unwrap_or_default();
    let mut routes: Vec<Route> = told.chunks_exact(8).filter_map(classful_route).collect();
    let everything = Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).ok();
    routes.extend(gateway.zip(everything).map(|(router, destination)| Route { destination, router }));
    Ok(routes)
}

/// A prefix, as many bytes of the destination as it has, and a router; again and again.
fn classless_routes(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first() {
        let (significant, rest) = rest.split_at_checked(usize::from(prefix.div_ceil(8)))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut destination = [0; 4];
        destination.get_mut(..significant.len())?.copy_from_slice(significant);
        let network = Ipv4Network::new(destination.into(), *prefix).ok()?;
        // Bits beyond the prefix do not count.
        let network = Ipv4Network::new(network.network(), *prefix).ok()?;
        routes.push(Route { destination: network, router: (*router).into() });
        bytes = rest;
    }
    Some(routes)
}

/// A network of class A, B or C and a router (RFC 2132 section 5.8).
fn classful_route(bytes: &[u8]) -> Option<Route> {
    let (destination, router) = bytes.split_first_chunk::<4>()?;
    let prefix = match destination[0] {
        0 => return None,
        1..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        _ => return None,
    };
    let network = Ipv4Network::new((*destination).into(), prefix).ok()?;
    let network = Ipv4Network::new(network.network(), prefix).ok()?;
    Some(Route { destination: network, router: Ipv4Addr::from(*router.first_chunk::<4>()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn ack(options: &[(u8, &[u8])]) -> Message {
        let usual: [(u8, &[u8]); 3] = [
            (option::SERVER, &[192, 0, 2, 1]),
            (option::SUBNET_MASK, &[255, 255, 255, 0]),
            (option::LEASE_TIME, &[0, 0, 0, 80]),
        ];
        let options = usual.iter().chain(options).map(|(number, value)| (*number, value.to_vec()));
        Message { yiaddr: [192, 0, 2, 50].into(), options: options.collect(), ..Message::default() }
    }

    fn lease(options: &[(u8, &[u8])]) -> Result<Lease, String> {
        Lease::of(&ack(options), MAC)
    }

    fn shown(lease: &Lease) -> Vec<String> {
        lease.routes.iter().map(|route| format!("{} {}", route.destination, route.router)).collect()
    }

    #[test]
    fn the_renewal_times_are_the_servers_or_those_of_the_rfc() {
        let term =
            |options: &[(u8, &[u8])]| lease(options).unwrap().term.map(|term| (term.renew, term.rebind));
        assert_eq!(term(&[]), Some((40, 70)));
        fn t1(seconds: &[u8]) -> (u8, &[u8]) {
            (option::RENEWAL_TIME, seconds)
        }
        fn t2(seconds: &[u8]) -> (u8, &[u8]) {
            (option::REBINDING_TIME, seconds)
        }
        assert_eq!(term(&[t1(&[0, 0, 0, 5]), t2(&[0, 0, 0, 9])]), Some((5, 9)));
        for (renew, rebind) in [(9, 5), (0, 5), (5, 80), (81, 90), (5, 5)] {
            let found = term(&[t1(&[0, 0, 0, renew]), t2(&[0, 0, 0, rebind])]);
            assert_eq!(found, Some((40, 70)), "{renew} {rebind}");
        }
        assert_eq!(term(&[t1(&[0, 0, 5]), t2(&[0, 0, 0, 9])]), Some((40, 70)), "of three bytes");
        assert_eq!(term(&[(option::LEASE_TIME, &[255; 4])]), None, "for ever");
        assert_eq!(term(&[(option::LEASE_TIME, &[])]), Some((1800, 3150)), "as the reference has it");
        assert_eq!(
            term(&[(option::LEASE_TIME, &[0xff, 0xff, 0xff, 0xfe])]),
            Some((0x7fff_ffff, 0xdfff_fffe))
        );
    }

    #[test]
    fn what_no_container_can_use_is_told_with_its_server() {
        let error = |options: &[(u8, &[u8])]| lease(options).unwrap_err();
        assert_eq!(
            error(&[(option::LEASE_TIME, &[0; 4])]),
            "server 192.0.2.1 gives an address for 0 seconds (option 51)"
        );
        assert_eq!(error(&[(option::SUBNET_MASK, &[])]), "server 192.0.2.1 tells no subnet mask (option 1)");
        assert_eq!(
            error(&[(option::SUBNET_MASK, &[255, 0, 255, 0])]),
            "server 192.0.2.1 tells 255.0.255.0 for a subnet mask (option 1)"
        );
        assert_eq!(
            error(&[(option::CLASSLESS_ROUTES, &[33, 0])]),
            "server 192.0.2.1 tells broken routes (option 121)"
        );
        assert_eq!(error(&[(option::SERVER, &[])]), "a server does not say who it is (option 54)");
        let nobody = Message { yiaddr: Ipv4Addr::UNSPECIFIED, ..ack(&[]) };
        assert!(Lease::of(&nobody, MAC).unwrap_err().contains("gives 0.0.0.0"));
    }

    #[test]
    fn routes_are_of_option_121_alone_where_it_is_there() {
        let routers: (u8, &[u8]) = (option::ROUTERS, &[192, 0, 2, 1, 192, 0, 2, 2]);
        let classful: (u8, &[u8]) = (
            option::STATIC_ROUTES,
            &[10, 9, 9, 9, 192, 0, 2, 3, 0, 0, 0, 0, 192, 0, 2, 4, 224, 0, 0, 1, 192, 0, 2, 4, 1],
        );
        let found = lease(&[routers, classful]).unwrap();
        assert_eq!(found.gateway, Some([192, 0, 2, 1].into()));
        assert_eq!(shown(&found), ["10.0.0.0/8 192.0.2.3", "0.0.0.0/0 192.0.2.1"]);
        let classless: (u8, &[u8]) = (
            option::CLASSLESS_ROUTES,
            &[0, 192, 0, 2, 9, 20, 10, 8, 0xff, 0, 0, 0, 0, 32, 10, 7, 7, 7, 192, 0, 2, 8],
        );
        let found = lease(&[routers, classful, classless]).unwrap();
        assert_eq!(shown(&found), ["0.0.0.0/0 192.0.2.9", "10.8.240.0/20 0.0.0.0", "10.7.7.7/32 192.0.2.8"]);
        assert_eq!(found.gateway, Some([192, 0, 2, 1].into()));
        assert!(lease(&[]).unwrap().routes.is_empty());
    }

    #[test]
    fn a_prolonged_lease_gives_the_same() {
        let first = lease(&[(option::ROUTERS, &[192, 0, 2, 1])]).unwrap();
        let second =
            lease(&[(option::LEASE_TIME, &[0, 0, 1, 0]), (option::SERVER, &[192, 0, 2, 2])]).unwrap();
        let prolonged = first.prolonged(&second);
        assert_eq!((prolonged.term, prolonged.server), (second.term, second.server));
        assert_eq!(
            (prolonged.address, prolonged.gateway, prolonged.routes),
            (first.address, first.gateway, first.routes)
        );
    }
}
