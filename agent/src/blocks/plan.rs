//! Which blocks of addresses a node has, claims and gives up: decided from the IPAMBlocks of the cluster, the
//! reservations on this node, and the file by which the plugin gives addresses. Values only.
//!
//! Nothing is kept but the three: an agent that dies at any instant goes on from them. What holds:
//!
//! - A block is the node's as soon as the watch shows its object with this agent's claim, and it overlaps no
//!   other. So of two that claim overlapping ranges at once, the later one sees the earlier one's and yields.
//! - A block in the file stays there while its object is this node's: nobody has asked to delete it.
//! - A block outside of the file may be about to be deleted by a request that is still on its way, of an
//!   agent that died. It is renewed before it gets into the file: requests about the version before then fail.
//! - A block leaves the file before anybody asks to delete it. Once somebody did, it is never put back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_ipam::usable;
use weft_types::{Family, IpNetwork, IpamBlock, fnv1a, is_subnet_of, overlap};

use super::free::next_free;

/// How long a range that another node turned out to have is passed over, if the watch does not show it.
const PASSED_OVER: Duration = Duration::from_secs(30);
/// Of how many usable addresses of a block one must be free: with fewer, the next block is claimed.
const LOW_WATER: u128 = 4;

/// What the flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What blocks are parts of, the first family first.
    pub(crate) cluster_cidrs: Vec<IpNetwork>,
    /// The length of a block's prefix, for IPv4 and IPv6.
    pub(crate) prefixes: (u8, u8),
    /// How long a block must be empty, or its Node gone, before it is given up.
    pub(crate) grace: Duration,
}

/// What is known.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    /// This machine's Node and its uid; none while there is no such Node.
    pub(crate) node: (&'a str, Option<&'a str>),
    /// The names of all Nodes.
    pub(crate) nodes: BTreeSet<&'a str>,
    /// All blocks.
    pub(crate) blocks: Vec<&'a IpamBlock>,
    /// The blocks in the file.
    pub(crate) served: &'a [IpNetwork],
    /// The addresses that are reserved.
    pub(crate) held: &'a BTreeSet<IpAddr>,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Claim this range.
    Claim(IpamBlock),
    /// Vouch for this block of the node's own.
    Renew(IpamBlock),
    /// Give up this block of the node's own.
    Release(IpamBlock),
    /// Give up this block of a Node that is gone.
    Collect(IpamBlock),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was carried out.
    Done,
    /// It was not: the object is another one by now.
    Conflict,
    /// There is no such object.
    Gone,
    /// That is not known.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockPlan {
    /// What the file must say: the blocks, the first family first.
    pub(crate) serve: Vec<IpNetwork>,
    /// The families that have no block.
    pub(crate) lacking: Vec<Family>,
    /// The families of which the cluster has no free block, though this node needs one.
    pub(crate) exhausted: Vec<Family>,
    /// The requests to make.
    pub(crate) requests: Vec<Request>,
}

/// Decides, and remembers what only time tells.
#[derive(Debug)]
pub(crate) struct BlockPlanner {
    settings: Settings,
    /// What this agent's claims say.
    claim: String,
    /// Since when the node's blocks are empty.
    empty: BTreeMap<IpNetwork, Instant>,
    /// Since when blocks' Nodes are gone.
    lost: BTreeMap<String, Instant>,
    /// Ranges that another node has, and since when that is known.
    taken: BTreeMap<IpNetwork, Instant>,
    /// Blocks that are to go: they are not in the file any more, or are about to leave it.
    leaving: BTreeSet<String>,
    /// The names of blocks that requests are under way for.
    asked: BTreeSet<String>,
    /// Ranges that were claimed, and when, as long as the watch does not show them.
    claimed: BTreeMap<IpNetwork, Instant>,
}

impl Request {
    /// The block that it is about.
    pub(crate) fn block(&self) -> &IpamBlock {
        match self {
            Request::Claim(block)
            | Request::Renew(block)
            | Request::Release(block)
            | Request::Collect(block) => block,
        }
    }
}

