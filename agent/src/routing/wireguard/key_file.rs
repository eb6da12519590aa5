//! The node's private key on disk, as `wg genkey` writes it. It is there before the kernel has it, so that it
//! survives whatever happens in between.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use tracing::{info, warn};
use weft_netlink::genl::wireguard::Key;

use crate::{Error, Result};

/// Nobody but the owner reads or writes it.
const MODE: u32 = 0o600;

/// The key in that file. Makes one where there is none.
///
/// # Errors
/// Where what is there is no key, or the file cannot be used. It is never written over.
pub(super) fn read_or_make(path: &Path) -> Result<Key> {
    let failed = |problem: io::Error| failed(path, problem.to_string());
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return make(path),
        Err(error) => return Err(failed(error)),
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
        warn!(path = %path.display(), mode = format!("{mode:o}"), "others could read the WireGuard key; set its mode to 600");
    }
    let key = STANDARD.decode(text.trim()).ok().and_then(|bytes| Key::try_from(bytes).ok());
    let no_key = || self::failed(path, "it holds no key of 32 bytes in base64 (wg genkey)".to_owned());
    key.map(clamp).ok_or_else(no_key)
}

/// Makes a new key and puts it in the place of what is there.
pub(super) fn make(path: &Path) -> Result<Key> {
    let failed = |problem: io::Error| failed(path, problem.to_string());
    let mut key = Key::default();
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| failed(io::Error::other("the kernel gives no random numbers")))?;
    let key = clamp(key);
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    let unfinished = path.with_extension("new");
    // A start that was interrupted may have left one.
    let _ = fs::remove_file(&unfinished);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(&unfinished).and_then(|mut file| {
            file.write_all(format!("{}\n", STANDARD.encode(key)).as_bytes())?;
            file.sync_all()
        });
    written.and_then(|()| fs::rename(&unfinished, path)).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    info!(path = %path.display(), "made a WireGuard key");
    Ok(key)
}

/// As the kernel holds it: with the bits that are fixed in every key of Curve25519 (RFC 7748 section 5).
fn clamp(mut key: Key) -> Key {
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    key
}

fn failed(path: &Path, problem: String) -> Error {
    Error::WireGuardKey { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/key");
        let key = read_or_make(&path).unwrap();
        assert_eq!((read_or_make(&path).unwrap(), mode(&path)), (key, 0o600));
        assert_ne!(make(&path).unwrap(), key, "another one on request");
        assert_ne!(read_or_make(&path).unwrap(), key);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_key_of_wg_genkey_is_taken_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_or_make(&path).unwrap()[0], 0xc8);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_is_no_key_is_told_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "secret").unwrap();
        let error = read_or_make(&path).unwrap_err().to_string();
        assert!(error.contains("wg genkey") && !error.contains("secret"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
    }
}
