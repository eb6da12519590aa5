//! Defaults of Deployments, StatefulSets and DaemonSets (apps/v1).

use serde_json::{Value, json};

use super::pods;
use crate::apiserver::object::set_default;

/// The defaults of a Deployment.
pub(super) fn deployment(object: &mut Value) {
    let spec = &mut object["spec"];
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    set_default(&mut spec["strategy"], "type", "RollingUpdate");
    if spec["strategy"]["type"] == "RollingUpdate" {
        set_default(&mut spec["strategy"]["rollingUpdate"], "maxSurge", "25%");
        set_default(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", "25%");
    }
    template(spec);
}

/// The defaults of a StatefulSet.
pub(super) fn stateful_set(object: &mut Value) {
    let spec = &mut object["spec"];
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    template(spec);
}

/// The defaults of a DaemonSet.
pub(super) fn daemon_set(object: &mut Value) {
    let spec = &mut object["spec"];
    set_default(spec, "revisionHistoryLimit", 10);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
    set_default(spec, "updateStrategy", strategy);
    template(spec);
}

fn template(spec: &mut Value) {
    pods::spec(&mut spec["template"]["spec"]);
}