impl Settings {
    /// Whether there can be such blocks.
    ///
    /// # Errors
    /// The flag, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.cluster_cidrs.is_empty() {
            let what = "--ipam blocks needs --cluster-cidr: the ranges that blocks are parts of, the same on every node";
            return Err(what.to_owned());
        }
        for cidr in &self.cluster_cidrs {
            let family = Family::of_network(cidr);
            let (prefix, number) = (self.prefix(family), if family == Family::V4 { 4 } else { 6 });
            if prefix < cidr.prefix() {
                return Err(format!(
                    "--block-mask-size-ipv{number} {prefix}: a block of /{prefix} is larger than the cluster CIDR {cidr}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn prefix(&self, family: Family) -> u8 {
        match family {
            Family::V4 => self.prefixes.0,
            Family::V6 => self.prefixes.1,
        }
    }

    /// The families that pods have addresses of.
    fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = self.cluster_cidrs.iter().map(Family::of_network).collect();
        families.sort();
        families.dedup();
        families
    }

    pub(super) fn of_family(&self, family: Family) -> impl Iterator<Item = &IpNetwork> {
        self.cluster_cidrs.iter().filter(move |cidr| Family::of_network(cidr) == family)
    }

    fn holds(&self, block: &IpNetwork) -> bool {
        self.cluster_cidrs.iter().any(|range| is_subnet_of(block, range))
    }
}

impl BlockPlanner {
    /// One that has seen nothing. No other agent, nor another start of this one, has the same `claim`.
    pub(crate) fn new(settings: Settings, claim: String) -> BlockPlanner {
        BlockPlanner {
            settings,
            claim,
            empty: BTreeMap::new(),
            lost: BTreeMap::new(),
            taken: BTreeMap::new(),
            leaving: BTreeSet::new(),
            asked: BTreeSet::new(),
            claimed: BTreeMap::new(),
        }
    }

    /// Takes note of what became of a request.
    pub(crate) fn note(&mut self, request: &Request, outcome: Outcome, now: Instant) {
        self.asked.remove(&request.block().name);
        match (request, outcome) {
            (Request::Claim(block), Outcome::Conflict) => self.taken.insert(block.cidr, now),
            (Request::Claim(block), Outcome::Done) => self.claimed.insert(block.cidr, now),
            _ => None,
        };
    }

    /// When time alone may call for something, if nothing else happens.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let empty = self.empty.values().map(|since| *since + self.settings.grace);
        // The last agent's turn comes a quarter of that time later.
        let lost = self.lost.values().map(|since| *since + self.settings.grace.mul_f64(1.25));
        empty.chain(lost).filter(|due| *due > now).min()
    }

    /// Decides. Every request that it returns must be made, and noted when it ended.
    pub(crate) fn plan(&mut self, known: &Known<'_>, now: Instant) -> BlockPlan {
        let mut plan = BlockPlan::default();
        let is_shown = |cidr: &IpNetwork| known.blocks.iter().any(|block| block.cidr == *cidr);
        for ranges in [&mut self.taken, &mut self.claimed] {
            ranges.retain(|cidr, since| now.duration_since(*since) < PASSED_OVER && !is_shown(cidr));
        }
        let present: BTreeSet<&str> = known.blocks.iter().map(|block| block.name.as_str()).collect();
        self.leaving.retain(|name| present.contains(name.as_str()));
        self.collect(known, &mut plan, now);
        let own = known.blocks.iter().copied().filter(|block| block.node == known.node.0);
        let own: Vec<&IpamBlock> = own.collect();
        // Without a Node the machine stays as it is, for it may be about to register anew.
        let Some(uid) = known.node.1 else {
            let is_own = |block: &&IpNetwork| own.iter().any(|own| own.cidr == **block);
            plan.serve = known.served.iter().filter(is_own).copied().collect();
            return plan;
        };
        for &block in &own {
            self.own(block, uid, known, &mut plan);
        }
        self.give_up_empty(&own, known, &mut plan, now);
        let first = self.settings.cluster_cidrs.first().map(Family::of_network);
        for family in self.settings.families() {
            self.claim_more(family, uid, known, &mut plan);
        }
        plan.serve.sort_by_key(|block| (Some(Family::of_network(block)) != first, *block));
        for request in &plan.requests {
            self.asked.insert(request.block().name.clone());
        }
        plan
    }

    /// A block of the node's own: it is served, renewed before that, or given up.
    fn own(&mut self, block: &IpamBlock, uid: &str, known: &Known<'_>, plan: &mut BlockPlan) {
        let is_served = known.served.contains(&block.cidr);
        let is_other = |other: &&IpamBlock| other.name != block.name && overlap(&other.cidr, &block.cidr);
        // The one that is in the file was there first.
        let is_in_the_way = !is_served && known.blocks.iter().any(is_other);
        let is_in_the_way = is_in_the_way || !self.settings.holds(&block.cidr);
        if is_in_the_way {
            self.leaving.insert(block.name.clone());
        }
        let is_used = holds_any(known.held, &block.cidr);
        if is_used && !is_in_the_way {
            // A container got an address in the last moment; so nobody has asked to delete the block.
            self.leaving.remove(&block.name);
        }
        if self.leaving.contains(&block.name) {
            let may_go = !is_served && !is_used && !self.asked.contains(&block.name);
            plan.requests.extend(may_go.then(|| Request::Release(block.clone())));
            return;
        }
        let is_vouched_for = block.node_uid == uid && (is_served || block.claim == self.claim);
        if is_vouched_for {
            plan.serve.push(block.cidr);
        } else if !self.asked.contains(&block.name) {
            let (node_uid, claim) = (uid.to_owned(), self.claim.clone());
            plan.requests.push(Request::Renew(IpamBlock { node_uid, claim, ..block.clone() }));
        }
    }

    /// Takes one block out of the file that has been empty for long, where the others have room.
    fn give_up_empty(&mut self, own: &[&IpamBlock], known: &Known<'_>, plan: &mut BlockPlan, now: Instant) {
        let empty = plan.serve.iter().copied().filter(|block| !holds_any(known.held, block));
        let since = empty.map(|block| (block, self.empty.get(&block).copied().unwrap_or(now)));
        self.empty = since.collect();
        let is_due = |block: &IpNetwork| {
            let rest: Vec<IpNetwork> = plan.serve.iter().copied().filter(|other| other != block).collect();
            let family = Family::of_network(block);
            self.empty.get(block).is_some_and(|since| now.duration_since(*since) >= self.settings.grace)
                && free(&rest, known.held, family) >= 2 * self.low_water(family)
        };
        let Some(leaving) = plan.serve.iter().rev().copied().find(is_due) else { return };
        plan.serve.retain(|block| *block != leaving);
        let object = own.iter().find(|block| block.cidr == leaving);
        self.leaving.extend(object.map(|block| block.name.clone()));
    }

    /// Claims a block where this node runs short of addresses of a family, or where its containers have
    /// addresses of a block that somebody deleted.
    fn claim_more(&mut self, family: Family, uid: &str, known: &Known<'_>, plan: &mut BlockPlan) {
        if !plan.serve.iter().any(|block| Family::of_network(block) == family) {
            plan.lacking.push(family);
        }
        let lost = self.lost_block(family, known);
        let is_short = free(&plan.serve, known.held, family) < self.low_water(family);
        if self.is_waiting(family, known, plan) || !(is_short || lost.is_some()) {
            return;
        }
        let (start, prefix) = (fnv1a(known.node.0.as_bytes()), self.settings.prefix(family));
        let claimed = known.blocks.iter().map(|block| block.cidr);
        let taken: Vec<IpNetwork> = claimed.chain(self.taken.keys().copied()).collect();
        let free = |cidr| next_free(cidr, prefix, start, taken.iter().copied());
        match lost.or_else(|| self.settings.of_family(family).find_map(free)) {
            Some(block) => plan.requests.push(Request::Claim(self.new_block(block, known.node.0, uid))),
            None => plan.exhausted.push(family),
        }
    }

    /// Whether a block of that family is on its way, or about to be vouched for.
    fn is_waiting(&self, family: Family, known: &Known<'_>, plan: &BlockPlan) -> bool {
        let is_asked = |block: &&&IpamBlock| {
            let name = &block.name;
            let is_renewed = plan.requests.iter().any(|request| request.block().name == *name);
            !self.leaving.contains(name) && (is_renewed || self.asked.contains(name))
        };
        let own = known.blocks.iter().filter(|block| block.node == known.node.0).filter(is_asked);
        let mut coming = own.map(|block| block.cidr).chain(self.claimed.keys().copied());
        let is_new = |name: &str| !known.blocks.iter().any(|block| block.name == name);
        coming.any(|block| Family::of_network(&block) == family)
            || self.asked.iter().any(|name| is_new(name) && is_of(name, family))
    }

    /// The block of an address that a container has, where nobody has claimed it.
    fn lost_block(&self, family: Family, known: &Known<'_>) -> Option<IpNetwork> {
        let prefix = self.settings.prefix(family);
        let held = known.held.iter().filter(|address| Family::of(**address) == family);
        let blocks = held.filter_map(|address| {
            let block = IpNetwork::new(*address, prefix).ok()?;
            IpNetwork::new(block.network(), prefix).ok()
        });
        let mut blocks = blocks.filter(|block| self.settings.holds(block));
        let is_claimed = |block: &IpNetwork| {
            let claimed = known.blocks.iter().map(|claimed| claimed.cidr);
            claimed.chain(self.taken.keys().copied()).any(|claimed| overlap(&claimed, block))
        };
        blocks.find(|block| !is_claimed(block))
    }

    fn new_block(&self, cidr: IpNetwork, node: &str, uid: &str) -> IpamBlock {
        IpamBlock {
            name: IpamBlock::name_of(&cidr),
            cidr,
            node: node.to_owned(),
            node_uid: uid.to_owned(),
            claim: self.claim.clone(),
            uid: String::new(),
            version: String::new(),
        }
    }

    /// Gives up the blocks of Nodes that have been gone for long. Every agent does, none of them at the very
    /// same time.
    fn collect(&mut self, known: &Known<'_>, plan: &mut BlockPlan, now: Instant) {
        let lost = known.blocks.iter().filter(|block| !known.nodes.contains(block.node.as_str()));
        let lost: Vec<&&IpamBlock> = lost.filter(|block| block.node != known.node.0).collect();
        let since = lost.iter().map(|block| {
            let name = block.name.clone();
            let since = self.lost.get(&name).copied().unwrap_or(now);
            (name, since)
        });
        self.lost = since.collect();
        let turn = self.settings.grace.mul_f64((fnv1a(known.node.0.as_bytes()) % 64) as f64 / 256.0);
        let is_due = |block: &&&&IpamBlock| {
            let since = self.lost.get(&block.name);
            since.is_some_and(|since| now.duration_since(*since) >= self.settings.grace + turn)
                && !self.asked.contains(&block.name)
        };
        plan.requests.extend(lost.iter().filter(is_due).map(|block| Request::Collect((**block).clone())));
        for request in &plan.requests {
            self.asked.insert(request.block().name.clone());
        }
    }

    /// With fewer free addresses of a family than this, the next block is claimed.
    fn low_water(&self, family: Family) -> u128 {
        let block = self.settings.of_family(family).next();
        let block = block.and_then(|cidr| IpNetwork::new(cidr.network(), self.settings.prefix(family)).ok());
        block.map_or(1, |block| (usable(&block) / LOW_WATER).max(1))
    }
}

/// How many addresses of a family are free in these blocks.
fn free(blocks: &[IpNetwork], held: &BTreeSet<IpAddr>, family: Family) -> u128 {
    let of_family = blocks.iter().filter(|block| Family::of_network(block) == family);
    of_family.map(|block| usable(block).saturating_sub(held_of(held, block) as u128)).sum()
}

/// How many addresses of a block are reserved.
pub(crate) fn held_of(held: &BTreeSet<IpAddr>, block: &IpNetwork) -> usize {
    held.range(block.network()..=block.broadcast()).count()
}

fn holds_any(held: &BTreeSet<IpAddr>, block: &IpNetwork) -> bool {
    held.range(block.network()..=block.broadcast()).next().is_some()
}

/// Whether a name is that of a block of the family: those of IPv4 have points.
fn is_of(name: &str, family: Family) -> bool {
    name.contains('.') == (family == Family::V4)
}

#[cfg(test)]
mod race;
#[cfg(test)]
mod tests;
