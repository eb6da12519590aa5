//! `weft-lab stop` and `weft-lab start`: nodes switched off and on.

use super::CommandContext;
use crate::control::{self, Request};
use crate::error::{Error, Result};
use crate::names::node_number;

/// Switches a node off.
pub(super) fn stop(context: &CommandContext, node: String) -> Result<()> {
    context.running()?;
    control::ask(&context.dir.control(), &Request::SwitchOff { node })
}

/// Switches a node on, with its own addresses or those of another number.
pub(super) fn start(context: &CommandContext, node: String, number: Option<u8>) -> Result<()> {
    let nodes = context.running()?.nodes;
    if !nodes.contains(&node) {
        let reason = format!("the lab has {}", nodes.join(", "));
        return Err(Error::Invalid { what: "node", value: node, reason });
    }
    let number = number.unwrap_or_else(|| node_number(&node));
    control::ask(&context.dir.control(), &Request::SwitchOn { node, number })
}
