//! The tables of nf_tables that all calls of the plugin share: makes the kernel hold what a plan says, and
//! takes away what has lost its owner. What that is, is planned in `masquerade` and `hostports`.
//!
//! Calls run at the same time and may die at any moment. So a table's chains, rules and sets are compared
//! with the plan, and made, by every call that needs them; elements tell their owners; and [`Lock`] keeps
//! what is read true until it is written. A call that finds everything in place writes nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::slice;
use std::sync::Arc;

use nix::errno::Errno;
use weft_netlink::Error as NetlinkError;
use weft_netlink::rtnl::{Link, RtnetlinkClient};
use weft_nftables::{Change, Client, Declaration, Family, Observed, Owned, Table, Transaction, diff};

mod hostports;
mod masquerade;
mod pending;

use crate::kernel::Lock;
use crate::plan::names;
use crate::{Error, HostPorts, Masquerade, Result};

/// How often a transaction is planned anew because another call was faster.
const ATTEMPTS: u32 = 50;

/// The shared tables of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Tables {
    client: Client,
}

impl Tables {
    /// `None` where the kernel was built without netfilter, and so holds nothing.
    pub(crate) fn open() -> Result<Option<Tables>> {
        match Client::open() {
            Err(error) if error.errno().is_some_and(is_absent) => Ok(None),
            outcome => {
                let mut client = outcome?;
                // The agent deletes elements as pods start.
                client.let_kernel_close();
                Ok(Some(Tables { client }))
            }
        }
    }

    /// For an option that cannot do without.
    pub(crate) fn open_for(option: impl FnOnce() -> String) -> Result<Tables> {
        Tables::open()?.ok_or_else(|| Error::KernelLacks { option: option(), what: "nf_tables" })
    }

    /// Makes the kernel masquerade these networks. The lock must be held, shared, until the bridge has the
    /// container for which that is done: as long, no other call takes the bridge for an empty one.
    pub(crate) fn masquerade(
        &mut self,
        host: &mut RtnetlinkClient,
        plan: &Masquerade,
        _lock: &Lock,
    ) -> Result<()> {
        plan.families().try_for_each(|family| {
            self.retrying(|tables| {
                let mut transaction = tables.layout(&masquerade::layout(family))?;
                for (set, wanted) in masquerade::sets(family).iter().zip(plan.elements(family)) {
                    let is_used = |bridge: &str| is_used(host, bridge);
                    let change = masquerade::missing(set, &tables.owned(set)?, wanted, is_used)?;
                    transaction.delete_owned(set, change.delete);
                    transaction.add_owned(set, change.add);
                }
                Ok(transaction)
            })
        })
    }

