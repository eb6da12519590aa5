//! What of a Service's plan stands in the maps, and what changes there from one plan to the next. Pure.
//!
//! A frontend stands there if sockets can be led from it as the data plane beside would lead their packets: a
//! ClusterIP, over TCP or UDP, with endpoints. What leads nowhere is left to that data plane, which refuses
//! it or drops it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use weft_types::Protocol;

use super::layout::{FRONTEND, Frontend, INDEX, Service, endpoint_bytes, read_endpoint};
use crate::services::plan::{self, FrontendPlan, Scope, ServicePlan, Target};

/// A map that is filled from plans. In the order in which elements come; they go in the other one, so that no
/// program ever finds an endpoint that is not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Endpoints,
    Members,
    Services,
}

/// A key or a value.
type Bytes = Box<[u8]>;
/// A map and a key of it.
type Row = (Table, Bytes);
/// Elements of those maps.
pub(super) type Rows = BTreeMap<Row, Bytes>;

/// One change of an element: a value to put there, or none to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
}

impl Change {
    /// The frontend that it is for: every key begins with one.
    pub(super) fn frontend(&self) -> &[u8] {
        &self.key[..FRONTEND]
    }
}

/// What a plan puts into the maps.
pub(super) fn rows(plan: &ServicePlan) -> Rows {
    let mut rows = Rows::new();
    plan.frontends.iter().for_each(|plan| insert(plan, &mut rows));
    rows
}

fn insert(plan: &FrontendPlan, rows: &mut Rows) {
    let Some((frontend, endpoints)) = balanced(plan) else { return };
    let key = Frontend::bytes(frontend);
    for (index, endpoint) in (0u32..).zip(endpoints) {
        let endpoint = endpoint_bytes(*endpoint);
        if plan.affinity.is_some() {
            let member = [key, endpoint].concat().into();
            rows.insert((Table::Members, member), 1u32.to_ne_bytes().into());
        }
        let slot = [&key[..], &index.to_ne_bytes()].concat().into();
        rows.insert((Table::Endpoints, slot), endpoint.into());
    }
    let service = Service { count: endpoints.len() as u32, affinity: plan.affinity };
    rows.insert((Table::Services, key.into()), service.bytes().into());
}

/// The frontend and the endpoints of a plan that programs carry out.
fn balanced(plan: &FrontendPlan) -> Option<(Frontend, &[SocketAddr])> {
    let plan::Frontend::Address(address, protocol @ (Protocol::Tcp | Protocol::Udp), port) = plan.frontend
    else {
        return None;
    };
    let Target::Endpoints(endpoints) = &plan.target else { return None };
    // A client has no address yet that could be looked at.
    let is_for_everybody = plan.sources.is_empty() && plan.outside.is_none();
    let is_served = plan.scope == Scope::Internal && is_for_everybody && !endpoints.is_empty();
    is_served.then(|| (Frontend { socket: SocketAddr::new(address, port), protocol }, &**endpoints))
}

/// What leads from the one to the other, in the order of [`Table`].
pub(super) fn changes(old: &Rows, new: &Rows) -> Vec<Change> {
    let put = |((table, key), value): (&Row, &Bytes)| {
        let is_new = old.get(&(*table, key.clone())) != Some(value);
        is_new.then(|| Change { table: *table, key: key.clone(), value: Some(value.clone()) })
    };
    let delete = |row: &Row| {
        let is_gone = !new.contains_key(row);
        is_gone.then(|| Change { table: row.0, key: row.1.clone(), value: None })
    };
    new.iter().filter_map(put).chain(old.keys().rev().filter_map(delete)).collect()
}

/// The endpoints that a frontend has in the one and not in the other.
pub(super) fn removed(old: &Rows, new: &Rows) -> BTreeSet<(Frontend, SocketAddr)> {
    let remaining: BTreeSet<(&[u8], &[u8])> = served(new).collect();
    let gone = served(old).filter(|pair| !remaining.contains(pair));
    gone.filter_map(|(frontend, endpoint)| Frontend::read(frontend).zip(read_endpoint(endpoint))).collect()
}

/// How many frontends there are.
pub(super) fn frontends(rows: &Rows) -> usize {
    rows.keys().rev().take_while(|(table, _)| *table == Table::Services).count()
}

/// Every frontend with each of its endpoints.
fn served(rows: &Rows) -> impl Iterator<Item = (&[u8], &[u8])> {
    let of_endpoints = rows.iter().take_while(|((table, _), _)| *table == Table::Endpoints);
    of_endpoints.filter_map(|((_, key), endpoint)| Some((key.get(..FRONTEND)?, &**endpoint)))
}

