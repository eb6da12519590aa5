//! Field selectors: the text of a query's `fieldSelector`, over the few fields that each kind offers.

use serde_json::Value;

use super::error::{ApiError, Result};
use super::resource::Resource;

/// What some fields of an object must be. All terms hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    path: String,
    value: String,
    equal: bool,
}

/// The fields of each kind, beside `metadata.name` and `metadata.namespace`, as the real server has them.
fn fields_of(plural: &str) -> &'static [&'static str] {
    match plural {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "services" => &["spec.clusterIP", "spec.type"],
        "secrets" => &["type"],
        "replicasets" => &["status.replicas"],
        _ => &[],
    }
}

impl FieldSelector {
    /// Reads the text of a query, for objects of that kind.
    pub(crate) fn parse(resource: &Resource, query: &str) -> Result<Self> {
        let parts = query.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| term(resource, part)).collect::<Result<_>>().map(Self)
    }

    /// Does the object fit?
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (value(object, &term.path) == term.value) == term.equal)
    }
}

fn term(resource: &Resource, part: &str) -> Result<Term> {
    let (path, value, equal) = part
        .split_once("!=")
        .map(|(path, value)| (path, value, false))
        .or_else(|| part.split_once("==").or_else(|| part.split_once('=')).map(|(p, v)| (p, v, true)))
        .ok_or_else(|| ApiError::BadRequest(format!("invalid field selector: {part:?}")))?;
    let path = path.trim();
    if !["metadata.name", "metadata.namespace"].contains(&path) && !fields_of(resource.plural).contains(&path)
    {
        return Err(ApiError::BadRequest(format!("field label not supported: {path}")));
    }
    Ok(Term { path: path.to_owned(), value: value.trim().to_owned(), equal })
}

fn value(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, field| &value[field]) {
        Value::String(text) => text.clone(),
        Value::Null if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apiserver::resource::named;

    #[test]
    fn fields_of_the_kind_are_compared_and_others_refused() {
        let pod = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n1"}, "status": {}});
        let fits = |query: &str| FieldSelector::parse(named("pods"), query).unwrap().matches(&pod);
        assert!(fits("spec.nodeName=n1,metadata.name==x,status.phase!=Failed"));
        assert!(fits("status.phase="));
        assert!(fits("spec.hostNetwork=false"));
        assert!(!fits("spec.nodeName!=n1"));
        assert!(FieldSelector::parse(named("pods"), "spec.color=red").is_err());
        assert!(FieldSelector::parse(named("nodes"), "spec.nodeName=n1").is_err());
        assert!(FieldSelector::parse(named("pods"), "nonsense").is_err());
    }
}
