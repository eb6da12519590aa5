//! IPAM as a CNI plugin: the commands over a pool and its store on disk. `weft-cni` calls it in process, the
//! `weft-ipam` program by the protocol.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Map;
use weft_cni_spec::{self as cni, Args, Attachment, Code, Failure, Handler, Invocation, Success};

use crate::disk;
use crate::{
    DiskStore, Error, Holder, Key, Lease, Listing, Owner, Pool, RangeSet, Record, Result, allocate, collect,
    pool, release, resolver,
};

/// How long ADD waits for the node's next block, and how long between two looks for it.
const NEXT_BLOCK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// The IPAM plugin. It has no state but what is on disk.
#[derive(Clone, Copy, Debug)]
pub struct Ipam;

impl Ipam {
    /// The names under which a network configuration asks for this plugin in `ipam.type`.
    pub const NAMES: [&str; 2] = ["weft-ipam", "host-local"];

    /// The pool that a call's configuration describes.
    pub fn pool(invocation: &Invocation) -> Result<Pool> {
        let section = invocation.config.ipam.clone().unwrap_or_else(|| Map::new().into());
        let ipam: cni::Ipam = cni::decode(&section)
            .map_err(|failure| Error::Decode(Failure { msg: format!("ipam: {}", failure.msg), ..failure }))?;
        let run_time = &invocation.config.runtime_config.ip_ranges;
        Pool::new(&invocation.network, invocation.version, &ipam, run_time)
    }
}

impl Ipam {
    /// The addresses that are taken: those of one attachment, or all of the network's. Needs no more of the
    /// configuration than where the reservations are.
    ///
    /// # Errors
    /// Where the folder cannot be locked or listed.
    pub fn reserved(invocation: &Invocation, attachment: Option<&Attachment>) -> Result<Vec<IpAddr>> {
        let Some(store) = DiskStore::lock_if_exists(folder(invocation))? else { return Ok(Vec::new()) };
        let owner = attachment.map(Owner::from);
        let records = store.listing(owner.as_ref())?.records.into_iter();
        let is_wanted =
            |record: &Record| record.is_held() && owner.as_ref().is_none_or(|owner| record.is_of(owner));
        Ok(records.filter(is_wanted).map(|record| record.address).collect())
    }
}

impl Handler for Ipam {
    fn about(&self) -> &'static str {
        concat!(
            "weft-ipam ",
            env!("CARGO_PKG_VERSION"),
            ": host-local IP address management, a CNI IPAM plugin"
        )
    }

    fn add(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        _netns: &Path,
        args: &Args,
    ) -> Result<Success, Failure> {
        add(invocation, attachment, args).map_err(|error| error.failure())
    }

    fn del(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        _netns: Option<&Path>,
    ) -> Result<(), Failure> {
        del(invocation, attachment).map_err(|error| error.failure())
    }

    fn check(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        _netns: &Path,
        _previous: &Success,
    ) -> Result<(), Failure> {
        check(invocation, attachment).map_err(|error| error.failure())
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Failure> {
        gc(invocation).map_err(|error| error.failure())
    }

    /// Code 50 where a range set has no address left, and where no reservation could be written.
    fn status(&self, invocation: &Invocation) -> Result<(), Failure> {
        status(invocation).map_err(|error| match &error {
            Error::Exhausted { .. }
            | Error::NoBlock { .. }
            | Error::BlocksFull { .. }
            | Error::Store { .. } => Failure { code: Code::Unavailable, ..error.failure() },
            _ => error.failure(),
        })
    }
}

fn add(invocation: &Invocation, attachment: &Attachment, args: &Args) -> Result<Success> {
    let pool = Ipam::pool(invocation)?;
    let requested = pool::requested(&invocation.network, &invocation.config, args)?;
    let dns = name_resolution(&pool)?;
    let owner = Owner::from(attachment);
    let deadline = Instant::now() + NEXT_BLOCK;
    let Lease { ips } = loop {
        match reserve(invocation, &pool, &owner, &requested) {
            Err(Error::NoBlock { .. } | Error::BlocksFull { .. }) if Instant::now() < deadline => {
                sleep(PAUSE)
            }
            outcome => break outcome?,
        }
    };
    Ok(Success { interfaces: Vec::new(), ips, routes: pool.routes, dns })
}

fn reserve(invocation: &Invocation, pool: &Pool, owner: &Owner, requested: &[IpAddr]) -> Result<Lease> {
    let mut store = DiskStore::lock(pool.folder())?;
    // The agent takes a block away under the lock: what was read before may be another node's by now.
    let pool = if pool.blocks.is_some() { &Ipam::pool(invocation)? } else { pool };
    pool.check_complete()?;
    let mut listing = report(store.listing(Some(owner))?);
    store.tidy(&mut listing);
    allocate(&mut store, &listing, pool, owner, requested)
}

