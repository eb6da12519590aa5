//! `weft-lab kubectl`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::CommandContext;
use crate::error::{Error, Result};

/// Replaces this process by kubectl, or prints how to use one.
pub(super) fn run(context: &CommandContext, arguments: &[OsString]) -> Result<()> {
    context.running()?;
    if arguments.is_empty() {
        println!("export KUBECONFIG={}", context.dir.kubeconfig().display());
        return Ok(());
    }
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("--kubeconfig").arg(context.dir.kubeconfig());
    kubectl.arg("--cache-dir").arg(context.dir.kubectl_cache()).args(arguments);
    Err(Error::Spawn { program: "kubectl (Debian: kubernetes-client)".to_owned(), source: kubectl.exec() })
}
