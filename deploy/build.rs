//! How the image's program is linked. Which code goes into it is not decided here.

use std::env;
use std::fs;
use std::path::Path;

/// A panic ends a released program where it is, so nobody reads how to unwind the stack; but with what the
/// standard library brings along the compiler writes it for each function, a twelfth of the file. The objects
/// that the C library begins and ends with need theirs.
const NO_UNWIND_TABLES: &str =
    "SECTIONS { /DISCARD/ : { *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o) .eh_frame) } } INSERT AFTER .text;\n";

/// Only a static program is made small: it is the one that the image has, and its start is tried there.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    if !is_static || variable("CARGO_CFG_TARGET_ENV") != "gnu" || variable("PROFILE") != "release" {
        return;
    }
    let script = Path::new(&variable("OUT_DIR")).join("no-unwind-tables.ld");
    fs::write(&script, NO_UNWIND_TABLES).expect("cargo's folder for this script can be written");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    // Relocations as a bitmap, a fiftieth of the list of them. A program reads it itself as it starts, which
    // glibc can since 2.36.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
