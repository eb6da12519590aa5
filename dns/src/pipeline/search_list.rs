//! The search list of a pod's resolver, walked on its behalf: whose query may be completed, and which names
//! the resolver would try next. Pure; the walk itself is the handler's.
//!
//! The resolver of a pod in `shop` that looks for `db.example.com` asks for
//! `db.example.com.shop.svc.cluster.local` first, and then for up to five more names, each for A and for
//! AAAA. Its first query tells all that is needed to find out where the walk will end: at the first name that
//! has an address of any family, so that A and AAAA end alike.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

use crate::pipeline::classify::{Answer, Records, classify};
use crate::wire::name::{QueryName, to_name};
use crate::zone::Zone;

/// What the cluster's own names say to a name of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It has an address, of whatever family, or is an alias.
    Address,
    /// The cluster has none.
    Nothing,
    /// It is no name of the cluster.
    Foreign,
}

/// How many labels the pod at `client` looks for, if `name` is the first that its resolver tries for them:
/// `labels.namespace.svc.zone`. None where nobody knows the pod, or nobody asked for walks.
pub fn own_labels(zone: &Zone, client: IpAddr, name: &QueryName, record_type: RecordType) -> Option<usize> {
    if !zone.config().complete_search || !matches!(record_type, RecordType::A | RecordType::AAAA) {
        return None;
    }
    let svc = name.len().checked_sub(zone.config().zone.label_count() + 1)?;
    let own = svc.checked_sub(1).filter(|&own| own > 0)?;
    let is_first = name.label(svc) == b"svc" && zone.pods().searching(client)? == name.wire(own, svc);
    is_first.then_some(own)
}

/// The names that the resolver tries after the first one, in order: below the cluster's other domains, below
/// those of the node (`search`), and the labels as they are. `first` is the first name, of which so many
/// labels are the pod's own.
pub fn names_after(zone: &Zone, first: &Name, own: usize, search: &[Name]) -> Vec<Name> {
    let suffix = zone.config().zone.wire();
    let Ok(labels) = Name::from_labels(first.iter().take(own)) else { return Vec::new() };
    let domains = [to_name(&[b"\x03svc", suffix]), to_name(&[suffix])].into_iter().flatten();
    // One label alone is no name of anybody's outside; asking for it would only tell upstreams what a pod
    // looks for.
    let as_they_are = (own > 1).then(Name::root);
    let domains = domains.chain(search.iter().cloned()).chain(as_they_are);
    domains.filter_map(|domain| labels.clone().append_domain(&domain).ok()).collect()
}

/// Looks for addresses of a name among the cluster's.
pub fn lookup(zone: &Zone, name: &QueryName) -> Lookup {
    let answers = [RecordType::A, RecordType::AAAA].map(|family| classify(zone, name, family));
    let is_address = |answer: &Answer<'_>| {
        use Records::{A, Aaaa, Pod};
        matches!(answer, Answer::Found(A(_) | Aaaa(_) | Pod(_)) | Answer::Alias(_))
    };
    match answers {
        [Answer::NotInZone, _] => Lookup::Foreign,
        answers if answers.iter().any(is_address) => Lookup::Address,
        _ => Lookup::Nothing,
    }
}
