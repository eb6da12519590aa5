//! Which boot of the machine a reservation belongs to: an extended attribute of its file. The file's content stays the
//! reference's, which compares it as a whole. Where a filesystem has no attributes, or a file was copied without, the
//! boot is not known and the reservation counts as living.

use std::fs::{self, File};
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

/// `getfattr -n user.weft.boot FILE` shows it.
const ATTRIBUTE: &str = "user.weft.boot";

/// The machine's present boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot(String);

impl Boot {
    /// The kernel's random number for it; none where /proc does not tell.
    pub(crate) fn current() -> Option<Boot> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Boot(text.trim().to_owned())).filter(|boot| !boot.0.is_empty())
    }

    /// Marks a file as of this boot.
    ///
    /// # Errors
    /// Where the disk is full. A filesystem without attributes is none.
    pub(crate) fn mark(&self, file: &File) -> io::Result<()> {
        match fsetxattr(file, ATTRIBUTE, self.0.as_bytes(), XattrFlags::empty()) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(errno.into()),
            _ => Ok(()),
        }
    }

    /// Whether the file is marked as of another boot.
    pub(crate) fn is_over(&self, file: &File) -> bool {
        let mut buffer = [0u8; 64];
        match fgetxattr(file, ATTRIBUTE, &mut buffer[..]) {
            Ok(length @ 1..) => buffer.get(..length) != Some(self.0.as_bytes()),
            _ => false,
        }
    }
}

#[cfg(test)]
impl Boot {
    /// A boot that never was.
    pub(crate) fn of_tests(name: &str) -> Boot {
        Boot(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_of_the_boot_that_marked_it() {
        let file = tempfile::tempfile().unwrap();
        let (now, next) = (Boot::current().unwrap(), Boot::of_tests("another"));
        assert!(!now.is_over(&file), "without a mark nobody knows");
        now.mark(&file).unwrap();
        assert!(!now.is_over(&file) && next.is_over(&file));
    }
}
