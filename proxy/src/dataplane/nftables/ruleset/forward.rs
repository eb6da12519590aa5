//! The rules about packets that the node would pass on though they lead nowhere: those of connections to
//! Services that cannot be translated, and those that come for a Service's external address and for none of
//! its ports.

use weft_nftables::{
    Base, Expression, Family, Hook, Operator, PRIORITY_DSTNAT, PRIORITY_FILTER, Rule, Statement, Table,
    Value, Verdict,
};
use weft_types::Protocol;

use super::affinity::BEFORE_SOURCES;
use super::{SetName, address_family, jump, refuse};
use crate::config::DetectLocal;
use crate::dataplane::settings::Settings;

const STRAY: &str = "stray";
/// For how long an endpoint counts as one that connections were led to: as long as connection tracking keeps
/// a silent connection, by default.
const REMEMBERED: u32 = 86_400;

/// The chains that see all packets.
pub(super) fn chains(table: &mut Table, family: Family, settings: &Settings) {
    if !settings.config.conntrack_be_liberal {
        table.chain("forward", Some(Base::filter(Hook::Forward, PRIORITY_FILTER)), vec![invalid(family)]);
        let base = Base::nat(Hook::Postrouting, BEFORE_SOURCES);
        table.chain("note-endpoint", Some(base), vec![note_endpoint(family)]);
    }
    // Behind the rewriting of destinations, and before the routes are asked: a router that sends a packet
    // back where it came from tells the sender of the shorter way, and for a second of nothing else
    // (`ip_rt_send_redirect`).
    let external = SetName::ExternalIps.name().into();
    let external = Statement::lookup(vec![Expression::daddr(family)], Operator::Equal, external);
    let enter = Rule::new([external, Statement::fib_routed_back(), jump(STRAY)]);
    table.chain("external", Some(Base::filter(Hook::Prerouting, PRIORITY_DSTNAT + 1)), vec![enter]);
    table.chain(STRAY, None, stray(settings, family));
}

/// An endpoint's packets outside of their connection's window are not translated. They would reach the client
/// with the endpoint's own address, and the client would end the connection (kubernetes/kubernetes#74839).
/// Such a packet has no connection by which to tell that a Service was asked for; it is told by the endpoint
/// that it comes from. What other machines send may be invalid because its way there leads past this node
/// (kubernetes/kubernetes#117924).
fn invalid(family: Family) -> Rule {
    let endpoint = vec![Expression::saddr(family), Expression::SPORT];
    let translated = Statement::lookup(endpoint, Operator::Equal, SetName::Translated.name().into());
    Rule::new([Statement::ct_state_invalid(), translated, Statement::Verdict(Verdict::Drop)])
        .comment("would go on untranslated")
}

/// Notes the endpoint that a connection was led to; behind the rewriting of its destination.
fn note_endpoint(family: Family) -> Rule {
    let endpoint = vec![Expression::daddr(family), Expression::DPORT];
    let is_tcp =
        Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(Protocol::Tcp.number()));
    let note = Statement::note(endpoint, REMEMBERED, SetName::Translated.name().into());
    Rule::new([Statement::ct_status_dnat(), is_tcp, note])
}

/// What came for a Service's external address, is for none of its ports, and would leave by the interface
/// that it came by: the router there sent it here, and would do so again. Only this is refused, since the
/// address may be another machine's as well, whose other ports are none of ours. Pods may share an interface,
/// and keep theirs too.
fn stray(settings: &Settings, family: Family) -> Vec<Rule> {
    let back = |matches| Rule::new([matches, Statement::Verdict(Verdict::Return)]);
    // What comes through the loopback interface counts as routed back.
    let mut rules = vec![back(Statement::ct_status_dnat()), back(Statement::fib_daddr_local())];
    if let DetectLocal::Interface(name) = &settings.config.detect_local {
        rules.push(back(Statement::compare(Expression::IIFNAME, Operator::Equal, name.as_str())));
    }
    let mut pods: Vec<_> = settings
        .cluster_cidrs(address_family(family))
        .chain(settings.pod_cidrs(address_family(family)))
        .collect();
    pods.sort();
    pods.dedup();
    let of_pods = |network| back(Statement::compare(Expression::daddr(family), Operator::Equal, network));
    rules.extend(pods.into_iter().map(of_pods));
    rules.extend(refuse(family, &[], "no Service has this port"));
    rules
}
