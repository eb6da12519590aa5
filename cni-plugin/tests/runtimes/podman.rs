//! Containers that podman runs on the plugin, by its CNI backend: a caller other than Kubernetes, in version
//! 0.4.0 of the protocol.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weft_testkit::containerd::control_group::ControlGroup;
use weft_testkit::containerd::image;
use weft_testkit::program::succeed;
use weft_testkit::wait::eventually;

use crate::machine::{Machine, hear};

const IMAGE: &str = "localhost/busybox";
const SUBNETS: [&str; 1] = ["10.244.1.0/24"];

/// podman with storage and configuration of its own. When dropped, its containers are gone.
struct Podman {
    machine: Machine,
    control_group: ControlGroup,
}

impl Podman {
    /// Has the local image, and for its containers the network `weft` of the plugins that the machine is
    /// given.
    fn new(plugins: impl FnOnce(&Machine) -> Vec<Value>) -> Podman {
        let machine = Machine::new();
        machine.configure("0.4.0", &plugins(&machine));
        fs::write(machine.folder().join("containers.conf"), config(&machine)).unwrap();
        let control_group = ControlGroup::of(machine.folder());
        let podman = Podman { machine, control_group };
        let images = podman.machine.folder().join("image");
        fs::create_dir(&images).unwrap();
        podman.run(&["import", "--quiet", image::layer(&images).to_str().unwrap(), IMAGE]);
        podman
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let folder = self.machine.folder();
        let mut podman = Command::new("nsenter");
        podman.arg(format!("--net={}", self.machine.namespace.path().display()));
        podman.args(["podman", "--storage-driver=vfs"]);
        for place in ["root", "runroot", "tmpdir"] {
            podman.arg(format!("--{place}")).arg(folder.join("podman").join(place));
        }
        podman.env("CONTAINERS_CONF", folder.join("containers.conf")).args(arguments);
        podman
    }

    /// What podman prints. It must succeed.
    fn run(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    /// Starts a container that says its name to whoever connects to port 8080.
    fn serve(&self, name: &str, options: &[&str]) {
        let group = self.control_group.path();
        let start = ["run", "--detach", "--name", name, "--cgroup-parent", &group];
        let server = [IMAGE, "nc", "-ll", "-p", "8080", "-e", "echo", name];
        self.run(&[&start, options, &server].concat());
    }

    fn hear(&self, server: &str) -> String {
        let server = server.parse().unwrap();
        eventually(format!("{server} answers"), || hear(&self.machine.namespace, server).is_ok());
        hear(&self.machine.namespace, server).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for kind in [&["pod"][..], &[]] {
            let _ = self.command(&[kind, &["rm", "--all", "--force", "--time=0"]].concat()).output();
        }
        self.control_group.remove();
    }
}

/// Locks are files of its own: by default all podmans of a machine share a piece of memory.
fn config(machine: &Machine) -> String {
    let (bin_dir, conf_dir) = (machine.bin_dir(), machine.conf_dir());
    let paths: [&Path; 2] = [&bin_dir, &conf_dir];
    let [bin_dir, conf_dir] = paths.map(Path::display);
    format!(
        r#"[containers]
apparmor_profile = "unconfined"
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin_dir}"]
network_config_dir = "{conf_dir}"
default_network = "weft"
"#
    )
}

#[test]
fn containers_reach_each_other_and_their_removal_leaves_nothing() {
    let podman = Podman::new(|machine| vec![machine.plugin(&SUBNETS)]);
    let before = podman.machine.traces();
    podman.serve("web", &["--publish", "8000:8080"]);
    podman.serve("db", &[]);
    assert_eq!(podman.machine.traces().pods(), (2, 2));
    podman.run(&["exec", "db", "ping", "-c", "1", "-w", "20", "10.244.1.2"]);
    podman.run(&["exec", "web", "ping", "-c", "1", "-w", "20", "10.244.1.3"]);
    assert_eq!(podman.hear("10.244.1.1:8000"), "web\n");
    assert_eq!(podman.hear("10.244.1.3:8080"), "db\n");
    podman.run(&["rm", "--force", "--time=0", "web", "db"]);
    assert_eq!(podman.machine.traces(), before);
    assert!(hear(&podman.machine.namespace, "10.244.1.1:8000".parse().unwrap()).is_err());
}

#[test]
fn the_containers_of_a_pod_share_one_address_that_goes_with_it() {
    let podman = Podman::new(|machine| machine.with_portmap(&SUBNETS).to_vec());
    let group = podman.control_group.path();
    let pod = ["pod", "create", "--name", "app", "--publish", "8000:8080", "--cgroup-parent", &group];
    let infra = ["--infra-image", IMAGE, "--infra-command", "sleep 1000000"];
    podman.run(&[&pod[..], &infra].concat());
    podman.serve("web", &["--pod", "app"]);
    assert_eq!(podman.machine.traces().pods(), (1, 1));
    assert_eq!(podman.hear("10.244.1.1:8000"), "web\n");
    let neighbour = ["run", "--rm", "--pod", "app", IMAGE, "nc", "127.0.0.1", "8080"];
    assert_eq!(podman.run(&neighbour), "web\n");
    podman.run(&["pod", "rm", "--force", "--time=0", "app"]);
    assert_eq!(podman.machine.traces().pods(), (0, 0));
}
