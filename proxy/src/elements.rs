//! A Service's plan as elements of the maps, and back: which endpoints stand in which slots of the kernel's maps.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use weft_netlink::nft::{Data, Family, Name, Observed, Tuple, Value, Verdict};
use weft_types::Protocol;

use crate::layout::{SetName, TABLE, nodeport_chain, pick_chain};
use crate::service::{Frontend, PortPlan, ServicePlan, Slots};

/// A set of one of the two tables.
pub type Place = (Family, SetName);

/// Elements by the set that they belong to, and their key.
pub type Elements = BTreeMap<(Place, Tuple), Data>;

/// All elements of a Service.
pub fn of_service(plan: &ServicePlan) -> Elements {
    let mut elements = Elements::new();
    plan.ports.iter().for_each(|port| of_port(port, &mut elements));
    elements
}

/// The elements that name this node's addresses.
pub fn of_node(addresses: impl IntoIterator<Item = IpAddr>) -> Elements {
    let element = |address| {
        let place = (Family::of(address), SetName::NodePortAddresses);
        ((place, Tuple::new(&[Value::Address(address)])), Data::None)
    };
    addresses.into_iter().map(element).collect()
}

fn of_port(port: &PortPlan, elements: &mut Elements) {
    let Frontend { address, protocol, .. } = port.frontend;
    let family = Family::of(address);
    let mut put = |set, key: &[Value], data| {
        // Where one Service has the same port twice, the first one counts.
        elements.entry(((family, set), Tuple::new(key))).or_insert(data);
    };
    put(SetName::ClusterIps, &[Value::Address(address)], Data::None);
    for hairpin in &port.hairpins {
        put(SetName::Hairpins, &[Value::Address(*hairpin); 2], Data::None);
    }
    let key = port.frontend.key();
    put(SetName::Frontends, &key, goto(pick_chain(port.slots.len())));
    put_slots(SetName::Endpoints, &key, &port.slots, &mut put);
    if let Some(node_port) = port.node_port {
        let key = node_port_key(protocol, node_port);
        put(SetName::NodePortMasquerade, &key, Data::None);
        put(SetName::NodePorts, &key, goto(nodeport_chain(port.slots.len())));
        put_slots(SetName::NodePortEndpoints, &key, &port.slots, &mut put);
    }
}

fn put_slots(
    set: SetName,
    key: &[Value],
    slots: &[SocketAddr],
    put: &mut impl FnMut(SetName, &[Value], Data),
) {
    let mut key = key.to_vec();
    for (slot, endpoint) in (0..).zip(slots) {
        key.push(Value::Integer(slot));
        let endpoint = Tuple::new(&[Value::Address(endpoint.ip()), Value::Port(endpoint.port())]);
        put(set, &key, Data::Tuple(endpoint));
        key.pop();
    }
}

fn goto(chain: Name) -> Data {
    Data::Verdict(Verdict::Goto(chain))
}

fn node_port_key(protocol: Protocol, port: NonZeroU16) -> [Value; 2] {
    [Value::Protocol(protocol.number()), Value::Port(port.get())]
}

impl Frontend {
    fn key(&self) -> [Value; 3] {
        [Value::Address(self.address), Value::Protocol(self.protocol.number()), Value::Port(self.port)]
    }
}

/// The slots that the kernel's maps held when they were read. A plan that starts from these leaves every endpoint that
/// is still wanted where it is.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    slots: HashMap<Frontend, Vec<SocketAddr>>,
}

impl Slots for Adopted {
    fn slots(&self, frontend: &Frontend) -> &[SocketAddr] {
        self.slots.get(frontend).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Adopted {
    /// Reads the slots out of what the kernel holds. What makes no sense is passed over.
    pub fn new(observed: &Observed) -> Adopted {
        let mut numbered: HashMap<Frontend, BTreeMap<u32, SocketAddr>> = HashMap::new();
        for family in Family::BOTH {
            for (frontend, slot, endpoint) in endpoints(observed, family) {
                numbered.entry(frontend).or_default().insert(slot, endpoint);
            }
        }
        let in_order = |(frontend, slots): (_, BTreeMap<_, _>)| (frontend, slots.into_values().collect());
        Adopted { slots: numbered.into_iter().map(in_order).collect() }
    }
}

fn endpoints(observed: &Observed, family: Family) -> impl Iterator<Item = (Frontend, u32, SocketAddr)> {
    let declaration = SetName::Endpoints.declaration(family);
    let data_types = [family.address_type(), weft_netlink::nft::DataType::InetService];
    let table = observed.tables.get(&(family, TABLE.into()));
    let map = table.and_then(|table| table.sets.get(SetName::Endpoints.name()));
    map.into_iter().flat_map(|map| &map.elements).filter_map(move |(key, data)| {
        let Data::Tuple(data) = data else { return None };
        endpoint(&key.values(&declaration.key)?, &data.values(&data_types)?)
    })
}

fn endpoint(key: &[Value], data: &[Value]) -> Option<(Frontend, u32, SocketAddr)> {
    let &[Value::Address(address), Value::Protocol(number), Value::Port(port), Value::Integer(slot)] = key
    else {
        return None;
    };
    let &[Value::Address(endpoint), Value::Port(endpoint_port)] = data else { return None };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols.into_iter().find(|protocol| protocol.number() == number)?;
    Some((Frontend { address, protocol, port }, slot, SocketAddr::new(endpoint, endpoint_port)))
}
