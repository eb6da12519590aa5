//! Debian's user-mode-linux: another kernel, which runs as a program. For what the running one was built
//! without.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// A kernel that hangs must not hang everything else.
const SECONDS: &str = "300";

/// Runs one test of the calling program on that kernel and returns all that was said there. The kernel's
/// files are this machine's, read only, but for the folders of temporary files. `modules` are loaded in this
/// order, in which each must find what it needs itself; `setup` is a shell's, and comes before the test.
/// `devices` are words for the kernel's command line.
///
/// A test that fails there says so: the caller looks for what it says when it passes.
pub fn run_test(name: &str, modules: &str, setup: &str, devices: &[String]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    let init = folder.path().join("init");
    let script = format!(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR={tmp}\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /run; mount -t tmpfs tmp {tmp}\n\
         cd /usr/lib/uml/modules/$(uname -r)\n\
         for module in {modules}; do busybox insmod $(find . -name $module.ko); done\n\
         ip link set lo up\n{setup}\n{program} --exact {name} --nocapture 2>&1\nbusybox poweroff -f\n",
        tmp = folder.path().join("tmp").display(),
        program = std::env::current_exe().unwrap().display(),
    );
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=10", SECONDS, "linux.uml"])
        .args(["mem=512M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"])
        .args(["con=null", "con0=fd:0,fd:1", &format!("init={}", init.display())])
        .args(devices)
        .stdin(Stdio::null())
        .output()
        .expect("timeout is there (Debian: apt-get install coreutils user-mode-linux)");
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}
