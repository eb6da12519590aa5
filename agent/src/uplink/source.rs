//! Which of this machine's addresses packets to other nodes leave by. The kernel is asked only where nothing
//! else says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use weft_netlink::rtnl::Address;
use weft_types::{Family, IpNetwork};

use crate::uplink::LeaveBy;
use crate::{Error, Result};

/// Somebody outside (RFC 5737, RFC 3849), where there is no other node to ask the way to.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Those of the `held` addresses, and the addresses of the Node, one of each family, that this machine should
/// have and has not.
///
/// # Errors
/// Where there is no such address, or the interface cannot be looked for.
pub(crate) fn choose(
    held: &[Address],
    node: &[IpAddr],
    others: &[IpAddr],
    leave_by: &LeaveBy,
    mut index: impl FnMut(&str) -> Result<Option<u32>>,
) -> Result<(Vec<Address>, Vec<IpAddr>)> {
    let at = |address: IpAddr| held.iter().find(|held| held.address.ip() == address).copied();
    let no_exit = |wish: String| Error::NoExit { wish };
    match leave_by {
        LeaveBy::Interface(name) => {
            let link = index(name.as_str())?;
            let of = |family| {
                let mut of_link = held.iter().filter(|held| Some(held.link) == link);
                of_link
                    .find(|held| Family::of_network(&held.address) == family && !is_link_local(held))
                    .copied()
            };
            let chosen: Vec<Address> = Family::BOTH.into_iter().filter_map(of).collect();
            match chosen.is_empty() {
                true => Err(no_exit(format!("--iface {name}"))),
                false => Ok((chosen, Vec::new())),
            }
        }
        LeaveBy::Addresses(addresses) => {
            let chosen = addresses
                .iter()
                .map(|&address| at(address).ok_or_else(|| no_exit(format!("--node-ip {address}"))));
            Ok((chosen.collect::<Result<_>>()?, Vec::new()))
        }
        LeaveBy::Node => {
            let mut chosen: Vec<Address> = node.iter().filter_map(|&address| at(address)).collect();
            let mut foreign = Vec::new();
            for family in Family::BOTH {
                let known = node.iter().copied().find(|&address| Family::of(address) == family);
                let has = chosen.iter().any(|held| Family::of_network(&held.address) == family);
                let Some(known) = known.filter(|_| !has) else { continue };
                foreign.push(known);
                chosen.extend(towards(family, others).and_then(at));
            }
            Ok((chosen, foreign))
        }
    }
}

/// The address that packets to the others have, or to anybody outside. To connect a UDP socket sends nothing.
fn towards(family: Family, others: &[IpAddr]) -> Option<IpAddr> {
    let mut targets = others.iter().chain(&OUTSIDE).filter(|address| Family::of(**address) == family);
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    targets.find_map(|&target| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(target, 9)).ok()?;
        socket.local_addr().ok().map(|local| local.ip()).filter(|local| !local.is_loopback())
    })
}

fn is_link_local(held: &Address) -> bool {
    match held.address {
        IpNetwork::V4(address) => address.ip().is_link_local(),
        IpNetwork::V6(address) => address.ip().is_unicast_link_local(),
    }
}
