//! What `weft status` says of what leads beyond a node: BGP sessions, peers that BFD watches, nodes behind
//! WireGuard, leases of DHCP servers. Agents count these (`/metrics`); what is wrong they say in words elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many nodes are named.
const NAMED: usize = 5;

/// What an agent counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// BGP sessions that are up, of so many.
    bgp: (u64, u64),
    /// Peers that BFD hears, of so many.
    bfd: (u64, u64),
    /// When each node behind WireGuard was heard last, in seconds since 1970; 0 for never.
    handshakes: BTreeMap<String, u64>,
    leases: u64,
}

impl Figures {
    /// From Prometheus' text. What is not there is 0: another release may count other things.
    pub(super) fn parse(text: &str) -> Figures {
        let mut figures = Figures::default();
        let metrics = text.lines().filter_map(|line| line.strip_prefix("weft_agent_")?.rsplit_once(' '));
        for (name, value) in metrics {
            let Ok(value) = value.parse::<u64>() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            match name {
                "bgp_peers" => figures.bgp.1 = value,
                "bgp_sessions_established" => figures.bgp.0 = value,
                "bfd_sessions" => figures.bfd.1 = value,
                "bfd_sessions_up" => figures.bfd.0 = value,
                "dhcp_leases" => figures.leases = value,
                "wireguard_last_handshake_timestamp_seconds" => {
                    let node = labels.strip_prefix("node=\"").and_then(|rest| rest.strip_suffix("\"}"));
                    figures.handshakes.extend(node.map(|node| (node.to_owned(), value)));
                }
                _ => {}
            }
        }
        figures
    }
}

/// A line for each of these that some node has. `now` is in seconds since 1970.
pub(super) fn lines(nodes: &BTreeMap<String, Figures>, now: u64) -> Vec<String> {
    let bgp = counted("BGP", "sessions are up", nodes, |figures| figures.bgp);
    let bfd = counted("BFD", "watched peers are heard", nodes, |figures| figures.bfd);
    [bgp, bfd, wireguard(nodes, now), leases(nodes)].into_iter().flatten().collect()
}

/// How many there are of all, and which nodes lack some.
fn counted(
    title: &str,
    words: &str,
    nodes: &BTreeMap<String, Figures>,
    of: impl Fn(&Figures) -> (u64, u64),
) -> Option<String> {
    let each = || nodes.iter().map(|(node, figures)| (node, of(figures)));
    let sum = |part: fn((u64, u64)) -> u64| each().map(|(_, counts)| part(counts)).sum::<u64>();
    let (up, all) = (sum(|counts| counts.0), sum(|counts| counts.1));
    let lacking = each().filter(|(_, (up, all))| up < all);
    let lacking = lacking.map(|(node, (up, all))| format!("{node} ({up} of {all})"));
    (all > 0).then(|| format!("{title}: {up} of {all} {words}{}", named("not all of", lacking.collect())))
}

fn wireguard(nodes: &BTreeMap<String, Figures>, now: u64) -> Option<String> {
    let ways = || {
        let peers = |(node, figures): (&'_ String, &'_ Figures)| {
            figures
                .handshakes
                .iter()
                .map(|(peer, last)| (format!("{node} to {peer}"), *last))
                .collect::<Vec<_>>()
        };
        nodes.iter().flat_map(peers)
    };
    let ages: Vec<u64> =
        ways().filter(|(_, last)| *last > 0).map(|(_, last)| now.saturating_sub(last)).collect();
    let silent: Vec<String> = ways().filter(|(_, last)| *last == 0).map(|(way, _)| way).collect();
    let last = ages.iter().min().zip(ages.iter().max());
    let last = last.map_or_else(String::new, |(first, last)| match first == last {
        true => format!(", the last {} ago", age(*first)),
        false => format!(", the last ones between {} and {} ago", age(*first), age(*last)),
    });
    let all = ages.len() + silent.len();
    let silent = named("none yet, as nothing was sent or nobody answers", silent);
    (all > 0).then(|| format!("WireGuard: {} of {all} ways have had a handshake{last}{silent}", ages.len()))
}

fn leases(nodes: &BTreeMap<String, Figures>) -> Option<String> {
    let with = || nodes.iter().filter(|(_, figures)| figures.leases > 0);
    let sum: u64 = with().map(|(_, figures)| figures.leases).sum();
    let each = with().map(|(node, figures)| format!("{node} ({})", figures.leases)).collect();
    (sum > 0).then(|| format!("DHCP: {sum} leases{}", named("of", each)))
}

fn named(word: &str, names: Vec<String>) -> String {
    match names.len() {
        0 => String::new(),
        1..=NAMED => format!("; {word}: {}", names.join(", ")),
        many => format!("; {word}: {} and {} more", names[..NAMED].join(", "), many - NAMED),
    }
}

/// A time in words that are short.
fn age(seconds: u64) -> String {
    match Duration::from_secs(seconds).as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE1: &str = "# HELP weft_agent_bgp_peers BGP peers that there are to be.\n# TYPE weft_agent_bgp_peers gauge\n\
        weft_agent_bgp_peers 2\nweft_agent_bgp_sessions_established 2\nweft_agent_bfd_sessions 2\n\
        weft_agent_bfd_sessions_up 1\nweft_agent_bfd_sessions_lost_total 7\nweft_agent_dhcp_leases 3\n\
        weft_agent_wireguard_last_handshake_timestamp_seconds{node=\"node2\"} 990\n\
        weft_agent_wireguard_last_handshake_timestamp_seconds{node=\"node3\"} 0\n# EOF\n";

    fn seen(texts: &[(&str, &str)]) -> Vec<String> {
        let figures = texts.iter().map(|(node, text)| ((*node).to_owned(), Figures::parse(text)));
        lines(&figures.collect(), 1000)
    }

    #[test]
    fn what_is_up_is_counted_and_what_is_not_is_named() {
        let node2 =
            NODE1.replace("established 2", "established 1").replace("node2", "node1").replace("990", "500");
        let expected = [
            "BGP: 3 of 4 sessions are up; not all of: node2 (1 of 2)",
            "BFD: 2 of 4 watched peers are heard; not all of: node1 (1 of 2), node2 (1 of 2)",
            "WireGuard: 2 of 4 ways have had a handshake, the last ones between 10 s and 8 min ago; none yet, as nothing \
             was sent or nobody answers: node1 to node3, node2 to node3",
            "DHCP: 6 leases; of: node1 (3), node2 (3)",
        ];
        assert_eq!(seen(&[("node1", NODE1), ("node2", &node2)]), expected);
    }

    #[test]
    fn nothing_is_said_of_what_no_node_has_or_cannot_be_read() {
        let nothing = "weft_agent_bgp_peers 0\nweft_agent_dhcp_leases 0\n";
        for text in
            ["", nothing, "<html>no</html>", "weft_agent_bgp_peers many\nweft_agent_bfd_sessions -1\n"]
        {
            assert_eq!(seen(&[("node1", text)]), Vec::<String>::new(), "{text}");
        }
        let one = "weft_agent_wireguard_last_handshake_timestamp_seconds{node=\"node2\"} 2000\n";
        let line = "WireGuard: 1 of 1 ways have had a handshake, the last 0 s ago";
        assert_eq!(seen(&[("node1", one)]), [line], "clocks differ");
    }
}
