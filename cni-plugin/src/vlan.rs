//! The VLANs of a container's port (`vlan`, `vlanTrunk`, `preserveDefaultVlan`), checked as the reference plugin does. Pure.

use std::fmt;

use weft_netlink::route::Membership;
use weft_types::cni::{BridgeOptions, VlanTrunk};

/// The VLAN that the kernel makes every port a member of.
pub(crate) const DEFAULT: u16 = 1;
/// The highest number of a VLAN (IEEE 802.1Q).
const LAST: u16 = 4094;

/// The VLANs of a port, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlans {
    /// What it is a member of.
    pub memberships: Vec<Membership>,
    /// Whether it stays a member of the bridge's default VLAN too.
    pub keep_default: bool,
}

/// The VLANs that a configuration asks for, where it does.
///
/// # Errors
/// The option and what is wrong with it.
pub(crate) fn read(config: &BridgeOptions) -> Result<Option<Vlans>, (&'static str, String)> {
    let untagged = config.vlan.filter(|vlan| *vlan != 0);
    let trunk = config.vlan_trunk.as_deref().unwrap_or_default();
    if untagged.is_some() && !trunk.is_empty() {
        return Err(("vlan", "cannot be set together with vlanTrunk".into()));
    }
    if let Some(vlan) = untagged.filter(|vlan| *vlan > LAST) {
        return Err(("vlan", format!("{vlan} is not between 0 and {LAST}")));
    }
    let tagged = trunk.iter().map(range).collect::<Result<Vec<_>, _>>();
    let tagged = tagged.map_err(|reason| ("vlanTrunk", reason))?;
    let mut memberships: Vec<Membership> = untagged.map(Membership::Untagged).into_iter().collect();
    memberships.extend(tagged.into_iter().flatten());
    let keep_default = config.preserve_default_vlan.unwrap_or(true);
    Ok((!memberships.is_empty()).then_some(Vlans { memberships, keep_default }))
}

/// An entry may name a range, one VLAN, or both.
fn range(entry: &VlanTrunk) -> Result<Vec<Membership>, String> {
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
        None => Ok(found.into_iter().map(|(first, last)| Membership::Tagged(first, last)).collect()),
    }
}

/// As bridge(8) takes it.
pub(crate) fn text(vlans: &Vlans, bridge: &str, port: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "ip link set {bridge} type bridge vlan_filtering 1")?;
    for membership in &vlans.memberships {
        match membership {
            Membership::Untagged(vlan) => writeln!(f, "bridge vlan add dev {port} vid {vlan} pvid untagged")?,
            Membership::Tagged(first, last) => writeln!(f, "bridge vlan add dev {port} vid {first}-{last}")?,
        }
    }
    if vlans.keep_default { Ok(()) } else { writeln!(f, "bridge vlan del dev {port} vid {DEFAULT}") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(config: Value) -> Result<Option<Vlans>, (&'static str, String)> {
        read(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn one_vlan_or_a_trunk_of_several() {
        let vlans = of(json!({"vlan": 5})).unwrap().unwrap();
        assert_eq!(vlans, Vlans { memberships: vec![Membership::Untagged(5)], keep_default: true });
        let trunk = json!([{"minID": 10, "maxID": 20}, {"id": 7}, {"minID": 30, "maxID": 30, "id": 40}]);
        let vlans = of(json!({"vlanTrunk": trunk, "preserveDefaultVlan": false})).unwrap().unwrap();
        let tagged =
            [(10, 20), (7, 7), (30, 30), (40, 40)].map(|(first, last)| Membership::Tagged(first, last));
        assert_eq!((vlans.memberships.as_slice(), vlans.keep_default), (tagged.as_slice(), false));
        assert_eq!(of(json!({"vlan": 0, "vlanTrunk": [], "preserveDefaultVlan": false})), Ok(None));
    }

    #[test]
    fn what_is_no_vlan_is_named() {
        for (config, option, reason) in [
            (json!({"vlan": 4095}), "vlan", "4095 is not between 0 and 4094"),
            (json!({"vlan": 5, "vlanTrunk": [{"id": 7}]}), "vlan", "cannot be set together with vlanTrunk"),
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
