//! The daemon, called by Debian's CNI plugins, with Debian's dnsmasq and udhcpd for servers. A host, a network
//! beside it and pods are network namespaces that the test makes. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod leases;
mod network;
mod socket;
