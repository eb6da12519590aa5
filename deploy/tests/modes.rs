//! The image's program plans Services in each mode of the proxy.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use weft_installer::manifests::PROXY_MODES;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy/tests/manifests/shop.yaml");

#[test]
fn the_image_plans_services_in_each_mode_of_the_proxy() {
    for mode in PROXY_MODES {
        let mut proxy = Command::new(env!("CARGO_BIN_EXE_weft-all"));
        proxy.arg0("weft-proxy").arg(format!("--proxy-mode={mode}"));
        proxy.args(["--hostname-override=node1", "--ebpf", "--dry-run", MANIFEST]);
        let output = proxy.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let planned = String::from_utf8(output.stdout).unwrap();
        let of_mode = match mode {
            "nftables" => "10.96.0.20 . tcp . 80 . 0 : 10.244.1.2 . 8080",
            "iptables" => "-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp",
            _ => "TCP  10.96.0.20:80 rr",
        };
        for expected in [of_mode, "# eBPF maps"] {
            assert!(planned.contains(expected), "{mode}: {planned}");
        }
    }
}
