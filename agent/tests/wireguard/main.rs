//! The encrypted tunnel on a kernel that has WireGuard: Debian's, in a virtual machine. Nodes are namespaces with
//! a router between them, each with a pod, and what passes the router is looked at.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod auto;
mod daemon;
mod figures;
mod tunnel;
mod world;

use weft_testkit::virtual_machine::Machine;

/// The daemon.
const AGENT: &str = env!("CARGO_BIN_EXE_weft-agent");
/// What the tests need of the kernel.
const MACHINE: Machine<'static> = Machine {
    modules: &[
        "wireguard",
        "veth",
        "vxlan",
        "bridge",
        "dummy",
        "nf_conntrack_netlink",
        "nf_tables",
        "nft_chain_nat",
        "nft_ct",
        "nft_fib_ipv4",
        "nft_fib_ipv6",
        "nft_hash",
        "nft_masq",
        "nft_nat",
        "nft_numgen",
        "nft_reject_ipv4",
        "nft_reject_ipv6",
    ],
    programs: &["sh", "ip", "ping", AGENT],
    ..Machine::BARE
};

/// What the figures need.
const FIGURES: Machine<'static> = Machine { programs: &["sh", "ip", "iperf3", AGENT], ..MACHINE };

#[test]
fn pods_talk_over_the_encrypted_tunnel_of_debians_kernel() {
    let said = MACHINE.run("--ignored --test-threads=3 tunnel:: daemon:: auto::");
    let is_well = said.contains("test result: ok. ") && said.contains("ended with 0");
    assert!(is_well && !said.contains(" 0 passed"), "{said}");
}
