//! The kernel settings that a node needs: `plan` says which, `proc` sets them.

pub mod plan;
pub mod proc;

use tracing::info;
use weft_netlink::sysctl::Originals;

use crate::subsystem::{Report, Round, Subsystem};

/// Keeps the settings as planned. They stay when the agent goes: pods rely on them. What they were is put back
/// by `weft remove-plugins`, once there is no pod.
pub(crate) struct Sysctls(pub(crate) Originals);

impl Subsystem for Sysctls {
    fn name(&self) -> &'static str {
        "sysctls"
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        let settings = round.plan.map(|plan| plan.sysctls.as_slice()).unwrap_or_default();
        // Each may rely on the one before: forwarding is not switched on where that would cost the host its
        // own routes.
        for setting in settings {
            match proc::set(setting, &self.0) {
                Ok(true) => info!("set {} to {}", setting.name, setting.value),
                Ok(false) => {}
                Err(error) => return report.blocking(error),
            }
        }
    }
}
