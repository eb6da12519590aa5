//! Which Service gets which address: pure, from the Services, the pools and what was given before.
//!
//! An address never moves while its Service lives, unless the Service itself asks for another one. So those
//! that Services hold come first, whatever the pools say by now, and the others get what is free, in the order
//! in which they were created. Every decision is made anew from all Services: what their status says counts,
//! and what was decided but is not seen in it yet is remembered here.

mod pools;
mod sharing;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_types::{Family, FamilyPolicy, Labels, LoadBalancer, NamespacedName, Service, ServiceKind};

pub use pools::{FLAG_POOL, Pools, Usage};
use sharing::User;
use table::Table;

/// What there is to decide about.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// All Services that want addresses, or have some.
    pub services: &'a [&'a Service],
    /// The names of those that are there, but cannot be read: what they were given stays theirs.
    pub unreadable: &'a BTreeSet<NamespacedName>,
    /// Where addresses are taken from.
    pub pools: &'a Pools,
    /// The labels of namespaces.
    pub namespaces: &'a BTreeMap<String, Labels>,
    /// The class of Services that get addresses here (`spec.loadBalancerClass`); none for those without one.
    pub class: Option<&'a str>,
    /// Addresses that nobody gets, each with who has it.
    pub reserved: &'a BTreeMap<IpAddr, String>,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// What the status of Services has to say, where it says something else.
    pub statuses: Vec<Status>,
    /// What cannot be done as it is wanted.
    pub problems: BTreeSet<Problem>,
    /// How much of each pool is in use, by its name.
    pub usage: BTreeMap<String, Usage>,
    /// How many Services have all the addresses that they need.
    pub served: usize,
    /// How many Services wait for an address.
    pub waiting: usize,
}

/// The addresses of one Service, as its status is to have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The Service.
    pub service: NamespacedName,
    /// The version of it that the decision is about.
    pub version: Box<str>,
    /// All its addresses, that of its first family first; none where it has to give back what it had, as it is
    /// of another type or family by now.
    pub addresses: Vec<IpAddr>,
    /// The pools that they are of.
    pub pools: Vec<String>,
}

/// Something that cannot be done as a Service wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The Service.
    pub service: NamespacedName,
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// What is wrong and what to do, for people.
    pub note: String,
}

/// What kind of problem a Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// It gets no address, or not all that it needs.
    AllocationFailed,
    /// It has an address that another Service has, too, and they cannot share it.
    AddressConflict,
    /// It has an address of no pool.
    PoolGone,
}

impl ProblemKind {
    /// The word for it, as the API writes reasons.
    pub fn reason(self) -> &'static str {
        match self {
            ProblemKind::AllocationFailed => "AllocationFailed",
            ProblemKind::AddressConflict => "AddressConflict",
            ProblemKind::PoolGone => "PoolGone",
        }
    }
}

/// Gives addresses to Services, and remembers to whom.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    given: BTreeMap<NamespacedName, Given>,
}

/// What a Service was given.
#[derive(Clone, Debug)]
struct Given {
    uid: Box<str>,
    addresses: Vec<IpAddr>,
}

/// One Service that gets addresses here, while it is decided about.
struct Applicant<'a> {
    service: &'a Service,
    asks: &'a LoadBalancer,
    families: Vec<Family>,
    /// What it has, and keeps.
    held: Vec<IpAddr>,
}

impl Allocator {
    /// Decides about all Services.
    pub fn decide(&mut self, cluster: &Cluster<'_>) -> Decisions {
        let mut decisions = Decisions::default();
        let mut table = Table::new(cluster.pools, cluster.reserved);
        for (key, given) in self.given.iter().filter(|(key, _)| cluster.unreadable.contains(*key)) {
            given.addresses.iter().for_each(|address| table.put(*address, User::alone(key)));
        }
        let mut applicants = self.applicants(cluster, &mut table, &mut decisions);
        applicants.sort_by(|one, other| one.order().cmp(&other.order()));
        for applicant in &mut applicants {
            self.keep(applicant, &mut table, &mut decisions);
        }
        // Who asks for one address can be served with no other: those who take any come after.
        let (particular, others): (Vec<_>, Vec<_>) =
            applicants.iter_mut().partition(|applicant| !applicant.asks.requested_ips.is_empty());
        for applicant in particular.into_iter().chain(others) {
            let outcome = applicant.serve(cluster, &mut table);
            applicant.conclude(outcome, cluster, &mut decisions);
        }
        self.given.retain(|key, _| cluster.unreadable.contains(key));
        for applicant in applicants.iter().filter(|applicant| !applicant.held.is_empty()) {
            let given = Given { uid: applicant.asks.uid.clone(), addresses: applicant.held.clone() };
            self.given.insert(applicant.service.key.clone(), given);
        }
        decisions.usage = cluster.pools.usage(table.addresses());
        decisions
    }

