//! A container image made by hand, from the machine's busybox: no registry is asked.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::program::succeed;

/// The only name under which a pod's sandbox and its containers know the image.
pub const NAME: &str = "localhost/busybox:local";

const BUSYBOX: &str = "/bin/busybox";
/// The commands of busybox that containers call by name.
const APPLETS: [&str; 6] = ["echo", "nc", "nslookup", "ping", "sh", "sleep"];

/// The image's one layer, a tar file of its root folder.
pub fn layer(folder: &Path) -> PathBuf {
    let root = folder.join("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("package busybox-static is installed");
    for library in libraries() {
        let copy = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, copy).unwrap();
    }
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let layer = folder.join("layer.tar");
    succeed(
        Command::new("tar").arg("--create").arg("--file").arg(&layer).arg("--directory").arg(&root).arg("."),
    );
    layer
}

/// The shared libraries that busybox needs: none in package busybox-static, some in package busybox, which a
/// machine may have instead.
fn libraries() -> Vec<PathBuf> {
    let listing = Command::new("ldd").arg(BUSYBOX).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// The image as `docker save` writes it (Docker Image Specification 1.2, "Combined Image JSON + Filesystem
/// Changeset").
pub fn docker_archive(folder: &Path) -> PathBuf {
    let sum = succeed(Command::new("sha256sum").arg(layer(folder)));
    let digest = sum.split_whitespace().next().unwrap();
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = folder.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(folder);
    succeed(tar.args(["manifest.json", "config.json", "layer.tar"]));
    archive
}

/// The machine's architecture by its name in an image.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
