//! Reservations on disk, in the format of the reference `host-local` plugin: `<folder>/<address>` holds the container
//! id, CR LF and the interface name; `last_reserved_ip.<set>` the last address given; `lock` is flock()ed. Who gets
//! which address is not decided here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::{Error, Owner, Record, Result, Store};

/// The file that is being written and is not a record yet. Its name is no address, so that no program takes it for
/// one, and there is only one of it, because its writer holds the lock.
const UNFINISHED: &str = ".unfinished";

/// A network's reservations on disk. No other program changes them while this value lives: all of them take the
/// lock.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl DiskStore {
    /// Waits for the lock of the network's folder, which is made where it is missing.
    pub fn lock(folder: impl Into<PathBuf>) -> Result<DiskStore> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        DiskStore::lock_existing(folder)
    }

    /// The same, but `None` where the network has no folder and so no reservation.
    pub fn lock_if_exists(folder: impl Into<PathBuf>) -> Result<Option<DiskStore>> {
        let folder = folder.into();
        match DiskStore::lock_existing(folder) {
            Err(Error::Store { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    fn lock_existing(folder: PathBuf) -> Result<DiskStore> {
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock", &path)(errno.into()))?;
        Ok(DiskStore { folder, _lock: lock })
    }

    fn record_path(&self, address: IpAddr) -> PathBuf {
        self.folder.join(address.to_string())
    }

    /// Puts a whole file in its place, where none is: whoever dies on the way leaves no record, or a whole one.
    /// Nothing is flushed to the disk: after a power failure there are no containers either, and an empty record
    /// counts for nothing.
    fn publish(&self, path: &Path, content: &str) -> io::Result<()> {
        let unfinished = self.folder.join(UNFINISHED);
        // A leftover may be linked as a record already; it must not be written to.
        ignore_missing(fs::remove_file(&unfinished))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        fs::hard_link(&unfinished, path)?;
        fs::remove_file(&unfinished)
    }

    fn replace(&self, path: &Path, content: &str) -> io::Result<()> {
        let unfinished = self.folder.join(UNFINISHED);
        ignore_missing(fs::remove_file(&unfinished))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&unfinished, path)
    }
}

impl Store for DiskStore {
    fn records(&self) -> Result<Vec<Record>> {
        let entries = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("list", &self.folder))?;
            // Whatever is not called by an address is no record.
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let content = fs::read(entry.path()).map_err(failed("read", &entry.path()))?;
            records.push(parse(address, &content));
        }
        Ok(records)
    }

    fn last(&self, set: usize) -> Result<Option<IpAddr>> {
        let path = self.folder.join(last_name(set));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            // Nothing given yet; a damaged file says no more than that.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<bool> {
        let path = self.record_path(address);
        let content = format!("{}\r\n{}", owner.container, owner.ifname);
        match self.publish(&path, &content) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = fs::read(&path).map_err(failed("read", &path))?;
                if parse(address, &found).container.is_some() {
                    return Ok(false);
                }
                self.replace(&path, &content).map_err(failed("write", &path))?;
            }
            Err(error) => return Err(failed("write", &path)(error)),
        }
        let last = self.folder.join(last_name(set));
        self.replace(&last, &address.to_string()).map_err(failed("write", &last)).inspect_err(|_| {
            // The reservation is not told to the caller, so it must not stay.
            let _ = fs::remove_file(&path);
        })?;
        Ok(true)
    }

    fn free(&mut self, address: IpAddr) -> Result<()> {
        let path = self.record_path(address);
        ignore_missing(fs::remove_file(&path)).map_err(failed("delete", &path))
    }
}

fn last_name(set: usize) -> String {
    format!("last_reserved_ip.{set}")
}

