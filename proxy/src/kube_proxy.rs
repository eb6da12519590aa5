//! What users of kube-proxy bring along: its flags, its configuration file, and the names of its metrics.

pub mod config_file;
pub mod configz;
pub mod flags;
pub mod metric_names;
