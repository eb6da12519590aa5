//! Puts settings of connection tracking into effect. Which ones is said by `limits.rs`.

use std::io;
use std::path::{Path, PathBuf};

use tracing::info;
use weft_netlink::sysctl::{self, Originals};

use crate::error::Error;
use crate::limits::{Limits, Setting};

/// The settings of the calling thread's network namespace.
const FOLDER: &str = "/proc/sys/net/netfilter";

/// A setting that could not be made.
#[derive(Debug)]
pub struct Refused {
    /// Whether a flag asked for it. Otherwise it is a default: good to have, where it can be had.
    pub asked: bool,
    /// Why not.
    pub error: Error,
}

/// Puts all of them into effect, as far as that is possible, and returns what is not. What they were is kept in
/// that folder, where there is one.
pub fn apply(limits: &Limits, settings_dir: Option<PathBuf>) -> Vec<Refused> {
    let originals = Originals::at(settings_dir);
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let refused = |setting: Setting| {
        let path = Path::new(FOLDER).join(setting.name);
        let source = set(setting, &originals).err()?;
        Some(Refused { asked: setting.asked, error: Error::Sysctl { path, value: setting.value, source } })
    };
    limits.settings(processors).into_iter().filter_map(refused).collect()
}

fn set(setting: Setting, originals: &Originals) -> io::Result<()> {
    let name = format!("net/netfilter/{}", setting.name);
    let text = sysctl::read(&name)?;
    let held: u64 = text.parse().map_err(|_| io::Error::other(format!("holds {text:?}")))?;
    if held == setting.value || (setting.at_least && held > setting.value) {
        return Ok(());
    }
    originals.ensure(&name, &setting.value.to_string())?;
    info!(name = setting.name, from = held, to = setting.value, "set");
    Ok(())
}
