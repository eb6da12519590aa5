//! Which addresses pods have by word of the plugin, and not yet by the API server's: kept on disk, so that an
//! agent that ends after it has let such a pod out, and comes back before the pod's status has its addresses,
//! still knows whose they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use weft_policy::pending::write_state;

/// The file, which lies in the plugin's data folder beside the one of the namespaces that have policies. No
/// network's own folder can have that name.
pub(crate) const FILE: &str = ".policy-pods";
/// Stands for the container where the plugin has no reservation of the address, as with other IPAM plugins.
const NOBODY: &str = "-";

/// The file, and what is in it.
pub(crate) struct Remembered {
    path: PathBuf,
    /// The folder of the network's reservations.
    leases: PathBuf,
    /// What was written last; nothing before that.
    written: Option<BTreeMap<IpAddr, String>>,
}

impl Remembered {
    /// By the plugin's data folder, and that of the network's reservations.
    pub(crate) fn new(data_dir: &Path, leases: &Path) -> Remembered {
        Remembered { path: data_dir.join(FILE), leases: leases.to_owned(), written: None }
    }

    /// The addresses, each with the plugin's remark. Those that another container has by now are left out,
    /// and so are lines that cannot be read.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub(crate) fn read(&self) -> io::Result<Vec<(IpAddr, String)>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let entry = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let address: IpAddr = words.next()?.parse().ok()?;
            let (container, remark) = (words.next()?, words.next()?);
            (container == self.container(address)).then(|| (address, remark.to_owned()))
        };
        Ok(text.lines().filter_map(entry).collect())
    }

    /// Keeps these, and no others. Nobody finds half a file.
    ///
    /// # Errors
    /// What the operating system refused.
    pub(crate) fn keep(&mut self, pods: BTreeMap<IpAddr, String>) -> io::Result<()> {
        if self.written.as_ref() == Some(&pods) {
            return Ok(());
        }
        let line = |(address, remark): (&IpAddr, &String)| {
            format!("{address} {} {remark}\n", self.container(*address))
        };
        write_state(&self.path, &pods.iter().map(line).collect::<String>())?;
        self.written = Some(pods);
        Ok(())
    }

    /// The file's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The container that the plugin gave an address to.
    fn container(&self, address: IpAddr) -> String {
        let record = fs::read_to_string(self.leases.join(address.to_string())).unwrap_or_default();
        record.split_whitespace().next().unwrap_or(NOBODY).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_s_addresses_are_remembered_until_another_container_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let leases = folder.path().join("weft");
        fs::create_dir(&leases).unwrap();
        let [own, foreign]: [IpAddr; 2] = ["10.244.1.2", "fd00::2"].map(|text| text.parse().unwrap());
        fs::write(leases.join("10.244.1.2"), "c1\r\neth0").unwrap();
        let open = || Remembered::new(folder.path(), &leases);
        assert_eq!(open().read().unwrap(), []);
        let pods = [(own, "shop/web/1".to_owned()), (foreign, "shop/web/1".to_owned())];
        let mut remembered = open();
        remembered.keep(pods.clone().into()).unwrap();
        assert_eq!(open().read().unwrap(), pods);

        fs::write(leases.join("10.244.1.2"), "c2\r\neth0").unwrap();
        assert_eq!(open().read().unwrap(), pods[1..]);
        fs::write(folder.path().join(FILE), "not a line of ours\n\n10.244.1.2 c2\n").unwrap();
        assert_eq!(open().read().unwrap(), []);

        remembered.keep(BTreeMap::new()).unwrap();
        assert!(!folder.path().join(FILE).exists());
        open().keep(BTreeMap::new()).unwrap();
    }
}
