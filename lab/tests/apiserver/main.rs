//! The lab's API server before its real clients: kube-rs, and the `kubectl` of this machine.

mod fixture;
mod kube_client;
mod kubectl;
mod kubelet;