/// For people, one line for each element; what has no meaning is left out.
pub(super) fn text(rows: &Rows) -> String {
    let line = |((table, key), value): (&Row, &Bytes)| {
        let frontend = Frontend::read(key)?;
        let Frontend { socket, protocol } = frontend;
        Some(match table {
            Table::Endpoints => {
                let index = u32::from_ne_bytes(*key.get(INDEX..)?.first_chunk()?);
                format!("endpoints {socket}/{protocol} {index} : {}\n", read_endpoint(value)?)
            }
            Table::Members => {
                format!("members {socket}/{protocol} {}\n", read_endpoint(key.get(FRONTEND..)?)?)
            }
            Table::Services => {
                let Service { count, affinity } = Service::read(value)?;
                let affinity = affinity.map(|seconds| format!(", affinity {seconds} s")).unwrap_or_default();
                format!("services {socket}/{protocol} : {count}{affinity}\n")
            }
        })
    };
    rows.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use weft_types::Family;

    use super::*;

    fn frontend(address: &str, protocol: Protocol, target: Target) -> FrontendPlan {
        FrontendPlan {
            frontend: plan::Frontend::Address(address.parse().unwrap(), protocol, 80),
            port: "".into(),
            scope: Scope::Internal,
            is_load_balancer: false,
            policy: weft_types::TrafficPolicy::Cluster,
            target,
            outside: None,
            hairpins: [].into(),
            sources: [].into(),
            affinity: None,
        }
    }

    fn to(endpoints: &[&str]) -> Target {
        Target::Endpoints(endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect())
    }

    fn of(frontends: &[FrontendPlan]) -> Rows {
        rows(&ServicePlan { frontends: frontends.into(), health_check: None })
    }

    fn web(endpoints: &[&str]) -> FrontendPlan {
        frontend("10.96.0.1", Protocol::Tcp, to(endpoints))
    }

    /// Changes as text: what is put, and what is deleted.
    fn steps(old: &Rows, new: &Rows) -> Vec<String> {
        let step = |Change { table, key, value }| {
            let (sign, value) = match value {
                Some(value) => ("+", value),
                // Any value will do to be shown.
                None => ("-", old[&(table, key.clone())].clone()),
            };
            format!("{sign} {}", text(&Rows::from([((table, key), value)])).trim())
        };
        changes(old, new).into_iter().map(step).collect()
    }

    #[test]
    fn both_families_stand_in_the_same_maps() {
        let rows = of(&[
            web(&["10.244.1.2:8080", "10.244.2.2:8080"]),
            frontend("fd00:96::1", Protocol::Udp, to(&["[fd00:244::2]:53"])),
        ]);
        assert_eq!(frontends(&rows), 2);
        assert_eq!(
            text(&rows),
            "endpoints 10.96.0.1:80/tcp 0 : 10.244.1.2:8080\n\
             endpoints 10.96.0.1:80/tcp 1 : 10.244.2.2:8080\n\
             endpoints [fd00:96::1]:80/udp 0 : [fd00:244::2]:53\n\
             services 10.96.0.1:80/tcp : 2\n\
             services [fd00:96::1]:80/udp : 1\n"
        );
    }

    #[test]
    fn what_programs_cannot_lead_as_packets_are_led_is_left_to_the_data_plane_beside() {
        let node_port = plan::Frontend::NodePort(Family::V4, Protocol::Tcp, 30080);
        for plan in [
            frontend("10.96.0.1", Protocol::Tcp, Target::Reject),
            frontend("10.96.0.1", Protocol::Tcp, Target::Drop),
            frontend("10.96.0.1", Protocol::Sctp, to(&["10.244.1.2:80"])),
            FrontendPlan { frontend: node_port, ..web(&["10.244.1.2:80"]) },
            FrontendPlan { scope: Scope::External, ..web(&["10.244.1.2:80"]) },
            FrontendPlan { sources: ["10.0.0.0/8".parse().unwrap()].into(), ..web(&["10.244.1.2:80"]) },
        ] {
            assert_eq!(of(std::slice::from_ref(&plan)), Rows::new(), "{plan:?}");
        }
    }

    #[test]
    fn an_endpoint_comes_before_it_is_counted_and_goes_after() {
        let (one, two) = (of(&[web(&["10.244.1.2:80"])]), of(&[web(&["10.244.1.2:80", "10.244.2.2:80"])]));
        assert_eq!(
            steps(&one, &two),
            ["+ endpoints 10.96.0.1:80/tcp 1 : 10.244.2.2:80", "+ services 10.96.0.1:80/tcp : 2"]
        );
        assert_eq!(
            steps(&two, &one),
            ["+ services 10.96.0.1:80/tcp : 1", "- endpoints 10.96.0.1:80/tcp 1 : 10.244.2.2:80"]
        );
        assert_eq!(
            steps(&one, &Rows::new()),
            ["- services 10.96.0.1:80/tcp : 1", "- endpoints 10.96.0.1:80/tcp 0 : 10.244.1.2:80"]
        );
        assert_eq!(changes(&two, &two), []);
    }

    #[test]
    fn a_service_with_affinity_says_which_endpoints_it_still_has() {
        let sticky =
            |endpoints: &[&str]| of(&[FrontendPlan { affinity: NonZeroU32::new(10_800), ..web(endpoints) }]);
        let (one, other) = (sticky(&["10.244.1.2:80"]), sticky(&["10.244.2.2:80"]));
        assert_eq!(
            steps(&one, &other),
            [
                "+ endpoints 10.96.0.1:80/tcp 0 : 10.244.2.2:80",
                "+ members 10.96.0.1:80/tcp 10.244.2.2:80",
                "- members 10.96.0.1:80/tcp 10.244.1.2:80",
            ]
        );
        assert!(text(&one).ends_with("services 10.96.0.1:80/tcp : 1, affinity 10800 s\n"));
    }

    #[test]
    fn an_endpoint_is_removed_from_a_frontend_when_it_has_no_place_there_any_more() {
        let two = of(&[web(&["10.244.1.2:80", "10.244.2.2:80"])]);
        let moved = of(&[web(&["10.244.2.2:80", "10.244.3.2:80"])]);
        let frontend = Frontend { socket: "10.96.0.1:80".parse().unwrap(), protocol: Protocol::Tcp };
        let gone = |endpoint: &str| (frontend, endpoint.parse().unwrap());
        assert_eq!(removed(&two, &moved), BTreeSet::from([gone("10.244.1.2:80")]));
        assert_eq!(removed(&two, &Rows::new()).len(), 2);
        assert_eq!(removed(&Rows::new(), &two), BTreeSet::new());
    }
}
