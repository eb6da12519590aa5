//! What the maps of frontends say: numbers, each of which leads on by the map `dispatch`.
//!
//! ```text
//! frontends { daddr . l4proto . dport : 0:3 }      dispatch { 0:3 : goto lb-3, none : goto no-endpoints, ffff:0 : drop }
//! ```
//!
//! An element that names a chain makes the kernel validate the whole table: every element of every such map,
//! once for each hook that leads there, which is a millisecond for 10,000 Services. So only `dispatch` names
//! chains, once for each chain.
//!
//! The packet's priority carries the number from the one map to the other, as in `ruleset/affinity.rs`.

use weft_nftables::{
    Base, Data, DataType, Element, Expression, Family, Hook, Name, Rule, Statement, Tuple, Value, Verdict,
};

use super::affinity::{self, REMEMBER};
use super::{NO_ENDPOINTS, PRIORITY, Path, SetName, TO_IPVS, guard};

/// What the names of chains begin with that first ask whether a client has affinity to an endpoint.
const WITH_AFFINITY: &str = "affinity-";
/// Where the path stands in the number of a load balancer, and how one with affinity is told: above the seven
/// digits of its count.
const PATH: u32 = 28;
const AFFINITY_BIT: u32 = 4 << PATH;
/// The numbers of what becomes of connections otherwise; the first one prints as `none`.
const REJECT: u32 = 0;
const DROP: u32 = 0xffff_0000;
const IPVS: u32 = 0xfffe_0000;

/// What becomes of the connections to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// They are spread over its endpoints.
    Balance(LoadBalancer),
    /// A virtual server of IPVS does that.
    Ipvs,
    /// They are refused.
    Reject,
    /// Nothing answers them.
    Drop,
}

/// One of so many endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoadBalancer {
    pub(crate) path: Path,
    pub(crate) count: u32,
    /// Only for clients without affinity to one.
    pub(crate) affinity: bool,
}

impl Destination {
    /// What a frontend's element holds.
    pub(crate) fn data(self) -> Data {
        Data::Tuple(number(match self {
            Destination::Balance(balancer) => balancer.number(),
            Destination::Ipvs => IPVS,
            Destination::Reject => REJECT,
            Destination::Drop => DROP,
        }))
    }
}

/// The elements of `dispatch` that are there whatever Services there are.
pub(super) fn fixed(is_ipvs: bool) -> Vec<Element> {
    let reject = Verdict::Goto(NO_ENDPOINTS.into());
    let ipvs = is_ipvs.then_some((number(IPVS), Data::Verdict(Verdict::Goto(TO_IPVS.into()))));
    let mut fixed: Vec<Element> = ipvs.into_iter().collect();
    fixed.extend([(number(REJECT), Data::Verdict(reject)), (number(DROP), Data::Verdict(Verdict::Drop))]);
    fixed
}

fn number(number: u32) -> Tuple {
    Tuple::new(&[Value::ClassId(number)])
}

/// Looks a frontend up, and goes where its number leads. Where there is no such frontend, the packet and its
/// priority stay as they are.
pub(super) fn look_up(key: Vec<Expression>, frontends: SetName) -> [Statement; 2] {
    let dispatch = Name::from(SetName::Dispatch.name());
    [
        Statement::set_priority(key, frontends.name().into()),
        Statement::Vmap(vec![Expression::PRIORITY], dispatch),
    ]
}

impl LoadBalancer {
    /// nft prints it in hexadecimal digits, and these are the decimal ones of the count: `0:16` is one of
    /// sixteen. Before them stands the path: `1000:16` is one of a NodePort's sixteen.
    fn number(self) -> u32 {
        let (mut digits, mut rest) = (0, self.count);
        for place in (0..PATH).step_by(4) {
            digits |= (rest % 10) << place;
            rest /= 10;
        }
        (self.path as u32) << PATH | if self.affinity { AFFINITY_BIT } else { 0 } | digits
    }

    /// The one that an element leads to.
    fn read(data: &Tuple) -> Option<LoadBalancer> {
        let [Value::ClassId(number)] = data.values(&[DataType::ClassId])?[..] else { return None };
        LoadBalancer::of(number)
    }

    /// The one of that number.
    fn of(number: u32) -> Option<LoadBalancer> {
        let path = *Path::ALL.get((number >> PATH & 3) as usize)?;
        let count = (0..PATH).step_by(4).rev().fold(0, |count, place| count * 10 + (number >> place & 0xf));
        let balancer = LoadBalancer { path, count, affinity: number & AFFINITY_BIT != 0 };
        (count > 0 && balancer.number() == number).then_some(balancer)
    }

