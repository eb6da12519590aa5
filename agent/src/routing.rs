//! The way to the pods of other nodes: decided in `plan`, from values alone; tried by `probe`; led through the tunnel of
//! `vxlan` where it is not direct.

pub mod plan;
pub mod probe;
pub mod vxlan;
