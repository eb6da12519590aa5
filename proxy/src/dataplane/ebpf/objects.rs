//! The maps and programs in the kernel. They are pinned, so that they outlive the proxy: the next one takes
//! them over.
//!
//! ```text
//! /sys/fs/bpf/weft-proxy/NAMESPACE/services-1  endpoints-1  members-1  affinity-1  peers-1      maps, with their version
//!                                  connect4  sendmsg4  recvmsg4  getpeername4  connect6  ...    links to the cgroup
//! ```
//!
//! `NAMESPACE` is the cookie of the proxy's network namespace: a file system for pins is no namespace's own.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use weft_netlink::Error;
use weft_netlink::bpf::{AttachType, Link, Map, MapSpec, Program, is_bpffs};

use super::elements::{Change, Rows, Table};
use super::layout::{CLIENTS, ENDPOINTS, MEMBERS, PEERS, SERVICES, VERSION};
use super::programs::{Maps, program};

/// Below the file system for pins.
const FOLDER: &str = "weft-proxy";
const ALL: [MapSpec; 5] = [SERVICES, ENDPOINTS, MEMBERS, CLIENTS, PEERS];

/// The maps, and where they and the links are pinned.
#[derive(Debug)]
pub(super) struct Objects {
    folder: PathBuf,
    services: Map,
    endpoints: Map,
    members: Map,
    affinity: Map,
    /// Which socket thinks to be connected to which frontend.
    pub(super) peers: Arc<Map>,
}

impl Objects {
    /// Takes over the maps of an earlier run, and makes those that are not there, or are another version's.
    ///
    /// # Errors
    /// What is missing on this machine, and what the kernel refused.
    pub(super) fn open(bpffs: &Path, namespace: u64) -> Result<Objects, Error> {
        if !is_bpffs(bpffs) {
            let source =
                io::Error::other("it is no file system of type bpf; mount one there: mount -t bpf bpf");
            return Err(Error::System {
                operation: format!("pin BPF objects in {}", bpffs.display()),
                source,
            });
        }
        let folder = folder(bpffs, namespace);
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let open = |spec| map(&folder, spec);
        Ok(Objects {
            services: open(SERVICES)?,
            endpoints: open(ENDPOINTS)?,
            members: open(MEMBERS)?,
            affinity: open(CLIENTS)?,
            peers: Arc::new(open(PEERS)?),
            folder,
        })
    }

    /// What of plans stands in the maps.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn observe(&self) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        for table in [Table::Endpoints, Table::Members, Table::Services] {
            self.map(table).for_each(|key, value| drop(rows.insert((table, key.into()), value.into())))?;
        }
        Ok(rows)
    }

    /// Makes these changes. A frontend for which there is no room is left out, whole. Returns how many were.
    ///
    /// # Errors
    /// What the kernel refused, after which anything may be in effect of it.
    pub(super) fn apply(&self, changes: &[Change]) -> Result<usize, Error> {
        let mut left_out = Vec::new();
        for change @ Change { table, key, value } in changes {
            let map = self.map(*table);
            match value {
                None => map.delete(key)?,
                Some(_) if *table == Table::Services && left_out.contains(&change.frontend()) => {
                    map.delete(key)?
                }
                Some(value) => match map.put(key, value) {
                    Err(error) if error.errno() == Some(Errno::E2BIG) => {
                        if !left_out.contains(&change.frontend()) {
                            left_out.push(change.frontend());
                        }
                    }
                    done => done?,
                },
            }
        }
        Ok(left_out.len())
    }

    /// Has the programs run at the calls of sockets of that cgroup and those below it, in the place of those
    /// of an earlier run; where one is given, for sockets of that network namespace only.
    ///
    /// # Errors
    /// What the kernel refused: it may be too old, or the cgroup none of version 2.
    pub(super) fn attach(&self, cgroup: &Path, namespace: Option<u64>) -> Result<(), Error> {
        let opened = File::open(cgroup).map_err(failed("open cgroup", cgroup))?;
        let number = opened.metadata().map_err(failed("examine cgroup", cgroup))?.ino();
        for attach in AttachType::ALL {
            let code = program(attach, self.descriptors(), namespace);
            let program = Program::load(&format!("weft_{attach}"), attach, &code)?;
            let path = self.folder.join(attach.name());
            let link = Link::open(&path, attach)?;
            // A cgroup that was deleted and made again is another one, whatever its name.
            match link.filter(|link| link.cgroup().is_ok_and(|found| found == number)) {
                Some(link) => link.update(&program)?,
                None => {
                    remove(&path)?;
                    Link::attach(&program, &opened)?.pin(&path)?;
                }
            }
        }
        self.remove_other_versions()
    }

    /// Maps that no program uses any more.
    fn remove_other_versions(&self) -> Result<(), Error> {
        let ours: Vec<String> =
            ALL.map(file_name).into_iter().chain(AttachType::ALL.map(|it| it.name().into())).collect();
        let others = entries(&self.folder)?.into_iter().filter(|name| !ours.contains(name));
        others.into_iter().try_for_each(|name| remove(&self.folder.join(name)))
    }

    fn map(&self, table: Table) -> &Map {
        match table {
            Table::Endpoints => &self.endpoints,
            Table::Members => &self.members,
            Table::Services => &self.services,
        }
    }

    fn descriptors(&self) -> Maps {
        Maps {
            services: self.services.descriptor(),
            endpoints: self.endpoints.descriptor(),
            members: self.members.descriptor(),
            affinity: self.affinity.descriptor(),
            peers: self.peers.descriptor(),
        }
    }
}

