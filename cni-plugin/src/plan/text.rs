//! Plans as `ip` and `tc` commands: for people, logs and golden tests.

use std::fmt;

use crate::interface::{Route, Veth, VethEnd};

use super::{BridgePlan, PodPlan, PodSide, VethPlan, VlanGateway, vlan};

/// A command on each line, in the order in which they take effect.
impl fmt::Display for PodPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pending.iter().try_for_each(|pending| pending.fmt(f))?;
        self.bridge.fmt(f)?;
        veth(&self.veth, &self.bridge.link.name, &self.pod, f)?;
        self.pod.fmt(f)?;
        self.masquerade.iter().try_for_each(|masquerade| masquerade.fmt(f))?;
        self.host_ports.iter().try_for_each(|ports| ports.fmt(f))
    }
}

impl fmt::Display for BridgePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.link.name;
        write!(f, "ip link add {name}")?;
        if let Some(mac) = self.link.mac {
            write!(f, " address {mac}")?;
        }
        mtu(self.link.mtu, f)?;
        writeln!(f, " type bridge")?;
        let promiscuous = if self.promiscuous { " promisc on" } else { "" };
        writeln!(f, "ip link set {name} alias {} up{promiscuous}", self.alias)?;
        if self.vlans.is_some() {
            writeln!(f, "ip link set {name} type bridge vlan_filtering 1")?;
        }
        let gateway = match &self.vlan_gateway {
            Some(gateway) => vlan_gateway(gateway, name, f)?,
            None => name,
        };
        for address in &self.delete {
            writeln!(f, "ip address delete {address} dev {gateway}")?;
        }
        for address in &self.add {
            writeln!(f, "ip address add {address} dev {gateway}")?;
        }
        self.sysctls.iter().try_for_each(|sysctl| writeln!(f, "{sysctl}"))
    }
}

/// Returns the name of the interface that has the addresses.
fn vlan_gateway<'a>(
    gateway: &'a VlanGateway,
    bridge: &str,
    f: &mut fmt::Formatter<'_>,
) -> Result<&'a str, fmt::Error> {
    let (port, peer) = (&gateway.link.host, &gateway.link.peer);
    pair(&gateway.link, bridge, f)?;
    writeln!(f)?;
    vlan::text(&gateway.vlans, &port.name, f)?;
    writeln!(f, "ip link set {} up", peer.name)?;
    Ok(&peer.name)
}

fn pair(link: &Veth, bridge: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "ip link add")?;
    end(&link.host, f)?;
    write!(f, " group {} up master {bridge} type veth peer", link.host_group)?;
    end(&link.peer, f)
}

fn veth(plan: &VethPlan, bridge: &str, pod: &PodSide, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let host_end = &plan.link.host;
    pair(&plan.link, bridge, f)?;
    writeln!(f, " netns {}", pod.netns.display())?;
    let on = |set: bool| if set { "on" } else { "off" };
    let (isolated, hairpin) = (on(plan.port.isolated), on(plan.port.hairpin));
    writeln!(f, "bridge link set dev {} isolated {isolated} hairpin {hairpin}", host_end.name)?;
    writeln!(f, "ip link set {} alias {}", host_end.name, plan.alias)?;
    plan.vlans.iter().try_for_each(|vlans| vlan::text(vlans, &host_end.name, f))?;
    if let Some(mac) = plan.only_from {
        writeln!(f, "bridge fdb replace {mac} dev {} master static sticky", host_end.name)?;
        writeln!(f, "bridge link set dev {} locked on", host_end.name)?;
    }
    plan.limit.map_or(Ok(()), |limit| writeln!(f, "tc qdisc replace dev {} root {limit}", host_end.name))
}

fn end(end: &VethEnd, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, " name {}", end.name)?;
    if let Some(mac) = end.mac {
        write!(f, " address {mac}")?;
    }
    mtu(end.mtu, f)
}

fn mtu(mtu: Option<u32>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
}

impl fmt::Display for PodSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (inside, ifname) = (format!("nsenter --net={}", self.netns.display()), &self.ifname);
        self.sysctls.iter().try_for_each(|sysctl| writeln!(f, "{inside} {sysctl}"))?;
        if let Some(limit) = self.limit {
            writeln!(f, "{inside} tc qdisc replace dev {ifname} root {limit}")?;
        }
        if self.up {
            writeln!(f, "{inside} ip link set {ifname} up")?;
        }
        for address in &self.addresses {
            let flag = if self.prefix_routes { "" } else { " noprefixroute" };
            writeln!(f, "{inside} ip address add {address} dev {ifname}{flag}")?;
        }
        self.routes.iter().try_for_each(|path| {
            write!(f, "{inside} ip route add {path} dev {ifname}")?;
            details(path, f)?;
            writeln!(f)
        })
    }
}

fn details(path: &Route, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let table = (path.table != Route::MAIN_TABLE).then_some(path.table);
    let scope = path.scope.map(u32::from);
    let words = [
        ("metric", path.metric),
        ("mtu", path.mtu),
        ("advmss", path.advmss),
        ("table", table),
        ("scope", scope),
    ];
    words.into_iter().try_for_each(|(word, value)| value.map_or(Ok(()), |value| write!(f, " {word} {value}")))
}
