//! What users of kube-proxy bring along: its flags and its configuration file.

pub mod config_file;
pub mod flags;
