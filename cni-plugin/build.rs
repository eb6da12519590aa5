//! How the plugin's program is linked. Which code goes into it is not decided here.

use std::env;

/// A static program is linked for a fixed place, as the reference plugins are: moved to another one, as
/// position-independent code is, it would write to a dozen pages of pointers before it has done anything.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    if is_static && variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu" {
        for argument in ["-no-pie", "-static"] {
            println!("cargo::rustc-link-arg-bin=weft-cni={argument}");
        }
    }
}
