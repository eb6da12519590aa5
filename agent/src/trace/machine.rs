//! This node's links, routes and pods, as the kernel has them now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use nix::errno::Errno;
use weft_netlink::genl::ipvs::IpvsClient;
use weft_netlink::rtnl::{Address, Link, RouteAnswer, RouteKind, RouteQuery, RtnetlinkClient};
use weft_netlink::sysctl;
use weft_nftables::Family;
use weft_trace::{Cause, End, Entered, Entry, Machine, Packet, Question, Routed, Step, Tuple};

use crate::Result;
use crate::attachments::PluginPaths;
use crate::garbage_collection::plan::Attachment;
use crate::trace::{Place, pods};

/// The node, in the network namespace of the thread that opened it.
pub(super) struct Host {
    client: RtnetlinkClient,
    links: Vec<Link>,
    addresses: Vec<Address>,
    /// The host's ends of the pods' links, by the addresses of the pods.
    pods: BTreeMap<IpAddr, Attachment>,
    paths: PluginPaths,
    /// Where the machine's processes are.
    proc: PathBuf,
}

impl Host {
    pub(super) fn open(Place { paths, proc }: Place) -> Result<Host> {
        let mut client = RtnetlinkClient::open()?;
        let (links, addresses) = (client.links()?, client.addresses(None)?);
        Ok(Host { client, links, addresses, pods: paths.holders(), paths, proc })
    }

    fn named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn numbered(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The host's end of a pod's link.
    fn pod(&self, address: IpAddr) -> Option<std::result::Result<Link, End>> {
        let attachment = self.pods.get(&address)?;
        let is_it = |link: &&Link| self.paths.attachment(link).as_ref() == Some(attachment);
        let missing =
            || Cause::LinkDown { device: format!("the link of the pod with the address {address}") };
        Some(match self.links.iter().find(is_it) {
            None => Err(missing().into()),
            Some(link) if !link.up || !link.lower_up => {
                Err(Cause::LinkDown { device: link.name.clone() }.into())
            }
            Some(link) => Ok(link.clone()),
        })
    }

    /// What a pod sends comes by its link, or by the bridge that this is a port of.
    fn sent_by_pod(&mut self, question: &Question) -> Entered {
        let (mut steps, mut notes) = (Vec::new(), Vec::new());
        let link = match self.pod(question.source) {
            Some(Ok(link)) => link,
            Some(Err(end)) => return Entered { device: Err(end), steps, notes },
            None => {
                let device = Err(Cause::NoPod { address: question.source }.into());
                return Entered { device, steps, notes };
            }
        };
        match pods::namespace(&mut self.client, &link) {
            None => notes.push("the pod's own routes and rules cannot be seen by the agent".to_owned()),
            Some(namespace) => match pods::leave(&namespace, question) {
                Ok(step) => steps.push(step),
                Err(end) => return Entered { device: Err(end), steps, notes },
            },
        }
        let bridge = link.master.and_then(|index| self.numbered(index)).cloned();
        let port = bridge.is_some().then(|| link.name.clone());
        let seen = bridge.unwrap_or(link);
        steps.push(Step::Enters { device: seen.name.clone(), port, mtu: seen.mtu });
        Entered { device: Ok(seen.name), steps, notes }
    }

    /// What another machine sends comes by the tunnel, or by the interface that leads there.
    fn sent_by_another(&mut self, question: &Question) -> Entered {
        let entered = |device, steps| Entered { device, steps, notes: Vec::new() };
        let found = match &question.tunnel {
            Some(name) => {
                self.named(name).cloned().ok_or_else(|| End::from(Cause::LinkDown { device: name.clone() }))
            }
            None => {
                let destination = question.via.unwrap_or(question.source);
                let query = RouteQuery { destination, source: None, input: None, mark: 0 };
                let answer = self.client.look_up(&query).ok();
                let link = answer.and_then(|answer| self.numbered(answer.link?)).cloned();
                link.ok_or_else(|| End::Unknown {
                    reason: format!(
                        "no route leads to {destination}: by which interface it comes is not known"
                    ),
                })
            }
        };
        match found {
            Ok(link) if link.up => {
                let step = Step::Enters { device: link.name.clone(), port: None, mtu: link.mtu };
                entered(Ok(link.name), vec![step])
            }
            Ok(link) => entered(Err(Cause::LinkDown { device: link.name }.into()), Vec::new()),
            Err(end) => entered(Err(end), Vec::new()),
        }
    }

    fn routed(&self, packet: &Packet<'_>, answer: &RouteAnswer) -> std::result::Result<Routed, End> {
        let is_local = answer.kind == RouteKind::Local;
        let link = answer.link.and_then(|index| self.numbered(index));
        match (answer.kind, link) {
            (RouteKind::Refused, _) => Err(Cause::RefusedByRoute { to: packet.destination }.into()),
            (_, None) => Err(End::Unknown { reason: "the route names no interface".to_owned() }),
            (_, Some(link)) => Ok(Routed {
                is_local,
                device: link.name.clone(),
                gateway: answer.gateway,
                table: answer.table,
                mtu: answer.mtu.unwrap_or(link.mtu),
            }),
        }
    }

    /// Whether the next machine on a link does not answer. Whoever was not asked may.
    fn is_silent(&mut self, link: u32, address: IpAddr) -> bool {
        let entries = self.client.neighbours(Some(link)).unwrap_or_default();
        entries.iter().any(|entry| entry.address == address && entry.mac.is_none())
    }

    /// The other end of a VXLAN tunnel.
    fn remote(&mut self, link: u32, next_hop: IpAddr) -> Option<IpAddr> {
        let entries = self.client.neighbours(Some(link)).ok()?;
        let mac = entries.iter().find(|entry| entry.address == next_hop)?.mac?;
        self.client.fdb(link).ok()?.iter().find(|entry| entry.mac == mac).map(|entry| entry.remote)
    }
}

impl Machine for Host {
    fn entered(&mut self, question: &Question) -> Entered {
        match question.entry {
            Entry::Pod => self.sent_by_pod(question),
            Entry::Link | Entry::Here => self.sent_by_another(question),
        }
    }

