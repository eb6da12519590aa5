//! What the kernel can do, found out by doing it in a network namespace that is gone afterwards. Trying also
//! loads what the kernel has as a module, as the daemons would.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;

use weft_netlink::bpf::{Assembler, IngressProgram, KernelTypes, Register};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{
    Bridge, BridgePort, LinkChange, Mac, RtnetlinkClient, Tunnel, Veth, VethEnd, Vxlan,
};
use weft_netlink::{Error, Result};
use weft_nftables::{
    self as nft, Base, DataType, Declaration, Expression, Hook, Observed, Operator, PRIORITY_DSTNAT,
    PRIORITY_FILTER, PRIORITY_SRCNAT, Rule, Set, SetKind, Statement, Table, Value,
};
use weft_policy::ruleset::{Denied, Ruleset};
use weft_types::Protocol;

use crate::preflight::facts::Feature;

/// What is tried: its name, what it needs, and how.
type Attempt = (&'static str, &'static str, fn() -> Result<()>);

const ATTEMPTS: [Attempt; 7] = [
    ("veth pairs", "CONFIG_VETH (modprobe veth)", veth),
    ("bridges with isolated ports", "CONFIG_BRIDGE (modprobe bridge), Linux 4.18", bridge),
    ("VXLAN devices", "CONFIG_VXLAN (modprobe vxlan)", vxlan),
    (
        "nf_tables maps and NAT, IPv4",
        "CONFIG_NF_TABLES, NF_TABLES_IPV4, NFT_NAT, NFT_MASQ, NFT_CT, NFT_FIB_IPV4, NFT_NUMGEN, NFT_REJECT, \
         Linux 5.6 (modprobe -a nf_tables nft_chain_nat nft_masq nft_ct nft_fib_ipv4 nft_numgen nft_reject)",
        nat_ipv4,
    ),
    (
        "nf_tables maps and NAT, IPv6",
        "CONFIG_NF_TABLES_IPV6, NFT_FIB_IPV6 (modprobe nft_fib_ipv6); without them no pod has IPv6",
        nat_ipv6,
    ),
    ("nf_tables sets of ranges", "CONFIG_NF_TABLES, Linux 5.6", ranges),
    (
        "nf_tables rules of network policies",
        "CONFIG_NF_TABLES, NFT_CT, NFT_REJECT_IPV6, Linux 5.6 (modprobe -a nf_tables nft_ct nft_reject_ipv6), or install with \
         --network-policy=false",
        policies,
    ),
];
/// The number of a network namespace's first interface.
const LOOPBACK: u32 = 1;
/// The name of the table in which nf_tables is tried.
const TABLE: &str = "weft-preflight";

/// Tries all, each in a namespace of its own.
pub(super) fn features() -> Vec<Feature> {
    ATTEMPTS.map(feature).into()
}

/// The same for what only some clusters need.
pub(super) fn wireguard() -> Vec<Feature> {
    let device = || RtnetlinkClient::open()?.add_wireguard("wireguard", 1420);
    vec![feature(("WireGuard devices", "CONFIG_WIREGUARD, Linux 5.6 (modprobe wireguard)", device))]
}

/// The same for the fast path between pods: a program that leaves all packets alone, at the loopback interface,
/// and the functions that the agent's programs call.
pub(super) fn fast_path() -> Vec<Feature> {
    let programs = || {
        let types = KernelTypes::read("nf_conntrack")?;
        for function in ["bpf_skb_ct_lookup", "bpf_ct_release", "bpf_ct_change_timeout"] {
            types.function(function)?;
        }
        let mut code = Assembler::default();
        code.set(Register::R0, IngressProgram::NEXT).exit();
        IngressProgram::load("weft_preflight", &code.finish(), &types)?.attach(LOOPBACK).map(drop)
    };
    let needs = "Linux 6.6 with CONFIG_DEBUG_INFO_BTF, CONFIG_NF_CONNTRACK_BPF (modprobe nf_conntrack)";
    vec![feature(("programs that ask connection tracking", needs, programs))]
}

fn feature((name, needs, attempt): Attempt) -> Feature {
    let tried = Namespace::temporary().and_then(|namespace| namespace.run(attempt)).flatten();
    Feature { name, needs, problem: tried.err().map(|error| error.to_string()) }
}

