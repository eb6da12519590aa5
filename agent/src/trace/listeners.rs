//! The sockets that wait in a pod, by the tables of proc(5) that are there for any process of it:
//! `/proc/PID/net/tcp`, `tcp6`, `udp`, `udp6`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_netlink::sock_diag::Listener;

/// The tables of a protocol (its number), and the state of those sockets there that wait: `TCP_LISTEN`, and for
/// UDP `TCP_CLOSE`. None where there are no such tables.
pub(super) fn tables(protocol: u8) -> Option<([&'static str; 2], &'static str)> {
    match protocol {
        6 => Some((["tcp", "tcp6"], "0A")),
        17 => Some((["udp", "udp6"], "07")),
        _ => None,
    }
}

/// The sockets of a table in that state. It does not say whether one of IPv6 takes IPv4, too; most do.
pub(super) fn parse(table: &str, state: &str) -> Vec<Listener> {
    let lines = table.lines().skip(1);
    let waiting = lines.filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next()?;
        let is_waiting = words.nth(1)? == state;
        Some(Listener { local: address(local)?, is_dual: true }).filter(|_| is_waiting)
    });
    waiting.collect()
}

/// `0100007F:1F90`: each word of 32 bits as this machine has it in memory, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Whether a process is of a container, by its `/proc/PID/cgroup`: runtimes name cgroups after containers
/// (`…/cri-containerd-ID.scope`, `…/crio-ID.scope`, `…/ID`).
pub(super) fn is_of(cgroups: &str, container: &str) -> bool {
    // No name is so short; and no file may name all.
    container.len() >= 12 && cgroups.lines().any(|line| line.contains(container))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sockets_that_wait_are_told_from_others() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
            1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0\n   \
            2: 0100007F:C000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1\n";
        let found = parse(table, "0A");
        assert_eq!(found.len(), 2);
        let takes = |to: &str| found.iter().any(|one| one.takes(to.parse().unwrap()));
        if cfg!(target_endian = "little") {
            assert!(takes("127.0.0.1:8080") && takes("10.244.1.2:80") && !takes("10.244.1.2:8080"));
        }
        let six =
            "head\n 0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n";
        let found = parse(six, "0A");
        let takes = |to: &str| found.iter().any(|one| one.takes(to.parse().unwrap()));
        assert!(takes("[fd00::1]:8080") && takes("10.0.0.1:8080") && !takes("[fd00::1]:80"));
    }

    #[test]
    fn tables_that_are_none_have_no_sockets() {
        for table in [
            "",
            "head",
            "head\nx",
            "head\n 0: x:y z 0A",
            "head\n 0: 00:1 0:0 0A",
            "head\n 0: 0100007F:FFFFF 0:0 0A",
        ] {
            assert_eq!(parse(table, "0A"), []);
        }
        assert_eq!(tables(132), None, "SCTP has others");
    }

    #[test]
    fn this_process_s_own_socket_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (names, state) = tables(6).unwrap();
        let table = std::fs::read_to_string(format!("/proc/self/net/{}", names[0])).unwrap();
        let found = parse(&table, state);
        assert!(found.iter().any(|one| one.takes(listener.local_addr().unwrap())), "{found:?}");
    }

    #[test]
    fn a_container_s_processes_are_known_by_their_cgroup() {
        let id = "3f4a5b6c7d8e9f00112233445566778899aabbccddeeff00112233445566aabb";
        assert!(is_of(&format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope\n"), id));
        assert!(is_of(&format!("0::/../../kubepods/besteffort/pod1/{id}\n"), id));
        assert!(!is_of("0::/init.scope\n", id) && !is_of("0::/a\n", "") && !is_of("0::/a\n", "a"));
    }
}
