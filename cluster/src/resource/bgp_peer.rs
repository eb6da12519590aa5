//! metallb.io/v1beta2 BGPPeer.
//!
//! A session with other settings than its author wanted may be worse than none: a peer of which a field
//! cannot be read is left out.

use std::num::NonZeroU16;

use serde::Deserialize;
use weft_types::{BgpPeer, NamespacedName, Password, PeerAsn, PeerEndpoint, PeerPassword, PeerSettings};

use super::address::address;
use super::metadata::Metadata;
use super::metallb::{V1BETA2, duration, selectors, text};
use super::policy::SelectorObject;
use super::values::port;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

/// IANA's port of BGP.
const BGP: NonZeroU16 = NonZeroU16::new(179).expect("is not zero");

impl ApiResource for BgpPeer {
    const API_VERSION: &'static str = V1BETA2;
    const PLURAL: &'static str = "bgppeers";
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = BgpPeerObject;
}

/// metallb.io/v1beta2 BGPPeer
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BgpPeerObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of a BGPPeer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "myASN")]
    my_asn: Field<u32>,
    #[serde(rename = "localASN")]
    local_asn: Field<u32>,
    #[serde(rename = "peerASN")]
    peer_asn: Field<u32>,
    #[serde(rename = "dynamicASN")]
    dynamic_asn: Field<String>,
    peer_address: Field<String>,
    interface: Field<String>,
    source_address: Field<String>,
    peer_port: Field<u16>,
    hold_time: Field<String>,
    keepalive_time: Field<String>,
    connect_time: Field<String>,
    #[serde(rename = "routerID")]
    router_id: Field<String>,
    node_selectors: Field<Vec<Field<SelectorObject>>>,
    password: Field<String>,
    password_secret: Field<SecretObject>,
    bfd_profile: Field<String>,
    enable_graceful_restart: Field<bool>,
    ebgp_multi_hop: Field<bool>,
    vrf: Field<String>,
    dual_stack_address_family: Field<bool>,
}

/// `spec.passwordSecret` of a BGPPeer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SecretObject {
    name: Field<String>,
}

impl WireObject for BgpPeerObject {
    type Kind = BgpPeer;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, key: NamespacedName, _: &WatchFilter, _: &mut Faults) -> Result<Option<BgpPeer>, Fault> {
        let spec = self.spec.required("spec")?;
        let my_asn = number(spec.my_asn, "spec.myASN")?;
        let router_id = text(spec.router_id, "spec.routerID")?.map(|text| {
            let problem = || Fault::new("spec.routerID", format!("{text:?} is no IPv4 address"));
            text.parse().map_err(|_| problem())
        });
        let source_address = text(spec.source_address, "spec.sourceAddress")?;
        let source_address = source_address.map(|text| address(&text, "spec.sourceAddress"));
        let settings = PeerSettings {
            my_asn: my_asn.ok_or_else(|| Fault::new("spec.myASN", "is missing or 0"))?,
            local_asn: number(spec.local_asn, "spec.localASN")?,
            peer_asn: peer_asn(number(spec.peer_asn, "spec.peerASN")?, spec.dynamic_asn)?,
            endpoint: endpoint(spec.peer_address, spec.interface)?,
            port: port(spec.peer_port, "spec.peerPort")?.unwrap_or(BGP),
            source_address: source_address.transpose()?,
            hold_time: duration(spec.hold_time, "spec.holdTime")?,
            keepalive_time: duration(spec.keepalive_time, "spec.keepaliveTime")?,
            connect_time: duration(spec.connect_time, "spec.connectTime")?,
            router_id: router_id.transpose()?,
            node_selectors: selectors(spec.node_selectors, "spec.nodeSelectors")?,
            password: password(spec.password, spec.password_secret)?,
            bfd_profile: text(spec.bfd_profile, "spec.bfdProfile")?,
            graceful_restart: spec.enable_graceful_restart.or_default("spec.enableGracefulRestart")?,
            ebgp_multi_hop: spec.ebgp_multi_hop.or_default("spec.ebgpMultiHop")?,
            vrf: text(spec.vrf, "spec.vrf")?,
            dual_stack: spec.dual_stack_address_family.or_default("spec.dualStackAddressFamily")?,
        };
        Ok(Some(BgpPeer { key, settings: Box::new(settings) }))
    }
}

/// A number, where 0 means none.
fn number(field: Field<u32>, path: &str) -> Result<Option<u32>, Fault> {
    Ok(field.optional(path)?.filter(|number| *number != 0))
}

fn peer_asn(number: Option<u32>, dynamic: Field<String>) -> Result<PeerAsn, Fault> {
    let dynamic = text(dynamic, "spec.dynamicASN")?;
    match (number, dynamic.as_deref()) {
        (Some(number), None) => Ok(PeerAsn::Number(number)),
        (None, Some("internal")) => Ok(PeerAsn::Internal),
        (None, Some("external")) => Ok(PeerAsn::External),
        (None, Some(other)) => {
            Err(Fault::new("spec.dynamicASN", format!("{other:?} is none of internal, external")))
        }
        (None, None) => Err(Fault::new("spec", "has neither a peerASN nor a dynamicASN; it needs one")),
        (Some(_), Some(_)) => Err(Fault::new("spec", "has both a peerASN and a dynamicASN; it needs one")),
    }
}

