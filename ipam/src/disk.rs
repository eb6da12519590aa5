//! Reservations on disk, in the format of the reference `host-local` plugin: `<folder>/<address>` holds the
//! container id, CR LF and the interface name; `last_reserved_ip.<set>` the last address given; `lock` is
//! flock()ed. Beside that stand a mark for each record (`mark`) and the file `freed`, which the reference
//! takes no notice of. Who gets which address is not decided here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirEntryExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use crate::folder::{FREED, LAST, LOCK, NEW_FREED, Names};
use crate::mark::Mark;
use crate::{Error, Holder, Listing, Owner, Record, Result, Store, content, freed};
use weft_cni_spec::Boot;

/// A network's reservations on disk. No other program changes them while this value lives: all of them take
/// the lock.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    boot: Boot,
    _lock: Flock<File>,
}

impl DiskStore {
    /// Waits for the lock of the network's folder, which is made where it is missing.
    pub fn lock(folder: impl Into<PathBuf>) -> Result<DiskStore> {
        let folder = folder.into();
        match DiskStore::lock_if_exists(&folder)? {
            Some(store) => Ok(store),
            None => {
                fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
                DiskStore::lock_existing(folder)
            }
        }
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

    fn mark_path(&self, mark: &Mark) -> PathBuf {
        self.folder.join(mark.to_string())
    }

    /// All reservations. Of those that have a mark only the ones of `owner` are read, so that the cost is a
    /// listing of names. Only a folder that cannot be listed is an error: what is damaged or does not belong
    /// there must not keep containers from starting.
    pub fn listing(&self, owner: Option<&Owner>) -> Result<Listing> {
        let entries = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        let entries: Vec<(String, u64)> = entries
            .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.ino())))
            .collect::<io::Result<_>>()
            .map_err(failed("list", &self.folder))?;
        let names = Names::of(entries.into_iter());
        let foreign = |name: &String| format!("{} is not a reservation", self.folder.join(name).display());
        let strays = names.foreign.iter().map(foreign).collect();
        let mut listing = Listing { widows: names.widows, strays, ..Listing::default() };
        let key = owner.map(Owner::key);
        for (address, mark) in names.records {
            let holder = match &mark {
                Some(mark) if Some(mark.key) != key => Holder::Marked(mark.key),
                _ => self.holder(address),
            };
            let doubt = content::doubt(&holder);
            listing.strays.extend(doubt.map(|why| format!("{} {why}", self.record_path(address).display())));
            let earlier_boot = mark.as_ref().is_some_and(|mark| mark.boot.is_over(&self.boot));
            listing.records.push(Record { address, holder, earlier_boot, mark });
        }
        Ok(listing)
    }

    fn holder(&self, address: IpAddr) -> Holder {
        read(&self.record_path(address)).map_or(Holder::Unknown, |content| content::parse(&content))
    }

    /// Deletes marks that a crash left, and marks the records of other programs: they are of this boot at the
    /// latest, so the next one frees them. What of this fails, on a full disk say, is as well done by the
    /// next call.
    pub fn tidy(&mut self, listing: &mut Listing) {
        for name in &listing.widows {
            let _ = fs::remove_file(self.folder.join(name));
        }
        for record in listing.records.iter_mut().filter(|record| record.mark.is_none()) {
            let Holder::Container { id, ifname: Some(ifname) } = &record.holder else { continue };
            if content::doubt(&record.holder).is_none() {
                let owner = Owner { container: id.clone(), ifname: ifname.clone() };
                let mark = self.mark(record.address, &owner);
                let linked = fs::hard_link(self.record_path(record.address), self.mark_path(&mark));
                record.mark = linked.is_ok().then_some(mark);
            }
        }
    }

    fn mark(&self, address: IpAddr, owner: &Owner) -> Mark {
        Mark { address, boot: self.boot.clone(), key: owner.key() }
    }

    /// The whole file gets its second name, the record's, where none is: whoever dies on the way leaves no
    /// record, or a whole one. Nothing is flushed to the disk: after a power failure there are no containers
    /// either.
    fn publish(&self, mark: &Mark, text: &str) -> Result<bool> {
        let (marked, path) = (self.mark_path(mark), self.record_path(mark.address));
        let written = write_new(&marked, text).and_then(|()| fs::hard_link(&marked, &path));
        let Err(error) = written else { return Ok(true) };
        // What a full disk has no room for must not take the room of others.
        let _ = fs::remove_file(&marked);
        if error.kind() == ErrorKind::AlreadyExists { Ok(false) } else { Err(failed("write", &path)(error)) }
    }

    /// Whether there was a record. Then its mark goes: one that stays, because of a crash, does no harm.
    fn delete(&self, record: &Record) -> Result<bool> {
        let path = self.record_path(record.address);
        let deleted = fs::remove_file(&path);
        if let (Ok(()), Some(mark)) = (&deleted, &record.mark) {
            let _ = fs::remove_file(self.mark_path(mark));
        }
        match deleted {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            outcome => outcome.map(|()| true).map_err(failed("delete", &path)),
        }
    }

    fn note_freed(&self, addresses: &[IpAddr]) -> io::Result<()> {
        let path = self.folder.join(FREED);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(freed::text(addresses).as_bytes())?;
        if freed::is_long(file.metadata()?.len()) {
            let new = self.folder.join(NEW_FREED);
            let _ = fs::remove_file(&new);
            write_new(&new, &freed::text(&self.freed()))?;
            fs::rename(&new, &path)?;
        }
        Ok(())
    }
}

