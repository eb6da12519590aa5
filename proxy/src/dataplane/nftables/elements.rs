//! A Service's plan as elements of the maps, and back: which endpoints stand in which slots of the kernel's
//! maps. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use weft_nftables::{Data, DataType, Family, Field, Observed, Tuple, Value, Verdict, hash};
use weft_types::{IpNetwork, Protocol};

use super::affinity_numbers::PortNumbers;
use super::ruleset::{
    Destination, LoadBalancer, Path, SetName, TABLE, address_family, meter_set, remember_chain, table_family,
};
use super::slots::Slots;
use crate::counters::Meter;
use crate::services::plan::{Frontend, FrontendPlan, Scope, ServicePlan, Target, TrafficSource};

/// A set of one of the two tables.
pub(super) type Place = (Family, SetName);

/// Elements, each with the set that it belongs to. Where they are handed on they are in order of sets and
/// keys, and no set has a key twice.
pub(super) type Elements = Vec<(Place, Tuple, Data)>;

/// A Service's plan, with the numbers of its ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered<'a> {
    pub(super) plan: &'a ServicePlan,
    pub(super) numbers: &'a PortNumbers,
}

/// What of a Service is elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Make {
    /// Those at which the kernel counts.
    pub(super) counters: bool,
    /// Those that spread connections over endpoints. Without them, IPVS does that.
    pub(super) balancers: bool,
}

/// All elements of a Service.
pub(super) fn of_service(service: Numbered<'_>, make: Make) -> Elements {
    missing(service, &ServicePlan::default(), make)
}

/// What goes and what comes when one plan of a Service takes the place of another. What both have may be
/// among both, but not where it can be told at once: of thousands of endpoints there are only those whose
/// slot is another's now.
pub(super) fn replaced(old: Numbered<'_>, new: Numbered<'_>, make: Make) -> (Elements, Elements) {
    (missing(old, new.plan, make), missing(new, old.plan, make))
}

/// The elements of one plan that another one may lack.
fn missing(from: Numbered<'_>, to: &ServicePlan, make: Make) -> Elements {
    let mut elements = Elements::with_capacity(4 * from.plan.frontends.len());
    for plan in &from.plan.frontends {
        let number = from.numbers.of(plan).filter(|_| make.balancers);
        put_common(plan, number, &mut elements);
        put_frontend(plan, number, to.frontend(&plan.frontend), make, &mut elements);
        if make.counters && to.frontend(&plan.frontend).is_none() {
            put_counters(&plan.frontend, &mut elements);
        }
    }
    in_order(elements)
}

fn put_counters(frontend: &Frontend, elements: &mut Elements) {
    let family = table_family(frontend.family());
    let counter =
        |meter: Meter| ((family, meter_set(meter, frontend)), Tuple::new(&key(frontend)), Data::None);
    elements.extend(Meter::ALL.map(counter));
}

/// The elements that name this node's addresses.
pub(super) fn of_node(addresses: impl IntoIterator<Item = IpAddr>) -> Elements {
    let element = |address| {
        let place = (Family::of(address), SetName::NodePortAddresses);
        (place, Tuple::new(&[Value::Address(address)]), Data::None)
    };
    in_order(addresses.into_iter().map(element).collect())
}

/// Where there are several of one key, the first one counts.
fn in_order(mut elements: Elements) -> Elements {
    elements.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    elements.dedup_by(|one, other| (one.0, &one.1) == (other.0, &other.1));
    elements
}

/// The elements that several frontends of a Service may have in common.
fn put_common(plan: &FrontendPlan, number: Option<u32>, elements: &mut Elements) {
    let family = table_family(plan.frontend.family());
    let mut put = |set, key: &[Value], data| elements.push(((family, set), Tuple::new(key), data));
    if let Frontend::Address(address, ..) = plan.frontend {
        let set = match plan.scope {
            Scope::Internal => SetName::ClusterIps,
            Scope::External => SetName::ExternalIps,
        };
        put(set, &[Value::Address(address)], Data::None);
    }
    for hairpin in &plan.hairpins {
        put(SetName::Hairpins, &[Value::Address(*hairpin); 2], Data::None);
    }
    if let (Some(timeout), Some(number)) = (plan.affinity, number) {
        let verdict = Verdict::Goto(remember_chain(timeout.get()).into());
        put(SetName::AffinityTimeouts, &[Value::ClassId(number)], Data::Verdict(verdict));
    }
}

/// The elements that only this frontend has, unless `other` is the same.
fn put_frontend(
    plan: &FrontendPlan,
    number: Option<u32>,
    other: Option<&FrontendPlan>,
    make: Make,
    elements: &mut Elements,
) {
    if other == Some(plan) {
        return;
    }
    let frontend = &plan.frontend;
    let family = table_family(frontend.family());
    let mut put = |set, key: &[Value], data| elements.push(((family, set), Tuple::new(key), data));
    let key = key(frontend);
    if let Some(set) = masquerade(plan) {
        put(set, &key, Data::None);
    }
    if let Some(number) = number {
        let numbers = Path::of(frontend, TrafficSource::Anywhere).affinity_numbers();
        put(numbers, &key, Data::Tuple(Tuple::new(&[Value::ClassId(number)])));
    }
    // An endpoint that clients keep has an element of its own besides the one of its slot.
    let other = other.filter(|other| plan.affinity.is_none() && other.affinity.is_none());
    for source in TrafficSource::ALL {
        if let Some(target) = plan.target(source) {
            if let (false, Target::Endpoints(_)) = (make.balancers, target) {
                put(Path::of(frontend, source).frontends(), &key, Destination::Ipvs.data());
                continue;
            }
            let held =
                other.and_then(|other| other.target(source)).map(Target::endpoints).unwrap_or_default();
            put_target(Path::of(frontend, source), &key, target, held, plan.affinity.is_some(), &mut put);
        }
    }
    for (key, allowed) in sources(&key, &plan.sources) {
        elements.push(((family, SetName::Allowed), allowed, Data::None));
        elements.push(((family, SetName::Restricted), key, Data::None));
    }
}

