//! The packages that `make deb`, `make kubectl` and `make bundle` make, of programs that are played: what is in them,
//! that the same parts give the same bytes, and that the bundle's script does on a node what it says.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder of programs: `weft` prints manifests and charts, and of all else what it was asked for.
struct Programs(TempDir);

impl Programs {
    fn new() -> Programs {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        let real = folder.path().join("real/weft");
        symlink(env!("CARGO_BIN_EXE_weft-all"), &real).unwrap();
        let real = real.display();
        let script = format!("case $1 in manifests|chart) exec {real} \"$@\" ;; *) echo \"weft $*\" ;; esac");
        let programs = Programs(folder);
        programs.add("weft", &script);
        programs.add("weft-cni", "echo cni");
        programs.add("weft-ipam", "echo ipam");
        programs
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs a script of `deploy/` as make does, twice, and returns what it made; both times must give the same.
fn made(script: &str, arguments: &[&str]) -> (TempDir, PathBuf) {
    let make = |umask: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.current_dir(workspace()).args(["-c", &format!("umask {umask} && exec \"$@\""), "sh"]);
        command.arg(format!("deploy/{script}")).args(arguments).arg(folder.path());
        command.env("VERSION", VERSION).env("ARCH", "amd64").env("SOURCE_DATE_EPOCH", "1700000000");
        let path = PathBuf::from(succeed(&mut command).trim());
        (folder, path)
    };
    let (first, second) = (make("022"), make("077"));
    assert!(
        fs::read(&first.1).unwrap() == fs::read(&second.1).unwrap(),
        "{script} makes something else each time"
    );
    first
}

#[test]
fn the_debian_package_has_the_command_and_the_plugins() {
    let programs = Programs::new();
    let (folder, package) = made("deb.sh", &[&programs.path().display().to_string()]);
    assert_eq!(package.file_name().unwrap().to_str().unwrap(), format!("weft_{VERSION}_amd64.deb"));
    let said = succeed(Command::new("dpkg-deb").arg("--info").arg(&package));
    for line in ["Package: weft", &format!("Version: {VERSION}"), "Architecture: amd64", "Installed-Size: "] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let listed = succeed(Command::new("dpkg-deb").arg("--contents").arg(&package));
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
    let root = folder.path().join("root");
    succeed(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root));
    for (path, said) in [
        ("usr/bin/weft", "weft status"),
        ("usr/bin/kubectl-weft", "weft status"),
        ("usr/lib/cni/weft-cni", "cni"),
        ("usr/lib/cni/weft-ipam", "ipam"),
    ] {
        assert_eq!(succeed(Command::new(root.join(path)).arg("status")).trim(), said, "{path}");
    }
    let copyright = fs::read_to_string(root.join("usr/share/doc/weft/copyright")).unwrap();
    assert!(copyright.contains("Apache-2.0"));
    succeed(Command::new("gzip").arg("--test").arg(root.join("usr/share/doc/weft/changelog.gz")));
}

#[test]
fn the_plugin_of_kubectl_comes_with_a_manifest_that_krew_takes() {
    let programs = Programs::new();
    let (folder, archive) = made("kubectl.sh", &[&programs.path().display().to_string()]);
    let names = succeed(Command::new("tar").arg("-tzf").arg(&archive));
    assert_eq!(names, "LICENSE\nkubectl-weft\n");
    let mut krew = Command::new(workspace().join("deploy/krew.sh"));
    krew.env("VERSION", VERSION).arg("https://releases.test/v1").arg(&archive);
    let manifest: Value = serde_saphyr::from_str(&succeed(&mut krew)).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Plugin".into(), &"weft".into()));
    assert_eq!(manifest["spec"]["version"], format!("v{VERSION}"));
    let platform = &manifest["spec"]["platforms"][0];
    assert_eq!(platform["selector"]["matchLabels"], serde_json::json!({"os": "linux", "arch": "amd64"}));
    let sum = succeed(Command::new("sha256sum").arg(&archive));
    assert_eq!(platform["sha256"].as_str().unwrap(), sum.split(' ').next().unwrap());
    let name = archive.file_name().unwrap().to_str().unwrap();
    assert_eq!(platform["uri"], format!("https://releases.test/v1/{name}"));
    for file in platform["files"].as_array().unwrap() {
        assert!(names.lines().any(|name| file["from"] == name), "{file}");
    }
    drop(folder);
}

