//! `weft-lab exec`.

use std::ffi::OsString;

use kube::ResourceExt;

use super::CommandContext;
use crate::error::{Error, Result};

/// Replaces this process by a program inside a pod.
pub(super) async fn run(
    context: &CommandContext,
    namespace: &str,
    pod: &str,
    command: &[OsString],
) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let pod = context.pod(namespace, pod).await?;
    let place = context.dir.pod(&pod.uid().unwrap_or_default()).read_place()?;
    let place = place.ok_or_else(|| Error::Invalid {
        what: "pod",
        value: pod.name_any(),
        reason: "is not set up on its node yet: see `weft-lab kubectl describe pod`".to_owned(),
    })?;
    place.exec(command)
}
