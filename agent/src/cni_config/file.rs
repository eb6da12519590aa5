//! The CNI configuration file: written last, whole, and only when its content changes. It is deleted only
//! when the agent is uninstalled, as the runtime could delete no pod without it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use weft_cni_spec::NetworkList;

use crate::cni_config::plan::{FILE, PLUGIN, text};
use crate::{Error, Result};

/// How the names of configurations end that runtimes read (libcni, `ConfFiles`).
const EXTENSIONS: [&str; 3] = [".conf", ".conflist", ".json"];
/// The name that it has until it is complete. No runtime reads this extension; and as the file is in the
/// folder that they watch, they notice the renaming.
const UNFINISHED: &str = "10-weft.conflist.tmp";
/// What the plugin says while the node is not ready. It names no cause: each new one would have the runtime
/// read the file again.
const NOT_READY: &str = "weft-agent cannot make this node ready; its /readyz and its log say why";

/// Whether the plugin's program is in the folder where runtimes will look for it.
pub fn check_plugin(bin_dir: &Path) -> Result<()> {
    let path = bin_dir.join(PLUGIN);
    let problem = match fs::metadata(&path) {
        Err(_) => "is missing",
        Ok(file) if !file.is_file() || file.permissions().mode() & 0o111 == 0 => "is no executable file",
        Ok(_) => return Ok(()),
    };
    Err(Error::Plugin { path, problem })
}

/// Makes sure that the configuration holds this text. Returns whether it had to be written.
pub fn install(conf_dir: &Path, text: &str) -> Result<bool> {
    let path = conf_dir.join(FILE);
    if fs::read(&path).is_ok_and(|held| held == text.as_bytes()) {
        return Ok(false);
    }
    write(conf_dir, &path, text).map_err(|problem| Error::Conflist { path, problem })?;
    Ok(true)
}

/// Has the plugin tell the runtime that no pod can start for now (CNI SPEC 1.1.0, section 2, STATUS). Pods
/// can still be deleted by what is there. Nothing happens where there is no configuration of ours.
pub fn withdraw(conf_dir: &Path) -> Result<()> {
    let path = conf_dir.join(FILE);
    let Some(mut list) =
        fs::read(&path).ok().and_then(|text| serde_json::from_slice::<NetworkList>(&text).ok())
    else {
        return Ok(());
    };
    for plugin in &mut list.plugins {
        plugin.bridge.unavailable = Some(NOT_READY.to_owned());
    }
    install(conf_dir, &text(&list)).map(drop)
}

/// The configurations that the runtime finds, in its order.
pub(crate) fn names(conf_dir: &Path) -> Vec<String> {
    let names = fs::read_dir(conf_dir).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let is_read = |name: &String| EXTENSIONS.iter().any(|extension| name.ends_with(extension));
    let mut names: Vec<String> = names.filter(is_read).collect();
    names.sort_unstable();
    names
}

/// Whether the runtime takes ours of the configurations that it finds.
///
/// # Errors
/// Names the one that it takes instead.
pub fn first(conf_dir: &Path) -> Result<()> {
    match names(conf_dir).into_iter().next().filter(|name| name.as_str() < FILE) {
        None => Ok(()),
        Some(name) => Err(Error::ForeignConflist { path: conf_dir.join(name) }),
    }
}

/// Takes the configuration away, so that the runtime starts no more pods. Returns whether it was there.
pub fn remove(conf_dir: &Path) -> Result<bool> {
    let path = conf_dir.join(FILE);
    // Half of one, that a crash left.
    let _ = fs::remove_file(conf_dir.join(UNFINISHED));
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(problem) => Err(Error::RemoveConflist { path, problem }),
    }
}

/// Neither a reader nor a crash at any moment finds half a file.
fn write(conf_dir: &Path, path: &PathBuf, text: &str) -> io::Result<()> {
    fs::create_dir_all(conf_dir)?;
    let unfinished = conf_dir.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(conf_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_configuration_is_written_once_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let conf_dir = folder.path().join("etc/cni/net.d");
        let path = conf_dir.join(FILE);
        assert!(install(&conf_dir, "one").unwrap());
        let first = fs::metadata(&path).unwrap();

        assert!(!install(&conf_dir, "one").unwrap());
        let same = fs::metadata(&path).unwrap();
        assert_eq!((first.ino(), first.mtime_nsec()), (same.ino(), same.mtime_nsec()), "untouched");

        let held_open = File::open(&path).unwrap();
        assert!(install(&conf_dir, "two, and longer").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two, and longer");
        assert_eq!(io::read_to_string(held_open).unwrap(), "one", "a reader keeps the file that it opened");
        assert_eq!(files(&conf_dir), [FILE]);
    }

    #[test]
    fn a_configuration_that_the_runtime_would_take_first_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in [FILE, UNFINISHED, "05-theirs.conf.bak", "99-loopback.conf", "README"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        first(folder.path()).unwrap();
        fs::write(folder.path().join("10-flannel.conflist"), "{}").unwrap();
        let error = first(folder.path()).unwrap_err().to_string();
        assert!(error.contains("/10-flannel.conflist") && error.contains("remove it"), "{error}");
        first(Path::new("/no/such/folder")).unwrap();
    }

    #[test]
    fn what_a_crash_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(UNFINISHED), "half of a file, and longer than what comes").unwrap();
        assert!(install(folder.path(), "whole").unwrap());
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), "whole");
        assert_eq!(files(folder.path()), [FILE]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("etc"), "a file").unwrap();
        let error = install(&folder.path().join("etc"), "text").unwrap_err().to_string();
        assert!(error.contains("etc/10-weft.conflist: "), "{error}");
    }

    #[test]
    fn the_plugin_must_be_there_and_executable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PLUGIN);
        let error = || check_plugin(folder.path()).unwrap_err().to_string();
        assert!(error().contains("/weft-cni is missing: install it there"), "{}", error());
        fs::write(&path, "").unwrap();
        assert!(error().contains("is no executable file"), "{}", error());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        check_plugin(folder.path()).unwrap();
    }
}