    fn route(&mut self, packet: &Packet<'_>) -> std::result::Result<Routed, End> {
        let Packet { source, destination, input, mark } = *packet;
        let index = match input {
            Some(name) => match self.named(name) {
                Some(link) => Some(link.index),
                None => return Err(Cause::LinkDown { device: name.to_owned() }.into()),
            },
            None => None,
        };
        let query = RouteQuery { destination, source: Some(source), input: index, mark };
        match self.client.look_up(&query) {
            Ok(answer) if answer.kind == RouteKind::Unicast && input.is_some() => {
                match forbids_forwarding(destination, input) {
                    Some(setting) => Err(Cause::NotForwarding { setting }.into()),
                    None => self.routed(packet, &answer),
                }
            }
            Ok(answer) => self.routed(packet, &answer),
            Err(error) => Err(match (error.errno(), input) {
                (Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH), _) => {
                    match forbids_forwarding(destination, input) {
                        Some(setting) => Cause::NotForwarding { setting }.into(),
                        None => Cause::NoRoute { place: "on the node".to_owned(), to: destination }.into(),
                    }
                }
                (Some(Errno::EXDEV | Errno::EINVAL), Some(device)) => match self.reverse_path(source, device)
                {
                    Some(mode) => Cause::ReversePath { device: device.to_owned(), mode }.into(),
                    None if self.is_blackhole(destination, mark) => {
                        Cause::RefusedByRoute { to: destination }.into()
                    }
                    None => End::Unknown {
                        reason: format!("the kernel takes no packet from {source} by {device}: {error}"),
                    },
                },
                (Some(Errno::EINVAL), None) | (Some(Errno::EACCES), _) => {
                    Cause::RefusedByRoute { to: destination }.into()
                }
                _ => End::Unknown { reason: error.to_string() },
            }),
        }
    }