    /// Whether the kernel masquerades these networks; the missing element where it does not.
    pub(crate) fn check_masquerade(&mut self, plan: &Masquerade) -> Result<Option<String>> {
        for family in plan.families() {
            if !self.client.has_rules(&masquerade::layout(family))? {
                return Ok(Some(format!("the rules of ipMasq for {family} are gone")));
            }
            for (set, wanted) in masquerade::sets(family).iter().zip(plan.elements(family)) {
                if !masquerade::holds(set, &self.owned(set)?, &wanted) {
                    return Ok(Some(format!(
                        "{family} addresses of bridge {} are not masqueraded",
                        plan.bridge
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Ends the masquerading of the networks of a container's addresses, which its own network does not ask
    /// for (any more). Those of another bridge that has containers are that one's business.
    pub(crate) fn unmasquerade(
        &mut self,
        host: &mut RtnetlinkClient,
        bridge: &str,
        addresses: &[IpAddr],
    ) -> Result<()> {
        let mut stale = BTreeSet::new();
        for address in addresses {
            let [_, leaving] = masquerade::sets(Family::of(*address));
            for element in self.owned(&leaving)? {
                let is_stale = masquerade::is_from(&element, &leaving, *address)
                    && (*element.owner == *bridge || !is_used(host, &element.owner)?);
                stale.extend(is_stale.then_some((element.owner, *address)));
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        let _lock = Lock::exclusive()?;
        self.delete(masquerade::sets, |element| {
            stale.iter().any(|(owner, address)| {
                let [_, set] = masquerade::sets(Family::of(*address));
                element.owner == *owner && masquerade::is_from(element, &set, *address)
            })
        })
    }

    /// Ends the masquerading of a bridge's networks, unless the bridge has a container.
    pub(crate) fn release_masquerade(&mut self, host: &mut RtnetlinkClient, bridge: &str) -> Result<()> {
        let is_own = |element: &Owned| &*element.owner == bridge;
        if is_used(host, bridge)? || !self.any_owned(masquerade::sets, is_own)? {
            return Ok(());
        }
        let _lock = Lock::exclusive()?;
        if is_used(host, bridge)? {
            return Ok(());
        }
        self.delete(masquerade::sets, is_own)
    }

    /// Maps ports of the host to a container.
    ///
    /// # Errors
    /// [`Error::HostPortTaken`] where another container has one of them.
    pub(crate) fn map_ports(&mut self, host: &mut RtnetlinkClient, plan: &HostPorts) -> Result<()> {
        self.map_ports_if(host, plan, || true)
    }

    /// The same, unless by then nobody wants it any more.
    pub(crate) fn map_ports_if(
        &mut self,
        host: &mut RtnetlinkClient,
        plan: &HostPorts,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<()> {
        let _lock = Lock::exclusive()?;
        if !is_wanted() {
            return Ok(());
        }
        plan.families().try_for_each(|family| {
            self.retrying(|tables| {
                let mut transaction = tables.layout(&hostports::layout(family))?;
                for (set, wanted) in hostports::sets(family).iter().zip(plan.elements(family)) {
                    let stale = hostports::in_the_way(set, &tables.owned(set)?, &wanted);
                    stale.iter().try_for_each(|element| unless_alive(host, element, plan, set))?;
                    transaction.delete_owned(set, stale);
                    transaction.add_owned(set, wanted);
                }
                Ok(transaction)
            })
        })
    }

    /// The mapping that the kernel lacks, in words, where it lacks one.
    pub(crate) fn check_ports(&mut self, plan: &HostPorts) -> Result<Option<String>> {
        for family in plan.families() {
            if !self.client.has_rules(&hostports::layout(family))? {
                return Ok(Some(format!("the rules of portMappings for {family} are gone")));
            }
            for (set, wanted) in hostports::sets(family).iter().zip(plan.elements(family)) {
                let held = self.owned(set)?;
                if wanted.iter().any(|wanted| !held.contains(wanted)) {
                    return Ok(Some(format!("a host port ({family}) does not lead to it")));
                }
            }
        }
        Ok(None)
    }

    /// Ends the mappings of that owner. Returns the addresses of the container to which UDP was mapped. Where
    /// the owner `had_record`, a repair may be about to put its mappings back: that is waited for.
    pub(crate) fn unmap_ports(&mut self, owner: &str, had_record: bool) -> Result<Vec<IpAddr>> {
        let is_own = |element: &Owned| &*element.owner == owner;
        if !had_record && !self.any_owned(hostports::sets, is_own)? {
            return Ok(Vec::new());
        }
        let _lock = Lock::exclusive()?;
        let mut containers = Vec::new();
        for family in Family::BOTH {
            let [map, _] = hostports::sets(family);
            let own = self.owned(&map)?.into_iter().filter(is_own);
            containers.extend(own.filter_map(|element| hostports::udp_container(&element, &map)));
        }
        self.delete(hostports::sets, is_own)?;
        Ok(containers)
    }

    /// Ends the mappings whose owners, ends of veth pairs, are gone.
    pub(crate) fn collect_ports(&mut self, host: &mut RtnetlinkClient) -> Result<()> {
        if !self.any_owned(hostports::sets, |_| true)? {
            return Ok(());
        }
        let _lock = Lock::exclusive()?;
        let links: BTreeSet<String> = host.links()?.into_iter().map(|link| link.name).collect();
        self.delete(hostports::sets, |element| !links.contains(&*element.owner))
    }

    /// The steps after which the kernel has that table, with the elements that it has.
    fn layout(&mut self, table: &Table) -> Result<Transaction> {
        if self.client.has_rules(table)? {
            return Ok(Transaction::default());
        }
        let key = table.key();
        let mut observed = self.client.observe(slice::from_ref(&key))?;
        let sets = observed.tables.values_mut().flat_map(|table| table.sets.values_mut());
        sets.for_each(|set| set.elements.clear());
        let mut transaction = diff(slice::from_ref(table), &observed);
        if transaction.changes.contains(&Change::DeleteTable(key.clone())) {
            // It is built anew: the elements that still fit go along.
            let planned = Observed::of(slice::from_ref(table));
            for set in table.sets.values() {
                let shape = |observed: &Observed| {
                    observed.tables.get(&key)?.sets.get(&set.declaration.name).map(|set| set.shape.clone())
                };
                if shape(&planned) == shape(&observed) {
                    let elements = self.owned(&set.declaration)?;
                    transaction.add_owned(&set.declaration, elements);
                }
            }
        }
        Ok(transaction)
    }

    /// Plans and commits, anew where another call has changed meanwhile what the plan was made of.
    fn retrying(&mut self, mut plan: impl FnMut(&mut Tables) -> Result<Transaction>) -> Result<()> {
        for attempt in 1.. {
            let transaction = plan(self)?;
            match self.client.commit(&transaction) {
                Ok(()) => break,
                Err(error) if attempt < ATTEMPTS && is_race(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn owned(&mut self, set: &Declaration) -> Result<Vec<Owned>> {
        match self.client.owned(set) {
            // A kernel without nf_tables holds nothing.
            Err(error) if error.errno().is_some_and(is_absent) => Ok(Vec::new()),
            outcome => Ok(outcome?),
        }
    }

    fn any_owned(&mut self, sets: Sets, is_wanted: impl Fn(&Owned) -> bool) -> Result<bool> {
        for family in Family::BOTH {
            // Both sets are written in one transaction, and what an owner has in the first another may take
            // over: whoever has anything has something in the second.
            let [_, second] = sets(family);
            if self.owned(&second)?.iter().any(&is_wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes elements, and a table with the last of its elements.
    fn delete(&mut self, sets: Sets, is_unwanted: impl Fn(&Owned) -> bool) -> Result<()> {
        Family::BOTH.into_iter().try_for_each(|family| {
            self.retrying(|tables| {
                let (mut transaction, mut is_empty) = (Transaction::default(), true);
                for set in sets(family) {
                    let (unwanted, others): (Vec<Owned>, Vec<Owned>) =
                        tables.owned(&set)?.into_iter().partition(&is_unwanted);
                    is_empty &= others.is_empty();
                    transaction.delete_owned(&set, unwanted);
                }
                let [set, _] = sets(family);
                if is_empty && !transaction.is_empty() {
                    transaction.changes = vec![Change::DeleteTable((set.family, set.table.clone()))];
                }
                Ok(transaction)
            })
        })
    }
}

/// The two sets of a family's table.
type Sets = fn(Family) -> [Arc<Declaration>; 2];

/// Whether a bridge has a container, of whichever plugin.
fn is_used(host: &mut RtnetlinkClient, bridge: &str) -> Result<bool> {
    let Some(bridge) = host.find_link(bridge)? else { return Ok(false) };
    let is_container = |port: &Link| port.kind.as_deref() == Some("veth") && port.group != names::GATEWAYS;
    Ok(host.ports(bridge.index)?.iter().any(is_container))
}

/// An element that another container has is an error, unless that container is gone.
fn unless_alive(
    host: &mut RtnetlinkClient,
    element: &Owned,
    plan: &HostPorts,
    set: &Declaration,
) -> Result<()> {
    if *element.owner == *plan.owner {
        return Ok(());
    }
    let Some(link) = host.find_link(&element.owner)? else { return Ok(()) };
    let owner = link.alias.unwrap_or(link.name);
    let port = hostports::describe(element, set);
    Err(Error::HostPortTaken { container: plan.container.clone(), port, owner })
}

/// Another call has added what was missing, or deleted what was there.
fn is_race(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(Errno::EEXIST | Errno::ENOENT | Errno::EBUSY | Errno::ENOTEMPTY))
}

fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT)
}
