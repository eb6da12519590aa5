//! What is left on a node of a network that no pod is on any more: its bridge, its files, and settings of the
//! kernel, which get the values that they had.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use weft_netlink::rtnl::RtnetlinkClient;
use weft_netlink::sysctl::{Original, Originals, Restored};

/// Why something is still there.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel keeps the bridge.
    #[error(transparent)]
    Kernel(#[from] weft_netlink::Error),
    /// A file cannot be removed.
    #[error("cannot remove {}: {source}", path.display())]
    Remove {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A setting cannot be put back.
    #[error("cannot set {name} back to {before}: {source}; is this container privileged?")]
    Setting {
        /// Its path below /proc/sys.
        name: String,
        /// What it held.
        before: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Removes them, and tells what was done, a line each. `leases` is the folder of the network's reservations,
/// which must have none. To be repeated where it fails.
///
/// # Errors
/// The first thing that could not be done.
pub fn remove(leases: &Path) -> Result<Vec<String>, Error> {
    let (Some(data_dir), Some(network)) = (leases.parent(), leases.file_name()) else {
        return Ok(Vec::new());
    };
    let mut done = bridges(&network.to_string_lossy())?;
    // What the plugin noted of pods that are gone, and of the node's blocks, lies beside their reservations.
    for path in
        [leases.to_owned(), data_dir.join(".asked").join(network), data_dir.join(".blocks").join(network)]
    {
        if path.exists() {
            let is_folder = path.is_dir();
            let outcome = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            outcome.map_err(|source| Error::Remove { path: path.clone(), source })?;
            done.push(format!("removed {}", path.display()));
        }
    }
    for folder in [".asked", ".blocks"] {
        // Other networks may have something in it.
        let _ = fs::remove_dir(data_dir.join(folder));
    }
    done.extend(settings(&Originals::below(data_dir))?);
    Ok(done)
}

/// The bridges that were made for a network, which bear its name, and that have no port.
fn bridges(network: &str) -> Result<Vec<String>, Error> {
    let mut route = RtnetlinkClient::open()?;
    let mut done = Vec::new();
    for link in route.links()? {
        let is_ours = link.kind.as_deref() == Some("bridge") && link.alias.as_deref() == Some(network);
        if is_ours && route.ports(link.index)?.is_empty() {
            route.delete_link(link.index)?;
            done.push(format!("removed bridge {}", link.name));
        }
    }
    Ok(done)
}

fn settings(originals: &Originals) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    for original in originals.all() {
        let restored = originals.restore(&original).map_err(|source| Error::Setting {
            name: original.name.clone(),
            before: original.before.clone(),
            source,
        })?;
        done.extend(told(&original, restored));
    }
    originals.forget();
    Ok(done)
}

fn told(original: &Original, restored: Restored) -> Option<String> {
    let Original { name, before, .. } = original;
    match restored {
        Restored::Done => Some(format!("{name} is {before} again")),
        Restored::Foreign => {
            Some(format!("left {name}, which somebody else has changed since; it was {before}"))
        }
        Restored::Stale => None,
    }
}
