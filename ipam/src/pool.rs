//! What a network's configuration says about its addresses, checked. Which of them are taken is not known
//! here.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use weft_cni_spec::{self as cni, Args, Network, NetworkName, Route, Version};

use crate::blocks::{Blocks, range_sets};
use crate::{Error, RangeSet, Result};

/// Where reservations are kept when the configuration does not say.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The addresses that a network gives to its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The network's name.
    pub network: NetworkName,
    /// A container gets one address out of each set.
    pub sets: Vec<RangeSet>,
    /// The folder that holds the networks' folders.
    pub data_dir: PathBuf,
    /// Routes for the containers.
    pub routes: Vec<Route>,
    /// A file to take name resolution from.
    pub resolv_conf: Option<PathBuf>,
    /// The node's blocks, where the sets are those of blocks.
    pub blocks: Option<Blocks>,
}

impl Pool {
    /// A pool of these sets at the default place.
    pub fn of(network: NetworkName, sets: Vec<RangeSet>) -> Pool {
        let data_dir = DEFAULT_DATA_DIR.into();
        Pool { network, sets, data_dir, routes: Vec::new(), resolv_conf: None, blocks: None }
    }

    /// The pool that a configuration describes. The sets of capability `ipRanges` go first, then the one
    /// range of an old configuration, then `ranges`, then the node's blocks, which are read now.
    ///
    /// # Errors
    /// [`Error::Config`], naming the network and the field.
    pub fn new(
        network: &NetworkName,
        version: Version,
        ipam: &cni::Ipam,
        run_time: &[Vec<cni::Range>],
    ) -> Result<Pool> {
        let invalid =
            |field: String, reason: String| Error::Config { network: network.to_string(), field, reason };
        let named = |name: &'static str, sets: &[Vec<cni::Range>]| {
            let fields = (0..sets.len()).map(move |index| format!("{name}[{index}]"));
            fields.zip(sets.to_vec()).collect::<Vec<_>>()
        };
        let mut configured = named("runtimeConfig.ipRanges", run_time);
        configured.extend(ipam.old_range().map(|range| ("ipam".to_owned(), vec![range])));
        configured.extend(named("ipam.ranges", &ipam.ranges));
        let blocks = ipam.blocks.as_deref().map(Blocks::read).transpose()?;
        let claimed = blocks.as_ref().map(|blocks| range_sets(&blocks.blocks)).unwrap_or_default();
        configured.extend(named("ipam.blocks", &claimed));

        let mut sets: Vec<RangeSet> = Vec::new();
        for (field, ranges) in &configured {
            let set = RangeSet::new(ranges).map_err(|error| {
                // The old range stands in the section itself, in no list.
                let below = if field == "ipam" { error.field.replace("[0]", "") } else { error.field };
                invalid(format!("{field}{below}"), error.reason)
            })?;
            if let Some(other) = sets.iter().find(|other| other.overlaps(&set)) {
                return Err(invalid(field.clone(), format!("range set {set} overlaps with {other}")));
            }
            sets.push(set);
        }
        if blocks.is_none() || !sets.is_empty() {
            check_number(&sets, version).map_err(|reason| invalid("ipam.ranges".to_owned(), reason))?;
        }
        Ok(Pool {
            network: network.clone(),
            sets,
            data_dir: ipam.data_dir.clone().unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            routes: ipam.routes.clone(),
            resolv_conf: ipam.resolv_conf.clone(),
            blocks,
        })
    }

    /// The folder that holds this network's reservations.
    pub fn folder(&self) -> PathBuf {
        self.data_dir.join(self.network.as_str())
    }

    /// Whether a container can get an address of each family.
    ///
    /// # Errors
    /// [`Error::NoBlock`]
    pub(crate) fn check_complete(&self) -> Result<()> {
        match &self.blocks {
            Some(Blocks { is_incomplete: true, missing, .. }) => Err(Error::NoBlock {
                network: self.network.to_string(),
                missing: missing.clone().unwrap_or_default(),
            }),
            _ => Ok(()),
        }
    }

    /// That a set has no address left.
    pub(crate) fn exhausted(&self, set: &RangeSet) -> Error {
        let (network, set) = (self.network.to_string(), set.to_string());
        match &self.blocks {
            None => Error::Exhausted { network, set, folder: self.folder() },
            Some(blocks) => {
                let next =
                    "weft-agent claims another block as soon as it can: see its log and weft ipam status";
                let missing = blocks.missing.clone().unwrap_or_else(|| next.to_owned());
                Error::BlocksFull { network, set, missing }
            }
        }
    }

    /// Whether any set may give this address.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.sets.iter().any(|set| set.range_of(address).is_some())
    }
}