    /// Those who get addresses here. What others have is taken.
    fn applicants<'a>(
        &self,
        cluster: &Cluster<'a>,
        table: &mut Table<'a>,
        decisions: &mut Decisions,
    ) -> Vec<Applicant<'a>> {
        let mut applicants = Vec::new();
        for &service in cluster.services {
            let Some(asks) = service.load_balancer.as_deref() else { continue };
            match &service.kind {
                ServiceKind::ClusterIp(ips) if asks.is_wanted && asks.class.as_deref() == cluster.class => {
                    let families = ips.iter().map(|ip| Family::of(*ip)).collect();
                    applicants.push(Applicant { service, asks, families, held: Vec::new() });
                }
                _ => {
                    for address in &service.load_balancer_ips {
                        table.put(*address, User::alone(&service.key));
                    }
                    let is_ours = |address: &IpAddr| cluster.pools.of(*address).is_some();
                    if !asks.left_behind.is_empty() && asks.left_behind.iter().all(is_ours) {
                        decisions.statuses.push(Status {
                            service: service.key.clone(),
                            version: asks.version.clone(),
                            addresses: Vec::new(),
                            pools: Vec::new(),
                        });
                    }
                }
            }
        }
        applicants
    }

    /// What it has, it keeps.
    fn keep<'a>(&self, applicant: &mut Applicant<'a>, table: &mut Table<'a>, decisions: &mut Decisions) {
        let given = self.given.get(&applicant.service.key).filter(|given| given.uid == applicant.asks.uid);
        let has = match (&*applicant.service.load_balancer_ips, given) {
            ([], Some(given)) => &given.addresses,
            (status, _) => status,
        };
        for family in &applicant.families {
            let of_family = has.iter().find(|address| Family::of(**address) == *family);
            applicant.held.extend(of_family);
        }
        for &address in &applicant.held {
            if let Err(why) = table.may_have(address, &applicant.user()) {
                let note = format!("{address} is its address, but {why}; give one of them another address");
                decisions.problems.insert(applicant.problem(ProblemKind::AddressConflict, note));
            }
            table.put(address, applicant.user());
        }
    }
}

/// How far a Service could be served.
enum Outcome {
    /// It has what it needs.
    Served,
    /// It lacks something.
    Lacks(String),
}

impl<'a> Applicant<'a> {
    /// Who came first comes first.
    fn order(&self) -> (i64, &NamespacedName) {
        (self.service.created, &self.service.key)
    }

