//! Reservations on disk, in the format of the reference `host-local` plugin: `<folder>/<address>` holds the container
//! id, CR LF and the interface name; `last_reserved_ip.<set>` the last address given; `lock` is flock()ed. Beside
//! that stand a mark on each record (`boot`) and the file `freed`, which the reference takes no notice of. Who gets which
//! address is not decided here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use weft_types::cni::ContainerId;

use crate::boot::Boot;
use crate::{Error, Holder, Listing, Owner, Record, Result, Store, freed};

/// The file that is being written and is not a record yet. Its name is no address, so that no program takes it for
/// one, and there is only one of it, because its writer holds the lock.
const UNFINISHED: &str = ".unfinished";
const LOCK: &str = "lock";
const FREED: &str = "freed";
const LAST: &str = "last_reserved_ip.";

/// A network's reservations on disk. No other program changes them while this value lives: all of them take the
/// lock.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    boot: Option<Boot>,
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
        let path = folder.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock", &path)(errno.into()))?;
        Ok(DiskStore { folder, boot: Boot::current(), _lock: lock })
    }

    fn record_path(&self, address: IpAddr) -> PathBuf {
        self.folder.join(address.to_string())
    }

    /// Everything in the folder. Only a folder that cannot be read is an error: what is damaged or does not belong there
    /// must not keep containers from starting.
    pub fn listing(&self) -> Result<Listing> {
        let entries = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        let mut listing = Listing { freed: self.freed(), ..Listing::default() };
        for entry in entries {
            let name = entry.map_err(failed("list", &self.folder))?.file_name();
            let name = name.to_string_lossy();
            let Ok(address) = name.parse() else {
                if !([UNFINISHED, LOCK, FREED].contains(&&*name) || name.starts_with(LAST)) {
                    listing.strays.push(format!("{} is no reservation", self.folder.join(&*name).display()));
                }
                continue;
            };
            let holder = self.holder(address);
            listing
                .strays
                .extend(doubt(&holder).map(|why| format!("{} {why}", self.record_path(address).display())));
            listing.records.push(Record { address, holder });
        }
        Ok(listing)
    }

    fn freed(&self) -> Vec<IpAddr> {
        let text = fs::read(self.folder.join(FREED)).unwrap_or_default();
        freed::parse(&String::from_utf8_lossy(&text))
    }

    fn holder(&self, address: IpAddr) -> Holder {
        let mut content = Vec::new();
        let file = File::open(self.record_path(address))
            .and_then(|mut file| file.read_to_end(&mut content).map(|_| file));
        match file {
            Ok(file) => parse(&content, self.boot.as_ref().is_some_and(|boot| boot.is_over(&file))),
            Err(_) => Holder::Unknown,
        }
    }

    /// Puts a whole file in its place, where none is: whoever dies on the way leaves no record, or a whole one.
    /// Nothing is flushed to the disk: after a power failure there are no containers either, and an empty record
    /// counts for nothing.
    fn publish(&self, path: &Path, content: &str) -> io::Result<()> {
        let unfinished = self.write_unfinished(content)?;
        let linked = fs::hard_link(&unfinished, path);
        fs::remove_file(&unfinished)?;
        linked
    }

    fn replace(&self, path: &Path, content: &str) -> io::Result<()> {
        fs::rename(self.write_unfinished(content)?, path)
    }

    /// Writes a hint, which may be lost or torn by a crash, in place: ext4 writes a file that is replaced, or emptied,
    /// to the disk at once, and that takes longer than all the rest of ADD.
    fn overwrite(&self, path: &Path, content: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.write_all(content.as_bytes())?;
        file.set_len(content.len() as u64)
    }

    fn write_unfinished(&self, content: &str) -> io::Result<PathBuf> {
        let unfinished = self.folder.join(UNFINISHED);
        // A leftover may be linked as a record already; it must not be written to.
        ignore_missing(fs::remove_file(&unfinished))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let marked = self.boot.as_ref().map_or(Ok(()), |boot| boot.mark(&file));
        // What a full disk has no room for must not take the room of others.
        let written = marked.and_then(|()| file.write_all(content.as_bytes()));
        written.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
        Ok(unfinished)
    }

    fn note_freed(&self, address: IpAddr) -> io::Result<()> {
        let path = self.folder.join(FREED);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(freed::text(&[address]).as_bytes())?;
        match freed::is_long(file.metadata()?.len()) {
            true => self.replace(&path, &freed::text(&self.freed())),
            false => Ok(()),
        }
    }
}

impl Store for DiskStore {
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
                if (Record { address, holder: self.holder(address) }).is_held() {
                    return Ok(false);
                }
                self.replace(&path, &content).map_err(failed("write", &path))?;
            }
            Err(error) => return Err(failed("write", &path)(error)),
        }
        let last = self.folder.join(last_name(set));
        self.overwrite(&last, &address.to_string()).map_err(failed("write", &last)).inspect_err(|_| {
            // The reservation is not told to the caller, so it must not stay.
            let _ = fs::remove_file(&path);
        })?;
        Ok(true)
    }

    fn free(&mut self, address: IpAddr) -> Result<()> {
        let path = self.record_path(address);
        match fs::remove_file(&path) {
            Ok(()) => {
                // On a full disk too, addresses must be freed; the order is worth less than that.
                let _ = self.note_freed(address);
                Ok(())
            }
            outcome => ignore_missing(outcome).map_err(failed("delete", &path)),
        }
    }
}