fn name_resolution(pool: &Pool) -> Result<cni::Dns> {
    let Some(path) = &pool.resolv_conf else { return Ok(cni::Dns::default()) };
    let text = fs::read_to_string(path).map_err(disk::failed("read", path))?;
    Ok(resolver::parse(&text))
}

/// Needs no more of the configuration than where the reservations are, so that an error in it keeps nobody's
/// address.
fn del(invocation: &Invocation, attachment: &Attachment) -> Result<()> {
    let Some(mut store) = DiskStore::lock_if_exists(folder(invocation))? else { return Ok(()) };
    let owner = Owner::from(attachment);
    let mut listing = store.listing(Some(&owner))?;
    store.tidy(&mut listing);
    release(&mut store, &listing, &owner)
}

fn check(invocation: &Invocation, attachment: &Attachment) -> Result<()> {
    let owner = Owner::from(attachment);
    let records = match DiskStore::lock_if_exists(folder(invocation))? {
        None => Vec::new(),
        Some(store) => store.listing(Some(&owner))?.records,
    };
    match records.iter().any(|record| record.is_held() && record.is_of(&owner)) {
        true => Ok(()),
        false => Err(Error::NotReserved { network: invocation.network.to_string(), owner }),
    }
}

/// Goes on after an error and reports the first (SPEC section 2, "GC").
fn gc(invocation: &Invocation) -> Result<()> {
    let Some(mut store) = DiskStore::lock_if_exists(folder(invocation))? else { return Ok(()) };
    let valid = &invocation.config.valid_attachments;
    let keys: BTreeSet<Key> = valid.iter().map(|valid| Key::of(&valid.container_id, &valid.ifname)).collect();
    let mut listing = report(store.listing(None)?);
    store.tidy(&mut listing);
    collect(&mut store, &listing, |record| match &record.holder {
        Holder::Marked(key) => keys.contains(key),
        Holder::Container { id, ifname: Some(ifname) } => keys.contains(&Key::of(id, ifname)),
        Holder::Container { id, ifname: None } => valid.iter().any(|valid| valid.container_id == *id),
        Holder::Nobody | Holder::Unknown => false,
    })
}

/// Tells on standard error, which runtimes pass on to their own log (SPEC section 2, "Plugin execution"),
/// what is wrong in the folder.
fn report(listing: Listing) -> Listing {
    for stray in &listing.strays {
        // Whoever closed it does not read it.
        let _ = writeln!(io::stderr(), "weft-ipam: {stray}");
    }
    listing
}

fn status(invocation: &Invocation) -> Result<()> {
    let pool = Ipam::pool(invocation)?;
    pool.check_complete()?;
    let folder = pool.folder();
    disk::see_that_writable(&folder)?;
    name_resolution(&pool)?;
    // Without the lock: runtimes ask every few seconds, and the answer is old when it arrives anyway.
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let names: Vec<IpAddr> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    if full_set(&pool, &names).is_none() {
        return Ok(());
    }
    // Some may be nobody's or of an earlier boot: only now each is worth a look.
    let Some(store) = DiskStore::lock_if_exists(&folder)? else { return Ok(()) };
    let held = store.listing(None)?.records.into_iter().filter(Record::is_held);
    let taken: Vec<IpAddr> = held.map(|record| record.address).collect();
    match full_set(&pool, &taken) {
        None => Ok(()),
        Some(set) => Err(pool.exhausted(set)),
    }
}

/// A range set of which all addresses are taken.
fn full_set<'a>(pool: &'a Pool, taken: &[IpAddr]) -> Option<&'a RangeSet> {
    pool.sets.iter().find(|set| {
        let may_give =
            |address: &IpAddr| set.range_of(*address).is_some_and(|range| range.gateway != *address);
        taken.iter().filter(|address| may_give(address)).count() as u128 >= set.capacity()
    })
}

fn folder(invocation: &Invocation) -> std::path::PathBuf {
    let data_dir = invocation.config.ipam.as_ref().and_then(|ipam| ipam.get("dataDir")?.as_str());
    Path::new(data_dir.unwrap_or(pool::DEFAULT_DATA_DIR)).join(invocation.network.as_str())
}

#[cfg(test)]
mod tests {
    use weft_cni_spec::{NetworkName, Version};

    use super::*;

    #[test]
    fn an_empty_data_dir_is_the_default_for_every_command() {
        let text = br#"{"ipam": {"dataDir": "", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}"#;
        let json = cni::parse(text).unwrap();
        let network: NetworkName = "blue".parse().unwrap();
        let invocation = Invocation {
            version: Version::NEWEST,
            network,
            config: cni::decode(&json).unwrap(),
            json,
            stdin: text.to_vec(),
            plugin_path: Vec::new(),
        };
        let expected = Path::new("/var/lib/cni/networks/blue");
        assert_eq!(Ipam::pool(&invocation).unwrap().folder(), expected, "ADD, STATUS");
        assert_eq!(folder(&invocation), expected, "DEL, CHECK, GC");
    }
}