    fn chain(self) -> Name {
        let LoadBalancer { path, count, affinity } = self;
        format!("{}{}{count}", if affinity { WITH_AFFINITY } else { "" }, path.prefix()).into()
    }

    fn rules(self, family: Family) -> Vec<Rule> {
        let LoadBalancer { path, count, affinity } = self;
        let use_affinity = Statement::Verdict(Verdict::Jump(path.use_affinity().into()));
        let mut rules: Vec<Rule> = affinity.then(|| Rule::new([use_affinity])).into_iter().collect();
        let to_one_of = |count| {
            let key = [path.key(family), vec![Expression::random(count)]].concat();
            Statement::dnat(family, key, path.endpoints().name().into())
        };
        rules.push(Rule::new([Statement::reset_priority(), to_one_of(count)]));
        // The endpoint of the last slot may have gone since the packet got here; the first slot is the last
        // to go.
        rules.extend((count > 1).then(|| Rule::new([to_one_of(1)])));
        rules
    }
}

/// A chain that exists only while elements need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OnDemand {
    /// Spreads connections over endpoints.
    Balance(LoadBalancer),
    /// Remembers the client's endpoint for so many seconds.
    Remember(u32),
    /// Asks at a hook whether a client's endpoint is to be remembered.
    RememberAt(Hook),
    /// Asks at a hook whether a client may connect to a load balancer.
    GuardAt(Hook),
}

impl OnDemand {
    /// The chains that an element needs, besides the fixed ones.
    pub(crate) fn of(set: SetName, data: &Data) -> impl Iterator<Item = OnDemand> {
        let chains = match (set, data) {
            (SetName::AffinityTimeouts, Data::Verdict(verdict)) => {
                let timeout = verdict.chain().and_then(|chain| chain.strip_prefix(REMEMBER)?.parse().ok());
                let [first, second] = affinity::HOOKS.map(OnDemand::RememberAt);
                [timeout.map(OnDemand::Remember), Some(first), Some(second)]
            }
            (SetName::Restricted, _) => {
                let [first, second] = [Hook::Prerouting, Hook::Output].map(OnDemand::GuardAt);
                [Some(first), Some(second), None]
            }
            (_, Data::Tuple(number)) if Path::ALL.iter().any(|path| path.frontends() == set) => {
                [LoadBalancer::read(number).map(OnDemand::Balance), None, None]
            }
            _ => [None; 3],
        };
        chains.into_iter().flatten()
    }

    /// Its name.
    pub(crate) fn name(self) -> Name {
        match self {
            OnDemand::Balance(balancer) => balancer.chain(),
            OnDemand::Remember(timeout) => affinity::remember_chain(timeout).into(),
            OnDemand::RememberAt(hook) => format!("{REMEMBER}{}", hook.name()).into(),
            OnDemand::GuardAt(hook) => format!("guard-{}", hook.name()).into(),
        }
    }

    /// Where packets enter it, if not from another chain.
    pub(crate) fn base(self) -> Option<Base> {
        match self {
            OnDemand::Balance(_) | OnDemand::Remember(_) => None,
            OnDemand::RememberAt(hook) => Some(Base::nat(hook, affinity::BEFORE_SOURCES)),
            OnDemand::GuardAt(hook) => Some(Base::nat(hook, PRIORITY - 1)),
        }
    }

    /// Its rules.
    pub(crate) fn rules(self, family: Family) -> Vec<Rule> {
        match self {
            OnDemand::Balance(balancer) => balancer.rules(family),
            OnDemand::Remember(timeout) => affinity::remember_for(family, timeout),
            OnDemand::RememberAt(_) => vec![affinity::enter()],
            OnDemand::GuardAt(_) => vec![guard(family)],
        }
    }

    /// The element of `dispatch` that leads to it, if one does.
    pub(crate) fn element(self) -> Option<Element> {
        let OnDemand::Balance(balancer) = self else { return None };
        Some((number(balancer.number()), Data::Verdict(Verdict::Goto(balancer.chain()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_the_counts_that_they_mean_and_read_back() {
        let printed = |path, count, affinity| {
            Value::ClassId(LoadBalancer { path, count, affinity }.number()).to_string()
        };
        assert_eq!(printed(Path::Address, 16, false), "0:16");
        assert_eq!(printed(Path::NodePort, 100_000, false), "1010:0");
        assert_eq!(printed(Path::LocalNodePort, 3, true), "7000:3");
        for path in Path::ALL {
            for (count, affinity) in [(1, false), (9, true), (10, false), (12_345, true), (9_999_999, true)] {
                let balancer = LoadBalancer { path, count, affinity };
                assert_eq!(LoadBalancer::of(balancer.number()), Some(balancer));
            }
        }
        assert_eq!([REJECT, DROP, 0xa].map(LoadBalancer::of), [None; 3]);
    }
}