    fn user(&self) -> User<'a> {
        User::of(self.service, self.asks)
    }

    fn problem(&self, kind: ProblemKind, note: String) -> Problem {
        Problem { service: self.service.key.clone(), kind, note }
    }

    fn has(&self, family: Family) -> Option<IpAddr> {
        self.held.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Whether an address is of another pool than the one that is asked for. An address of no pool at all
    /// stays: then the pool changed, not the request.
    fn is_elsewhere(&self, address: IpAddr, pools: &Pools) -> bool {
        let Some(wanted) = self.asks.requested_pool.as_deref() else { return false };
        pools.of(address).is_some() && !pools.named(wanted).any(|pool| pool.has(address))
    }

    /// Gets what it lacks.
    fn serve(&mut self, cluster: &Cluster<'a>, table: &mut Table<'a>) -> Outcome {
        if let Some(problem) = &self.asks.problem {
            return Outcome::Lacks(format!("what it asks for cannot be read: {problem}"));
        }
        let needs_both = self.asks.families == FamilyPolicy::RequireDualStack;
        if needs_both && self.families.len() < 2 {
            return Outcome::Lacks("it requires both families, but its ClusterIPs are of one".to_owned());
        }
        let mut wanted = Vec::new();
        if let Err(why) = self.requested(cluster, table, &mut wanted) {
            return Outcome::Lacks(why);
        }
        let asked: Vec<Family> = wanted.iter().map(|address| Family::of(*address)).collect();
        let others: Vec<Family> = self.families.iter().copied().filter(|it| !asked.contains(it)).collect();
        let lacks = |family: &Family| match self.has(*family) {
            Some(address) => self.is_elsewhere(address, cluster.pools),
            None => true,
        };
        let lacking: Vec<Family> = others.into_iter().filter(lacks).collect();
        let found = table.choose(&self.user(), self.asks, &self.held, &lacking, cluster.namespaces);
        let is_complete = found.addresses.len() == lacking.len();
        if !is_complete && needs_both {
            return Outcome::Lacks(found.why);
        }
        wanted.extend(found.addresses);
        let has_any = !wanted.is_empty() || !self.held.is_empty();
        wanted.into_iter().for_each(|address| self.take(address, table));
        let may_lack = self.asks.families == FamilyPolicy::PreferDualStack && has_any;
        match is_complete || may_lack {
            true => Outcome::Served,
            false => Outcome::Lacks(found.why),
        }
    }

    /// The addresses that it asks for and has not, each of which it may have.
    fn requested(
        &self,
        cluster: &Cluster<'a>,
        table: &Table<'a>,
        wanted: &mut Vec<IpAddr>,
    ) -> Result<(), String> {
        let user = self.user();
        let mut families = BTreeSet::new();
        for &address in &self.asks.requested_ips {
            let family = Family::of(address);
            if !self.families.contains(&family) {
                return Err(format!("it asks for {address}, but has no ClusterIP of {family}"));
            }
            if !families.insert(family) {
                return Err(format!("it asks for {address} and for another address of {family}"));
            }
            if self.has(family) != Some(address) {
                cluster.pools.offers(address, self.service, self.asks, cluster.namespaces)?;
                table.may_have(address, &user).map_err(|why| format!("it asks for {address}, but {why}"))?;
            }
            wanted.push(address);
        }
        Ok(())
    }

    /// Takes an address instead of the one of its family that it has.
    fn take(&mut self, address: IpAddr, table: &mut Table<'a>) {
        match self.has(Family::of(address)) {
            Some(before) if before == address => return,
            Some(before) => {
                table.remove(before, &self.service.key);
                self.held.retain(|held| *held != before);
            }
            None => {}
        }
        table.put(address, self.user());
        self.held.push(address);
        let place =
            |address: &IpAddr| self.families.iter().position(|family| *family == Family::of(*address));
        self.held.sort_by_key(place);
    }

    /// Says what came of it.
    fn conclude(&self, outcome: Outcome, cluster: &Cluster<'a>, decisions: &mut Decisions) {
        let homeless = self.held.iter().filter(|address| cluster.pools.of(**address).is_none());
        for address in homeless {
            let note = format!(
                "{address} is its address, but of no pool (any more); it keeps it as long as it lives, or until it asks \
                 for another one"
            );
            decisions.problems.insert(self.problem(ProblemKind::PoolGone, note));
        }
        match outcome {
            Outcome::Served => decisions.served += 1,
            Outcome::Lacks(why) => {
                let has: Vec<String> = self.held.iter().map(ToString::to_string).collect();
                let note = match has.is_empty() {
                    true => format!("it gets no address: {why}"),
                    false => format!("it keeps {}: {why}", has.join(" and ")),
                };
                decisions.waiting += 1;
                decisions.problems.insert(self.problem(ProblemKind::AllocationFailed, note));
            }
        }
        let says = &*self.service.load_balancer_ips;
        // Who waits without any address leaves alone what others may have written.
        if says != self.held || (self.asks.has_other_ingress && !self.held.is_empty()) {
            let pools = self.held.iter().filter_map(|address| cluster.pools.of(*address));
            let pools: BTreeSet<String> = pools.map(|pool| pool.name().to_owned()).collect();
            decisions.statuses.push(Status {
                service: self.service.key.clone(),
                version: self.asks.version.clone(),
                addresses: self.held.clone(),
                pools: pools.into_iter().collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