/// Detaches the programs of this network namespace's proxy and deletes their maps. Returns whether there was
/// anything.
///
/// # Errors
/// What cannot be deleted.
pub(super) fn clean_up(bpffs: &Path, namespace: u64) -> Result<bool, Error> {
    let folder = folder(bpffs, namespace);
    if !is_bpffs(bpffs) || !folder.exists() {
        return Ok(false);
    }
    // Who leads sockets away goes before who puts that right.
    for attach in AttachType::ALL.into_iter().rev() {
        // Without CAP_BPF it is unpinned only, by which it goes too, a moment later.
        if let Ok(Some(link)) = Link::open(&folder.join(attach.name()), attach) {
            link.detach()?;
        }
    }
    entries(&folder)?.iter().try_for_each(|name| remove(&folder.join(name)))?;
    fs::remove_dir(&folder).map_err(failed("remove", &folder))?;
    // It stays while another namespace has something in it.
    let _ = fs::remove_dir(bpffs.join(FOLDER));
    Ok(true)
}

/// The root of the hierarchy of cgroups of version 2, as this process sees it mounted.
///
/// # Errors
/// Where it is not mounted.
pub(super) fn root_cgroup() -> Result<PathBuf, Error> {
    let mounts = Path::new("/proc/self/mounts");
    let text = fs::read_to_string(mounts).map_err(failed("read", mounts))?;
    let folder = text.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, folder, "cgroup2", ..] => Some(PathBuf::from(folder)),
        _ => None,
    });
    folder.ok_or_else(|| {
        Error::Missing("hierarchy of cgroups of version 2: mount it, or set --ebpf-cgroup".into())
    })
}

fn folder(bpffs: &Path, namespace: u64) -> PathBuf {
    bpffs.join(FOLDER).join(namespace.to_string())
}

fn file_name(spec: MapSpec) -> String {
    format!("{}-{VERSION}", spec.name)
}

fn map(folder: &Path, spec: MapSpec) -> Result<Map, Error> {
    let path = folder.join(file_name(spec));
    if let Some(map) = Map::open(&path, spec)? {
        return Ok(map);
    }
    remove(&path)?;
    let map = Map::create(spec)?;
    map.pin(&path)?;
    Ok(map)
}

/// The names in a folder.
fn entries(folder: &Path) -> Result<Vec<String>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed("read", folder)(source)),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(failed("remove", path)),
    }
}

fn failed(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let operation = format!("{verb} {}", path.display());
    move |source| Error::System { operation, source }
}
