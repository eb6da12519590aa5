//! What is said of a node's blocks: words about what is missing, figures, and `/ipam` for `weft ipam status`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use weft_ipam::usable;
use weft_types::{Family, IpNetwork, IpamBlock};

use super::plan::{Request, Settings, held_of};

/// The cluster has no free block of a family.
pub(super) fn exhausted(
    settings: &Settings,
    family: Family,
    node: &str,
    (blocks, nodes): (usize, usize),
) -> String {
    let ranges: Vec<String> = settings.of_family(family).map(ToString::to_string).collect();
    format!(
        "the cluster CIDR {} has no free block of /{} left for Node {node}: {blocks} blocks are claimed by {nodes} Nodes; \
         weft ipam status shows them; delete Nodes that are gone, or give all agents a further range (--cluster-cidr)",
        ranges.join(","),
        settings.prefix(family)
    )
}

/// The node has no block of these families.
pub(super) fn lacking(node: &str, families: &[Family]) -> Option<String> {
    let families: Vec<String> = families.iter().map(ToString::to_string).collect();
    (!families.is_empty()).then(|| {
        format!(
            "Node {node} has no block of {} addresses yet, so that no pod can start on it; claiming one",
            families.join(" and no block of ")
        )
    })
}

/// The API server does not know blocks.
pub(super) fn undefined(block: &IpamBlock) -> String {
    format!(
        "cannot claim the block {}: the API server does not know IPAMBlocks; install their definition (weft install \
         --ipam blocks)",
        block.cidr
    )
}

/// The API server does not do what was asked, or does not say whether it did.
pub(super) fn refused(request: &Request, problem: &str) -> String {
    let what = match request {
        Request::Claim(_) => "claim",
        Request::Renew(_) => "renew the claim to",
        Request::Release(_) | Request::Collect(_) => "give up",
    };
    format!(
        "cannot {what} the block {}: {problem}; blocks that the node has go on serving",
        request.block().cidr
    )
}

/// In Prometheus' words.
#[derive(Debug)]
pub(super) struct Figures {
    blocks: Gauge,
    held: Gauge,
    free: Gauge,
}

impl Figures {
    pub(super) fn new(registry: &mut Registry) -> Figures {
        let figures = Figures { blocks: Gauge::default(), held: Gauge::default(), free: Gauge::default() };
        for (name, help, gauge) in [
            ("ipam_blocks", "Blocks that this node's pods get addresses of", &figures.blocks),
            ("ipam_addresses_held", "Addresses of these blocks that are reserved", &figures.held),
            ("ipam_addresses_free", "Addresses of these blocks that are free", &figures.free),
        ] {
            registry.register(name, help, gauge.clone());
        }
        figures
    }

    pub(super) fn set(&self, blocks: &[IpNetwork], held: &BTreeSet<IpAddr>) {
        let taken: usize = blocks.iter().map(|block| held_of(held, block)).sum();
        let all: u128 = blocks.iter().map(usable).sum();
        let number = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
        self.blocks.set(number(blocks.len() as u128));
        self.held.set(number(taken as u128));
        self.free.set(number(all.saturating_sub(taken as u128)));
    }
}

/// What `/ipam` answers: the node's blocks and the addresses of them that are reserved.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest(Arc<Mutex<String>>);

impl Latest {
    pub(super) fn endpoint(&self) -> Router {
        let latest = self.0.clone();
        let answer = move || {
            let text = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            std::future::ready(([(CONTENT_TYPE, "application/json")], text))
        };
        Router::new().route("/ipam", get(answer))
    }

    pub(super) fn set(
        &self,
        node: &str,
        blocks: &[IpNetwork],
        held: &BTreeSet<IpAddr>,
        missing: Option<&str>,
    ) {
        let blocks = blocks.iter().map(|block| json!({"cidr": block, "usable": usable(block) as u64}));
        let text = json!({
            "node": node, "blocks": blocks.collect::<Vec<_>>(), "held": held, "missing": missing,
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.to_string();
    }
}