/// Makes a veth pair into another namespace, perhaps on a bridge.
fn pair(route: &mut RtnetlinkClient, master: Option<u32>) -> Result<u32> {
    let end = |name: &str| VethEnd { name: name.to_owned(), mac: None, mtu: None };
    let far = Namespace::temporary()?;
    let veth = Veth { host: end("near"), host_group: 0, host_up: true, master, peer: end("far") };
    Ok(route.add_veth(&veth, far.as_fd())?.index)
}

fn veth() -> Result<()> {
    pair(&mut RtnetlinkClient::open()?, None).map(drop)
}

fn bridge() -> Result<()> {
    let mut route = RtnetlinkClient::open()?;
    route.add_bridge(&Bridge { name: "bridge".to_owned(), mac: None, mtu: None })?;
    let master = route.link("bridge")?.index;
    let near = pair(&mut route, Some(master))?;
    let port = BridgePort { hairpin: false, isolated: true };
    route.change_link(near, &LinkChange { port: Some(port), ..LinkChange::default() })?;
    // An older kernel ignores what it does not know.
    match route.bridge_port(near)? == Some(port) {
        true => Ok(()),
        false => Err(Error::Missing("isolated bridge ports".to_owned())),
    }
}

fn vxlan() -> Result<()> {
    let tunnel = Tunnel {
        vni: 1,
        port: weft_types::well_known::port::VXLAN,
        local: Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    RtnetlinkClient::open()?.add_vxlan(&Vxlan { name: "vxlan".to_owned(), mac, mtu: 1450, tunnel })
}

fn nat_ipv4() -> Result<()> {
    nat(nft::Family::Ip)
}

fn nat_ipv6() -> Result<()> {
    nat(nft::Family::Ip6)
}

/// The means of the service proxy: a map of choices by way of the packet's priority, a verdict map, a map of
/// backends, DNAT by it, masquerade, and what is asked of routes and connections.
fn nat(family: nft::Family) -> Result<()> {
    let key = [DataType::address(family), DataType::InetProto, DataType::InetService];
    let fields = [Expression::daddr(family), Expression::L4PROTO, Expression::DPORT];
    let backend = vec![DataType::address(family), DataType::InetService];
    let slots = [key.as_slice(), &[DataType::Integer]].concat();
    let pick = [fields.as_slice(), &[Expression::random(2)]].concat();
    let dispatch = Rule::new([
        Statement::fib_daddr_local(),
        Statement::set_priority(fields.to_vec(), "frontends".into()),
        Statement::Vmap(vec![Expression::PRIORITY], "choices".into()),
    ]);
    let mut table = Table::new(family, TABLE);
    table.set(set(family, "frontends", key.to_vec(), SetKind::DataMap(vec![DataType::ClassId])));
    table.set(set(family, "choices", vec![DataType::ClassId], SetKind::VerdictMap));
    table.set(set(family, "endpoints", slots, SetKind::DataMap(backend)));
    table.chain("pick", None, vec![Rule::new([Statement::dnat(family, pick, "endpoints".into())])]);
    table.chain("prerouting", Some(Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)), vec![dispatch]);
    let leave = Rule::new([Statement::ct_status_dnat(), Statement::masquerade()]);
    table.chain("postrouting", Some(Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)), vec![leave]);
    let is_tcp =
        Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(Protocol::Tcp.number()));
    let refuse = Rule::new([Statement::fib_routed_back(), is_tcp, Statement::reset()]);
    let arrive = Base::filter(Hook::Prerouting, PRIORITY_DSTNAT + 1);
    table.chain("external", Some(arrive), vec![refuse]);
    let refuse = Rule::new([Statement::reject(family)]);
    table.chain("forward", Some(Base::filter(Hook::Forward, PRIORITY_FILTER)), vec![refuse]);
    commit(table)
}

fn ranges() -> Result<()> {
    let family = nft::Family::Ip;
    let mut table = Table::new(family, TABLE);
    table.set(set(family, "ranges", vec![DataType::Ipv4Addr, DataType::InetService], SetKind::RangeSet));
    commit(table)
}

/// The tables of network policies themselves.
fn policies() -> Result<()> {
    let tables = Ruleset::new(Denied { rejects: true, log_group: None });
    nft::Client::open()?.commit(&tables.bring(&Observed::default()))
}

fn set(family: nft::Family, name: &str, key: Vec<DataType>, kind: SetKind) -> Set {
    let declaration = Declaration {
        family: family.into(),
        table: TABLE.into(),
        name: name.into(),
        key,
        kind,
        comment: None,
    };
    Set::new(Arc::new(declaration))
}

fn commit(table: Table) -> Result<()> {
    nft::Client::open()?.commit(&nft::diff(&[table], &Observed::default()))
}
