//! Virtual servers as `ipvsadm -Ln` prints them, and addresses as `ip -brief address` does. Pure.

use std::fmt::{self, Display};
use std::net::SocketAddr;

use weft_netlink::genl::ipvs::{SCHEDULER_FLAG_1, SCHEDULER_FLAG_2, Scheduling, VirtualServer};

use super::difference::WEIGHT;
use super::kernel::INTERFACE;
use super::servers::Servers;

/// What stands above all virtual servers. The size is that of the kernel's table of connections, as most have
/// it.
const HEAD: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port Scheduler Flags\n  \
                    -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n";

impl Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        let mut servers: Vec<_> = self.iter().collect();
        // As ipvsadm has it, but for addresses, which it compares as signed numbers.
        servers.sort_by_key(|(at, _)| (!at.address.is_ipv4(), at.protocol, at.address));
        for (at, server) in servers {
            writeln!(f, "{}", server_line(at, &server.scheduling))?;
            for to in &server.destinations {
                writeln!(f, "{}", destination_line(to, WEIGHT, 0))?;
            }
        }
        let addresses: Vec<String> = self
            .addresses()
            .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
            .collect();
        writeln!(f, "\n{INTERFACE:<16} DOWN           {}", addresses.join(" "))
    }
}

/// The line of a virtual server.
pub(super) fn server_line(at: &VirtualServer, scheduling: &Scheduling) -> String {
    let protocol = match at.protocol {
        6 => "TCP",
        17 => "UDP",
        _ => "SCTP",
    };
    let Scheduling { scheduler, flags, persistence } = scheduling;
    let names = [(SCHEDULER_FLAG_1, "fallback"), (SCHEDULER_FLAG_2, "port")];
    let set = names.iter().filter(|(flag, _)| flags & flag != 0);
    let flags: Vec<String> = set.map(|(_, name)| format!("{scheduler}-{name}")).collect();
    let flags = if flags.is_empty() { String::new() } else { format!(" ({})", flags.join(",")) };
    let persistent = persistence.map(|seconds| format!(" persistent {seconds}")).unwrap_or_default();
    format!("{protocol:<4} {} {scheduler}{flags}{persistent}", at.address)
}

/// The line of a destination with so many connections.
pub(super) fn destination_line(to: &SocketAddr, weight: u32, connections: u32) -> String {
    format!("  -> {:<28} {:<7} {weight:<6} {connections:<10} {:<10}", to.to_string(), "Masq", 0)
}
