//! Which objects a part of Weft wants to see at all. How they are fetched is not here.

use weft_types::{NamespacedName, Object};

/// Services and EndpointSlices with this label are another proxy's.
pub(crate) const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The mark of headless Services and their EndpointSlices, which no proxy serves.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Which Services and EndpointSlices are seen. Other kinds are always seen whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All of them, but nothing that only tells endpoints apart: neither nodes nor hints. What DNS answers from.
    Whole,
    /// Only those that a service proxy serves: without the labels `service.kubernetes.io/service-proxy-name` and
    /// `service.kubernetes.io/headless`, as kube-proxy selects them.
    Proxied,
}

/// A view, and what narrows it down further. Asked of the API server, so that no more is sent.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which Services and EndpointSlices.
    pub view: View,
    /// Only the pods of this Node; those of all Nodes where none is named.
    pub node: Option<String>,
    /// Only this ConfigMap, which needs no permission to see others.
    pub config_map: Option<NamespacedName>,
}

impl From<View> for Scope {
    fn from(view: View) -> Scope {
        Scope { view, node: None, config_map: None }
    }
}

impl View {
    /// An object without what this view does not look at: there are many, and they stay for long.
    pub(crate) fn of(self, mut object: Object) -> Object {
        if let (View::Whole, Object::EndpointSlice(slice)) = (self, &mut object) {
            slice.endpoints.iter_mut().for_each(|endpoint| (endpoint.node, endpoint.hints) = (None, None));
        }
        object
    }

    /// The label selector that makes the API server send no more than this view.
    pub(crate) fn selector(self) -> Option<String> {
        match self {
            View::Whole => None,
            View::Proxied => Some(format!("!{SERVICE_PROXY_NAME},!{HEADLESS}")),
        }
    }
}