    fn own_address_to(&mut self, destination: IpAddr) -> Option<IpAddr> {
        let query = RouteQuery { destination, source: None, input: None, mark: 0 };
        self.client.look_up(&query).ok()?.source
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|own| own.address.ip() == address)
    }

    fn first_address(&self, device: &str, family: Family) -> Option<IpAddr> {
        let link = self.named(device)?.index;
        let own = self.addresses.iter().filter(|address| address.link == link);
        own.map(|address| address.address.ip()).find(|address| Family::of(*address) == family)
    }

    fn deliver(&mut self, routed: &Routed, packet: &Tuple, question: &Question) -> End {
        let Some(link) = self.named(&routed.device).cloned() else {
            return Cause::LinkDown { device: routed.device.clone() }.into();
        };
        if !link.up {
            return Cause::LinkDown { device: link.name }.into();
        }
        let next_hop = routed.gateway.unwrap_or(packet.destination);
        let kind = link.kind.clone();
        if routed.gateway.is_none()
            && let Some(found) = self.pod(packet.destination)
        {
            let pod = match found {
                Ok(pod) => pod,
                Err(end) => return end,
            };
            if self.is_silent(link.index, packet.destination) {
                return Cause::NoNeighbour { device: link.name, address: packet.destination }.into();
            }
            let wait = || pods::socket(packet.destination, question, packet.port);
            let namespace = pods::namespace(&mut self.client, &pod);
            let socket = namespace.and_then(|namespace| namespace.run(wait).ok());
            let container =
                self.pods.get(&packet.destination).map(|attachment| attachment.container.as_str());
            let unentered = || {
                pods::socket_of(
                    &self.proc,
                    container.unwrap_or_default(),
                    packet.destination,
                    question,
                    packet.port,
                )
            };
            return End::Pod { device: pod.name, socket: socket.unwrap_or_else(unentered) };
        }
        match kind.as_deref() {
            Some("vxlan") => match self.remote(link.index, next_hop) {
                Some(remote) => End::Leaves { device: link.name, kind, next_hop, remote: Some(remote) },
                None => Cause::NoTunnelEnd { device: link.name, next_hop }.into(),
            },
            // Only pods are there.
            Some("bridge") if routed.gateway.is_none() && self.is_of_pods(link.index) => {
                Cause::NoPod { address: packet.destination }.into()
            }
            _ if self.is_silent(link.index, next_hop) => {
                Cause::NoNeighbour { device: link.name, address: next_hop }.into()
            }
            _ => End::Leaves { device: link.name, kind, next_hop, remote: None },
        }
    }

    fn take(&mut self, packet: &Tuple, question: &Question) -> End {
        if question.answers.is_none() && is_virtual(packet, question) {
            let reason =
                "IPVS leads it to an endpoint, and whereto is not followed: see ipvsadm -Ln on the node";
            return End::Unknown { reason: reason.to_owned() };
        }
        End::Host { socket: pods::socket(packet.destination, question, packet.port) }
    }
}

impl Host {
    /// The mode of rp_filter of an interface, where it does not take what comes from an address: the larger of
    /// two settings (Documentation/networking/ip-sysctl.rst). Strict, the way back must lead there; loose, there
    /// must be one.
    fn reverse_path(&mut self, source: IpAddr, device: &str) -> Option<u8> {
        let read = |of: &str| sysctl::read(&format!("net/ipv4/conf/{of}/rp_filter")).ok()?.parse::<u8>().ok();
        let mode = read("all").max(read(device))?;
        let query = RouteQuery { destination: source, source: None, input: None, mark: 0 };
        let back = self.client.look_up(&query).ok().filter(|answer| answer.kind == RouteKind::Unicast);
        let is_there = back.is_some_and(|answer| answer.link == self.named(device).map(|link| link.index));
        match mode {
            1 => !is_there,
            2 => back.is_none(),
            _ => false,
        }
        .then_some(mode)
    }

    /// Whether a route takes what goes there, and gives it to nobody. What comes in and what the machine makes
    /// itself is both answered with EINVAL then; of what comes in that says other things, too.
    fn is_blackhole(&mut self, destination: IpAddr, mark: u32) -> bool {
        let query = RouteQuery { destination, source: None, input: None, mark };
        self.client.look_up(&query).is_err_and(|error| error.errno() == Some(Errno::EINVAL))
    }

    /// Whether a bridge is that of the pods.
    fn is_of_pods(&self, bridge: u32) -> bool {
        let mut ports = self.links.iter().filter(|link| link.master == Some(bridge));
        ports.any(|link| self.paths.attachment(link).is_some())
            || self.numbered(bridge).is_some_and(|link| link.name == weft_types::well_known::device::BRIDGE)
    }
}

/// The setting by which the kernel forwards nothing from an interface, where there is one.
fn forbids_forwarding(destination: IpAddr, input: Option<&str>) -> Option<String> {
    let device = input?;
    let settings = match destination.is_ipv4() {
        true => vec![format!("net/ipv4/conf/{device}/forwarding")],
        false => vec!["net/ipv6/conf/all/forwarding".to_owned()],
    };
    settings.into_iter().find(|setting| sysctl::read(setting).is_ok_and(|value| value == "0"))
}

/// Whether IPVS has a virtual server there.
fn is_virtual(packet: &Tuple, question: &Question) -> bool {
    let services = IpvsClient::open().and_then(|mut client| client.services()).unwrap_or_default();
    services.iter().map(|service| &service.server).any(|server| {
        server.address.ip() == packet.destination
            && Some(server.address.port()) == packet.port
            && server.protocol == question.protocol
    })
}
