//! From node to node: which is asked next, and with which packet. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;
use weft_trace::{End, Entry, NodeTrace, Question, Socket, Translation, Tuple};

use super::world::World;

/// A packet goes through no more nodes.
const MOST_HOPS: usize = 8;

/// Where a packet's way ends, as far as it was followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "goal", rename_all = "lowercase")]
pub(super) enum Goal {
    /// At a pod, or a node.
    Arrives { node: String, socket: Socket },
    /// Outside of the cluster.
    Outside { node: String, device: String },
    /// Before that.
    Stops { node: String },
    /// It cannot be told.
    Unknown { reason: String },
}

/// A packet's way through the nodes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Way {
    pub(super) nodes: Vec<NodeTrace>,
    pub(super) goal: Option<Goal>,
}

/// What is to be asked next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) node: String,
    pub(super) question: Question,
}

impl Way {
    /// Takes in what a node answers. Returns what is to be asked next, if the way goes on.
    pub(super) fn take(&mut self, world: &World, asked: &Ask, trace: NodeTrace) -> Option<Ask> {
        let node = asked.node.clone();
        let (end, left) = (trace.end.clone(), trace.left);
        self.nodes.push(trace);
        let goal = match end {
            End::Pod { socket, .. } | End::Host { socket } => Goal::Arrives { node, socket },
            End::Stops { .. } => Goal::Stops { node },
            End::Unknown { reason } => Goal::Unknown { reason: format!("{node}: {reason}") },
            End::Leaves { device, kind, next_hop, remote } => {
                let to = remote.unwrap_or(next_hop);
                let is_wireguard = kind.as_deref() == Some("wireguard");
                let of_pods = || if is_wireguard { world.node_of_pods(left.destination) } else { None };
                match world.node_at(to).map(str::to_owned).or_else(of_pods) {
                    Some(_) if self.nodes.len() == MOST_HOPS => {
                        Goal::Unknown { reason: format!("it goes on after {MOST_HOPS} nodes: it goes round") }
                    }
                    Some(next) => {
                        let tunnel = (remote.is_some() || is_wireguard).then_some(device);
                        let via = world.address_of(&node, to);
                        let question = Question {
                            via,
                            tunnel,
                            ..Question::new(Entry::Link, left, asked.question.protocol)
                        };
                        return Some(Ask { node: next, question });
                    }
                    None => Goal::Outside { node, device },
                }
            }
        };
        self.goal = Some(goal);
        None
    }

    /// What each node rewrote in it.
    fn translations(&self) -> impl Iterator<Item = (&str, Translation)> {
        let changed = self.nodes.iter().filter(|trace| trace.came != trace.left);
        changed.map(|trace| (trace.node.as_str(), Translation { before: trace.came, after: trace.left }))
    }

    /// An answer to it: what the node where it arrived is asked.
    pub(super) fn answer(&self, protocol: u8) -> Option<Ask> {
        let last = self.nodes.last()?;
        let entry = match last.end {
            End::Pod { .. } => Entry::Pod,
            End::Host { .. } => Entry::Here,
            _ => return None,
        };
        let question = Question::new(entry, last.left.reversed(), protocol);
        Some(Ask { node: last.node.clone(), question: self.answering(&last.node, question) })
    }

    /// The question about an answer to it, with what that node undoes in it.
    pub(super) fn answering(&self, node: &str, question: Question) -> Question {
        let seen: BTreeSet<&str> = self.nodes.iter().map(|trace| trace.node.as_str()).collect();
        let packet = question.packet();
        let mut own = self.translations().filter(|(at, _)| *at == node);
        let undone = own.find_map(|(_, translation)| translation.undone(&packet));
        let becomes = |address, port: Option<u16>| SocketAddr::new(address, port.unwrap_or_default());
        let source = |to: Tuple| becomes(to.source, to.source_port);
        let destination = |to: Tuple| becomes(to.destination, to.port);
        Question {
            answers: Some(seen.contains(node)),
            source_becomes: undone.map(source),
            destination_becomes: undone.map(destination),
            ..question
        }
    }

    /// Whether it is where answers to that packet are waited for.
    pub(super) fn returns_to(&self, first: &Tuple) -> bool {
        self.nodes.last().is_some_and(|last| last.left == first.reversed())
    }
}
