//! The CNI configuration of this node.

pub mod file;
