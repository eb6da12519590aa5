//! What MetalLB's kinds have in common: lists of selectors and of names, which pools are meant, durations.
//!
//! Of a list of selectors each lets more through, and none at all lets everything through. So an object with
//! a selector that cannot be read is not used at all.

use std::time::Duration;

use jiff::SignedDuration;
use weft_types::{LabelSelector, PoolSelection};

use super::policy::{SelectorObject, selector};
use crate::field::{Fault, Field};

/// The API of all kinds but BGPPeer.
pub(super) const V1BETA1: &str = "metallb.io/v1beta1";
/// The API of BGPPeer.
pub(super) const V1BETA2: &str = "metallb.io/v1beta2";

/// Selectors, all of which can be read.
pub(super) fn selectors(
    field: Field<Vec<Field<SelectorObject>>>,
    path: &str,
) -> Result<Box<[LabelSelector]>, Fault> {
    let list = field.or_default(path)?.into_iter().enumerate();
    let read = list.map(|(place, object)| {
        let read = object.required("").and_then(selector);
        read.map_err(|fault| fault.within(format_args!("{path}[{place}]")))
    });
    read.collect()
}

/// Names, all of which can be read.
pub(super) fn names(field: Field<Vec<Field<String>>>, path: &str) -> Result<Box<[Box<str>]>, Fault> {
    let list = field.or_default(path)?.into_iter().enumerate();
    list.map(|(place, name)| Ok(name.required(&format!("{path}[{place}]"))?.into_boxed_str())).collect()
}

/// A text that may be left out or empty, which is the same.
pub(super) fn text(field: Field<String>, path: &str) -> Result<Option<Box<str>>, Fault> {
    Ok(field.optional(path)?.filter(|text| !text.is_empty()).map(String::into_boxed_str))
}

/// The pools that an advertisement is about.
pub(super) fn pools(
    pools: Field<Vec<Field<String>>>,
    pool_selectors: Field<Vec<Field<SelectorObject>>>,
) -> Result<PoolSelection, Fault> {
    Ok(PoolSelection {
        names: names(pools, "spec.ipAddressPools")?,
        selectors: selectors(pool_selectors, "spec.ipAddressPoolSelectors")?,
    })
}

/// A duration as Go prints it: `1m30s` (meta/v1 Duration). None where it is left out or zero.
pub(super) fn duration(field: Field<String>, path: &str) -> Result<Option<Duration>, Fault> {
    let Some(text) = field.optional(path)? else { return Ok(None) };
    let problem = || Fault::new(path, format!("{text:?} is no duration such as 90s"));
    let duration: SignedDuration = text.parse().map_err(|_| problem())?;
    let duration = Duration::try_from(duration).map_err(|_| problem())?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}
