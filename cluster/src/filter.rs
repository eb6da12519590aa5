//! Which objects a part of Weft wants to see at all, and how much of them. How they are fetched is not here.

use weft_types::NamespacedName;
use weft_types::well_known::label::{HEADLESS, SERVICE_PROXY_NAME};

/// What a watch sees. As far as the API server can tell, it is asked to send no more. The default is what DNS
/// answers from: all objects, without what only tells endpoints apart, and without labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Only those Services and EndpointSlices that a service proxy serves: without the labels
    /// `service.kubernetes.io/service-proxy-name` and `service.kubernetes.io/headless`, as kube-proxy selects
    /// them. Endpoints come with their nodes and hints then, and without otherwise.
    pub service_proxy: bool,
    /// Pods, Namespaces and Nodes with their labels, which take about 250 bytes an object.
    pub labels: bool,
    /// Pods with what network policies need to know of them, which takes about 100 bytes a pod.
    pub pod_details: bool,
    /// Only those Services that ask for a load balancer, or whose status has addresses of one, with all that
    /// their load balancer needs to know. It is used with `labels`.
    pub load_balancers: bool,
    /// Only the pods of this Node; those of all Nodes where none is named.
    pub node: Option<String>,
    /// Only Services, EndpointSlices and pods that this label selector matches.
    pub objects: Option<String>,
    /// Only Namespaces that this label selector matches.
    pub namespaces: Option<String>,
    /// Endpoints without a hostname of their own have the name of their pod.
    pub endpoint_pod_names: bool,
    /// Only this ConfigMap, which needs no permission to see others.
    pub config_map: Option<NamespacedName>,
}

impl WatchFilter {
    /// What a service proxy serves.
    pub fn service_proxy() -> WatchFilter {
        WatchFilter { service_proxy: true, ..WatchFilter::default() }
    }

    /// What network policies need.
    pub fn network_policies() -> WatchFilter {
        WatchFilter { labels: true, pod_details: true, ..WatchFilter::default() }
    }

    /// What giving addresses to Services of the type LoadBalancer needs.
    pub fn load_balancers() -> WatchFilter {
        WatchFilter { labels: true, load_balancers: true, ..WatchFilter::default() }
    }

    /// The label selector of Services and EndpointSlices.
    pub(crate) fn service_selector(&self) -> Option<String> {
        let proxied = self.service_proxy.then(|| format!("!{SERVICE_PROXY_NAME},!{HEADLESS}"));
        let both = [proxied, self.objects.clone()].into_iter().flatten().collect::<Vec<_>>();
        (!both.is_empty()).then(|| both.join(","))
    }
}