/// Surrounding white space does not count, and old versions wrote the container id alone.
fn parse(address: IpAddr, content: &[u8]) -> Record {
    let text = String::from_utf8_lossy(content);
    let mut lines = text.trim().splitn(2, '\n').map(|line| line.trim().to_owned());
    let container = lines.next().filter(|id| !id.is_empty());
    Record { address, container, ifname: lines.next() }
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Store { operation, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn owner() -> Owner {
        Owner { container: "c1".into(), ifname: "eth0".into() }
    }

    fn store() -> (tempfile::TempDir, DiskStore) {
        let data_dir = tempfile::tempdir().unwrap();
        let store = DiskStore::lock(data_dir.path().join("blue")).unwrap();
        (data_dir, store)
    }

    #[test]
    fn a_record_has_the_references_name_content_and_mode() {
        let (data_dir, mut store) = store();
        assert!(store.reserve(ip("10.1.0.2"), &owner(), 0).unwrap());
        assert!(store.reserve(ip("fd00::2"), &owner(), 1).unwrap());
        let folder = data_dir.path().join("blue");
        for (address, set) in [("10.1.0.2", 0), ("fd00::2", 1)] {
            assert_eq!(fs::read_to_string(folder.join(address)).unwrap(), "c1\r\neth0");
            assert_eq!(fs::metadata(folder.join(address)).unwrap().permissions().mode() & 0o777, 0o600);
            let last = fs::read_to_string(folder.join(format!("last_reserved_ip.{set}"))).unwrap();
            assert_eq!(last, address);
        }
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["10.1.0.2", "fd00::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
    }

    #[test]
    fn a_taken_address_stays_its_owners() {
        let (_data_dir, mut store) = store();
        assert!(store.reserve(ip("10.1.0.2"), &owner(), 0).unwrap());
        let other = Owner { container: "c2".into(), ..owner() };
        assert!(!store.reserve(ip("10.1.0.2"), &other, 0).unwrap());
        assert!(store.records().unwrap()[0].is_of(&owner()));
        store.free(ip("10.1.0.2")).unwrap();
        store.free(ip("10.1.0.2")).unwrap();
        assert_eq!(store.records().unwrap(), []);
    }

    #[test]
    fn old_records_white_space_and_foreign_files() {
        let (data_dir, store) = store();
        let folder = data_dir.path().join("blue");
        for (name, content) in [
            ("10.1.0.2", "c1"),
            ("10.1.0.3", " c1\r\neth0\n"),
            ("10.1.0.4", ""),
            ("notes.txt", "c1\r\neth0"),
            (UNFINISHED, "c1\r\neth0"),
        ] {
            fs::write(folder.join(name), content).unwrap();
        }
        fs::create_dir(folder.join("folder")).unwrap();
        let mut records = store.records().unwrap();
        records.sort_by_key(|record| record.address);
        let found: Vec<_> = records
            .iter()
            .map(|record| (record.address.to_string(), record.container.as_deref(), record.ifname.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("10.1.0.2".into(), Some("c1"), None),
                ("10.1.0.3".into(), Some("c1"), Some("eth0")),
                ("10.1.0.4".into(), None, None),
            ]
        );
    }

    #[test]
    fn what_a_crash_left_does_no_harm() {
        let (data_dir, mut store) = store();
        let folder = data_dir.path().join("blue");
        // A crash between link and unlink: the unfinished file is a record already.
        assert!(store.reserve(ip("10.1.0.2"), &owner(), 0).unwrap());
        fs::hard_link(folder.join("10.1.0.2"), folder.join(UNFINISHED)).unwrap();
        // A crash of the reference plugin between creating and writing.
        fs::write(folder.join("10.1.0.3"), "").unwrap();
        let other = Owner { container: "c2".into(), ..owner() };
        assert!(store.reserve(ip("10.1.0.3"), &other, 0).unwrap());
        assert_eq!(fs::read_to_string(folder.join("10.1.0.2")).unwrap(), "c1\r\neth0");
        assert_eq!(fs::read_to_string(folder.join("10.1.0.3")).unwrap(), "c2\r\neth0");
        assert!(!folder.join(UNFINISHED).exists());
    }

    #[test]
    fn a_damaged_last_address_counts_for_nothing() {
        let (data_dir, store) = store();
        assert_eq!(store.last(0).unwrap(), None);
        let last = data_dir.path().join("blue/last_reserved_ip.0");
        fs::write(&last, "10.1.0.9\n").unwrap();
        assert_eq!(store.last(0).unwrap(), Some(ip("10.1.0.9")));
        fs::write(&last, [0xff, 0xfe]).unwrap();
        assert_eq!(store.last(0).unwrap(), None);
    }

    #[test]
    fn the_lock_is_exclusive() {
        let (data_dir, store) = store();
        let file = File::open(data_dir.path().join("blue/lock")).unwrap();
        assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err());
        drop(store);
        let file = File::open(data_dir.path().join("blue/lock")).unwrap();
        assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok());
    }

    #[test]
    fn a_network_without_a_folder_has_no_reservation() {
        let data_dir = tempfile::tempdir().unwrap();
        assert!(DiskStore::lock_if_exists(data_dir.path().join("blue")).unwrap().is_none());
        assert!(!data_dir.path().join("blue").exists());
    }

    #[test]
    fn errors_name_the_operation_and_the_file() {
        let data_dir = tempfile::tempdir().unwrap();
        fs::write(data_dir.path().join("blue"), "a file").unwrap();
        let error = DiskStore::lock(data_dir.path().join("blue")).unwrap_err();
        assert!(error.to_string().starts_with("cannot create "), "{error}");
        assert_eq!(error.failure().code.number(), 5);
    }
}
