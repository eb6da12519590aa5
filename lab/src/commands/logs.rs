//! `weft-lab logs`.

use std::fs;
use std::path::Path;

use kube::ResourceExt;

use super::CommandContext;
use crate::error::{Error, Result};
use crate::requirements::DAEMONS;

/// Prints what a daemon of a node wrote.
pub(super) fn of_daemon(context: &CommandContext, node: &str, daemon: &str) -> Result<()> {
    let invalid = |what, value: &str, known: String| {
        Err(Error::Invalid { what, value: value.to_owned(), reason: format!("is none of {known}") })
    };
    let nodes = context.running()?.nodes;
    if !nodes.iter().any(|known| known == node) {
        return invalid("node", node, nodes.join(", "));
    }
    if !DAEMONS.contains(&daemon) {
        return invalid("daemon", daemon, DAEMONS.join(", "));
    }
    print(&context.dir.node(node).log(daemon))
}

/// Prints what the containers of a pod wrote.
pub(super) async fn of_pod(context: &CommandContext, namespace: &str, name: &str) -> Result<()> {
    let pod = context.pod(namespace, name).await?;
    let dir = context.dir.pod(&pod.uid().unwrap_or_default());
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        print(&dir.log(&container.name))?;
    }
    Ok(())
}

fn print(path: &Path) -> Result<()> {
    print!("{}", fs::read_to_string(path).map_err(Error::io("read", path))?);
    Ok(())
}
