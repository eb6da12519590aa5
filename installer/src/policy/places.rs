//! Where the ends of a connection are: the addresses and nodes of pods, from objects as the API server has
//! them. Pure.

use std::net::IpAddr;

use serde_json::Value;

use super::question::Party;
use crate::cluster::name;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `Pod shop/web`, or nothing where the address is no pod's.
    pub(crate) name: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// The node whose agent knows about it; nothing where no policy is about it.
    pub(crate) node: Option<String>,
}

impl Place {
    /// A pod.
    ///
    /// # Errors
    /// Where it has no address yet, or any more.
    pub(crate) fn of_pod(pod: &Value) -> Result<Place, String> {
        let (status, spec) = (&pod["status"], &pod["spec"]);
        let named = named(pod);
        if is_ended(pod) {
            return Err(format!("{named} has ended: its address is no longer its own"));
        }
        let addresses = addresses(status);
        match spec["nodeName"].as_str().filter(|_| !addresses.is_empty()) {
            None => Err(format!("{named} has no address yet: see kubectl describe pod")),
            // Policies are about the node then.
            Some(_) if spec["hostNetwork"] == true => Ok(Place { name: Some(named), addresses, node: None }),
            Some(node) => Ok(Place { name: Some(named), addresses, node: Some(node.to_owned()) }),
        }
    }

    /// An address: a pod's, or another.
    pub(crate) fn of_address(address: IpAddr, pods: &[Value]) -> Place {
        let has_it = |pod: &&Value| {
            pod["spec"]["hostNetwork"] != true
                && !is_ended(pod)
                && addresses(&pod["status"]).contains(&address)
        };
        let of_pod = pods.iter().find(has_it).and_then(|pod| Place::of_pod(pod).ok());
        let (name, node) = of_pod.map_or((None, None), |place| (place.name, place.node));
        Place { name, addresses: vec![address], node }
    }

    /// As people read it, with one of its addresses.
    pub(super) fn shown(&self, address: IpAddr) -> String {
        let name = self.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
        format!("{name}{address}")
    }
}

/// The pairs of addresses by which they talk, one a family.
pub(super) fn pairs(from: &Place, to: &Place) -> Vec<(IpAddr, IpAddr)> {
    let peer = |address: &IpAddr| to.addresses.iter().find(|other| other.is_ipv4() == address.is_ipv4());
    from.addresses.iter().filter_map(|address| Some((*address, *peer(address)?))).collect()
}

/// Why an address cannot be asked about: it is a Service's, and policies see what is behind.
pub(super) fn refuse_service(party: &Party, services: &[Value]) -> Result<(), String> {
    let Party::Address(address) = party else { return Ok(()) };
    let is_it = |text: &Value| text.as_str().and_then(|text| text.parse().ok()) == Some(*address);
    let has_it = |service: &&Value| {
        let spec = &service["spec"];
        let lists = ["clusterIPs", "externalIPs"].map(|list| spec[list].as_array().into_iter().flatten());
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        lists.into_iter().flatten().any(is_it) || ingress.into_iter().any(|one| is_it(&one["ip"]))
    };
    match services.iter().find(has_it) {
        None => Ok(()),
        Some(service) => {
            let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default();
            Err(format!(
                "{address} is an address of Service {namespace}/{service}, and policies see the pods behind it: ask for one of \
                 those (kubectl -n {namespace} get endpointslices -l {label}={service})",
                service = name(service),
                label = weft_types::well_known::label::SERVICE_NAME,
            ))
        }
    }
}

fn named(pod: &Value) -> String {
    format!("Pod {}/{}", pod["metadata"]["namespace"].as_str().unwrap_or_default(), name(pod))
}

fn is_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
}

fn addresses(status: &Value) -> Vec<IpAddr> {
    let listed = status["podIPs"].as_array().into_iter().flatten().map(|one| &one["ip"]);
    let all = listed.chain([&status["podIP"]]).filter_map(|text| text.as_str()?.parse().ok());
    all.fold(Vec::new(), |mut list, address| {
        if !list.contains(&address) {
            list.push(address);
        }
        list
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, status: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"nodeName": "node1"}, "status": status})
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_pod_is_where_its_status_says_by_every_family() {
        let status = json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let web = Place::of_pod(&pod("web", status)).unwrap();
        assert_eq!(web.addresses, [ip("10.0.0.1"), ip("fd00::1")]);
        assert_eq!((web.name.as_deref(), web.node.as_deref()), (Some("Pod shop/web"), Some("node1")));
        let six = Place::of_address(ip("2001:db8::1"), &[]);
        assert_eq!(pairs(&web, &six), [(ip("fd00::1"), ip("2001:db8::1"))]);
        assert_eq!(pairs(&web, &web).len(), 2);
        assert_eq!(web.shown(ip("fd00::1")), "Pod shop/web fd00::1");
    }

    #[test]
    fn an_address_is_the_pod_s_that_has_it_now() {
        let of = |phase: &str| pod("web", json!({"phase": phase, "podIP": "10.0.0.1"}));
        let mut host = of("Running");
        host["spec"]["hostNetwork"] = json!(true);
        let place = |pods: &[Value]| Place::of_address(ip("10.0.0.1"), pods).name;
        assert_eq!(place(&[host.clone(), of("Failed")]), None);
        assert_eq!(place(&[of("Succeeded"), of("Running")]).as_deref(), Some("Pod shop/web"));
        assert_eq!(Place::of_pod(&host).unwrap().node, None, "policies are about its node");
        assert!(Place::of_pod(&of("Failed")).unwrap_err().contains("has ended"));
        assert!(Place::of_pod(&pod("new", json!({}))).unwrap_err().contains("has no address yet"));
    }

    #[test]
    fn the_address_of_a_service_is_no_end_of_a_connection() {
        let service = json!({"metadata": {"namespace": "shop", "name": "db"}, "spec": {"clusterIPs": ["10.96.0.7"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}});
        for address in ["10.96.0.7", "192.0.2.7"] {
            let error =
                refuse_service(&Party::Address(ip(address)), std::slice::from_ref(&service)).unwrap_err();
            assert!(error.contains("is an address of Service shop/db"), "{error}");
        }
        assert_eq!(refuse_service(&Party::Address(ip("10.96.0.8")), &[service]), Ok(()));
    }
}