/// The bundle, unpacked.
fn bundle() -> (TempDir, PathBuf) {
    let programs = Programs::new();
    let image = programs.path().join("image.tar");
    fs::write(&image, "an image").unwrap();
    fs::write(programs.path().join("sbom"), "{}").unwrap();
    let path = |path: &Path| path.display().to_string();
    let (bin, image, sbom) = (path(programs.path()), path(&image), path(&programs.path().join("sbom")));
    let (folder, archive) = made("bundle.sh", &[&bin, &image, "registry.test/weft:1", &sbom]);
    let sums = format!("{}.sha256", archive.display());
    succeed(Command::new("sha256sum").current_dir(folder.path()).args(["--check", "--quiet", &sums]));
    succeed(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()));
    let unpacked = folder.path().join(format!("weft-{VERSION}-linux-amd64"));
    (folder, unpacked)
}

fn run(bundle: &Path, arguments: &[&str], root: &Path, path: &Path) -> (bool, String) {
    let output = Command::new(bundle.join("install.sh"))
        .args(arguments)
        .env("WEFT_ROOT", root)
        .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn the_bundle_is_whole_and_tells_when_it_is_not() {
    let (folder, bundle) = bundle();
    for name in [
        "weft",
        "weft.tar",
        "weft.yaml",
        "chart/Chart.yaml",
        "chart/values.schema.json",
        "sbom.spdx.json",
        "install.sh",
        "LICENSE",
    ] {
        assert!(bundle.join(name).is_file(), "{name}");
        let sums = fs::read_to_string(bundle.join("SHA256SUMS")).unwrap();
        assert!(sums.contains(&format!("  ./{name}\n")), "{name}: {sums}");
    }
    let manifests = fs::read_to_string(bundle.join("weft.yaml")).unwrap();
    assert!(manifests.contains("image: registry.test/weft:1"));
    let none = folder.path().join("none");
    assert_eq!(run(&bundle, &["check"], &none, &none), (true, "the bundle is whole\n".to_owned()));
    let (is_well, said) = run(&bundle, &["install", "--backend", "vxlan"], &none, &none);
    assert_eq!((is_well, said.trim()), (true, "weft install --image registry.test/weft:1 --backend vxlan"));
    assert!(!run(&bundle, &[], &none, &none).0);
    fs::write(bundle.join("weft.tar"), "another").unwrap();
    for command in ["check", "load", "install"] {
        let (is_well, said) = run(&bundle, &[command], &none, &none);
        assert!(!is_well && said.contains("the bundle is damaged"), "{command}: {said}");
    }
}

#[test]
fn the_image_gets_into_the_runtime_that_a_node_has() {
    let (folder, bundle) = bundle();
    let programs = Programs::new();
    for name in ["ctr", "k3s", "microk8s", "podman"] {
        programs.add(name, &format!("echo {name} \"$@\""));
    }
    let none = folder.path().join("none");
    let (is_well, said) = run(&bundle, &["load"], &none, programs.path());
    assert!(!is_well && said.contains("found no container runtime"), "{said}");
    for (number, (socket, expected)) in [
        ("run/containerd/containerd.sock", "ctr --address"),
        ("run/crio/crio.sock", "podman load --input"),
        ("run/k3s/containerd/containerd.sock", "k3s ctr --address"),
        ("var/snap/microk8s/common/run/containerd.sock", "microk8s ctr --namespace k8s.io images import"),
    ]
    .into_iter()
    .enumerate()
    {
        // Paths of sockets are short.
        let root = tempfile::Builder::new().prefix("w").tempdir_in("/tmp").unwrap();
        let socket = root.path().join(socket);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        fs::create_dir_all(root.path().join("var/lib/rancher/k3s")).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let (is_well, said) = run(&bundle, &["load"], root.path(), programs.path());
        assert!(is_well && said.starts_with(expected), "{said}");
        assert!(said.ends_with("this node has registry.test/weft:1\n"), "{said}");
        let kept = root.path().join("var/lib/rancher/k3s/agent/images/weft.tar");
        assert_eq!(kept.exists(), number == 2, "k3s takes it at its next start too");
    }
}
