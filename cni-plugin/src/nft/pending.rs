//! The set of the addresses of pods that wait for their policies, in the tables of the agent. Only the set is
//! written to; where there is no table, as much of one is made as closes those pods.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::slice;

use weft_nftables::{Data, DataType, Family, Owned, Transaction, Tuple, Value};
use weft_policy::pending::{declaration, minimal_table};

use super::Tables;
use crate::Result;
use crate::kernel::Lock;
use crate::plan::Pending;

impl Tables {
    /// Closes a pod. The lock must be held, shared: as long, nobody takes its addresses for those of a pod
    /// that is gone.
    pub(crate) fn add_pending(&mut self, plan: &Pending, _lock: &Lock) -> Result<()> {
        let mut is_first = true;
        self.retrying(|tables| {
            let mut transaction = Transaction::default();
            for family in Family::BOTH {
                let (set, wanted) = (declaration(family), elements(plan, family));
                if wanted.is_empty() {
                    continue;
                }
                // Nearly always the table is there, and the addresses are in no earlier pod's name.
                if !is_first {
                    let key = (set.family, set.table.clone());
                    if !tables.client.observe(slice::from_ref(&key))?.tables.contains_key(&key) {
                        transaction.add_table(&minimal_table(family));
                    }
                    let is_in_the_way = |held: &Owned| wanted.iter().any(|wanted| wanted.key == held.key);
                    let stale = tables.owned(&set)?.into_iter().filter(is_in_the_way).collect();
                    transaction.delete_owned(&set, stale);
                }
                transaction.add_owned(&set, wanted);
            }
            is_first = false;
            Ok(transaction)
        })
    }

    /// Whether any address of a pod is closed still.
    pub(crate) fn is_pending(&mut self, plan: &Pending) -> Result<bool> {
        for family in Family::BOTH {
            let wanted = elements(plan, family);
            if !wanted.is_empty() && self.owned(&declaration(family))?.iter().any(|it| wanted.contains(it)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The addresses of all pods that wait.
    pub(crate) fn pending(&mut self) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for family in Family::BOTH {
            addresses.extend(self.owned(&declaration(family))?.iter().filter_map(|it| address(it, family)));
        }
        Ok(addresses)
    }

    /// Opens addresses.
    pub(crate) fn delete_pending(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        self.retrying(|tables| {
            let mut transaction = Transaction::default();
            for family in Family::BOTH {
                let set = declaration(family);
                let is_unwanted =
                    |held: &Owned| address(held, family).is_some_and(|it| addresses.contains(&it));
                let unwanted = tables.owned(&set)?.into_iter().filter(is_unwanted).collect();
                transaction.delete_owned(&set, unwanted);
            }
            Ok(transaction)
        })
    }
}

fn elements(plan: &Pending, family: Family) -> Vec<Owned> {
    let addresses = plan.addresses.iter().filter(|address| Family::of(**address) == family);
    let element = |address: &IpAddr| Owned {
        key: Tuple::new(&[Value::Address(*address)]),
        end: None,
        data: Data::None,
        owner: plan.pod.comment().into(),
    };
    addresses.map(element).collect()
}

fn address(element: &Owned, family: Family) -> Option<IpAddr> {
    match *element.key.values(&[DataType::address(family)])? {
        [Value::Address(address)] => Some(address),
        _ => None,
    }
}
