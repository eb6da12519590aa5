//! Named network namespaces under /run/netns, as `ip netns` has them: create, delete, list, and run code
//! inside one on a thread of its own. What is put into them is decided elsewhere.

use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};

/// The folder of named namespaces, the one that `ip netns` uses.
const FOLDER: &str = "/run/netns";

/// The file that stands for a named namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The names of all named namespaces.
pub fn list() -> Vec<String> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// What a new namespace takes over from the machine's first one (net.core.devconf_inherit_init_net), and the
/// values that a lab's machines start with: those of a kernel that nobody has configured. But that a lab
/// gives every address once, and nobody has to wait a second for the kernel to find that out.
const SETTINGS: [(&str, &str); 8] = [
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/default/forwarding", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// Makes a namespace with nothing in it but a loopback link that is down. IPv6 addresses of its later links
/// can be used at once, and its settings do not depend on the machine's.
pub fn create(name: &str) -> Result<()> {
    share_folder()?;
    let file = path(name);
    File::create_new(&file).map_err(Error::io("create", &file))?;
    let target = file.clone();
    let made = on_new_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::system("make a namespace for", target.display()))?;
        for (setting, value) in SETTINGS {
            // Without IPv6 there is no such file, and nothing to set.
            let _ = fs::write(Path::new("/proc/sys/net").join(setting), value);
        }
        // The thread's namespace lives on in the mount when the thread is gone.
        bind(Path::new("/proc/thread-self/ns/net"), &target)
    });
    if made.is_err() {
        let _ = fs::remove_file(&file);
    }
    made
}

/// Removes a namespace's name. The kernel removes the namespace, and the links in it, with its last process.
/// A name that is not there is no error.
pub fn delete(name: &str) -> Result<()> {
    let file = path(name);
    match umount2(&file, MntFlags::MNT_DETACH) {
        // EINVAL: no mount, as after a crash between creating the file and mounting.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(Error::system("unmount", file.display())(error)),
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &file)(error)),
        _ => Ok(()),
    }
}

/// Moves the calling thread into the namespace of that file. For processes about to exec, and for threads
/// about to end: everything else uses [`run`].
pub fn enter(file: &Path) -> Result<()> {
    let open = File::open(file).map_err(Error::io("open namespace", file))?;
    setns(open, CloneFlags::CLONE_NEWNET).map_err(Error::system("enter namespace", file.display()))
}

/// Runs a closure inside a named namespace, on a thread that ends with it: no `?` can leave a thread of the
/// caller's in the wrong namespace. Sockets made inside stay in that namespace wherever they are used later.
pub fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let file = path(name);
    on_new_thread(move || {
        enter(&file)?;
        work()
    })
}

/// As [`run`], for a future, which gets a runtime of its own.
pub fn run_async<T, F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    run(name, move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Spawn { program: "an asynchronous runtime".to_owned(), source })?
            .block_on(work())
    })
}

/// Runs a closure in a new namespace without a name, which is gone when the closure returns.
pub fn run_in_new<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    on_new_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::system("make", "a network namespace"))?;
        work()
    })
}

fn on_new_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = std::thread::Builder::new()
        .spawn(work)
        .map_err(|source| Error::Spawn { program: "a thread".to_owned(), source })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes the folder a shared mount, as `ip netns` does: only then does a name that is removed disappear in
/// the mount namespaces of running pods too, instead of being kept alive by them.
fn share_folder() -> Result<()> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let share =
        || mount(None::<&str>, folder, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // EINVAL: not a mount yet.
        Err(nix::Error::EINVAL) => {
            bind(folder, folder)?;
            share().map_err(Error::system("share", FOLDER))
        }
        result => result.map_err(Error::system("share", FOLDER)),
    }
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Error::system("mount on", target.display()))
}
