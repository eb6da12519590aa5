//! What this node holds for containers, and having the plugin give it up: addresses are reservations in a
//! folder, in the disk format of host-local; links are known by the note that the plugin leaves on them. What
//! is garbage is decided in `garbage`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use weft_cni_spec::NetworkList;
use weft_ipam::Blocks;
use weft_netlink::rtnl::{Link, RtnetlinkClient};
use weft_types::IpNetwork;

use crate::garbage_collection::plan::Attachment;
use crate::upkeep::plan::ranges;
use crate::{Error, Result, plugin};

/// Where the plugin and everything of its network is.
#[derive(Clone, Debug)]
pub(crate) struct PluginPaths {
    /// The CNI configuration.
    pub(crate) conflist: PathBuf,
    /// The folder of the plugin's program.
    pub(crate) bin_dir: PathBuf,
    /// The folder of the network's reservations.
    pub(crate) leases: PathBuf,
    /// The network's name.
    pub(crate) network: String,
}

impl PluginPaths {
    /// Everything that is held, in the calling thread's network namespace.
    pub(crate) fn list(&self) -> Result<BTreeSet<Attachment>> {
        let links = RtnetlinkClient::open()?.links()?;
        let noted = links.iter().filter_map(|link| self.attachment(link));
        let holders = leases(&self.leases).into_values();
        Ok(noted.chain(holders).collect())
    }

    /// The addresses that are reserved, and for whom.
    pub(crate) fn holders(&self) -> BTreeMap<IpAddr, Attachment> {
        leases(&self.leases)
    }

    /// The attachment that an interface of the host belongs to.
    pub(crate) fn attachment(&self, link: &Link) -> Option<Attachment> {
        noted(link.alias.as_deref()?, &self.network)
    }

    /// Has the plugin delete an attachment.
    ///
    /// # Errors
    /// Where there is no configuration, or the plugin cannot be started or refuses.
    pub(crate) fn del(&self, attachment: &Attachment) -> Result<()> {
        let failed = |problem: String| Error::Collect {
            container: attachment.container.clone(),
            ifname: attachment.ifname.clone(),
            problem,
        };
        let conflist = fs::read(&self.conflist).map_err(|error| failed(error.to_string()))?;
        let config =
            plugin::config(&conflist).ok_or_else(|| failed("the CNI configuration is damaged".to_owned()))?;
        plugin::del(&self.bin_dir, &config, attachment).map_err(failed)
    }

    /// The addresses that are reserved, whoever has them.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let entries = fs::read_dir(&self.leases).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Ranges of the configuration as it is that running pods have addresses of, though they are none of
    /// `current` any more, and how many pods that is.
    pub(crate) fn former(&self, current: &[IpNetwork]) -> Result<BTreeMap<IpNetwork, usize>> {
        let list = fs::read(&self.conflist).ok();
        let list =
            list.and_then(|text| serde_json::from_slice::<NetworkList>(&text).ok()).unwrap_or_default();
        let mut former: BTreeMap<IpNetwork, usize> = self
            .ranges(&list)
            .into_iter()
            .filter(|range| !current.contains(range))
            .map(|range| (range, 0))
            .collect();
        if former.is_empty() {
            return Ok(former);
        }
        let links = RtnetlinkClient::open()?.links()?;
        let running: BTreeSet<Attachment> = links.iter().filter_map(|link| self.attachment(link)).collect();
        let held = self.addresses().into_iter().filter(|address| {
            let record = fs::read_to_string(self.leases.join(address.to_string()));
            record.ok().and_then(|text| lease(&text)).is_some_and(|holder| running.contains(&holder))
        });
        for address in held {
            let range = former.iter_mut().find(|(range, _)| range.contains(address));
            range.into_iter().for_each(|(_, pods)| *pods += 1);
        }
        former.retain(|_, pods| *pods > 0);
        Ok(former)
    }

    /// The ranges that pods get addresses of by this configuration, and those that some have addresses of from
    /// before.
    pub(crate) fn ranges(&self, list: &NetworkList) -> Vec<IpNetwork> {
        let ipam = list.plugins.first().and_then(|plugin| plugin.ipam.as_ref());
        let file = ipam.and_then(|ipam| ipam.blocks.as_deref());
        // What cannot be read is reported by the one who keeps it.
        let blocks = file.and_then(|file| Blocks::read(file).ok()).unwrap_or_default();
        ranges(list).chain(blocks.blocks).collect()
    }

    /// Whether the plugin keeps for some container what its runtime asked for.
    pub(crate) fn has_records(&self) -> bool {
        let folder = self.leases.parent().map(|folder| folder.join(".asked").join(&self.network));
        folder.is_some_and(|folder| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
    }
}

/// A link's note, `NETWORK/CONTAINER/IFNAME`, where it is of that network.
fn noted(alias: &str, network: &str) -> Option<Attachment> {
    let (container, ifname) = alias.strip_prefix(network)?.strip_prefix('/')?.split_once('/')?;
    Some(Attachment { container: container.to_owned(), ifname: ifname.to_owned() })
}

/// The addresses that attachments have. A record that cannot be read is nobody's to give up.
fn leases(folder: &Path) -> BTreeMap<IpAddr, Attachment> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let record = |entry: fs::DirEntry| {
        let address = entry.file_name().to_str()?.parse().ok()?;
        Some((address, lease(&fs::read_to_string(entry.path()).ok()?)?))
    };
    entries.filter_map(record).collect()
}

/// A reservation's text: the container's id, and the interface's name on the next line.
fn lease(text: &str) -> Option<Attachment> {
    let mut lines = text.lines().map(str::trim);
    let (container, ifname) = (lines.next()?, lines.next()?);
    let is_whole = !container.is_empty() && !ifname.is_empty();
    is_whole.then(|| Attachment { container: container.to_owned(), ifname: ifname.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str, ifname: &str) -> Attachment {
        Attachment { container: container.to_owned(), ifname: ifname.to_owned() }
    }

    #[test]
    fn a_note_of_the_network_names_the_attachment() {
        assert_eq!(noted("weft/4711/eth0", "weft"), Some(attachment("4711", "eth0")));
        for other in ["wefty/4711/eth0", "weft", "weft/4711", "somebody's own note"] {
            assert_eq!(noted(other, "weft"), None, "{other}");
        }
    }

    #[test]
    fn reservations_are_read_and_everything_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("10.244.0.7", "4711\r\neth0"),
            ("fd00::7", "4711\neth0\n"),
            ("10.244.0.8", ""),
            ("10.244.0.9", "an old one without an interface"),
            ("last_reserved_ip.0", "10.244.0.7"),
            ("lock", ""),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found: BTreeSet<Attachment> = leases(folder.path()).into_values().collect();
        assert_eq!(found, BTreeSet::from([attachment("4711", "eth0")]));
        assert_eq!(leases(Path::new("/no/such/folder")).len(), 0);
    }
}
