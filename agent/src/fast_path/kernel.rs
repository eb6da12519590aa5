//! The programs and maps of the kernel. They are gone with this process: without it, packets take the way that
//! they took before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_getres};
use tracing::{debug, info};
use weft_netlink::bpf::{IngressLink, IngressProgram, KernelTypes, Map, MapKind, MapSpec};
use weft_netlink::sysctl::{self, Originals};
use weft_types::IpNetwork;

use crate::Result;
use crate::fast_path::plan::{FastPathPlan, Way};
use crate::fast_path::program::{ADDRESS, COUNT, FAMILY, Facts, Lifetime, PREFIX, Side, VALUE, program};
use crate::sysctls::plan::Sysctl;
use crate::sysctls::proc;

const PODS: MapSpec =
    MapSpec { name: "weft_pods", kind: MapKind::Hash, key: ADDRESS, value: VALUE, capacity: 1 << 14 };
const WAYS: MapSpec =
    MapSpec { name: "weft_ways", kind: MapKind::Trie, key: PREFIX, value: VALUE, capacity: 1 << 16 };
/// The part of the kernel that knows connections, which may be a module.
const CONNTRACK: &str = "nf_conntrack";
/// Connection tracking does not see most packets of a connection: what it sees must not be wrong to it because of
/// the sequence numbers in between.
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// The same for resets, which matters where two gigabytes lie in between (Linux 5.14).
const LIBERAL_RESETS: &str = "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst";
/// How long connections last that both ends have used, of TCP and UDP.
const LIFETIMES: [&str; 2] =
    ["net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_udp_timeout_stream"];
/// A connection is renewed after this time at the latest.
const RENEWED_AFTER: u64 = 60;
/// The longest that a TCP connection lasts that is being closed, or opened: two minutes, and time to spare. What
/// has data that was not acknowledged has five.
const ENDING: u64 = 240;
/// `AF_INET`, `AF_INET6` (linux/socket.h)
const FAMILIES: [u32; 2] = [2, 10];

/// The fast path in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Programs {
    originals: Originals,
    pods: Map,
    ways: Map,
    lifetimes: [u64; 2],
    /// For packets from pods, and for those from nodes.
    programs: [IngressProgram; 2],
    held: FastPathPlan,
    /// By the index of the interface.
    links: BTreeMap<u32, IngressLink>,
    /// How many packets pods had that are gone.
    counted: u64,
}

impl Programs {
    /// Loads the programs, for no packet yet.
    ///
    /// # Errors
    /// Where the kernel cannot do it, or this process may not ask it to.
    pub fn open(originals: Originals) -> Result<Programs> {
        settle(&originals)?;
        let (pods, ways) = (Map::create(PODS)?, Map::create(WAYS)?);
        let lifetimes = lifetimes()?;
        let programs = load(&pods, &ways, lifetimes)?;
        let (held, links) = (FastPathPlan::default(), BTreeMap::new());
        Ok(Programs { originals, pods, ways, lifetimes, programs, held, links, counted: 0 })
    }

    /// Brings maps and programs to the plan, and puts back what somebody else took away. What is no pod's any
    /// more goes first.
    ///
    /// # Errors
    /// What the kernel refused. What was done until then stays.
    pub fn apply(&mut self, plan: &FastPathPlan) -> Result<()> {
        settle(&self.originals)?;
        let lifetimes = lifetimes()?;
        if lifetimes != self.lifetimes {
            self.programs = load(&self.pods, &self.ways, lifetimes)?;
            self.lifetimes = lifetimes;
            self.links.clear();
        }
        self.apply_pods(&plan.pods)?;
        self.apply_ways(&plan.ways)?;
        self.attach(plan)
    }

