//! The built plugin under real runtimes, and in chains with the reference plugins: Debian's containerd
//! through its CRI socket, podman, containernetworking-plugins. A machine is a network namespace and a folder
//! that the test makes; images are made by hand, no registry is asked. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod machine;
mod podman;
mod sandboxes;
