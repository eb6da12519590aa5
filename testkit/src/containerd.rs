//! Debian's containerd with its CRI plugin, as a node's runtime: in a network namespace, with folders,
//! sockets and control groups of its own. When dropped, everything that it made is gone, whatever the test
//! came to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, umount2};

use self::control_group::{ControlGroup, end};
use self::cri::{Cri, Linux, Metadata, Pod};
use crate::program::succeed;
use crate::wait::eventually;

pub mod control_group;
pub mod cri;
pub mod image;

/// Where a containerd runs: the files of its namespaces.
#[derive(Clone, Debug)]
pub struct Place {
    /// Of its network.
    pub network: PathBuf,
    /// Of its mounts, where they are not the machine's.
    pub mounts: Option<PathBuf>,
}

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    /// Root, state, sockets and logs.
    folder: PathBuf,
    /// Where it is started the next time.
    pub place: Place,
    process: Child,
    control_group: ControlGroup,
    /// Its socket.
    pub cri: Cri,
}

impl Containerd {
    /// Starts a new one below `folder`, with plugins from `bin_dir` and the network configuration in
    /// `conf_dir`, and with the one local image.
    pub fn start(folder: &Path, place: Place, bin_dir: &Path, conf_dir: &Path) -> Containerd {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("config.toml"), config(folder, bin_dir, conf_dir)).unwrap();
        let process = spawn(folder, &place);
        let cri = Cri::new(&folder.join("containerd.sock"));
        let containerd = Containerd {
            folder: folder.into(),
            place,
            process,
            control_group: ControlGroup::of(folder),
            cri,
        };
        containerd.await_answer();
        let images = folder.join("image");
        fs::create_dir(&images).unwrap();
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(folder.join("containerd.sock")).args(["-n", "k8s.io", "images", "import"]);
        succeed(ctr.arg(image::docker_archive(&images)));
        containerd
    }

    /// Ends the daemon by force, if it still runs, and starts it again. Pods run on.
    pub fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(&self.folder, &self.place);
        self.await_answer();
    }

    fn await_answer(&self) {
        eventually(format!("containerd answers; {}", self.log()), || self.cri.network_ready().is_ok());
    }

    fn log(&self) -> String {
        format!("its log is {}", self.folder.join("log").display())
    }

    /// A pod to be made on this runtime.
    pub fn pod(&self, name: &str) -> Pod {
        let metadata =
            Metadata { name: name.into(), uid: format!("uid-{name}"), namespace: "default".into() };
        Pod {
            metadata: Some(metadata),
            hostname: name.into(),
            linux: Some(Linux { cgroup_parent: self.control_group.path() }),
            ..Pod::default()
        }
    }

    /// The network namespaces that it holds for pods.
    pub fn pinned_namespaces(&self) -> usize {
        fs::read_dir(self.folder.join("state/io.containerd.grpc.v1.cri/netns")).map_or(0, Iterator::count)
    }

    /// As a machine that is switched off: every process ends at once, and nothing is told to a plugin. What
    /// is on disk stays.
    pub fn lose_power(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.end_shims();
        self.control_group.remove();
        self.unmount();
        let _ = fs::remove_dir_all(self.folder.join("state"));
    }

    /// Shims outlive containerd. Theirs is its socket.
    fn end_shims(&self) {
        let socket = self.folder.join("containerd.sock").display().to_string();
        for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
            let shim = words[0].ends_with(b"/containerd-shim-runc-v2") && words.contains(&socket.as_bytes());
            if let Some(pid) = process.file_name().and_then(|name| name.to_str()).filter(|_| shim) {
                end(pid);
            }
        }
    }

    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let targets: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        for target in targets.into_iter().rev().filter(|target| Path::new(target).starts_with(&self.folder)) {
            let _ = umount2(target, MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for sandbox in self.cri.sandboxes().unwrap_or_default() {
            let _ = self.cri.remove_sandbox(&sandbox);
        }
        self.lose_power();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("containerd's log:\n{log}");
        }
    }
}

fn spawn(folder: &Path, place: &Place) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    // `ip netns exec` would mount a /sys of its own; `nsenter` changes nothing but the network.
    Command::new("nsenter")
        .arg(format!("--net={}", place.network.display()))
        .args(place.mounts.iter().map(|file| format!("--mount={}", file.display())))
        .args(["containerd", "--config"])
        .arg(folder.join("config.toml"))
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("package util-linux is installed")
}

/// `native` snapshots are plain copies: they work on any filesystem, an overlay too.
fn config(folder: &Path, bin_dir: &Path, conf_dir: &Path) -> String {
    let (at, bin_dir, conf_dir, sandbox_image) =
        (folder.display(), bin_dir.display(), conf_dir.display(), image::NAME);
    format!(
        r#"version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
address = "{at}/containerd.sock"
[ttrpc]
address = "{at}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{at}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox_image}"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin_dir}"
conf_dir = "{conf_dir}"
max_conf_num = 1
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{at}/runc"
SystemdCgroup = false
"#
    )
}
