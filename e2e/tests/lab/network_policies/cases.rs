//! What a case is: changes of the cluster, and after each of them a truth table.

use serde_json::{Value, json};

use super::table::{Expectation, NAMESPACES, Table};
use super::world::World;
use crate::api::{Api, collection};
use crate::lab::Outcome;

/// The label of the cases' own ClusterNetworkPolicies: other scenarios have theirs.
const OWN: &str = "truth-tables";

/// A case, by what it shows.
pub(super) struct Case {
    name: String,
    steps: Vec<Step>,
    /// What takes back changes of pods and namespaces. Policies are all deleted after every case.
    undo: Vec<Action>,
}

/// Changes, and whom the pods reach afterwards. Without an expectation, the oracle alone says so.
struct Step {
    actions: Vec<Action>,
    expected: Option<Expectation>,
}

/// A change of the cluster.
pub(super) enum Action {
    Create(Value),
    Merge(String, Value),
    Delete(String),
}

impl Case {
    /// A case of no steps yet.
    pub(super) fn new(name: impl Into<String>) -> Case {
        Case { name: name.into(), steps: Vec::new(), undo: Vec::new() }
    }

    /// One more step, of which this is expected.
    pub(super) fn step(mut self, actions: impl Into<Vec<Action>>, expected: Expectation) -> Case {
        self.steps.push(Step { actions: actions.into(), expected: Some(expected) });
        self
    }

    /// One more step, judged by the oracle alone.
    pub(super) fn judged(mut self, actions: impl Into<Vec<Action>>) -> Case {
        self.steps.push(Step { actions: actions.into(), expected: None });
        self
    }

    /// What is to be done in the end.
    pub(super) fn undo(mut self, actions: impl Into<Vec<Action>>) -> Case {
        self.undo = actions.into();
        self
    }
}

/// A NetworkPolicy of that namespace.
pub(super) fn policy(namespace: &str, name: &str, spec: Value) -> Action {
    let types = ("networking.k8s.io/v1", "NetworkPolicy");
    Action::Create(json!({"apiVersion": types.0, "kind": types.1,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec}))
}

/// A ClusterNetworkPolicy about pods of the cases' namespaces, or of these alone.
pub(super) fn cluster_policy(name: &str, priority: u16, subject: &[&str], spec: Value) -> Action {
    let subject = if subject.is_empty() { &NAMESPACES } else { subject };
    let namespaces = json!({"matchExpressions": [{"key": "ns", "operator": "In", "values": subject}]});
    let mut whole = json!({"tier": "Admin", "priority": priority, "subject": {"namespaces": namespaces}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    Action::Create(json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "labels": {OWN: "yes"}}, "spec": whole}))
}

/// Changes fields of a NetworkPolicy's spec.
pub(super) fn change(namespace: &str, name: &str, spec: Value) -> Action {
    Action::Merge(format!("{}/{name}", collection(namespace, "networkpolicies")), json!({"spec": spec}))
}

/// Deletes a NetworkPolicy.
pub(super) fn delete(namespace: &str, name: &str) -> Action {
    Action::Delete(format!("{}/{name}", collection(namespace, "networkpolicies")))
}

/// Changes labels of a pod.
pub(super) fn label_pod(namespace: &str, name: &str, labels: Value) -> Action {
    Action::Merge(
        format!("{}/{name}", collection(namespace, "pods")),
        json!({"metadata": {"labels": labels}}),
    )
}

/// Changes labels of a namespace.
pub(super) fn label_namespace(name: &str, labels: Value) -> Action {
    Action::Merge(format!("/api/v1/namespaces/{name}"), json!({"metadata": {"labels": labels}}))
}

impl Action {
    fn carry_out(&self, api: &Api) -> Outcome {
        let done = match self {
            Action::Create(object) => {
                let plural = match object["kind"].as_str() {
                    Some("NetworkPolicy") => "networkpolicies",
                    _ => "clusternetworkpolicies",
                };
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                api.create(&collection(namespace, plural), object)
            }
            Action::Merge(path, patch) => api.patch(path, patch),
            Action::Delete(path) => api.delete(path),
        };
        done.map(drop)
    }
}

/// Runs cases one after the other.
pub(super) struct Runner<'a> {
    pub(super) world: &'a World<'a>,
    /// The table that holds now.
    pub(super) table: Table,
}

impl Runner<'_> {
    /// Runs a case, and takes back what it did.
    pub(super) fn run(&mut self, case: &Case) -> Outcome {
        let done = self.steps(case);
        let undone = self.undo(case);
        done.and(undone).map_err(|error| format!("{}: {error}", case.name))
    }

    fn steps(&mut self, case: &Case) -> Outcome {
        for (number, step) in case.steps.iter().enumerate() {
            let at = |error: String| format!("step {}: {error}", number + 1);
            step.actions.iter().try_for_each(|action| action.carry_out(&self.world.api)).map_err(at)?;
            let expected = self.world.expected()?;
            if let Some(said) = step.expected.as_ref().map(Expectation::table)
                && said != expected
            {
                return Err(at(format!("the oracle says otherwise: {}", expected.difference(&said))));
            }
            if number == 0 && expected == self.table {
                self.differ(step)?;
            }
            self.reach(expected).map_err(at)?;
        }
        Ok(())
    }

    /// Two cases of equal tables: between them another one must be seen, or the second would show nothing.
    fn differ(&mut self, step: &Step) -> Outcome {
        self.delete_policies()?;
        if self.table == Table::open() {
            policy("z", "between", json!({"podSelector": {}})).carry_out(&self.world.api)?;
        }
        self.reach(self.world.expected()?)?;
        self.delete_policies()?;
        let mut policies = step.actions.iter().filter(|action| matches!(action, Action::Create(_)));
        policies.try_for_each(|action| action.carry_out(&self.world.api))
    }

    /// Waits until that table is seen.
    fn reach(&mut self, expected: Table) -> Outcome {
        self.world.settles(&self.table, &expected)?;
        self.table = expected;
        Ok(())
    }

    fn undo(&self, case: &Case) -> Outcome {
        self.delete_policies()?;
        case.undo.iter().try_for_each(|action| action.carry_out(&self.world.api))
    }

    fn delete_policies(&self) -> Outcome {
        for namespace in NAMESPACES {
            self.world.api.delete(&collection(namespace, "networkpolicies"))?;
        }
        let all = collection("", "clusternetworkpolicies");
        let list = self.world.api.get(&all)?;
        let policies = list["items"].as_array().into_iter().flatten().map(|policy| &policy["metadata"]);
        let own = policies.filter(|metadata| metadata["labels"][OWN] == "yes");
        own.filter_map(|metadata| metadata["name"].as_str())
            .try_for_each(|name| self.world.api.delete(&format!("{all}/{name}")).map(drop))
    }
}
