//! Network namespaces: open, create, enter. A thread that enters one comes back by a guard, so that no `?`
//! and no panic can leave it in the wrong namespace; what makes one does so on a thread of its own.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::{Error, Result, sysctl};

/// The namespace of the calling thread. `/proc/self` is that of the main thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// The magic number of the filesystem that namespace files are on (linux/magic.h).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A network namespace. It lives at least as long as this value does.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
}

/// What a new namespace takes over from the machine's first one (net.core.devconf_inherit_init_net), and the
/// values that a kernel starts with.
const KERNEL_DEFAULTS: [(&str, &str); 7] = [
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/default/forwarding", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
];

impl Namespace {
    /// Opens the namespace whose file is at `path`, for instance `/run/netns/blue` or `/proc/17/ns/net`.
    ///
    /// # Errors
    /// Where nothing is there ([`Error::is_missing`]), or something that is no namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Namespace> {
        let path = path.as_ref();
        let file = File::open(path).map_err(failed("open", path))?;
        // A file left over from a namespace that was unmounted opens well, but is an ordinary file.
        let kind = fstatfs(&file).map_err(|errno| failed("examine", path)(errno.into()))?.filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(failed("open", path)(io::Error::other("the file is no namespace")));
        }
        Ok(Namespace { file, path: path.to_owned() })
    }

    /// The calling thread's own namespace.
    pub fn current() -> Result<Namespace> {
        Namespace::open(OWN)
    }

    /// Makes a namespace and pins it to a new file at `path`, as `ip netns add` does. It stays until
    /// [`Namespace::remove`].
    ///
    /// # Errors
    /// Where the file exists already; where making, mounting or opening fails, and then no file stays.
    pub fn create(path: impl AsRef<Path>) -> Result<Namespace> {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("create", path))?;
        }
        File::create_new(path).map_err(failed("create", path))?;
        let pinned = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed("create", path)(errno.into()))?;
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| failed("mount", path)(errno.into()))
        });
        pinned.and_then(|()| Namespace::open(path)).inspect_err(|_| {
            // The first error is the one to report.
            let _ = Namespace::remove(path);
        })
    }

    /// Makes a namespace that is pinned to no file and is gone when this value is: for tests above all. Its
    /// path leads through this process's descriptor, so that child processes can open it as long as this one
    /// lives. Its settings are those of a kernel that nobody has configured, whatever the machine's own are.
    pub fn temporary() -> Result<Namespace> {
        let own = Path::new(OWN);
        let file = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed("create", own)(errno.into()))?;
            for (setting, value) in KERNEL_DEFAULTS {
                // Without IPv6, or where /proc/sys is read-only, there is nothing to set.
                let _ = sysctl::write(&format!("net/{setting}"), value);
            }
            File::open(own).map_err(failed("open", own))
        })?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        Ok(Namespace { file, path })
    }

    /// Unmounts and deletes a namespace's file. The namespace itself lives on while something is in it.
    ///
    /// # Errors
    /// Where the file is not there, or is not a mount of this mount namespace and not deletable.
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        // A file on which nothing is mounted any more is to be deleted all the same.
        let unmounted = umount2(path, MntFlags::MNT_DETACH);
        match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(source) => {
                let source = unmounted.err().map_or(source, io::Error::from);
                Err(failed("remove", path)(source))
            }
        }
    }

    /// The file by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the calling thread's own, by whatever file it was opened.
    pub fn is_current(&self) -> Result<bool> {
        let this = self.file.metadata().map_err(failed("examine", &self.path))?;
        let own = fs::metadata(OWN).map_err(failed("examine", Path::new(OWN)))?;
        Ok((this.dev(), this.ino()) == (own.dev(), own.ino()))
    }

    /// Whether it is the same as another, by whatever files they were opened.
    pub fn is_same(&self, other: &Namespace) -> Result<bool> {
        let [this, other] = [self, other].map(|it| it.file.metadata().map_err(failed("examine", &it.path)));
        let (this, other) = (this?, other?);
        Ok((this.dev(), this.ino()) == (other.dev(), other.ino()))
    }

    /// Runs `work` inside the namespace, on the calling thread, which is back in its own afterwards. Sockets
    /// that it opens stay in the namespace, and so do threads and processes that it starts; `/proc/sys/net`
    /// is the namespace's own while it runs. (A thread for it alone would cost as much as all that ADD asks
    /// of the kernel inside a container.)
    ///
    /// # Errors
    /// Where the namespace cannot be entered. What `work` returns is passed on; its panic too.
    ///
    /// # Panics
    /// Where there is no way back: then nothing that the thread does could be right.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let _back = Back(Namespace::current()?);
        self.enter()?;
        Ok(work())
    }

    fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("enter", &self.path)(errno.into()))
    }
}

/// Takes the thread back to this namespace when dropped.
struct Back(Namespace);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = self.0.enter() {
            panic!("lost in another network namespace: {error}");
        }
    }
}

/// What tells the calling thread's namespace from all others, while the machine runs (SO_NETNS_COOKIE, Linux
/// 5.14).
///
/// # Errors
/// Where the kernel is older.
pub fn cookie() -> Result<u64> {
    let failed = |source| failed("ask for the cookie of", Path::new(OWN))(source);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    #[allow(unsafe_code, reason = "getsockopt(2) has no safe wrapper for this option")]
    // SAFETY: the value is as long as is said, and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(failed(io::Error::last_os_error())) }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Namespace { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_file_is_no_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stale");
        File::create(&path).unwrap();
        let error = Namespace::open(&path).unwrap_err();
        assert!(error.to_string().ends_with("the file is no namespace"), "{error}");
    }
}
