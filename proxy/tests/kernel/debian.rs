//! Debian's kernel, in a virtual machine, for what the running one lacks: it has IPVS, and its verifier of eBPF
//! programs is that of Linux 6.1. The tests are those of the other files.

use weft_testkit::virtual_machine::Machine;

/// What the tests need of the kernel.
const MACHINE: Machine<'static> = Machine {
    modules: &[
        "ip_vs",
        "ip_vs_rr",
        "ip_vs_wrr",
        "ip_vs_lc",
        "ip_vs_wlc",
        "ip_vs_dh",
        "ip_vs_sh",
        "ip_vs_sed",
        "ip_vs_nq",
        "ip_vs_mh",
        "dummy",
        "veth",
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
        // What the chains of the mode iptables have.
        "nft_compat",
        "xt_addrtype",
        "xt_comment",
        "xt_conntrack",
        "xt_mark",
        "xt_MASQUERADE",
        "xt_nat",
        "xt_recent",
        "xt_statistic",
        "xt_tcpudp",
        "ipt_REJECT",
        "ip6t_REJECT",
        // By which sockets are found and destroyed.
        "inet_diag",
        "tcp_diag",
        "udp_diag",
    ],
    programs: &["sh", "ip", "nft", "ipvsadm", "conntrack"],
    ..Machine::BARE
};

/// What does not depend on the kernel's version.
const LEFT_OUT: &str = "--skip led_by_packets::nftables --skip led_by_packets::iptables \
                        --skip endpoints_change --skip another_version --skip cannot_be_used";

#[test]
fn services_lead_as_in_the_other_modes_and_programs_as_on_a_newer_kernel() {
    // By its own name, this would boot another one.
    let said = MACHINE.run(&format!("--include-ignored --test-threads=3 ipvs ebpf --skip debian {LEFT_OUT}"));
    let is_well = said.contains("test result: ok. ") && said.contains("ended with 0");
    assert!(is_well && !said.contains(" 0 passed"), "{said}");
}
