//! The VLANs of a container's port (`vlan`, `vlanTrunk`, `preserveDefaultVlan`), checked as the reference
//! plugin does, and the interface that is the gateway within one. Pure.

use std::fmt;

use crate::interface::{BridgeVlan, Mac, Veth, VethEnd};
use weft_cni_spec::{BridgeOptions, VlanTrunk};

use super::names;

/// The VLAN that the kernel makes every port a member of.
pub(crate) const DEFAULT: u16 = 1;
/// The highest number of a VLAN (IEEE 802.1Q).
const LAST: u16 = 4094;

/// The VLANs of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlans {
    /// The one of frames without a tag. Where only a trunk is asked for, it is the bridge's default VLAN.
    pub untagged: u16,
    /// Those of frames with a tag, each with the last of its range.
    pub tagged: Vec<(u16, u16)>,
    /// Whether it stays a member of the bridge's default VLAN in any case.
    pub keep_default: bool,
}

/// The gateway of a VLAN: a veth pair on the host, of which one end has the addresses and the other is a port
/// of the bridge. The bridge itself is a member of the default VLAN only. As with the reference plugin it
/// stays, as the bridge does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanGateway {
    /// The pair: the host end is the port, the peer the gateway.
    pub link: Veth,
    /// The VLANs of the port.
    pub vlans: Vlans,
}

/// The VLANs that a configuration asks for, where it does.
///
/// # Errors
/// The option and what is wrong with it.
pub(crate) fn read(config: &BridgeOptions) -> Result<Option<Vlans>, (&'static str, String)> {
    let untagged = config.vlan.filter(|vlan| *vlan != 0);
    let trunk = config.vlan_trunk.as_deref().unwrap_or_default();
    if let Some(vlan) = untagged.filter(|vlan| *vlan > LAST) {
        return Err(("vlan", format!("{vlan} is not between 0 and {LAST}")));
    }
    let tagged = trunk.iter().map(range).collect::<Result<Vec<_>, _>>();
    let tagged: Vec<_> = tagged.map_err(|reason| ("vlanTrunk", reason))?.into_iter().flatten().collect();
    let keep_default = config.preserve_default_vlan.unwrap_or(false);
    let asked = untagged.is_some() || !tagged.is_empty();
    Ok(asked.then(|| Vlans { untagged: untagged.unwrap_or(DEFAULT), tagged, keep_default }))
}

impl Vlans {
    /// The VLAN whose gateway the bridge itself cannot be.
    pub(crate) fn own(&self) -> Option<u16> {
        (self.untagged != DEFAULT).then_some(self.untagged)
    }

    /// What the port becomes a member of.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = BridgeVlan> + '_ {
        let tagged = self.tagged.iter().map(|(first, last)| BridgeVlan::Tagged(*first, *last));
        std::iter::once(BridgeVlan::Untagged(self.untagged)).chain(tagged)
    }

    /// Whether the port leaves the VLAN that the kernel makes every port a member of.
    pub(crate) fn leaves_default(&self) -> bool {
        !self.keep_default && !self.memberships().any(|membership| membership.contains(DEFAULT))
    }

    /// What a port that is a member of these lacks, or has too much, in words.
    pub(crate) fn difference(&self, found: &[BridgeVlan]) -> Option<String> {
        let is_untagged = found.contains(&BridgeVlan::Untagged(self.untagged));
        let has = |vlan: u16| found.iter().any(|membership| membership.contains(vlan));
        let lacking = self.tagged.iter().flat_map(|(first, last)| *first..=*last).find(|vlan| !has(*vlan));
        let untagged =
            (!is_untagged).then(|| format!("has no frames without a tag in VLAN {}", self.untagged));
        untagged.or_else(|| lacking.map(|vlan| format!("is not a member of VLAN {vlan}"))).or_else(|| {
            (self.leaves_default() && has(DEFAULT)).then(|| format!("is a member of VLAN {DEFAULT}"))
        })
    }
}

/// The option that asks for VLANs, and its value.
impl fmt::Display for Vlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.own(), self.tagged.as_slice()) {
            (Some(vlan), _) => write!(f, "vlan {vlan}"),
            (None, []) => write!(f, "vlan {DEFAULT}"),
            (None, tagged) => write!(f, "vlanTrunk {tagged:?}"),
        }
    }
}

impl VlanGateway {
    /// The name of the interface that has the addresses: `cni0.5`, as the reference plugin calls it.
    pub(crate) fn name(bridge: &str, vlan: u16) -> String {
        format!("{bridge}.{vlan}")
    }

    /// The gateway of a VLAN of a bridge.
    pub(crate) fn new(
        bridge: &str,
        vlan: u16,
        keep_default: bool,
        mac: Option<Mac>,
        mtu: Option<u32>,
    ) -> Self {
        let name = VlanGateway::name(bridge, vlan);
        let link = Veth {
            host: VethEnd { name: names::gateway_port(&name), mac: None, mtu },
            host_group: names::GATEWAYS,
            host_up: true,
            master: None,
            peer: VethEnd { name, mac, mtu },
        };
        VlanGateway { link, vlans: Vlans { untagged: vlan, tagged: Vec::new(), keep_default } }
    }
}