/// The addresses that a runtime asks for, by whichever way: `CNI_ARGS`, `args.cni.ips`, capability `ips`.
/// They may have a prefix, which does not count.
///
/// # Errors
/// [`Error::Config`] for one that is no address.
pub(crate) fn requested(network: &NetworkName, config: &Network, args: &Args) -> Result<Vec<IpAddr>> {
    let listed = |field: &'static str, texts: &[String]| {
        let parse = |text: &String| {
            let address = text.parse().or_else(|_| text.parse().map(|network: IpNetwork| network.ip()));
            address.map_err(|_| Error::Config {
                network: network.to_string(),
                field: field.to_owned(),
                reason: format!("{text:?} is not an IP address"),
            })
        };
        texts.iter().map(parse).collect::<Result<Vec<IpAddr>>>()
    };
    let mut requested: Vec<IpAddr> = args.ip.into_iter().collect();
    requested.extend(listed("args.cni.ips", &config.args.cni.ips)?);
    requested.extend(listed("runtimeConfig.ips", &config.runtime_config.ips)?);
    // A runtime may say the same in more than one of these ways.
    let mut seen = BTreeSet::new();
    Ok(requested.iter().map(IpAddr::to_canonical).filter(|address| seen.insert(*address)).collect())
}

fn check_number(sets: &[RangeSet], version: Version) -> Result<(), String> {
    if sets.is_empty() {
        return Err("no IP ranges specified".to_owned());
    }
    // Results before 0.3.0 have room for one address of each family only.
    let families: Vec<_> = sets.iter().map(RangeSet::family).collect();
    let twice = families.iter().enumerate().any(|(index, family)| families[..index].contains(family));
    if version <= Version::V0_2_0 && twice {
        return Err(format!("cniVersion {version} does not support more than one address per family"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(ipam: serde_json::Value) -> Result<Pool> {
        let ipam = serde_json::from_value(ipam).unwrap();
        Pool::new(&"blue".parse().unwrap(), Version::V1_1_0, &ipam, &[])
    }

    fn error(ipam: serde_json::Value) -> String {
        pool(ipam).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_the_references() {
        let pool = pool(json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]})).unwrap();
        assert_eq!(pool.folder(), PathBuf::from("/var/lib/cni/networks/blue"));
        assert_eq!(pool.sets[0].to_string(), "10.1.0.1-10.1.255.254");
    }

    #[test]
    fn run_time_ranges_go_first_and_then_the_old_one() {
        let ipam = serde_json::from_value(json!({
            "subnet": "10.2.0.0/24", "ranges": [[{"subnet": "10.3.0.0/24"}]],
        }))
        .unwrap();
        let run_time = vec![vec![cni::Range::of("10.1.0.0/24".parse().unwrap())]];
        let pool = Pool::new(&"blue".parse().unwrap(), Version::V1_1_0, &ipam, &run_time).unwrap();
        let firsts: Vec<_> = pool.sets.iter().map(|set| set.ranges()[0].subnet.to_string()).collect();
        assert_eq!(firsts, ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]);
    }

    #[test]
    fn errors_name_the_network_and_the_field() {
        assert_eq!(error(json!({})), "network blue: ipam.ranges: no IP ranges specified");
        assert_eq!(
            error(json!({"subnet": "10.1.0.0/31"})),
            "network blue: ipam.subnet: network 10.1.0.0/31 is too small to allocate from"
        );
        assert_eq!(
            error(json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]})),
            "network blue: ipam.ranges[1]: range set 10.1.0.1-10.1.255.254 overlaps with 10.1.0.1-10.1.0.254"
        );
        assert_eq!(
            error(
                json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24", "rangeEnd": "10.1.0.9"}]]})
            ),
            "network blue: ipam.ranges[0][1].rangeEnd: 10.1.0.9 is not in network 10.2.0.0/24"
        );
    }

    #[test]
    fn old_versions_have_room_for_one_address_of_each_family() {
        let ipam = |ranges| serde_json::from_value(json!({ "ranges": ranges })).unwrap();
        let two = ipam(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]));
        let dual = ipam(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]));
        let name = "blue".parse().unwrap();
        assert!(Pool::new(&name, Version::V0_2_0, &two, &[]).is_err());
        assert!(Pool::new(&name, Version::V0_3_0, &two, &[]).is_ok());
        assert!(Pool::new(&name, Version::V0_2_0, &dual, &[]).is_ok());
    }

    #[test]
    fn requested_addresses_come_from_three_places() {
        let config: Network = serde_json::from_value(json!({
            "args": {"cni": {"ips": ["10.1.0.3/24"]}}, "runtimeConfig": {"ips": ["fd00::4"]},
        }))
        .unwrap();
        let args = Args { ip: "10.1.0.2".parse().ok(), ..Args::default() };
        let name = "blue".parse().unwrap();
        let texts: Vec<_> = requested(&name, &config, &args).unwrap().iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["10.1.0.2", "10.1.0.3", "fd00::4"]);
        let same = Args { ip: "10.1.0.3".parse().ok(), ..Args::default() };
        let texts: Vec<_> = requested(&name, &config, &same).unwrap().iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["10.1.0.3", "fd00::4"], "one asked for twice is one");
        let bad: Network = serde_json::from_value(json!({"runtimeConfig": {"ips": ["x"]}})).unwrap();
        let error = requested(&name, &bad, &Args::default()).unwrap_err();
        assert_eq!(error.to_string(), "network blue: runtimeConfig.ips: \"x\" is not an IP address");
    }
}
