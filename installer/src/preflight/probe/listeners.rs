//! Which ports somebody listens on, and which program that is: from /proc, as `ss -lnp` has it.

use std::collections::HashMap;
use std::fs;

use crate::preflight::facts::{Listener, Transport};

/// The states of a TCP socket that listens, and of a UDP socket that is connected to nobody
/// (net/tcp_states.h).
const LISTEN: &str = "0A";
const CLOSE: &str = "07";
/// A process's own /proc/net is that of its main thread's namespace; these are the calling thread's.
const TABLES: [(&str, Transport, &str); 4] = [
    ("/proc/thread-self/net/tcp", Transport::Tcp, LISTEN),
    ("/proc/thread-self/net/tcp6", Transport::Tcp, LISTEN),
    ("/proc/thread-self/net/udp", Transport::Udp, CLOSE),
    ("/proc/thread-self/net/udp6", Transport::Udp, CLOSE),
];

/// All listeners of the calling thread's network namespace.
pub(super) fn all() -> Vec<Listener> {
    let mut found: Vec<(Transport, u16, u64)> = Vec::new();
    for (path, transport, state) in TABLES {
        let text = fs::read_to_string(path).unwrap_or_default();
        let sockets = text.lines().skip(1).filter_map(|line| socket(line, state));
        found.extend(sockets.map(|(port, inode)| (transport, port, inode)));
    }
    let holders = if found.is_empty() { HashMap::new() } else { holders() };
    let listener =
        |(transport, port, inode)| Listener { transport, port, program: holders.get(&inode).cloned() };
    found.into_iter().map(listener).collect()
}

/// The local port and the inode of a socket, where it is in that state (proc(5), /proc/net/tcp).
fn socket(line: &str, state: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    if fields.get(3) != Some(&state) {
        return None;
    }
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

/// Which process holds which socket, by inode.
fn holders() -> HashMap<u64, (String, u32)> {
    let mut holders = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok()) {
                // Of those that share a socket the one that started the others: /proc lists by number.
                holders.entry(inode).or_insert_with(|| (name.trim().to_owned(), id));
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_net_tcp() {
        let line = "   0: 0100007F:2811 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(socket(line, LISTEN), Some((10257, 4711)));
        assert_eq!(socket(line, CLOSE), None);
        assert_eq!(socket("garbage", LISTEN), None);
    }
}