/// An entry may name a range, one VLAN, or both.
fn range(entry: &VlanTrunk) -> Result<Vec<(u16, u16)>, String> {
    let mut found = Vec::new();
    match (entry.min_id, entry.max_id) {
        (None, None) => {}
        (Some(first), Some(last)) if first <= last => found.push((first, last)),
        (Some(first), Some(last)) => return Err(format!("minID {first} is greater than maxID {last}")),
        (Some(_), None) => return Err("maxID is missing".into()),
        (None, Some(_)) => return Err("minID is missing".into()),
    }
    found.extend(entry.id.map(|id| (id, id)));
    match found.iter().find(|(first, last)| *first == 0 || *last > LAST) {
        Some((first, last)) => Err(format!("{first}-{last} is not between 1 and {LAST}")),
        None => Ok(found),
    }
}

/// As bridge(8) takes it.
pub(crate) fn text(vlans: &Vlans, port: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for membership in vlans.memberships() {
        match membership {
            BridgeVlan::Untagged(vlan) => writeln!(f, "bridge vlan add dev {port} vid {vlan} pvid untagged")?,
            BridgeVlan::Tagged(first, last) => writeln!(f, "bridge vlan add dev {port} vid {first}-{last}")?,
        }
    }
    if vlans.leaves_default() { writeln!(f, "bridge vlan del dev {port} vid {DEFAULT}") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(config: Value) -> Result<Option<Vlans>, (&'static str, String)> {
        read(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn one_vlan_or_a_trunk_of_several_or_both() {
        let vlans = |untagged, tagged: &[(u16, u16)], keep_default| {
            Ok(Some(Vlans { untagged, tagged: tagged.to_vec(), keep_default }))
        };
        assert_eq!(of(json!({"vlan": 5})), vlans(5, &[], false));
        let trunk = json!([{"minID": 10, "maxID": 20}, {"id": 7}, {"minID": 30, "maxID": 30, "id": 40}]);
        let tagged = [(10, 20), (7, 7), (30, 30), (40, 40)];
        assert_eq!(of(json!({ "vlanTrunk": trunk, "preserveDefaultVlan": true })), vlans(1, &tagged, true));
        assert_eq!(of(json!({"vlan": 5, "vlanTrunk": [{"id": 7}]})), vlans(5, &[(7, 7)], false));
        assert_eq!(of(json!({"vlan": 0, "vlanTrunk": [], "preserveDefaultVlan": false})), Ok(None));
    }

    #[test]
    fn a_port_leaves_the_default_vlan_unless_its_own_frames_are_of_that() {
        let leaves = |config| of(config).unwrap().unwrap().leaves_default();
        assert!(leaves(json!({"vlan": 5})));
        assert!(!leaves(json!({"vlan": 5, "preserveDefaultVlan": true})));
        assert!(!leaves(json!({"vlanTrunk": [{"id": 7}]})), "frames without a tag are of it");
        assert!(!leaves(json!({"vlan": 5, "vlanTrunk": [{"minID": 1, "maxID": 9}]})));
    }

    #[test]
    fn a_port_that_left_its_vlans_is_told() {
        let vlans = of(json!({"vlan": 5, "vlanTrunk": [{"minID": 7, "maxID": 8}]})).unwrap().unwrap();
        let difference = |found: &[BridgeVlan]| vlans.difference(found).unwrap_or_default();
        let [five, seven, eight] =
            [BridgeVlan::Untagged(5), BridgeVlan::Tagged(7, 7), BridgeVlan::Tagged(8, 8)];
        assert_eq!(difference(&[five, seven, eight]), "");
        assert_eq!(difference(&[seven, eight]), "has no frames without a tag in VLAN 5");
        assert_eq!(difference(&[five, seven]), "is not a member of VLAN 8");
        assert_eq!(difference(&[BridgeVlan::Tagged(1, 1), five, seven, eight]), "is a member of VLAN 1");
    }

    #[test]
    fn what_is_no_vlan_is_named() {
        for (config, option, reason) in [
            (json!({"vlan": 4095}), "vlan", "4095 is not between 0 and 4094"),
            (json!({"vlanTrunk": [{"id": 0}]}), "vlanTrunk", "0-0 is not between 1 and 4094"),
            (json!({"vlanTrunk": [{"minID": 3}]}), "vlanTrunk", "maxID is missing"),
            (json!({"vlanTrunk": [{"maxID": 3}]}), "vlanTrunk", "minID is missing"),
            (
                json!({"vlanTrunk": [{"minID": 4, "maxID": 3}]}),
                "vlanTrunk",
                "minID 4 is greater than maxID 3",
            ),
        ] {
            assert_eq!(of(config), Err((option, reason.to_owned())));
        }
    }
}
