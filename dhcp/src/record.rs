//! Leases on disk, a file for each: who has it, and what goes on after a restart of the agent, or of the
//! machine.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weft_cni_spec::{ContainerId, InterfaceName, NetworkName};

use crate::lease::Lease;
use crate::wishes::Wishes;

/// The longest client identifier: an option has 255 bytes, of which one says of what kind it is.
const LONGEST_ID: usize = 254;

/// A container's interface on a network. Prints as `container/network/interface`, by which the reference
/// daemon tells servers who a client is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The container.
    pub container: ContainerId,
    /// The network.
    pub network: NetworkName,
    /// The interface.
    pub ifname: InterfaceName,
}

/// What is remembered of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The container's id.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// The interface's name.
    pub ifname: String,
    /// The file of the container's network namespace.
    pub netns: PathBuf,
    /// The interface's Ethernet address.
    pub mac: [u8; 6],
    /// What its configuration asked for.
    pub wishes: Wishes,
    /// The lease.
    pub lease: Lease,
    /// When it was got or prolonged, in seconds of Unix.
    pub since: u64,
}

impl Record {
    /// Whether its container may be there still. Where there is no folder of namespaces, nobody can tell.
    pub(crate) fn may_be_used(&self) -> bool {
        self.netns.exists() || !self.netns.parent().is_some_and(Path::exists)
    }
}

/// A folder of leases.
#[derive(Clone, Debug)]
pub(crate) struct Records(PathBuf);

impl Owner {
    /// From names as they come.
    ///
    /// # Errors
    /// Which one is none.
    pub(crate) fn new(container: &str, network: &str, ifname: &str) -> Result<Owner, String> {
        let wrong = |error: weft_cni_spec::InvalidCniName| error.to_string();
        Ok(Owner {
            container: container.parse().map_err(wrong)?,
            network: network.parse().map_err(wrong)?,
            ifname: ifname.parse().map_err(wrong)?,
        })
    }

    /// By what servers know it: of no kind of hardware (RFC 2132 section 9.14).
    pub(crate) fn client_id(&self) -> Vec<u8> {
        let mut id = format!("\0{self}").into_bytes();
        id.truncate(LONGEST_ID + 1);
        id
    }

    /// None of the names may hold a colon.
    fn file(&self) -> String {
        format!("{}:{}:{}", self.network, self.container, self.ifname)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.container, self.network, self.ifname)
    }
}

impl Record {
    /// Whose it is.
    ///
    /// # Errors
    /// Where it cannot be anybody's.
    pub(crate) fn owner(&self) -> Result<Owner, String> {
        Owner::new(&self.container, &self.network, &self.ifname)
    }

    /// How long ago the lease was got. A clock that was set back says 0.
    pub(crate) fn age(&self) -> Duration {
        now().saturating_sub(Duration::from_secs(self.since))
    }
}

/// The time, as Unix counts it.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Records {
    /// In that folder, which need not be there.
    pub(crate) fn of(folder: &Path) -> Records {
        Records(folder.to_owned())
    }

    /// All of them. Those that cannot be read are told in words, and stay.
    pub(crate) fn all(&self) -> (Vec<Record>, Vec<String>) {
        let (mut records, mut problems) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return (records, problems),
            Err(error) => return (records, vec![format!("cannot read {}: {error}", self.0.display())]),
            Ok(entries) => entries,
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_unfinished =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_unfinished {
                // Of an agent that died while it wrote. Its caller was told nothing.
                let _ = fs::remove_file(&path);
                continue;
            }
            let read = fs::read(&path).map_err(|error| error.to_string());
            let record = read
                .and_then(|text| serde_json::from_slice::<Record>(&text).map_err(|error| error.to_string()));
            match record.and_then(|record| record.owner().map(|_| record)) {
                Ok(record) => records.push(record),
                Err(error) => problems.push(format!(
                    "the DHCP lease {} cannot be read: {error}; it is not renewed, delete the file",
                    path.display()
                )),
            }
        }
        (records, problems)
    }

    /// Keeps one. A reader, and a crash at any moment, finds the file of before or of after.
    ///
    /// # Errors
    /// Where it is not on disk.
    pub(crate) fn keep(&self, owner: &Owner, record: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let unfinished = self.0.join(format!(".{}", owner.file()));
        // Whatever another agent left there.
        let _ = fs::remove_file(&unfinished);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.0.join(owner.file()))?;
        File::open(&self.0)?.sync_all()
    }

    /// Forgets one. What is forgotten already is no error.
    ///
    /// # Errors
    /// Where it stays.
    pub(crate) fn forget(&self, owner: &Owner) -> io::Result<()> {
        match fs::remove_file(self.0.join(owner.file())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::lease::Station;

    fn owner() -> Owner {
        Owner::new("c1", "lan", "eth0").unwrap()
    }

    fn record() -> Record {
        Record {
            container: "c1".into(),
            network: "lan".into(),
            ifname: "eth0".into(),
            netns: "/run/netns/c1".into(),
            mac: [2, 0, 0, 0, 0, 1],
            wishes: Wishes { provided: [(12, vec![0xff])].into(), ..Wishes::default() },
            lease: Lease {
                address: "192.0.2.50/24".parse().unwrap(),
                gateway: None,
                routes: Vec::new(),
                term: None,
                server: Station { address: [192, 0, 2, 1].into(), mac: [2, 0, 0, 0, 0, 2] },
            },
            since: 1_700_000_000,
        }
    }

    #[test]
    fn a_lease_is_found_again_by_nobody_but_root() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::of(&folder.path().join("leases"));
        assert_eq!(records.all(), (Vec::new(), Vec::new()), "there is no folder yet");
        records.keep(&owner(), &record()).unwrap();
        records.keep(&owner(), &record()).unwrap();
        assert_eq!(records.all(), (vec![record()], Vec::new()));
        assert_eq!(records.all().0[0].owner(), Ok(owner()));
        let file = folder.path().join("leases/lan:c1:eth0");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        records.forget(&owner()).unwrap();
        records.forget(&owner()).unwrap();
        assert_eq!(records.all(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_half_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::of(folder.path());
        records.keep(&owner(), &record()).unwrap();
        fs::write(folder.path().join("lan:c2:eth0"), "{").unwrap();
        fs::write(folder.path().join(".lan:c3:eth0"), "{").unwrap();
        let (found, problems) = records.all();
        assert_eq!((found.len(), problems.len()), (1, 1));
        assert!(
            problems[0].contains("lan:c2:eth0") && problems[0].contains("delete the file"),
            "{problems:?}"
        );
        let escaping = Record { network: "../etc".into(), ..record() };
        assert!(escaping.owner().is_err());
    }

    #[test]
    fn servers_know_a_client_as_they_know_the_reference_daemons() {
        assert_eq!(owner().client_id(), b"\0c1/lan/eth0");
        let long = Owner::new(&"c".repeat(300), "lan", "eth0").unwrap();
        assert_eq!(long.client_id().len(), 255);
    }
}