    /// How many packets have taken the fast path. Where the kernel takes several packets for one, that is one.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn packets(&self) -> Result<u64> {
        let mut sum = self.counted;
        self.pods.for_each(|_, value| sum += count(value))?;
        Ok(sum)
    }

    fn apply_pods(&mut self, pods: &BTreeMap<IpAddr, u32>) -> Result<()> {
        let gone: Vec<IpAddr> =
            self.held.pods.iter().filter(|it| pods.get(it.0) != Some(it.1)).map(|it| *it.0).collect();
        for address in gone {
            let key = key(address);
            self.counted += self.pods.get(&key)?.map_or(0, |value| count(&value));
            self.pods.delete(&key)?;
            self.held.pods.remove(&address);
        }
        for (&address, &interface) in pods {
            if !self.held.pods.contains_key(&address) {
                self.pods.put(&key(address), &value(interface, None))?;
                self.held.pods.insert(address, interface);
            }
        }
        Ok(())
    }

    fn apply_ways(&mut self, ways: &BTreeMap<IpNetwork, Way>) -> Result<()> {
        let gone: Vec<IpNetwork> =
            self.held.ways.keys().filter(|range| !ways.contains_key(range)).copied().collect();
        for range in gone {
            self.ways.delete(&prefix(&range))?;
            self.held.ways.remove(&range);
        }
        for (range, way) in ways {
            if self.held.ways.get(range) != Some(way) {
                self.ways.put(&prefix(range), &value(way.interface, Some(way.gateway)))?;
                self.held.ways.insert(*range, *way);
            }
        }
        Ok(())
    }

    fn attach(&mut self, plan: &FastPathPlan) -> Result<()> {
        let [from_pods, from_nodes] = &self.programs;
        let pods: BTreeSet<u32> = plan.pods.values().copied().collect();
        let wanted = pods.iter().map(|index| (*index, from_pods));
        let wanted: BTreeMap<u32, &IngressProgram> =
            wanted.chain(plan.uplinks.iter().map(|index| (*index, from_nodes))).collect();
        self.links.retain(|index, _| wanted.contains_key(index));
        let mut problem = None;
        for (index, program) in wanted {
            if self.links.get(&index).map(IngressLink::is_attached).transpose()? == Some(true) {
                continue;
            }
            let was_there = self.links.remove(&index).is_some();
            match program.attach(index) {
                Ok(link) => {
                    self.links.insert(index, link);
                    if was_there {
                        info!("put back the program of the fast path at link #{index}");
                    }
                }
                // It has just gone: the next plan is without it.
                Err(error) if error.is_missing() => {}
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(()), |problem| Err(problem.into()))
    }
}

/// Makes the settings that the fast path relies on.
fn settle(originals: &Originals) -> Result<()> {
    let set = |name: &str| {
        let is_new = proc::set(&Sysctl { name: name.to_owned(), value: "1" }, originals)?;
        if is_new {
            info!("set {name} to 1");
        }
        Ok(())
    };
    set(LIBERAL)?;
    set(LIBERAL_RESETS).unwrap_or_else(|error: crate::Error| debug!(%error, "resets are checked"));
    Ok(())
}

/// In seconds.
fn lifetimes() -> Result<[u64; 2]> {
    let read = |name: &str| sysctl::read(name).map(|text| text.parse().unwrap_or(0));
    let failed = |problem| crate::Error::FastPath { what: "the lifetimes of connections", problem };
    Ok([read(LIFETIMES[0]).map_err(failed)?, read(LIFETIMES[1]).map_err(failed)?])
}

fn load(pods: &Map, ways: &Map, [tcp, udp]: [u64; 2]) -> Result<[IngressProgram; 2]> {
    let ticks = ticks()?;
    let types = KernelTypes::read(CONNTRACK)?;
    let facts = Facts {
        pods: pods.descriptor(),
        ways: ways.descriptor(),
        look_up: types.function("bpf_skb_ct_lookup")?,
        release: types.function("bpf_ct_release")?,
        set_lifetime: types.function("bpf_ct_change_timeout")?,
        status: types.offset("nf_conn", "status")?,
        timeout: types.offset("nf_conn", "timeout")?,
        tcp: lifetime(tcp, ENDING, ticks),
        udp: lifetime(udp, 0, ticks),
    };
    let load = |name, side| IngressProgram::load(name, &program(side, &facts), &types);
    Ok([load("weft_from_pods", Side::Pods)?, load("weft_from_nodes", Side::Nodes)?])
}

