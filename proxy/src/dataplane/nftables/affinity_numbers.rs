//! Session affinity as values: for how long, and which number stands for which Service port in the kernel. Pure; the rules
//! are in `ruleset/affinity.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use weft_types::{NamespacedName, Protocol, Service};

/// The bit that no endpoint's number has, so that a Service port's is never taken for one.
const SERVICE_PORT: u32 = 1 << 31;
/// The bits that are a Service port's own. The lowest is 0: the number of all ones has a meaning of its own to nft.
const OWN_BITS: u32 = SERVICE_PORT - 2;
/// The longest time that the API knows: a day.
const LONGEST: u64 = 86_400;

/// A Service port's clients stick to their endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// What stands for the Service port, whatever the frontend and family. The kernel keeps it with every client.
    pub number: u32,
    /// For how many seconds after its last new connection a client's endpoint is remembered.
    pub timeout: u32,
}

/// A port of a Service, by which clients know it: its name and protocol.
type PortName = (String, Protocol);

/// The numbers of all Service ports with affinity.
#[derive(Debug, Default)]
pub struct Numbers {
    services: BTreeMap<Arc<NamespacedName>, BTreeMap<PortName, u32>>,
    taken: BTreeSet<u32>,
}

impl Numbers {
    /// The affinity of each port, in the Service's order; none where it has none. A number depends on the port's name, so
    /// that it is the same after a restart; only where two ports come to the same one does it depend on who came first.
    pub fn assign(&mut self, key: &Arc<NamespacedName>, service: Option<&Service>) -> Vec<Affinity> {
        let affinity = service.and_then(|service| Some((service, seconds(service.affinity?))));
        let Some((service, timeout)) = affinity else {
            let numbers = self.services.remove(key).unwrap_or_default();
            self.release(numbers);
            return Vec::new();
        };
        let mut old = self.services.remove(key).unwrap_or_default();
        let mut new = BTreeMap::new();
        let mut affinities = Vec::with_capacity(service.ports.len());
        for port in &service.ports {
            let name = (port.name.clone(), port.protocol);
            let known = new.get(&name).copied().or_else(|| old.remove(&name));
            let number = known.unwrap_or_else(|| self.free_number(key, &name));
            new.insert(name, number);
            affinities.push(Affinity { number, timeout });
        }
        self.release(old);
        self.services.insert(key.clone(), new);
        affinities
    }

    fn release(&mut self, numbers: BTreeMap<PortName, u32>) {
        for number in numbers.values() {
            self.taken.remove(number);
        }
    }

    fn free_number(&mut self, service: &NamespacedName, (port, protocol): &PortName) -> u32 {
        let start = digest(&format!("{service}/{port}/{protocol}"));
        // There are a billion numbers: one of them is free.
        let candidates = (0..).step_by(2).map(|step: u32| start.wrapping_add(step) & OWN_BITS | SERVICE_PORT);
        let mut free = candidates.skip_while(|number| self.taken.contains(number));
        let number = free.next().unwrap_or(SERVICE_PORT);
        self.taken.insert(number);
        number
    }
}

fn seconds(timeout: Duration) -> u32 {
    timeout.as_secs().clamp(1, LONGEST) as u32
}

/// 32-bit FNV-1a: the same in every version of the proxy.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use weft_types::{ServiceKind, ServicePort};

    use super::*;

    fn key(name: &str) -> Arc<NamespacedName> {
        Arc::new(NamespacedName::new("shop", name))
    }

    fn service(ports: &[&str]) -> Service {
        let port = |name: &&str| ServicePort {
            name: (*name).to_owned(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: None,
        };
        let kind = ServiceKind::ClusterIp(vec!["10.96.0.1".parse().unwrap()]);
        let service =
            Service::new(NamespacedName::new("shop", "web"), kind, ports.iter().map(port).collect());
        Service { affinity: Some(Duration::from_secs(30)), ..service }
    }

    fn numbers(affinities: &[Affinity]) -> Vec<u32> {
        affinities.iter().map(|affinity| affinity.number).collect()
    }

    #[test]
    fn a_port_keeps_its_number_while_others_come_and_go_and_after_a_restart() {
        let mut all = Numbers::default();
        let [http, metrics] = numbers(&all.assign(&key("web"), Some(&service(&["http", "metrics"]))))[..]
        else {
            panic!()
        };
        assert_ne!(http, metrics);
        assert_eq!(numbers(&all.assign(&key("web"), Some(&service(&["metrics"])))), [metrics]);
        let restarted = Numbers::default().assign(&key("web"), Some(&service(&["metrics", "http"])));
        assert_eq!(numbers(&restarted), [metrics, http]);
        assert!(restarted.iter().all(|affinity| affinity.number & SERVICE_PORT != 0));
    }

    #[test]
    fn no_two_ports_have_the_same_number_and_a_number_is_free_again_when_its_port_goes() {
        let mut all = Numbers::default();
        let ports = service(&["http"]);
        let [first] = numbers(&all.assign(&key("web"), Some(&ports)))[..] else { panic!() };
        // As if another port's name had come to the same number.
        let mut other = Numbers { taken: BTreeSet::from([first]), ..Numbers::default() };
        assert_eq!(numbers(&other.assign(&key("web"), Some(&ports))), [(first + 2) | SERVICE_PORT]);
        assert!(all.assign(&key("web"), None).is_empty());
        assert!(all.taken.is_empty() && all.services.is_empty());
    }

    #[test]
    fn a_service_without_affinity_has_no_number_and_times_stay_within_a_day() {
        let mut all = Numbers::default();
        let without = Service { affinity: None, ..service(&["http"]) };
        assert!(all.assign(&key("web"), Some(&without)).is_empty());
        let endless = Service { affinity: Some(Duration::MAX), ..service(&["http"]) };
        assert_eq!(all.assign(&key("web"), Some(&endless))[0].timeout, 86_400);
    }
}
