//! What a runtime asked for one container beyond the network's configuration, kept on disk while the
//! container lives: the kernel forgets it with `nft flush ruleset` or with the bridge, and the runtime tells
//! it only once. By it `repair` puts back what ADD made. Ordinary containers have no record: all of theirs
//! follows from the configuration.
//!
//! `<dataDir>/.asked/<network>/<host's end of the pair>` holds the configuration that ADD got and the
//! addresses that it leased, as JSON. No network's own folder can have that name.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weft_cni_spec::{Args, Invocation, IpConfig, Success, decode};
use weft_ipam::DEFAULT_DATA_DIR;
use weft_netlink::sysctl::Originals;

use crate::{Options, PodPlan, Result};

/// The folder of all networks' records, beside their folders of reservations.
const FOLDER: &str = ".asked";

/// The records of one network.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

/// One container's record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// The name of the host's end of its veth pair.
    pub(crate) owner: String,
    config: Value,
    addresses: Vec<IpNetwork>,
}

impl Records {
    /// Needs no more of the configuration than where the reservations are.
    pub(crate) fn of(invocation: &Invocation) -> Records {
        Records { folder: data_dir(invocation).join(FOLDER).join(invocation.network.as_str()) }
    }

    /// Keeps what was asked for a container, where something was. One that cannot be kept is told of and does
    /// not keep the container from starting: it is needed only where somebody deletes what ADD made.
    pub(crate) fn keep(&self, invocation: &Invocation, plan: &PodPlan) {
        let is_ordinary =
            plan.host_ports.is_none() && plan.veth.limit.is_none() && plan.veth.only_from.is_none();
        if is_ordinary {
            return;
        }
        let owner = &plan.veth.link.host.name;
        if let Err(error) = self.write(owner, &text(invocation, plan)) {
            let path = self.folder.join(owner);
            // Whoever closed standard error does not read it.
            let _ = writeln!(io::stderr(), "weft-cni: cannot write {}: {error}", path.display());
        }
    }

    /// Nobody finds half a record.
    fn write(&self, owner: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let unfinished = self.folder.join(format!(".{owner}"));
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, self.folder.join(owner))
    }

    /// Forgets a container. Returns whether there was something to forget.
    pub(crate) fn forget(&self, owner: &str) -> bool {
        match fs::remove_file(self.folder.join(owner)) {
            Ok(()) => true,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Whether a container's record is still there.
    pub(crate) fn has(&self, owner: &str) -> bool {
        self.folder.join(owner).exists()
    }

    /// All that can be read.
    pub(crate) fn all(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let finished = names.filter(|name| !name.starts_with('.'));
        finished.filter_map(|owner| parse(&owner, &fs::read(self.folder.join(&owner)).ok()?)).collect()
    }
}

/// Where is kept what settings of the machine were before the plugin changed them.
pub(super) fn originals(invocation: &Invocation) -> Originals {
    Originals::below(data_dir(invocation))
}

/// The folder of all networks' reservations.
pub(super) fn data_dir(invocation: &Invocation) -> &Path {
    let data_dir = invocation.config.ipam.as_ref().and_then(|ipam| ipam.get("dataDir")?.as_str());
    Path::new(data_dir.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_DATA_DIR))
}

fn text(invocation: &Invocation, plan: &PodPlan) -> String {
    let mut config = invocation.json.clone();
    if let Some(config) = config.as_object_mut() {
        config.remove("prevResult");
    }
    if let Some(mac) = plan.veth.only_from {
        config["runtimeConfig"]["mac"] = mac.to_string().into();
    }
    json!({"config": config, "addresses": plan.pod.addresses}).to_string()
}

fn parse(owner: &str, text: &[u8]) -> Option<Record> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    let addresses = serde_json::from_value(value["addresses"].take()).ok()?;
    Some(Record { owner: owner.to_owned(), config: value["config"].take(), addresses })
}

impl Record {
    /// The options of the call that made the container.
    pub(crate) fn options(&self, network: &Invocation) -> Result<Options> {
        let (config, json) = (decode(&self.config)?, self.config.clone());
        Options::read(&Invocation { config, json, ..network.clone() }, &Args::default())
    }

    /// What was leased, as far as the host's side depends on it.
    pub(crate) fn lease(&self) -> Success {
        let ip = |address: &IpNetwork| IpConfig { address: *address, interface: None, gateway: None };
        Success { ips: self.addresses.iter().map(ip).collect(), ..Success::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_record_and_other_files_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records { folder: folder.path().join("blue") };
        assert_eq!(records.all(), []);
        records.write("veth1", r#"{"config": {"name": "blue"}, "addresses": ["10.1.0.2/24"]}"#).unwrap();
        records.write("veth2", r#"{"config": {"name""#).unwrap();
        records.write("veth3", "{}").unwrap();
        let all = records.all();
        let [record] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((record.owner.as_str(), record.lease().ips.len()), ("veth1", 1));
        assert!(records.has("veth1") && records.forget("veth1"));
        assert!(!records.has("veth1") && !records.forget("veth1"));
    }
}
