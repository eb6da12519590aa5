//! Following aliases within the zone (S2.5). What lies outside is left to the caller, who may ask an
//! upstream.

use hickory_proto::rr::RecordType;

use crate::pipeline::classify::{Answer, classify};
use crate::wire::name::QueryName;
use crate::zone::Zone;

/// The most aliases that are followed for one query.
pub const MOST_CNAMES: usize = 10;

/// The aliases that a query led through, and where it ended.
#[derive(Debug)]
pub struct CnameChain<'z> {
    /// The targets in wire form, in the order in which they were met. The first is the target of the name
    /// asked.
    pub aliases: Vec<&'z [u8]>,
    /// What there is at the last name. [`Answer::Alias`] where nobody follows any further: the chain loops,
    /// or is too long.
    pub end: Answer<'z>,
}

/// Answers a query, and follows aliases while they stay in the zone.
pub fn follow_cnames<'z>(zone: &'z Zone, name: &QueryName, record_type: RecordType) -> CnameChain<'z> {
    let mut aliases = Vec::new();
    let mut end = classify(zone, name, record_type);
    while let Answer::Alias(target) = end {
        let Ok(name) = QueryName::from_wire(target) else { break };
        if aliases.len() == MOST_CNAMES || aliases.contains(&target) {
            break;
        }
        aliases.push(target);
        end = classify(zone, &name, record_type);
    }
    CnameChain { aliases, end }
}
