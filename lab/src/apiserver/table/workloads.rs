//! The tables of Deployments, ReplicaSets, StatefulSets and DaemonSets.

use serde_json::{Value, json};

use super::{Column, Printer, age, column, joined, labels, wide};
use crate::apiserver::object::{self, items, text};

/// How Deployments are printed.
pub(super) const DEPLOYMENT: Printer = Printer {
    columns: &[
        column("Name"),
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |deployment, now| {
        let status = &deployment["status"];
        let mut cells = vec![
            json!(object::name(deployment)),
            ready(deployment),
            number(&status["updatedReplicas"]),
            number(&status["availableReplicas"]),
            age(deployment, now),
        ];
        cells.extend(containers(deployment));
        cells.push(selector(deployment));
        cells
    },
};

/// How ReplicaSets are printed.
pub(super) const REPLICA_SET: Printer = Printer {
    columns: &[
        column("Name"),
        column("Desired"),
        column("Current"),
        column("Ready"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |set, now| {
        let status = &set["status"];
        let mut cells = vec![
            json!(object::name(set)),
            number(&set["spec"]["replicas"]),
            number(&status["replicas"]),
            number(&status["readyReplicas"]),
            age(set, now),
        ];
        cells.extend(containers(set));
        cells.push(selector(set));
        cells
    },
};

/// How StatefulSets are printed.
pub(super) const STATEFUL_SET: Printer = Printer {
    columns: &[column("Name"), column("Ready"), column("Age"), wide("Containers"), wide("Images")],
    cells: |set, now| {
        let mut cells = vec![json!(object::name(set)), ready(set), age(set, now)];
        cells.extend(containers(set));
        cells
    },
};

const DAEMON_SET_COLUMNS: &[Column] = &[
    column("Name"),
    column("Desired"),
    column("Current"),
    column("Ready"),
    column("Up-to-date"),
    column("Available"),
    column("Node Selector"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

/// How DaemonSets are printed.
pub(super) const DAEMON_SET: Printer = Printer {
    columns: DAEMON_SET_COLUMNS,
    cells: |set, now| {
        let status = &set["status"];
        let mut cells = vec![
            json!(object::name(set)),
            number(&status["desiredNumberScheduled"]),
            number(&status["currentNumberScheduled"]),
            number(&status["numberReady"]),
            number(&status["updatedNumberScheduled"]),
            number(&status["numberAvailable"]),
            labels(&set["spec"]["template"]["spec"]["nodeSelector"]),
            age(set, now),
        ];
        cells.extend(containers(set));
        cells.push(selector(set));
        cells
    },
};

fn ready(workload: &Value) -> Value {
    let ready = number(&workload["status"]["readyReplicas"]);
    json!(format!("{ready}/{}", number(&workload["spec"]["replicas"])))
}

fn number(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or(0))
}

/// The names and the images of a workload's containers.
fn containers(workload: &Value) -> [Value; 2] {
    let containers = items(&workload["spec"]["template"]["spec"]["containers"]);
    let column = |field: &str| joined(containers.iter().map(|container| text(&container[field])));
    [column("name"), column("image")]
}

fn selector(workload: &Value) -> Value {
    labels(&workload["spec"]["selector"]["matchLabels"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_half_way() {
        let deployment = json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}}},
            "status": {"readyReplicas": 1, "updatedReplicas": 2},
        });
        let cells = (DEPLOYMENT.cells)(&deployment, 0);
        let want = [
            json!("web"),
            json!("1/3"),
            json!(2),
            json!(0),
            json!("<unknown>"),
            json!("a,b"),
            json!("x:1,y"),
            json!("app=web"),
        ];
        assert_eq!(cells, want);
    }
}
