//! The table of Pods.

use serde_json::{Value, json};

use super::age::since;
use super::{Column, Printer, age, column, or_none, wide};
use crate::apiserver::object::{self, condition, is_terminating, items, text};

const COLUMNS: &[Column] = &[
    column("Name"),
    column("Ready"),
    column("Status"),
    column("Restarts"),
    column("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

/// How Pods are printed.
pub(super) const POD: Printer = Printer {
    columns: COLUMNS,
    cells: |pod, now| {
        let statuses = items(&pod["status"]["containerStatuses"]);
        let ready = statuses.iter().filter(|status| status["ready"] == true).count();
        let total = items(&pod["spec"]["containers"]).len();
        vec![
            json!(object::name(pod)),
            json!(format!("{ready}/{total}")),
            json!(status(pod)),
            restarts(statuses, now),
            age(pod, now),
            or_none(&pod["status"]["podIP"]),
            or_none(&pod["spec"]["nodeName"]),
            or_none(&pod["status"]["nominatedNodeName"]),
            json!("<none>"),
        ]
    },
};

/// The one word that says how a pod is: what its containers wait for or ended with, or its phase.
fn status(pod: &Value) -> String {
    let phase = text(&pod["status"]["phase"]);
    let own = text(&pod["status"]["reason"]);
    let mut word = if own.is_empty() { phase } else { own }.to_owned();
    for status in items(&pod["status"]["containerStatuses"]).iter().rev() {
        let state = &status["state"];
        let waiting = text(&state["waiting"]["reason"]);
        let ended = &state["terminated"];
        if !waiting.is_empty() {
            word = waiting.to_owned();
        } else if ended.is_object() {
            word = ending(ended);
        }
    }
    match is_terminating(pod) {
        true if own == "NodeLost" => "Unknown".to_owned(),
        true => "Terminating".to_owned(),
        false if word == "Completed" && condition(pod, "Ready") == "True" => "Running".to_owned(),
        false => word,
    }
}

fn ending(terminated: &Value) -> String {
    match (text(&terminated["reason"]), terminated["signal"].as_i64()) {
        ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        ("", _) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        (reason, _) => reason.to_owned(),
    }
}

fn restarts(statuses: &[Value], now: i64) -> Value {
    let count: i64 = statuses.iter().filter_map(|status| status["restartCount"].as_i64()).sum();
    let ends = statuses.iter().map(|status| &status["lastState"]["terminated"]["finishedAt"]);
    match ends.filter(|end| end.is_string()).max_by(|a, b| text(a).cmp(text(b))) {
        Some(last) if count > 0 => json!(format!("{count} ({} ago)", text(&since(last, now)))),
        _ => json!(count.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(pod: &Value) -> Vec<String> {
        (POD.cells)(pod, 100).iter().map(|cell| text(cell).to_owned()).collect()
    }

    #[test]
    fn a_running_pod() {
        let pod = json!({
            "metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:40Z"},
            "spec": {"nodeName": "n1", "containers": [{}, {}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [
                {"ready": true, "restartCount": 2, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "1970-01-01T00:01:30Z"}}},
                {"ready": false, "restartCount": 0, "state": {"running": {}}},
            ]},
        });
        let want = ["web", "1/2", "Running", "2 (10s ago)", "60s", "10.0.0.1", "n1", "<none>", "<none>"];
        assert_eq!(cells(&pod), want);
    }

    #[test]
    fn the_status_is_the_most_telling_word() {
        let with =
            |state: Value| json!({"status": {"phase": "Pending", "containerStatuses": [{"state": state}]}});
        assert_eq!(status(&with(json!({"waiting": {"reason": "ContainerCreating"}}))), "ContainerCreating");
        assert_eq!(status(&with(json!({"terminated": {"exitCode": 3}}))), "ExitCode:3");
        assert_eq!(status(&with(json!({"terminated": {"reason": "Error", "exitCode": 3}}))), "Error");
        assert_eq!(status(&json!({"status": {"phase": "Pending"}})), "Pending");
        let leaving = json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}});
        assert_eq!(status(&leaving), "Terminating");
    }
}
