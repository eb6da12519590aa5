//! A network's folder of reservations as a fuzzer's input: whatever is in it, containers get addresses that
//! nobody has, and give them back. On a temporary folder.
//!
//! An input is the files, each opened by a line `== NAME`, or `== NAME -> OTHER` for a second name of a file
//! before. Before the first of them stand addresses that the container asks for.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use weft_cni_spec::{Ipam, NetworkName, Version};
use weft_ipam::{DiskStore, Error, Lease, Listing, Owner, Pool, allocate, collect, release};

/// Gives and takes addresses. Panics where a container would get one that is another's, or one would be lost.
pub(crate) fn run(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (requested, files) = split(input);
    files.iter().for_each(|file| write(folder.path(), file));
    let taken = unmarked(folder.path());
    let (pool, owner) = (pool(), owner());
    let mut store = DiskStore::lock(folder.path()).expect("the folder is there");
    let listing = listing(&mut store);
    match allocate(&mut store, &listing, &pool, &owner, &requested) {
        Ok(lease) => given(&mut store, &pool, &lease, &taken),
        Err(Error::Store { path, source, .. }) => panic!("{}: {source}", path.display()),
        Err(error) => assert!(!error.failure().msg.is_empty()),
    }
    // The first frees what has the interface's name, the second what an old version wrote without.
    for _ in 0..2 {
        let listing = listing_of(&store);
        release(&mut store, &listing, &owner).expect("a folder that can be written to");
    }
    assert!(!listing_of(&store).records.iter().any(|record| record.is_held() && record.is_of(&owner)));
    let left = listing_of(&store);
    collect(&mut store, &left, |_| false).expect("a folder that can be written to");
    assert_eq!(records(folder.path()), BTreeSet::new(), "all are garbage");
}

fn owner() -> Owner {
    Owner { container: "c1".into(), ifname: "eth0".into() }
}

fn pool() -> Pool {
    let ipam: Ipam = serde_json::from_str(
        r#"{"ranges": [[{"subnet": "10.1.0.0/29"}, {"subnet": "10.2.0.0/30"}], [{"subnet": "fd00::/125"}]]}"#,
    )
    .expect("the section of a configuration");
    let network: NetworkName = "blue".parse().expect("a name");
    Pool::new(&network, Version::V1_1_0, &ipam, &[]).expect("a pool")
}

/// Whom an ADD sees the addresses taken by.
fn listing(store: &mut DiskStore) -> Listing {
    let mut listing = store.listing(Some(&owner())).expect("a folder that can be listed");
    store.tidy(&mut listing);
    listing
}

fn listing_of(store: &DiskStore) -> Listing {
    store.listing(Some(&owner())).expect("a folder that can be listed")
}

fn given(store: &mut DiskStore, pool: &Pool, lease: &Lease, taken: &BTreeSet<IpAddr>) {
    assert_eq!(lease.ips.len(), pool.sets.len());
    for (set, ip) in pool.sets.iter().zip(&lease.ips) {
        let address = ip.address.ip();
        let range = set.range_of(address).expect("an address of the set");
        assert!(address != range.gateway && ip.gateway == Some(range.gateway));
        assert!(!taken.contains(&address), "{address} was another's");
    }
    let listing = listing_of(store);
    let records = listing.records.iter().filter(|record| record.is_held() && record.is_of(&owner()));
    let reserved: BTreeSet<IpAddr> = records.map(|record| record.address).collect();
    assert!(lease.ips.iter().all(|ip| reserved.contains(&ip.address.ip())));
    let again = allocate(store, &listing, pool, &owner(), &[]);
    assert!(matches!(again, Err(Error::Duplicate { .. })), "{again:?}");
}

/// The addresses whose records say something and have no second name that could tell of an earlier boot.
fn unmarked(folder: &Path) -> BTreeSet<IpAddr> {
    let is_taken = |address: &IpAddr| {
        let path = folder.join(address.to_string());
        let content = fs::read(&path).expect("a file");
        let blank =
            String::from_utf8_lossy(&content).chars().all(|letter| letter.is_whitespace() || letter == '\0');
        !blank && std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&path).expect("a file")) == 1
    };
    records(folder).into_iter().filter(is_taken).collect()
}

/// Every record under the name that Weft gives it.
fn records(folder: &Path) -> BTreeSet<IpAddr> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = entries.filter_map(|name| name.into_string().ok());
    names
        .filter_map(|name| name.parse().ok().filter(|address: &IpAddr| address.to_string() == name))
        .collect()
}

/// A file: the line that opens it, and its content.
type File<'a> = (&'a str, &'a [u8]);

fn split(input: &[u8]) -> (Vec<IpAddr>, Vec<File<'_>>) {
    let (mut files, mut at) = (Vec::new(), input);
    let before = cut(&mut at);
    while !at.is_empty() {
        let part = cut(&mut at);
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let name = std::str::from_utf8(&part[..end]);
        files.extend(name.ok().map(|name| (name, part.get(end + 1..).unwrap_or_default())));
    }
    let words = String::from_utf8_lossy(before);
    (words.split_whitespace().filter_map(|word| word.parse().ok()).collect(), files)
}

/// Takes away what stands before the next opening of a file, and the opening.
fn cut<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let (opening, all) = (b"\n== ", *input);
    let place = all.windows(opening.len()).position(|window| window == opening);
    let (part, rest) = place.map_or((all, &[][..]), |place| (&all[..place], &all[place + opening.len()..]));
    *input = rest;
    part
}

fn write(folder: &Path, (line, content): &File<'_>) {
    let (name, other) = line.split_once(" -> ").map_or((*line, None), |(name, other)| (name, Some(other)));
    let is_name =
        |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']) && name.len() < 200;
    if !is_name(name) || folder.join(name).exists() {
        return;
    }
    match other.filter(|other| is_name(other)) {
        // What it is a second name of may not be there.
        Some(other) => drop(fs::hard_link(folder.join(other), folder.join(name))),
        None => fs::write(folder.join(name), content).expect("room on the disk"),
    }
}
