//! The lab's API server before its real clients: kube-rs, and the `kubectl` of this machine.

#[path = "apiserver/fixture.rs"]
mod fixture;
#[path = "apiserver/kube_client.rs"]
mod kube_client;
#[path = "apiserver/kubectl.rs"]
mod kubectl;
#[path = "apiserver/kubelet.rs"]
mod kubelet;
