//! The rules by which a connection gets this node's address as its source.

use weft_nftables::{Expression, Family, Operator, Rule, Statement, Value, Verdict};
use weft_types::Protocol;

use super::{PROTOCOLS, SetName, from_outside, nodeport_destinations};
use crate::dataplane::settings::Settings;

/// Connections that must come back through this node get its address as their source. They are told by what
/// they were sent to first, which conntrack knows; no mark on the packet is needed.
pub(super) fn masquerading(settings: &Settings, family: Family) -> Vec<Rule> {
    let hairpin = vec![Expression::saddr(family), Expression::daddr(family)];
    let mut rules = vec![
        Rule::new([
            Statement::lookup(hairpin, Operator::Equal, SetName::Hairpins.name().into()),
            Statement::masquerade(),
        ])
        .comment("an endpoint that reached itself"),
    ];
    rules.extend(settings.is_ipvs().then(|| from_cluster_ip(family)));
    rules.extend(cluster_ip_masquerading(settings, family));
    // Most connections are to ClusterIPs, and end here: they are not asked for in all the sets behind this.
    rules.push(Rule::new([to_cluster_ip(family), Statement::Verdict(Verdict::Return)]));
    for protocol in PROTOCOLS {
        rules.extend(external_masquerading(settings, family, protocol));
    }
    rules
}

fn to_cluster_ip(family: Family) -> Statement {
    let destination = vec![Expression::original_daddr(family)];
    Statement::lookup(destination, Operator::Equal, SetName::ClusterIps.name().into())
}

/// The rules for NodePorts and external addresses. nft can print a port only where the protocol is fixed.
fn external_masquerading(settings: &Settings, family: Family, protocol: Protocol) -> Vec<Rule> {
    let is_protocol =
        Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(protocol.number()));
    let port = vec![Expression::L4PROTO, Expression::ORIGINAL_DPORT];
    let frontend = [&[Expression::original_daddr(family)], &port[..]].concat();
    let rule = |destination: &[Statement], key: &[Expression], set: SetName| {
        let (own, comment) = match set {
            SetName::ExternalMasqueradeOwn => (true, "external address, from this node"),
            SetName::NodePortMasqueradeOwn => (true, "NodePort, from this node"),
            SetName::NodePortMasquerade => (false, "NodePort"),
            _ => (false, "external address"),
        };
        let mut statements = vec![is_protocol.clone()];
        statements.extend_from_slice(destination);
        statements.push(Statement::lookup(key.to_vec(), Operator::Equal, set.name().into()));
        // Last, since it costs more than all the others: the kernel asks its routes.
        statements.extend(own.then_some(Statement::fib_saddr_local()));
        statements.push(Statement::masquerade());
        Rule::new(statements).comment(comment)
    };
    let external = [SetName::ExternalMasquerade, SetName::ExternalMasqueradeOwn];
    let mut rules = external.map(|set| rule(&[], &frontend, set)).to_vec();
    for destination in nodeport_destinations(settings, family, Expression::original_daddr(family)) {
        let sets = [SetName::NodePortMasquerade, SetName::NodePortMasqueradeOwn];
        rules.extend(sets.map(|set| rule(&destination, &port, set)));
    }
    rules
}

/// In the mode ipvs this machine has the ClusterIPs, and reaches them with themselves as source.
fn from_cluster_ip(family: Family) -> Rule {
    let cluster_ips = SetName::ClusterIps.name().into();
    let source = Statement::lookup(vec![Expression::saddr(family)], Operator::Equal, cluster_ips);
    Rule::new([source, Statement::masquerade()]).comment("ClusterIP, from this node")
}

/// Traffic to a ClusterIP from outside of the pod network, where that is known; or from anywhere, where that
/// is asked for.
fn cluster_ip_masquerading(settings: &Settings, family: Family) -> Option<Rule> {
    let (mut statements, comment) = match settings.config.masquerade_all {
        true => (Vec::new(), "ClusterIP"),
        false => (from_outside(settings, family), "ClusterIP from outside of the pod network"),
    };
    if statements.is_empty() && !settings.config.masquerade_all {
        return None;
    }
    statements.extend([to_cluster_ip(family), Statement::masquerade()]);
    Some(Rule::new(statements).comment(comment))
}
