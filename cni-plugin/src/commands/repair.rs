//! Putting back what ADD made on the host and somebody deleted since: the bridge, its addresses and settings,
//! the containers' ports of it, masquerading, ports of the host. The plan of every living container is made
//! once more, and the kernel brought to it where it differs. What is inside of containers is theirs.
//!
//! The agent calls this when it notices a change. Containers are known by the notes on their links, their
//! addresses' ranges by the reservations, and what runtimes asked for by the records.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weft_cni_spec::{Args, Attachment, Invocation, IpConfig, Success};
use weft_ipam::Ipam;
use weft_netlink::rtnl::{Address, Link, LinkChange, Mac, RtnetlinkClient};

use super::check;
use super::ipam::Source;
use super::record::{Record, Records, originals};
use crate::kernel::{Lock, conntrack, ensure_bridge, settle_port};
use crate::nft::Tables;
use crate::{
    BridgePlan, Error, HostPorts, HostState, Masquerade, Options, Pod, PodPlan, Result, Sysctl, host_name,
    plan,
};

/// What was done and what could not be, a line each, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was put back.
    pub done: Vec<String>,
    /// What could not be.
    pub problems: Vec<String>,
}

/// Puts everything of a network back. `config` is its configuration, as plugins get it on standard input.
pub fn repair(config: &[u8]) -> Report {
    let mut report = Report::default();
    let outcome = Invocation::of_config(config)
        .map_err(Error::from)
        .and_then(|invocation| Repair::open(&invocation)?.run(&mut report));
    report.problems.extend(outcome.err().map(|error| error.to_string()));
    report
}

impl Report {
    /// For the program that asked.
    pub fn to_json(&self) -> Value {
        json!({"done": self.done, "problems": self.problems})
    }

    /// Notes what came of something. The words are about what was wrong.
    fn note(&mut self, what: String, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.done.push(what),
            Err(error) => self.problems.push(format!("{what}: {error}")),
        }
    }
}

/// A network whose containers are looked after.
struct Repair<'a> {
    invocation: &'a Invocation,
    options: Options,
    host: RtnetlinkClient,
    records: Records,
    kept: BTreeMap<String, Record>,
    living: Vec<(Link, Attachment)>,
}

