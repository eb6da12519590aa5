//! Reads what the kernel counted for each Service. Where it counts is said by `ruleset/counters.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use weft_nftables::{Client, Counter, Declaration, Family};
use weft_types::NamespacedName;

use super::elements::frontend_of;
use super::ruleset::meter_sets;
use crate::counters::{Meter, Reading};
use crate::error::Error;
use crate::services::plan::Frontend;

/// Frontends with the Services that have them.
pub(in crate::dataplane) type Owners = HashMap<Frontend, Arc<NamespacedName>>;

/// Reads all counters, in the calling thread's network namespace.
///
/// # Errors
/// What the kernel refused.
pub(super) fn read(owners: &Owners) -> Result<Vec<Reading>, Error> {
    let mut kernel = Client::open()?;
    let mut readings = Vec::with_capacity(owners.len() * Meter::ALL.len());
    for family in Family::BOTH {
        for meter in Meter::ALL {
            for set in meter_sets(meter) {
                let declaration = set.declaration(family);
                let counters = kernel.counters(&declaration)?;
                readings.extend(counters.iter().filter_map(|it| reading(it, &declaration, meter, owners)));
            }
        }
    }
    Ok(readings)
}

/// Nothing where the frontend has gone meanwhile.
fn reading(counter: &Counter, set: &Declaration, meter: Meter, owners: &Owners) -> Option<Reading> {
    let frontend = frontend_of(set.family.ip()?, &counter.key.values(&set.key)?)?;
    let service = owners.get(&frontend)?.clone();
    Some(Reading { service, frontend, meter, packets: counter.packets, bytes: counter.bytes })
}