/// For each network that may connect to a frontend, the frontend's key and its own.
fn sources<'a>(key: &'a [Value], networks: &'a [IpNetwork]) -> impl Iterator<Item = (Tuple, Tuple)> + 'a {
    networks.iter().map(|network| {
        let mut fields: Vec<Field> = key.iter().copied().map(Field::One).collect();
        fields.push(Field::Network(*network));
        (Tuple::new(key), Tuple::range(&fields))
    })
}

/// The set by which connections to a frontend get this node's address as source. Under a policy Local, only
/// the node's own ones do: what comes from outside stays here with the address that it has.
fn masquerade(plan: &FrontendPlan) -> Option<SetName> {
    match (plan.scope, &plan.frontend, &plan.outside) {
        (Scope::Internal, ..) => None,
        (Scope::External, Frontend::Address(..), None) => Some(SetName::ExternalMasquerade),
        (Scope::External, Frontend::Address(..), Some(_)) => Some(SetName::ExternalMasqueradeOwn),
        (Scope::External, Frontend::NodePort(..), None) => Some(SetName::NodePortMasquerade),
        (Scope::External, Frontend::NodePort(..), Some(_)) => Some(SetName::NodePortMasqueradeOwn),
    }
}

/// A target's elements, but for the slots that are as in `held`.
fn put_target(
    path: Path,
    key: &[Value],
    target: &Target,
    held: &[SocketAddr],
    affinity: bool,
    put: &mut impl FnMut(SetName, &[Value], Data),
) {
    let destination = match target {
        Target::Endpoints(slots) => {
            Destination::Balance(LoadBalancer { path, count: slots.len() as u32, affinity })
        }
        Target::Reject => Destination::Reject,
        Target::Drop => Destination::Drop,
    };
    put(path.frontends(), key, destination.data());
    let mut key = key.to_vec();
    for (slot, endpoint) in target.endpoints().iter().enumerate() {
        if held.get(slot) == Some(endpoint) {
            continue;
        }
        key.push(Value::Integer(slot as u32));
        let endpoint = Tuple::new(&[Value::Address(endpoint.ip()), Value::Port(endpoint.port())]);
        put(path.endpoints(), &key, Data::Tuple(endpoint.clone()));
        key.pop();
        if affinity {
            key.push(Value::ClassId(hash(&endpoint)));
            put(path.affinity_endpoints(), &key, Data::Tuple(endpoint));
            key.pop();
        }
    }
}

fn key(frontend: &Frontend) -> Vec<Value> {
    match *frontend {
        Frontend::Address(address, protocol, port) => {
            vec![Value::Address(address), Value::Protocol(protocol.number()), Value::Port(port)]
        }
        Frontend::NodePort(_, protocol, port) => vec![Value::Protocol(protocol.number()), Value::Port(port)],
    }
}

/// The frontend of that key in the table of a family.
pub(super) fn frontend_of(family: Family, key: &[Value]) -> Option<Frontend> {
    match *key {
        [Value::Address(address), Value::Protocol(number), Value::Port(port)] => {
            Some(Frontend::Address(address, Protocol::from_number(number)?, port))
        }
        [Value::Protocol(number), Value::Port(port)] => {
            Some(Frontend::NodePort(address_family(family), Protocol::from_number(number)?, port))
        }
        _ => None,
    }
}

/// The slots that the kernel's maps held when they were read. A plan that starts from these leaves every
/// endpoint that is still wanted where it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Adopted {
    slots: HashMap<(Frontend, TrafficSource), Vec<SocketAddr>>,
}

impl Slots for Adopted {
    fn slots(&self, frontend: &Frontend, source: TrafficSource) -> &[SocketAddr] {
        self.slots.get(&(*frontend, source)).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Adopted {
    /// Reads the slots out of what the kernel holds. What makes no sense is passed over.
    pub(super) fn new(observed: &Observed) -> Adopted {
        let mut numbered: HashMap<_, Vec<(u32, SocketAddr)>> = HashMap::new();
        for family in Family::BOTH {
            for path in Path::ALL {
                for (frontend, slot, endpoint) in endpoints(observed, family, path.endpoints()) {
                    numbered.entry((frontend, path.source())).or_default().push((slot, endpoint));
                }
            }
        }
        let in_order = |(key, mut slots): (_, Vec<(u32, SocketAddr)>)| {
            slots.sort_unstable_by_key(|(slot, _)| *slot);
            (key, slots.into_iter().map(|(_, endpoint)| endpoint).collect())
        };
        Adopted { slots: numbered.into_iter().map(in_order).collect() }
    }
}

fn endpoints(
    observed: &Observed,
    family: Family,
    set: SetName,
) -> impl Iterator<Item = (Frontend, u32, SocketAddr)> {
    let declaration = set.declaration(family);
    let data_types = [DataType::address(family), DataType::InetService];
    let table = observed.tables.get(&(family.into(), TABLE.into()));
    let map = table.and_then(|table| table.sets.get(set.name()));
    map.into_iter().flat_map(|map| &map.elements).filter_map(move |(key, data)| {
        let Data::Tuple(data) = data else { return None };
        let key = key.values(&declaration.key)?;
        let (Value::Integer(slot), frontend) = key.split_last()? else { return None };
        let data = data.values(&data_types)?;
        let &[Value::Address(address), Value::Port(port)] = &data[..] else { return None };
        Some((frontend_of(family, frontend)?, *slot, SocketAddr::new(address, port)))
    })
}
