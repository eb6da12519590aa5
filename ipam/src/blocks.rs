//! Blocks of addresses that a node has claimed: a file that the node's agent writes and every ADD reads, so
//! that a new block needs no restart of anything. Which blocks a node has is not decided here.
//!
//! Agent and plugin agree by the lock of the reservations' folder. Who holds it sees either the blocks of
//! before, and then the agent finds the reservation, or those of after.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use weft_cni_spec as cni;
use weft_types::Family;

use crate::disk::failed;
use crate::{DiskStore, Result};

/// The blocks that a node gives addresses of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blocks {
    /// The blocks, the first family first.
    pub blocks: Vec<IpNetwork>,
    /// No container gets an address, as a family has no block.
    pub is_incomplete: bool,
    /// Why there are no more, for people.
    pub missing: Option<String>,
}

impl Blocks {
    /// Where the blocks of a network are written down. The folder is not one of reservations.
    pub fn path(data_dir: &Path, network: &str) -> PathBuf {
        data_dir.join(".blocks").join(network)
    }

    /// Reads them. Where there is no such file, there is no block yet.
    ///
    /// # Errors
    /// Where it cannot be read, or is none of these files.
    pub fn read(path: &Path) -> Result<Blocks> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let missing = Some("weft-agent has claimed none yet: is it running?".to_owned());
                return Ok(Blocks { is_incomplete: true, missing, ..Blocks::default() });
            }
            outcome => outcome.map_err(failed("read", path))?,
        };
        let damaged = |error: serde_json::Error| io::Error::new(ErrorKind::InvalidData, error);
        serde_json::from_slice(&text).map_err(|error| failed("read", path)(damaged(error)))
    }

    /// Writes them, once nobody reserves an address by those of before. `folder` is that of the reservations.
    /// A reader, and a crash at any moment, finds the file of before or of after.
    ///
    /// # Errors
    /// Where the folder cannot be locked, or the file not written.
    pub fn write(&self, path: &Path, folder: &Path) -> Result<()> {
        let _lock = DiskStore::lock(folder)?;
        self.replace(path).map_err(failed("write", path))
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidFilename.into());
        };
        fs::create_dir_all(parent)?;
        let unfinished = parent.join(format!(".{}", name.to_string_lossy()));
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        // A block that is given up must not come back with a power failure.
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(parent)?.sync_all()
    }
}

/// A set for each family, that of the first network first: a container gets one address of each set, from
/// whichever of its networks has one.
pub fn range_sets(networks: &[IpNetwork]) -> Vec<Vec<cni::Range>> {
    let mut families: Vec<Family> = networks.iter().map(Family::of_network).collect();
    let first = families.first().copied();
    families.sort_by_key(|&family| Some(family) != first);
    families.dedup();
    let of = |family| networks.iter().filter(move |network| Family::of_network(network) == family);
    families.into_iter().map(|family| of(family).copied().map(cni::Range::of).collect()).collect()
}

/// How many containers of a node can have an address of a block: not the network's own, the gateway's, and of
/// IPv4 the broadcast address.
pub fn usable(block: &IpNetwork) -> u128 {
    crate::RangeSet::new(&[cni::Range::of(*block)]).map_or(0, |set| set.capacity())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn blocks_are_read_as_they_were_written_and_none_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = Blocks::path(folder.path(), "weft");
        let none = Blocks::read(&path).unwrap();
        assert!(none.is_incomplete && none.missing.unwrap().contains("weft-agent"));
        let some = Blocks { blocks: blocks(&["10.244.1.64/26", "fd00::40/122"]), ..Blocks::default() };
        some.write(&path, &folder.path().join("weft")).unwrap();
        assert_eq!(Blocks::read(&path).unwrap(), some);
        fs::write(&path, "{").unwrap();
        let error = Blocks::read(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("/.blocks/weft: "), "{error}");
    }

    #[test]
    fn each_family_is_a_set() {
        let sets = range_sets(&blocks(&["fd00::/122", "10.0.0.0/26", "fd00::40/122", "10.0.0.64/26"]));
        let texts: Vec<Vec<String>> =
            sets.iter().map(|set| set.iter().map(|range| range.subnet.to_string()).collect()).collect();
        assert_eq!(texts, [["fd00::/122", "fd00::40/122"], ["10.0.0.0/26", "10.0.0.64/26"]]);
    }

    #[test]
    fn not_every_address_of_a_block_is_a_containers() {
        let usable = |text: &str| usable(&text.parse().unwrap());
        assert_eq!((usable("10.0.0.0/26"), usable("10.0.0.8/29")), (61, 5));
        assert_eq!(usable("fd00::/122"), 62);
    }
}