impl Store for DiskStore {
    fn last(&self, set: usize) -> Result<Option<IpAddr>> {
        let path = self.folder.join(last_name(set));
        match read(&path) {
            // A damaged file says no more than none: nothing given yet.
            Ok(text) => Ok(String::from_utf8_lossy(&text).trim().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn freed(&self) -> Vec<IpAddr> {
        let text = read(&self.folder.join(FREED)).unwrap_or_default();
        freed::parse(&String::from_utf8_lossy(&text))
    }

    fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<Option<Record>> {
        let mark = self.mark(address, owner);
        if !self.publish(&mark, &content::text(owner))? {
            return Ok(None);
        }
        let holder = Holder::Container { id: owner.container.clone(), ifname: Some(owner.ifname.clone()) };
        let record = Record { address, holder, earlier_boot: false, mark: Some(mark) };
        let last = self.folder.join(last_name(set));
        overwrite(&last, &address.to_string()).map_err(failed("write", &last)).inspect_err(|_| {
            // The reservation is not told to the caller, so it must not stay.
            let _ = self.delete(&record);
        })?;
        Ok(Some(record))
    }

    fn free(&mut self, records: &[&Record]) -> Result<()> {
        let (mut freed, mut outcome) = (Vec::new(), Ok(()));
        for record in records {
            match self.delete(record) {
                Ok(true) => freed.push(record.address),
                Ok(false) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if !freed.is_empty() {
            // On a full disk too, addresses must be freed; the order is worth less than that.
            let _ = self.note_freed(&freed);
        }
        outcome
    }
}

/// Fails where nothing could be written into a folder, or into the one in which it would be made. Writes
/// nothing.
pub(crate) fn see_that_writable(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
    access(there, AccessFlags::W_OK).map_err(|errno| failed("write to", there)(errno.into()))?;
    let disk = statvfs(there).map_err(|errno| failed("look at", there)(errno.into()))?;
    // Filesystems without a limit say that they have none of either.
    let is_full = (disk.blocks() > 0 && disk.blocks_available() == 0)
        || (disk.files() > 0 && disk.files_available() == 0);
    if is_full { Err(failed("write to", there)(ErrorKind::StorageFull.into())) } else { Ok(()) }
}

fn last_name(set: usize) -> String {
    format!("{LAST}{set}")
}

/// Without asking for the length first, which is short.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(4096);
    File::open(path)?.take(1 << 20).read_to_end(&mut content)?;
    Ok(content)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Writes a hint, which may be lost or torn by a crash, in place: ext4 writes a file that is replaced, or
/// emptied, to the disk at once, and that takes longer than all the rest of ADD.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    match file.metadata()?.len() > text.len() as u64 {
        true => file.set_len(text.len() as u64),
        false => Ok(()),
    }
}

pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
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

    fn reserve(store: &mut DiskStore, address: &str, container: &str) -> bool {
        let owner = Owner { container: container.into(), ..owner() };
        store.reserve(ip(address), &owner, 0).unwrap().is_some()
    }

    fn free(store: &mut DiskStore, address: &str) {
        let records = store.listing(None).unwrap().records;
        let records: Vec<&Record> = records.iter().filter(|record| record.address == ip(address)).collect();
        store.free(&records).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn store() -> (tempfile::TempDir, DiskStore) {
        let data_dir = tempfile::tempdir().unwrap();
        let store = DiskStore::lock(data_dir.path().join("blue")).unwrap();
        (data_dir, store)
    }

    #[test]
    fn a_record_has_the_references_name_content_and_mode() {
        let (data_dir, mut store) = store();
        assert!(reserve(&mut store, "10.1.0.2", "c1"));
        assert!(store.reserve(ip("fd00::2"), &owner(), 1).unwrap().is_some());
        let folder = data_dir.path().join("blue");
        for (address, set) in [("10.1.0.2", 0), ("fd00::2", 1)] {
            assert_eq!(fs::read_to_string(folder.join(address)).unwrap(), "c1\r\neth0");
            assert_eq!(fs::metadata(folder.join(address)).unwrap().permissions().mode() & 0o777, 0o600);
            let last = fs::read_to_string(folder.join(format!("last_reserved_ip.{set}"))).unwrap();
            assert_eq!(last, address);
        }
        let (marks, names): (Vec<String>, Vec<String>) =
            names(&folder).into_iter().partition(|name| name.starts_with('.'));
        assert_eq!(names, ["10.1.0.2", "fd00::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
        assert_eq!(marks.len(), 2, "one each");
    }

    #[test]
    fn a_taken_address_stays_its_owners() {
        let (_data_dir, mut store) = store();
        assert!(reserve(&mut store, "10.1.0.2", "c1"));
        assert!(!reserve(&mut store, "10.1.0.2", "c2"));
        assert!(store.listing(Some(&owner())).unwrap().records[0].is_of(&owner()));
        assert!(store.listing(None).unwrap().records[0].is_of(&owner()), "by its mark");
        free(&mut store, "10.1.0.2");
        free(&mut store, "10.1.0.2");
        assert_eq!(store.listing(None).unwrap(), Listing::default());
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
            (NEW_FREED, "10.1.0.9\n"),
        ] {
            fs::write(folder.join(name), content).unwrap();
        }
        fs::create_dir(folder.join("10.1.0.7")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("10.1.0.8")).unwrap();
        let mut listing = store.listing(None).unwrap();
        listing.records.sort_by_key(|record| record.address);
        listing.strays.sort();
        let of = |id: &str, ifname: Option<&str>| Holder::Container {
            id: id.into(),
            ifname: ifname.map(str::to_owned),
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
        assert_eq!(told[3..], ["notes.txt is not a reservation"]);
        assert!(!reserve(&mut store, "10.1.0.7", "c3"), "a folder is in the way");
    }

    #[test]
    fn a_record_of_an_earlier_boot_is_held_by_nobody() {
        let (_data_dir, mut store) = store();
        assert!(reserve(&mut store, "10.1.0.2", "c1"));
        assert!(store.listing(None).unwrap().records[0].is_held());
        store.boot = Boot::of_text("ab12");
        let record = &store.listing(Some(&owner())).unwrap().records[0];
        assert!(!record.is_held() && record.is_of(&owner()));
        store.free(&[record]).unwrap();
        assert!(reserve(&mut store, "10.1.0.2", "c2"));
        assert!(store.listing(None).unwrap().records[0].is_held());
    }

    #[test]
    fn a_record_of_another_program_is_marked_when_it_is_seen_and_the_next_boot_frees_it() {
        let (data_dir, mut store) = store();
        let folder = data_dir.path().join("blue");
        fs::write(folder.join("10.1.0.2"), "c1\r\neth0").unwrap();
        fs::write(folder.join("10.1.0.3"), "of an old version").unwrap();
        let mut listing = store.listing(None).unwrap();
        store.tidy(&mut listing);
        assert_eq!(listing.records.iter().filter(|record| record.mark.is_some()).count(), 1);
        store.boot = Boot::of_text("ab12");
        let records = store.listing(None).unwrap().records;
        let record = |address| records.iter().find(|record| record.address == ip(address)).unwrap();
        assert!(!record("10.1.0.2").is_held() && record("10.1.0.3").is_held());
        // A new file in its place is another container's.
        fs::rename(folder.join("10.1.0.3"), folder.join("10.1.0.2")).unwrap();
        let mut listing = store.listing(None).unwrap();
        assert!(listing.records[0].is_held());
        store.tidy(&mut listing);
        assert_eq!(names(&folder), ["10.1.0.2", "lock"], "the old mark is gone");
    }

    #[test]
    fn freed_addresses_are_kept_in_order_and_the_file_stays_short() {
        let (data_dir, mut store) = store();
        for round in 0..1600u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a01_0002 + round % 700));
            let record = store.reserve(address, &owner(), 0).unwrap().unwrap();
            store.free(&[&record]).unwrap();
            store.free(&[&record]).unwrap();
        }
        let freed = store.freed();
        assert_eq!(freed.last().unwrap().to_string(), "10.1.0.201");
        assert_eq!(freed[freed.len() - 2].to_string(), "10.1.0.200");
        let length = fs::metadata(data_dir.path().join("blue/freed")).unwrap().len();
        assert!(length < 17 << 10, "{length} bytes");
    }

    #[test]
    fn what_a_crash_left_does_no_harm() {
        let (data_dir, mut store) = store();
        let folder = data_dir.path().join("blue");
        // A crash between writing the file and giving it the record's name.
        assert!(reserve(&mut store, "10.1.0.2", "c1"));
        fs::remove_file(folder.join("10.1.0.2")).unwrap();
        let mut listing = store.listing(None).unwrap();
        assert_eq!((listing.records.len(), listing.widows.len()), (0, 1));
        assert!(!reserve(&mut store, "10.1.0.2", "c1"), "in the way for once");
        assert!(reserve(&mut store, "10.1.0.2", "c1"));
        // A crash while `freed` was written anew.
        fs::write(folder.join(NEW_FREED), "10.1.0.").unwrap();
        listing = store.listing(None).unwrap();
        assert_eq!((listing.records.len(), listing.widows.len(), listing.strays.len()), (1, 0, 0));
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
        assert!(reserve(&mut store, "10.1.0.2", "c1"));
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
        assert!(error.to_string().starts_with("cannot open "), "{error}");
        assert!(error.to_string().contains("/blue/lock: Not a directory"), "{error}");
        assert_eq!(error.failure().code.number(), 5);
    }
}
