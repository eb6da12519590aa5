//! The flags of BGP, for those who want no objects for it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use weft_announce::bgp::peer::{self, Password};
use weft_announce::bgp::wire::Community;
use weft_netlink::tcp::LONGEST_PASSWORD;
use weft_types::IpNetwork;

use crate::bgp::plan::{Kind, Settings};
use crate::uplink::Backend;
use crate::{Error, Result};

/// How nodes and routers learn routes from each other.
#[derive(Args, Clone, Debug)]
pub struct BgpOptions {
    /// The AS number of the nodes, for BGP.
    #[arg(long, value_name = "NUMBER", default_value_t = 64512, value_parser = clap::value_parser!(u32).range(1..))]
    pub bgp_asn: u32,

    /// Routers that are told by BGP which addresses lead to this node, each with its AS number:
    /// 192.0.2.1:65000, [2001:db8::1]:65000.
    #[arg(long = "bgp-peer", value_name = "ADDRESS:ASN", value_delimiter = ',')]
    pub bgp_peers: Vec<PeerFlag>,

    /// What those routers are told of: addresses of load balancers, the pods of this node, or both.
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "load-balancers")]
    pub bgp_announce: Vec<Kind>,

    /// Speak BGP as MetalLB's BGPPeers, BGPAdvertisements and Communities say, too, about addresses of
    /// IPAddressPools. MetalLB's speaker itself must not run.
    #[arg(long)]
    pub bgp_crds: bool,

    /// Communities that the routes bear which those routers are told of.
    #[arg(long, value_name = "COMMUNITY", value_delimiter = ',', value_parser = Community::from_str)]
    pub bgp_community: Vec<Community>,

    /// Ranges within which routes are taken from those routers; without it none are.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub bgp_import: Vec<IpNetwork>,

    /// A file with the password that all BGP peers sign their segments with (TCP MD5).
    #[arg(long, value_name = "FILE")]
    pub bgp_password_file: Option<PathBuf>,

    /// How many routers, and one, may be between this node and routers of another AS. Without it, none.
    #[arg(long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    pub bgp_multihop: Option<u8>,

    /// After how many seconds of silence a BGP session ends; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = peer::HOLD_TIME, value_parser = hold_time)]
    pub bgp_hold_time: u16,

    /// For how many seconds BGP peers keep this node's routes while the agent restarts; 0 for not at all.
    #[arg(long, value_name = "SECONDS", default_value_t = peer::RESTART_TIME, value_parser = clap::value_parser!(u16).range(..=4095))]
    pub bgp_restart_time: u16,

    /// Where BGP peers may connect to; 0 for nowhere. Another BGP daemon on the node may need the port.
    #[arg(long, value_name = "PORT", default_value_t = peer::PORT)]
    pub bgp_port: u16,

    /// With --backend bgp, speak with all other nodes. Without it, only with the peers that are named, which
    /// then are route reflectors.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub bgp_mesh: bool,
}

/// A router, as a flag names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFlag {
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
}

impl FromStr for PeerFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<PeerFlag, Self::Err> {
        let expected = "expected an address and an AS number, as in 192.0.2.1:65000 or [2001:db8::1]:65000";
        let (address, asn) = text.rsplit_once(':').ok_or(expected)?;
        let address: IpAddr = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().map(IpAddr::from),
            None => address.parse::<std::net::Ipv4Addr>().map(IpAddr::from),
        }
        .map_err(|_| expected)?;
        let asn = asn.parse().ok().filter(|&asn: &u32| asn > 0).ok_or(expected)?;
        Ok(PeerFlag { address, asn })
    }
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Kind] {
        &[Kind::LoadBalancers, Kind::PodCidrs]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Kind::LoadBalancers => "load-balancers".into(),
            Kind::PodCidrs => "pod-cidrs".into(),
        })
    }
}

fn hold_time(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(1 | 2) | Err(_) => Err("expected 0, or 3 to 65535 seconds (RFC 4271)"),
        Ok(seconds) => Ok(seconds),
    }
}

impl BgpOptions {
    /// What plans depend on. Reads the password.
    ///
    /// # Errors
    /// Where there is none to read.
    pub(crate) fn settings(&self, backend: Backend) -> Result<Settings> {
        let password = self.bgp_password_file.as_ref().map(|path| {
            let refuse = |problem: String| Error::BgpPassword { path: path.clone(), problem };
            let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
            let text = text.trim_end_matches(['\r', '\n']);
            match text.len() {
                0 => Err(refuse("it is empty".to_owned())),
                length if length > LONGEST_PASSWORD => {
                    Err(refuse(format!("it is longer than {LONGEST_PASSWORD} bytes")))
                }
                _ => Ok(Password(text.to_owned())),
            }
        });
        Ok(Settings {
            asn: self.bgp_asn,
            routers: self.bgp_peers.iter().map(|peer| (peer.address, peer.asn)).collect(),
            announce: self.bgp_announce.iter().copied().collect::<BTreeSet<Kind>>(),
            communities: self.bgp_community.clone(),
            imports: self.bgp_import.clone(),
            password: password.transpose()?,
            hops: self.bgp_multihop,
            hold_time: self.bgp_hold_time,
            restart_time: (self.bgp_restart_time > 0).then_some(self.bgp_restart_time),
            port: (self.bgp_port > 0).then_some(self.bgp_port),
            reads_objects: self.bgp_crds,
            is_mesh: backend == Backend::Bgp && self.bgp_mesh,
            is_backend: backend == Backend::Bgp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_named_by_address_and_number() {
        let parse = |text: &str| text.parse::<PeerFlag>().map(|it| (it.address.to_string(), it.asn));
        assert_eq!(parse("192.0.2.1:65000"), Ok(("192.0.2.1".to_owned(), 65000)));
        assert_eq!(parse("[2001:db8::1]:4200000001"), Ok(("2001:db8::1".to_owned(), 4_200_000_001)));
        for text in ["192.0.2.1", "2001:db8::1:65000", "192.0.2.1:0", "router:65000", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hold_times_of_one_and_two_seconds_are_none() {
        assert_eq!((hold_time("0"), hold_time("3")), (Ok(0), Ok(3)));
        assert!(["1", "2", "65536", "x"].into_iter().all(|text| hold_time(text).is_err()));
    }
}
