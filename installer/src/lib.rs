//! What the `weft` command does: the manifests of a cluster, and the plugins of a node.

pub mod manifests;
pub mod plugins;
