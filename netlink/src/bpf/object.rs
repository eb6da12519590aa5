//! What maps, programs and links have in common: a descriptor, information, and a name in a file system of
//! type `bpf` (a pin) by which they outlive the process that made them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

use super::syscall::{Attributes, Command};
use crate::{Error, Result};

/// The magic number of file systems of type `bpf` (linux/magic.h).
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// Whether objects can be pinned in that folder.
pub fn is_bpffs(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// What went wrong with what.
pub(super) fn failed(operation: String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { operation, source }
}

/// Gives an object a name in a bpffs.
pub(super) fn pin(object: &OwnedFd, path: &Path) -> Result<()> {
    let name = c_path(path)?;
    let mut attributes = Attributes::new().input(0, name.as_bytes_with_nul()).number(8, number(object));
    attributes.call(Command::Pin).map(drop).map_err(failed(format!("pin BPF object at {}", path.display())))
}

/// Opens what has that name; `None` where nothing has.
pub(super) fn open(path: &Path) -> Result<Option<OwnedFd>> {
    let name = c_path(path)?;
    match Attributes::new().input(0, name.as_bytes_with_nul()).descriptor(Command::Open) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(format!("open pinned BPF object {}", path.display()))(source)),
    }
}

/// What the kernel says of an object: the beginning of `struct bpf_map_info`, `bpf_link_info`, ...
pub(super) fn info(object: &OwnedFd) -> Result<[u8; 32]> {
    let mut info = [0; 32];
    let length = info.len() as u32;
    let mut attributes = Attributes::new().number(0, number(object)).number(4, length).output(8, &mut info);
    attributes.call(Command::Info).map_err(failed("read information about a BPF object".to_owned()))?;
    Ok(info)
}

/// A number within such information.
pub(super) fn word(info: &[u8; 32], at: usize) -> u32 {
    info[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// A descriptor, as attributes hold it.
pub(super) fn number(object: &impl AsFd) -> u32 {
    object.as_fd().as_raw_fd() as u32
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Malformed(format!("path {}", path.display())))
}
