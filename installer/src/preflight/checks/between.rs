//! What the nodes' pods heard of each other at the ports that nodes need: from all reports to checks of each.

use std::collections::BTreeMap;

use crate::finding::Id;
use crate::preflight::facts::{Between, Outcome, Transport};
use crate::preflight::report::Check;

/// A port between nodes, and what it is for.
pub(crate) type Port = (Transport, u16, &'static str);

/// The checks of one node: what it heard of the others, of which some could not answer at a port.
pub(in crate::preflight) fn checks(
    own: &Between,
    all: &BTreeMap<String, Between>,
    ports: &[Port],
) -> Vec<Check> {
    let check = |&(transport, port, what): &Port| {
        let of_port = |attempt: &&crate::preflight::facts::Attempt| {
            (attempt.transport, attempt.port) == (transport, port)
        };
        let attempts: Vec<_> = own.attempts.iter().filter(of_port).collect();
        let is_held = |node: &str| all.get(node).is_some_and(|it| it.held.contains(&(transport, port)));
        let named = |outcome: Outcome| -> Vec<&str> {
            let of = attempts.iter().filter(|it| it.outcome == outcome && !is_held(&it.node));
            of.map(|it| it.node.as_str()).collect()
        };
        let (answered, refused, silent) =
            (named(Outcome::Answered), named(Outcome::Refused), named(Outcome::Silent));
        let held: Vec<&str> =
            attempts.iter().map(|it| it.node.as_str()).filter(|node| is_held(node)).collect();
        let name = format!("{}/{port} to other nodes", transport.word());
        let mut words = Vec::new();
        for (nodes, word) in [
            (&silent, "nothing is heard of"),
            (&refused, "it is refused by"),
            (&held, "in use, and so not tried, at"),
        ] {
            if !nodes.is_empty() {
                words.push(format!("{word} {}", nodes.join(", ")));
            }
        }
        if silent.is_empty() && refused.is_empty() {
            words.insert(0, format!("{} of {} nodes answer", answered.len(), attempts.len()));
            return Check::pass(name, words.join("; "));
        }
        let fix = format!(
            "Allow {}/{port} between all nodes, in their firewalls and in what lies between them: it is for {what}",
            transport.word()
        );
        Check::fail(Id::PortClosed, name, words.join("; "), fix)
    };
    let is_tried = |port: &&Port| own.attempts.iter().any(|it| (it.transport, it.port) == (port.0, port.1));
    ports.iter().filter(is_tried).map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Verdict;
    use crate::preflight::facts::Attempt;

    const PORTS: [Port; 2] =
        [(Transport::Udp, 51820, "the encrypted tunnel"), (Transport::Tcp, 179, "BGP between nodes")];

    fn attempt(node: &str, (transport, port, _): Port, outcome: Outcome) -> Attempt {
        Attempt { node: node.to_owned(), transport, port, outcome }
    }

    #[test]
    fn what_is_closed_is_named_with_the_nodes_and_what_is_in_use_is_not_taken_for_it() {
        let [udp, tcp] = PORTS;
        let own = Between {
            attempts: vec![
                attempt("node2", udp, Outcome::Silent),
                attempt("node3", udp, Outcome::Silent),
                attempt("node4", udp, Outcome::Answered),
                attempt("node2", tcp, Outcome::Refused),
                attempt("node3", tcp, Outcome::Answered),
            ],
            held: Vec::new(),
        };
        let held = Between { attempts: Vec::new(), held: vec![(Transport::Udp, 51820)] };
        let found = checks(&own, &[("node3".to_owned(), held)].into(), &PORTS);
        let told: Vec<(Verdict, &str)> = found.iter().map(|it| (it.verdict, it.found.as_str())).collect();
        let silent = "nothing is heard of node2; in use, and so not tried, at node3";
        assert_eq!(told, [(Verdict::Fail, silent), (Verdict::Fail, "it is refused by node2")]);
        assert_eq!((found[0].name.as_str(), found[0].id), ("udp/51820 to other nodes", Some(Id::PortClosed)));
        assert!(found[1].fix.as_ref().unwrap().contains("Allow tcp/179 between all nodes"), "{found:?}");
    }

    #[test]
    fn a_node_alone_has_nothing_to_try_and_answers_of_all_pass() {
        assert_eq!(checks(&Between::default(), &BTreeMap::new(), &PORTS), []);
        let attempts = vec![attempt("node2", PORTS[0], Outcome::Answered)];
        let found = checks(&Between { attempts, held: Vec::new() }, &BTreeMap::new(), &PORTS);
        assert_eq!((found.len(), found[0].found.as_str()), (1, "1 of 1 nodes answer"));
    }
}
