//! Putting a pod on a node.

use serde_json::{Value, json};

use super::{Registry, Target};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object::{self, Condition};

impl Registry {
    /// Binds a pod that is on no node yet. Its node and the condition `PodScheduled` appear in one change.
    pub(crate) fn bind(&mut self, target: &Target, node: &str) -> Result<()> {
        let mut pod = Value::clone(self.get(target)?);
        if pod["spec"]["nodeName"].is_string() || object::is_terminating(&pod) {
            let detail = "the pod is on a node already, or being deleted";
            return Err(ApiError::conflict(target.resource, &target.name, detail));
        }
        pod["spec"]["nodeName"] = json!(node);
        let scheduled = Condition { kind: "PodScheduled", holds: true, reason: "", message: "" };
        object::set_condition(&mut pod["status"], &scheduled, &self.store.now());
        self.commit(target.key(), pod, false);
        Ok(())
    }
}
