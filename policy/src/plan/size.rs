//! How large a plan is, and which addresses' policies are too large for it. It is kept as the plan changes:
//! walking through all of a plan takes longer than most changes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Endpoint, Origin, Side};

/// The size of a plan.
#[derive(Default)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    /// The addresses of pods that are closed in some direction, as their policies come to too many rows.
    pub(crate) too_large: BTreeSet<IpAddr>,
}

impl Size {
    /// Takes in that an address has another endpoint, or none, where one with so many rows was.
    pub(crate) fn note(&mut self, address: IpAddr, rows_before: usize, after: Option<&Endpoint>) {
        self.rows = self.rows + after.map_or(0, Endpoint::rows) - rows_before;
        let is_too_large = |side: &Side| matches!(side.base.origin, Origin::TooLarge(_));
        match after.is_some_and(|endpoint| endpoint.sides.iter().flatten().any(is_too_large)) {
            true => self.too_large.insert(address),
            false => self.too_large.remove(&address),
        };
    }
}