impl<'a> Repair<'a> {
    fn open(invocation: &'a Invocation) -> Result<Repair<'a>> {
        let options = Options::read(invocation, &Args::default())?;
        let records = Records::of(invocation);
        // In this order: a container has its link before it has a record.
        let kept = records.all().into_iter().map(|record| (record.owner.clone(), record)).collect();
        let mut host = RtnetlinkClient::open()?;
        let links = host.links()?.into_iter().filter(|link| link.kind.as_deref() == Some("veth"));
        let living = links.filter_map(|link| Some((attachment(&link, invocation)?, link)));
        let living = living.map(|(attachment, link)| (link, attachment)).collect();
        Ok(Repair { invocation, options, host, records, kept, living })
    }

    fn run(&mut self, report: &mut Report) -> Result<()> {
        for owner in
            self.kept.keys().filter(|owner| !self.living.iter().any(|(link, _)| link.name == **owner))
        {
            self.records.forget(owner);
        }
        let Some((_, first)) = self.living.first().cloned() else { return Ok(()) };
        let state = self.state()?;
        let whole = self.plan(&first, &self.options, self.lease(&state)?, &state)?;
        // What is in the way of the next container is in nobody's way yet.
        let bridge = BridgePlan { delete: Vec::new(), ..whole.bridge };
        self.bridge(&bridge, &state, report)?;
        if let Some(networks) = &whole.masquerade {
            masquerade(&mut self.host, networks, report)?;
        }
        let state = self.state()?;
        for (link, attachment) in self.living.clone() {
            if let Err(error) = self.container(&link, &attachment, &state, report) {
                report.problems.push(format!("{}: {error}", link.name));
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<HostState> {
        let gateways = self.options.gateways(Source::of(self.invocation)?.gateways(self.invocation)?);
        HostState::read(&mut self.host, &self.options, gateways)
    }

    /// The gateways, as a lease of all of them, of the ranges that somebody has an address of. Nobody reads
    /// who: an old reservation gives the bridge an address more, which does no harm.
    fn lease(&self, state: &HostState) -> Result<Success> {
        let folder = match Source::of(self.invocation)? {
            Source::BuiltIn => Ipam::pool(self.invocation).map_err(|error| error.failure())?.folder(),
            Source::Foreign(_) | Source::Dhcp(_) | Source::None => PathBuf::new(),
        };
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        let held: Vec<IpAddr> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let is_used = |gateway: &&IpNetwork| held.iter().any(|address| gateway.contains(*address));
        let ip = |gateway: &IpNetwork| IpConfig {
            address: *gateway,
            gateway: Some(gateway.ip()),
            interface: None,
        };
        Ok(Success { ips: state.gateways.iter().filter(is_used).map(ip).collect(), ..Success::default() })
    }

    fn plan(
        &self,
        attachment: &Attachment,
        options: &Options,
        lease: Success,
        state: &HostState,
    ) -> Result<PodPlan> {
        let (network, netns) = (self.invocation.network.clone(), PathBuf::new());
        // A pod that runs had its policies, or waits for them already.
        let pod = Pod { network, attachment: attachment.clone(), netns, waits: None };
        plan(&pod, options, lease, state)
    }

    fn bridge(&mut self, plan: &BridgePlan, state: &HostState, report: &mut Report) -> Result<()> {
        let name = &plan.link.name;
        let wrong = differences(plan, state);
        if !wrong.is_empty() || self.options.vlans.is_some() {
            let found = state.bridge.as_ref().map(|bridge| bridge.link.clone());
            let outcome = ensure_bridge(&mut self.host, plan, found, &originals(self.invocation)).map(drop);
            match (wrong.join(", "), outcome) {
                (wrong, Ok(())) if wrong.is_empty() => {}
                (wrong, outcome) => report.note(format!("bridge {name} {wrong}"), outcome),
            }
        }
        self.link_local(plan, report)
    }

    /// Without a link-local address the kernel asks for no container's Ethernet address when it forwards IPv6
    /// (RFC 4861 section 7.2.2). It gives an interface one when that comes up, and never again.
    fn link_local(&mut self, plan: &BridgePlan, report: &mut Report) -> Result<()> {
        let gateway = plan.vlan_gateway.as_ref().map_or(&plan.link.name, |gateway| &gateway.link.peer.name);
        let Some(link) = self.host.find_link(gateway)? else { return Ok(()) };
        let held = self.host.addresses(Some(link.index))?;
        let (has_global, has_local) = held.iter().fold((false, false), |(global, local), held| {
            let IpNetwork::V6(address) = held.address else { return (global, local) };
            let is_local = address.ip().is_unicast_link_local();
            (global || !is_local, local || is_local)
        });
        let Some(mac) = link.mac.filter(|_| has_global && !has_local && link.carrier) else { return Ok(()) };
        let outcome = self.host.add_address(Address { link: link.index, address: link_local(mac) });
        report.note(format!("{gateway} lacked a link-local address"), outcome.map_err(Error::from));
        Ok(())
    }

    /// A container's port of the bridge, and its ports of the host.
    fn container(
        &mut self,
        link: &Link,
        attachment: &Attachment,
        state: &HostState,
        report: &mut Report,
    ) -> Result<()> {
        let record = self.kept.get(&link.name);
        let options =
            record.map_or_else(|| Ok(self.options.clone()), |kept| kept.options(self.invocation))?;
        // Containers keep the MTU that they started with.
        let options = Options { mtu: None, ..options };
        let lease = record.map(Record::lease).unwrap_or_default();
        let plan = self.plan(attachment, &options, lease, state)?;
        let bridge = state.bridge.as_ref().map(|bridge| bridge.link.index);
        if let (Some(bridge), None) = (bridge, link.master.filter(|master| Some(*master) != bridge)) {
            self.port(link, attachment, &plan, bridge, report)?;
        }
        match &plan.host_ports {
            Some(ports) => self.host_ports(ports, report),
            None => Ok(()),
        }
    }

    fn port(
        &mut self,
        link: &Link,
        attachment: &Attachment,
        plan: &PodPlan,
        bridge: u32,
        report: &mut Report,
    ) -> Result<()> {
        let told = Success::default();
        let wrong = match check::port(&mut self.host, link, plan, &told) {
            // The container went meanwhile.
            Err(Error::Kernel(error)) if error.is_missing() => return Ok(()),
            outcome => outcome?,
        };
        let Some(wrong) = wrong else { return Ok(()) };
        let join = LinkChange { up: Some(true), master: Some(bridge), ..LinkChange::default() };
        let outcome = self.host.change_link(link.index, &join).map_err(Error::from);
        let outcome = outcome.and_then(|()| settle_port(&mut self.host, link, &plan.veth));
        match outcome {
            Err(Error::Kernel(error)) if error.is_missing() => {}
            outcome => report.note(format!("container {}: {wrong}", attachment.container), outcome),
        }
        Ok(())
    }

    fn host_ports(&mut self, ports: &HostPorts, report: &mut Report) -> Result<()> {
        if ports.needs_local_routes() {
            let link = &self.options.gateway_link;
            let setting = Sysctl::new(format!("net/ipv4/conf/{link}/route_localnet"), "1");
            if !setting.is_set() {
                report.note(format!("{setting} was undone"), setting.apply());
            }
        }
        let mut tables = Tables::open_for(|| "portMappings".into())?;
        let Some(wrong) = tables.check_ports(ports)? else { return Ok(()) };
        let is_wanted = || self.records.has(&ports.owner);
        let outcome = tables.map_ports_if(&mut self.host, ports, is_wanted);
        let outcome = outcome.and_then(|()| conntrack::forget_before(ports));
        report.note(format!("container {}: {wrong}", ports.container), outcome);
        Ok(())
    }
}

/// What is wrong with the bridge, in words that follow its name.
fn differences(plan: &BridgePlan, state: &HostState) -> Vec<String> {
    let Some(found) = &state.bridge else { return vec!["was gone".into()] };
    let down = (!found.link.up).then(|| "was down".to_owned());
    let deaf = (plan.promiscuous && !found.link.promiscuous).then(|| "was not promiscuous".to_owned());
    let lacking = plan.add.iter().map(|address| format!("lacked the address {address}"));
    let unset = plan.sysctls.iter().filter(|sysctl| !sysctl.is_set());
    let unset = unset.map(|sysctl| format!("had /proc/sys/{} not at {}", sysctl.key, sysctl.value));
    down.into_iter().chain(deaf).chain(lacking).chain(unset).collect()
}

fn masquerade(host: &mut RtnetlinkClient, networks: &Masquerade, report: &mut Report) -> Result<()> {
    let mut tables = Tables::open_for(|| "ipMasq true".into())?;
    if let Some(wrong) = tables.check_masquerade(networks)? {
        let lock = Lock::shared()?;
        report.note(wrong, tables.masquerade(host, networks, &lock));
    }
    Ok(())
}

/// Whose a link is: its note, where it is of that network. A note that had to be cut does not lead to the
/// link's name.
fn attachment(link: &Link, invocation: &Invocation) -> Option<Attachment> {
    let note = link.alias.as_deref()?.strip_prefix(invocation.network.as_str())?.strip_prefix('/')?;
    let (container, ifname) = note.split_once('/')?;
    let attachment = Attachment { container: container.parse().ok()?, ifname: ifname.parse().ok()? };
    (host_name(&attachment) == link.name).then_some(attachment)
}

/// The link-local address that follows from an Ethernet address (RFC 4291, appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> IpNetwork {
    let part = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let identifier = [part(a ^ 2, b), part(c, 0xff), part(0xfe, d), part(e, f)];
    let [one, two, three, four] = identifier;
    let address = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, one, two, three, four);
    ipnetwork::Ipv6Network::new(address, 64).map_or_else(|_| IpAddr::from(address).into(), IpNetwork::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_the_one_that_the_kernel_gives() {
        let mac = "0a:58:0a:f4:01:01".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::858:aff:fef4:101/64");
    }
}