fn endpoint(peer_address: Field<String>, interface: Field<String>) -> Result<PeerEndpoint, Fault> {
    match (text(peer_address, "spec.peerAddress")?, text(interface, "spec.interface")?) {
        (Some(text), None) => Ok(PeerEndpoint::Address(address(&text, "spec.peerAddress")?)),
        (None, Some(interface)) => Ok(PeerEndpoint::Interface(interface)),
        (None, None) => Err(Fault::new("spec", "has neither a peerAddress nor an interface; it needs one")),
        (Some(_), Some(_)) => {
            Err(Fault::new("spec", "has both a peerAddress and an interface; it needs one of them"))
        }
    }
}

fn password(here: Field<String>, secret: Field<SecretObject>) -> Result<PeerPassword, Fault> {
    let secret = secret.or_default("spec.passwordSecret")?.name;
    match (text(here, "spec.password")?, text(secret, "spec.passwordSecret.name")?) {
        (None, None) => Ok(PeerPassword::None),
        (Some(password), None) => Ok(PeerPassword::Here(Password(password))),
        // It becomes a part of a path.
        (None, Some(name)) if is_name(&name) => Ok(PeerPassword::Secret(name)),
        (None, Some(name)) => {
            Err(Fault::new("spec.passwordSecret.name", format!("{name:?} is no name of a Secret")))
        }
        (Some(_), Some(_)) => {
            Err(Fault::new("spec", "has both a password and a passwordSecret; it needs one of them"))
        }
    }
}

/// Whether an object may have that name (RFC 1123 subdomain).
fn is_name(text: &str) -> bool {
    let is_inside = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let is_label = |label: &str| !label.is_empty() && label.chars().all(is_inside);
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn read(change: Value) -> Result<BgpPeer, String> {
        let mut spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let object = json!({"metadata": {"name": "tor", "namespace": "metallb-system"}, "spec": spec});
        match read_document(Kind::BgpPeer, object, &WatchFilter::default()) {
            Reading::Object(Object::BgpPeer(it)) => Ok(it),
            Reading::Malformed(malformed) => Err(malformed.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_is_read_with_the_defaults_of_metallb() {
        let it = read(json!({})).unwrap();
        assert_eq!((it.my_asn, it.peer_asn, it.port.get()), (64512, PeerAsn::Number(64513), 179));
        assert_eq!(it.endpoint, PeerEndpoint::Address("192.0.2.1".parse().unwrap()));
        assert_eq!((it.hold_time, &it.password), (None, &PeerPassword::None));
        assert!(!it.graceful_restart && !it.ebgp_multi_hop && !it.dual_stack);
    }

    #[test]
    fn all_of_a_peer_is_read_and_its_password_is_not_shown() {
        let it = read(json!({
            "peerASN": null, "dynamicASN": "external", "peerAddress": null, "interface": "eth0",
            "holdTime": "1m30s", "keepaliveTime": "30s", "connectTime": "5s", "routerID": "10.0.0.1",
            "sourceAddress": "fd00::1", "peerPort": 1179, "password": "swordfish", "bfdProfile": "fast",
            "enableGracefulRestart": true, "ebgpMultiHop": true, "vrf": "red", "dualStackAddressFamily": true,
        }))
        .unwrap();
        assert_eq!((it.peer_asn, &it.endpoint), (PeerAsn::External, &PeerEndpoint::Interface("eth0".into())));
        assert_eq!(it.hold_time.map(|it| it.as_secs()), Some(90));
        assert_eq!(it.password, PeerPassword::Here(Password("swordfish".into())));
        assert!(!format!("{it:?}").contains("swordfish"));
        let it = read(json!({"passwordSecret": {"name": "tor"}})).unwrap();
        assert_eq!(it.password, PeerPassword::Secret("tor".into()));
    }

    #[test]
    fn a_peer_that_cannot_be_meant_is_left_out() {
        for (change, expected) in [
            (json!({"myASN": 0}), "spec.myASN: is missing or 0"),
            (json!({"peerASN": null}), "spec: has neither a peerASN nor a dynamicASN; it needs one"),
            (json!({"dynamicASN": "internal"}), "spec: has both a peerASN and a dynamicASN; it needs one"),
            (json!({"peerAddress": "router"}), "spec.peerAddress: \"router\" is no IP address"),
            (
                json!({"interface": "eth0"}),
                "spec: has both a peerAddress and an interface; it needs one of them",
            ),
            (json!({"holdTime": "soon"}), "spec.holdTime: \"soon\" is no duration such as 90s"),
            (
                json!({"passwordSecret": {"name": "../../kube-system/secrets/ca"}}),
                "spec.passwordSecret.name: \"../../kube-system/secrets/ca\" is no name of a Secret",
            ),
            (json!({"routerID": "::1"}), "spec.routerID: \"::1\" is no IPv4 address"),
        ] {
            let told = read(change).unwrap_err();
            assert!(told.ends_with(expected), "{told}");
        }
    }
}
