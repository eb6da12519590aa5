//! The `weft-ipam` program by the CNI protocol, and side by side with the reference `host-local` of Debian's
//! containernetworking-plugins, on the same folder in both directions. Runs as root: some tests mount a disk.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod blocks;
mod capacity;
mod chained;
mod crash;
mod damage;
mod network;
mod reboot;
mod reference;
mod requests;
