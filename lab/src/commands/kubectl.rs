//! `weft-lab kubectl`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::Here;
use crate::error::{Error, Result};

/// Replaces this process by kubectl, or prints how to use one.
pub(super) fn run(here: &Here, arguments: &[OsString]) -> Result<()> {
    here.running()?;
    if arguments.is_empty() {
        println!("export KUBECONFIG={}", here.dir.kubeconfig().display());
        return Ok(());
    }
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("--kubeconfig").arg(here.dir.kubeconfig());
    kubectl.arg("--cache-dir").arg(here.dir.kubectl_cache()).args(arguments);
    Err(Error::Spawn { program: "kubectl (Debian: kubernetes-client)".to_owned(), source: kubectl.exec() })
}
