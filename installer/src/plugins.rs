//! Putting the CNI plugins into the folder where the container runtime looks for them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Each installed name, and the binary of ours that serves it. The runtime's `loopback` is `weft-cni` by
/// another name: a plugin looks at the name that it was started by.
const PLUGINS: [(&str, &str); 3] =
    [("weft-cni", "weft-cni"), ("weft-ipam", "weft-ipam"), ("loopback", "weft-cni")];

/// What every version of `weft-cni` has in its bytes, by whatever name it is installed, and no other plugin.
const MARK: &[u8] = b"weft-cni";

/// Why a plugin could not be installed.
#[derive(Debug, Error)]
pub enum Error {
    /// A plugin binary could not be copied.
    #[error("cannot install the plugin {plugin} as {}: {source}; is the folder there and writable?", target.display())]
    Copy {
        /// The binary's name.
        plugin: &'static str,
        /// Where it should go.
        target: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A plugin could not be removed.
    #[error("cannot remove {}: {source}", target.display())]
    Remove {
        /// The file.
        target: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Copies the plugins from the folder `from` into the folder `to`, and returns the paths written.
///
/// Each file is written beside its place and renamed into it, so that a runtime that starts a plugin
/// meanwhile gets the old one or the new one, whole, and never "text file busy". A `loopback` that is another
/// program's stays.
///
/// # Errors
/// The first file that cannot be written; those before it stay installed.
pub fn install(from: &Path, to: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut written = Vec::new();
    for (name, binary) in PLUGINS {
        let target = to.join(name);
        if name != binary && target.exists() && !is_ours(&target) {
            continue;
        }
        replace(&from.join(binary), &target).map_err(|source| Error::Copy {
            plugin: binary,
            target: target.clone(),
            source,
        })?;
        written.push(target);
    }
    Ok(written)
}

/// Removes the plugins from the folder `from`, unless pods still have addresses: without them, a runtime
/// could not even delete those pods. `leases` is the folder of their reservations. Returns the paths removed,
/// or how many pods' addresses there are. A `loopback` that is not this program's stays.
///
/// # Errors
/// The first file that cannot be removed.
pub fn remove(from: &Path, leases: &Path) -> Result<Removal, Error> {
    let kept = fs::read_dir(leases).into_iter().flatten().flatten();
    let kept = kept.filter(|entry| is_lease(&entry.file_name())).count();
    if kept > 0 {
        return Ok(Removal::Needed(kept));
    }
    let mut removed = Vec::new();
    for (name, binary) in PLUGINS {
        let target = from.join(name);
        if name != binary && !is_ours(&target) {
            continue;
        }
        match fs::remove_file(&target) {
            Ok(()) => removed.push(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Remove { target, source }),
        }
    }
    Ok(Removal::Done(removed))
}

/// Whether a file is `weft-cni`, of this version or of an earlier one.
fn is_ours(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(MARK.len()).any(|window| window == MARK))
}

/// What became of removing the plugins.
#[derive(Debug, PartialEq, Eq)]
pub enum Removal {
    /// These files are gone.
    Done(Vec<PathBuf>),
    /// So many pods still have addresses: nothing is gone.
    Needed(usize),
}

/// A reservation's file is called by its address.
fn is_lease(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.parse::<IpAddr>().is_ok())
}

fn replace(source: &Path, target: &Path) -> io::Result<()> {
    let temporary = target.with_extension("weft-new");
    let result = fs::copy(source, &temporary)
        .and_then(|_| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, target));
    if result.is_err() {
        // The error that matters is the one above; a file that was never made cannot be removed either.
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn plugins_are_replaced_and_executable() {
        let from = folder_with(&[("weft-cni", "new"), ("weft-ipam", "new")]);
        let to = folder_with(&[("weft-cni", "old")]);
        install(from.path(), to.path()).unwrap();
        assert_eq!(names(to.path()), ["loopback", "weft-cni", "weft-ipam"]);
        assert_eq!(fs::read_to_string(to.path().join("weft-cni")).unwrap(), "new");
        assert_eq!(fs::metadata(to.path().join("loopback")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_loopback_of_the_node_stays() {
        let from = folder_with(&[("weft-cni", "new"), ("weft-ipam", "new")]);
        let to = folder_with(&[("loopback", "theirs")]);
        install(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("loopback")).unwrap(), "theirs");
    }

    #[test]
    fn a_loopback_of_an_earlier_version_is_replaced_too() {
        let from = folder_with(&[("weft-cni", "weft-cni 0.2"), ("weft-ipam", "new")]);
        let to = folder_with(&[("loopback", "weft-cni 0.1")]);
        install(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("loopback")).unwrap(), "weft-cni 0.2");
    }

    #[test]
    fn plugins_go_once_no_pod_needs_them_and_never_those_of_others() {
        // The loopback that an earlier version installed stayed through an upgrade.
        let files = [
            ("weft-cni", "weft-cni 0.2"),
            ("weft-ipam", "ours"),
            ("loopback", "weft-cni 0.1"),
            ("bridge", "theirs"),
        ];
        let (bin, leases) = (folder_with(&files), folder_with(&[("10.244.0.7", ""), ("lock", "")]));
        assert_eq!(remove(bin.path(), leases.path()).unwrap(), Removal::Needed(1));
        assert_eq!(names(bin.path()).len(), 4);
        fs::remove_file(leases.path().join("10.244.0.7")).unwrap();
        assert!(matches!(remove(bin.path(), leases.path()).unwrap(), Removal::Done(gone) if gone.len() == 3));
        assert_eq!(names(bin.path()), ["bridge"]);
        fs::write(bin.path().join("loopback"), "theirs").unwrap();
        fs::write(bin.path().join("weft-cni"), "ours").unwrap();
        remove(bin.path(), Path::new("/no/such/folder")).unwrap();
        assert_eq!(names(bin.path()), ["bridge", "loopback"]);
    }

    #[test]
    fn a_missing_plugin_is_named_and_leaves_no_file() {
        let (from, to) = (folder_with(&[]), folder_with(&[]));
        let error = install(from.path(), to.path()).unwrap_err().to_string();
        assert!(error.contains("weft-cni"), "{error}");
        assert_eq!(names(to.path()), Vec::<String>::new());
    }
}
