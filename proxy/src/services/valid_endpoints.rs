//! Which endpoints are valid for a frontend: those that may go on getting packets of connections that were
//! led there. Those that get new connections are chosen among them, by policies and hints, in `endpoints.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_types::{Endpoint, EndpointSlice, Family, Service};

use super::endpoints::{ServedBy, is_special};
use super::plan::Frontend;
use super::requests::Requests;

/// The endpoints of a frontend in all families, in order, each with whether it may get packets of flows that
/// nobody has answered, or of protocols without an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidEndpoints(Arc<[(SocketAddr, bool)]>);

impl ValidEndpoints {
    /// Those endpoints. Of two entries for one the better counts.
    pub fn new(endpoints: impl IntoIterator<Item = (SocketAddr, bool)>) -> ValidEndpoints {
        let mut merged: BTreeMap<SocketAddr, bool> = BTreeMap::new();
        for (socket, may_answer) in endpoints {
            *merged.entry(socket).or_default() |= may_answer;
        }
        ValidEndpoints(merged.into_iter().collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        self.0.iter().copied()
    }

    /// Whether one is there, and whether it may get such packets.
    pub fn find(&self, socket: SocketAddr) -> Option<bool> {
        let place = self.0.binary_search_by_key(&socket, |(socket, _)| *socket).ok()?;
        Some(self.0[place].1)
    }
}

/// The frontends that a Service asks for, each with the endpoints that are valid there, if the Service has
/// it.
pub fn valid_endpoints<'a>(
    service: &Service,
    requests: &Requests,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> impl Iterator<Item = (Frontend, ValidEndpoints)> {
    let served_by = ServedBy::of(slices);
    let of_ports = requests.frontends.chunk_by(|one, other| one.port == other.port);
    of_ports.flat_map(move |requests| {
        let port = &service.ports[usize::from(requests[0].port)];
        let valid = of_port(served_by.at(port));
        requests.iter().map(move |request| (request.frontend, valid.clone()))
    })
}

/// The endpoints of a port, in all families. Those answer that serve; one that shuts down and serves no
/// longer is left at once where others of its family serve, and where none does, its flows would find nobody
/// else.
fn of_port(served: &[(&EndpointSlice, u16)]) -> ValidEndpoints {
    let all = || {
        let endpoints = served
            .iter()
            .flat_map(|&(slice, number)| slice.endpoints.iter().map(move |endpoint| (endpoint, number)));
        endpoints.filter(|(endpoint, _)| !is_special(endpoint.address))
    };
    let somebody_serves = Family::BOTH.map(|family| {
        let serves = |endpoint: &Endpoint| endpoint.serving && Family::of(endpoint.address) == family;
        all().any(|(endpoint, _)| serves(endpoint))
    });
    let is_last = |endpoint: &Endpoint| match Family::of(endpoint.address) {
        Family::V4 => endpoint.terminating && !somebody_serves[0],
        Family::V6 => endpoint.terminating && !somebody_serves[1],
    };
    ValidEndpoints::new(all().map(|(endpoint, number)| {
        (SocketAddr::new(endpoint.address, number), endpoint.serving || is_last(endpoint))
    }))
}