/// How many ticks of the kernel's clock a second has: the resolution of the clock that goes by them.
fn ticks() -> Result<u64> {
    let failed =
        |errno: nix::Error| crate::Error::FastPath { what: "the kernel's clock", problem: errno.into() };
    let tick = Duration::from(clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(failed)?);
    Ok((1_000_000_000 + tick.as_nanos() as u64 / 2) / (tick.as_nanos() as u64).max(1))
}

/// A lifetime of so many seconds, in ticks.
fn lifetime(seconds: u64, least: u64, ticks: u64) -> Lifetime {
    let number = |seconds: u64, unit| i32::try_from(seconds.saturating_mul(unit)).unwrap_or(i32::MAX);
    let renewed = seconds - RENEWED_AFTER.min(seconds / 4);
    Lifetime {
        // What was renewed just now has a tick more, in the eyes of a processor that is behind.
        most: number(seconds, ticks).saturating_add(1),
        renewed: number(renewed, ticks),
        least: number(least, ticks),
        milliseconds: number(seconds, 1000),
    }
}

/// An address as maps have it.
fn key(address: IpAddr) -> [u8; ADDRESS] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A range of addresses as maps have it.
fn prefix(range: &IpNetwork) -> Vec<u8> {
    let bits = u32::from(range.prefix()) + if range.is_ipv4() { 96 } else { 0 };
    [&bits.to_ne_bytes()[..], &key(range.network())].concat()
}

fn value(interface: u32, gateway: Option<IpAddr>) -> [u8; VALUE] {
    let mut value = [0; VALUE];
    value[..FAMILY].copy_from_slice(&interface.to_ne_bytes());
    let Some(gateway) = gateway else { return value };
    let family = FAMILIES[usize::from(gateway.is_ipv6())];
    value[FAMILY..COUNT].copy_from_slice(&family.to_ne_bytes());
    match gateway {
        IpAddr::V4(address) => value[COUNT..COUNT + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => value[COUNT..].copy_from_slice(&address.octets()),
    }
    value
}

fn count(value: &[u8]) -> u64 {
    value.get(COUNT..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ipv4_are_part_of_the_others() {
        let range: IpNetwork = "10.244.2.0/24".parse().unwrap();
        assert_eq!(prefix(&range)[..4], 120_u32.to_ne_bytes());
        assert_eq!(prefix(&range)[14..], [0xff, 0xff, 10, 244, 2, 0]);
        let range: IpNetwork = "fd00:10:244:2::/64".parse().unwrap();
        assert_eq!(prefix(&range)[..4], 64_u32.to_ne_bytes());
    }

    #[test]
    fn a_way_has_its_next_hop_where_the_kernel_expects_it_and_a_pod_has_its_count_there() {
        let way = value(7, Some("172.30.0.12".parse().unwrap()));
        assert_eq!(way[..12], [7_u32.to_ne_bytes(), 2_u32.to_ne_bytes(), [172, 30, 0, 12]].concat());
        assert_eq!(value(7, Some("fe80::1".parse().unwrap()))[8..10], [0xfe, 0x80]);
        let mut pod = value(8, None);
        assert_eq!(pod[4..8], [0; 4]);
        pod[8..16].copy_from_slice(&4711_u64.to_ne_bytes());
        assert_eq!(count(&pod), 4711);
    }

    #[test]
    fn connections_are_renewed_each_minute_and_left_alone_while_they_end() {
        let tcp = lifetime(432_000, ENDING, 250);
        let expected =
            Lifetime { most: 108_000_001, renewed: 107_985_000, least: 60_000, milliseconds: 432_000_000 };
        assert_eq!(tcp, expected);
        assert_eq!(lifetime(120, 0, 100).renewed, 9_000);
        assert_eq!(lifetime(u64::MAX, 0, 1000).most, i32::MAX);
    }
}