fn last_name(set: usize) -> String {
    format!("{LAST}{set}")
}

/// Surrounding white space does not count, nor do the zeroes that a power failure leaves; and old versions wrote the
/// container id alone.
fn parse(content: &[u8], earlier_boot: bool) -> Holder {
    let text = String::from_utf8_lossy(content);
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    let (id, ifname) = match text.split_once('\n') {
        Some((id, ifname)) => (id.trim_end(), Some(ifname.trim().to_owned())),
        None => (text, None),
    };
    match id {
        "" => Holder::Nobody,
        id => Holder::Container { id: id.to_owned(), ifname, earlier_boot },
    }
}

/// Why a record should be looked at.
fn doubt(holder: &Holder) -> Option<&'static str> {
    match holder {
        Holder::Unknown => Some("cannot be read; its address is not given to anybody"),
        Holder::Container { id, .. } if id.parse::<ContainerId>().is_err() => Some(
            "names no container; its address stays taken until garbage collection or until it is deleted",
        ),
        _ => None,
    }
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
        assert!(store.listing().unwrap().records[0].is_of(&owner()));
        store.free(ip("10.1.0.2")).unwrap();
        store.free(ip("10.1.0.2")).unwrap();
        assert_eq!(store.listing().unwrap().records, []);
    }

    #[test]
    fn old_damaged_and_foreign_files_are_told_and_never_fatal() {
        let (data_dir, mut store) = store();
        let folder = data_dir.path().join("blue");
        for (name, content) in [
            ("10.1.0.2", "c1"),
            ("10.1.0.3", " c1\r\neth0\n"),
            ("10.1.0.4", ""),
            ("10.1.0.5", "\0\0\0\0"),
            ("10.1.0.6", "\u{1}?!\neth0"),
            ("notes.txt", "c1\r\neth0"),
            (UNFINISHED, "c1\r\neth0"),
        ] {
            fs::write(folder.join(name), content).unwrap();
        }
        fs::create_dir(folder.join("10.1.0.7")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("10.1.0.8")).unwrap();
        let mut listing = store.listing().unwrap();
        listing.records.sort_by_key(|record| record.address);
        listing.strays.sort();
        let of = |id: &str, ifname: Option<&str>| Holder::Container {
            id: id.into(),
            ifname: ifname.map(str::to_owned),
            earlier_boot: false,
        };
        let holders: Vec<Holder> = listing.records.iter().map(|record| record.holder.clone()).collect();
        let damaged = of("\u{1}?!", Some("eth0"));
        let (c1, old) = (of("c1", Some("eth0")), of("c1", None));
        let unknown = Holder::Unknown;
        assert_eq!(holders, [old, c1, Holder::Nobody, Holder::Nobody, damaged, unknown.clone(), unknown]);
        let told: Vec<&str> =
            listing.strays.iter().map(|stray| stray.split('/').next_back().unwrap()).collect();
        assert_eq!(told[0][..20], *"10.1.0.6 names no co");
        assert_eq!(told[1][..20], *"10.1.0.7 cannot be r");
        assert_eq!(told[2][..20], *"10.1.0.8 cannot be r");
        assert_eq!(told[3..], ["notes.txt is no reservation"]);
        assert!(!store.reserve(ip("10.1.0.7"), &owner(), 0).unwrap(), "a folder is in the way");
    }

    #[test]
    fn a_record_of_an_earlier_boot_may_be_another_containers() {
        let (_data_dir, mut store) = store();
        assert!(store.reserve(ip("10.1.0.2"), &owner(), 0).unwrap());
        assert!(store.listing().unwrap().records[0].is_held());
        store.boot = Some(Boot::of_tests("the next"));
        let record = &store.listing().unwrap().records[0];
        assert!(!record.is_held() && record.is_of(&owner()));
        let other = Owner { container: "c2".into(), ..owner() };
        assert!(store.reserve(ip("10.1.0.2"), &other, 0).unwrap());
        assert!(store.listing().unwrap().records[0].is_held());
    }

    #[test]
    fn freed_addresses_are_kept_in_order_and_the_file_stays_short() {
        let (data_dir, mut store) = store();
        for round in 0..1600u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a01_0002 + round % 700));
            store.reserve(address, &owner(), 0).unwrap();
            store.free(address).unwrap();
            store.free(address).unwrap();
        }
        let freed = store.listing().unwrap().freed;
        assert_eq!(freed.last().unwrap().to_string(), "10.1.0.201");
        assert_eq!(freed[freed.len() - 2].to_string(), "10.1.0.200");
        let length = fs::metadata(data_dir.path().join("blue/freed")).unwrap().len();
        assert!(length < 17 << 10, "{length} bytes");
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
        let (data_dir, mut store) = store();
        assert_eq!(store.last(0).unwrap(), None);
        let last = data_dir.path().join("blue/last_reserved_ip.0");
        fs::write(&last, "10.1.0.99\n").unwrap();
        assert_eq!(store.last(0).unwrap(), Some(ip("10.1.0.99")));
        fs::write(&last, [0xff, 0xfe]).unwrap();
        assert_eq!(store.last(0).unwrap(), None);
        fs::write(&last, "10.1.0.200").unwrap();
        assert!(store.reserve(ip("10.1.0.2"), &owner(), 0).unwrap());
        assert_eq!(fs::read_to_string(&last).unwrap(), "10.1.0.2", "a shorter address leaves nothing behind");
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
