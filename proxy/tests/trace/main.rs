//! What a Service must do, tested on the planned rules by the packet tracer: no root, no kernel. Every table
//! of packets is run for both families, and for TCP, UDP and SCTP where it names no protocol. That the kernel
//! does the same with these rules is tested in `tests/kernel/agreement.rs`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod affinity;
mod cluster;
mod endpoints;
mod frontends;
mod harmless;
mod masquerade;
mod policies;
mod words;
