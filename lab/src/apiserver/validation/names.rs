//! Names and labels (RFC 1035, RFC 1123, and Kubernetes' "Object Names and IDs" and "Labels and Selectors").

use serde_json::{Value, json};

use crate::apiserver::error::Cause;
use crate::apiserver::object;
use crate::apiserver::resource::Resource;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character";
const PATH_SEGMENT: &str = "may not be '.' or '..' nor contain '/' or '%'";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character";

/// Checks the name and the labels.
pub(super) fn metadata(resource: &Resource, object: &Value) -> Vec<Cause> {
    let name = object::name(object);
    if name.is_empty() {
        return vec![Cause::required("metadata.name", "name or generateName is required")];
    }
    let (is_valid, rule) = match resource.plural {
        // A Service's name may start with a digit since Kubernetes 1.34 (RelaxedServiceNameValidation).
        "services" | "namespaces" => (is_label(name), LABEL),
        _ if resource.group == "rbac.authorization.k8s.io" => (is_path_segment(name), PATH_SEGMENT),
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    let mut causes = Vec::new();
    if !is_valid {
        causes.push(Cause::invalid("metadata.name", &json!(name), rule));
    }
    causes.extend(labels(&object["metadata"]["labels"], "metadata.labels"));
    causes
}

/// Checks a map of labels that stands under that path.
pub(super) fn labels(labels: &Value, path: &str) -> Vec<Cause> {
    let labels = labels.as_object().into_iter().flatten();
    let wrong = labels.filter(|(key, value)| !is_qualified(key) || !is_label_value(object::text(value)));
    wrong.map(|(key, value)| Cause::invalid(format!("{path}.{key}"), value, LABEL_VALUE)).collect()
}

/// Is it one DNS label, 63 bytes at most?
pub(super) fn is_label(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.chars().all(|c| plain(c) || c == '-')
        && name.starts_with(plain)
        && name.ends_with(plain)
}

/// Is it labels with dots between them, 253 bytes at most? A single part may be longer than 63 here.
pub(super) fn is_subdomain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.chars().all(|c| plain(c) || c == '-') && part.starts_with(plain) && part.ends_with(plain)
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn is_path_segment(name: &str) -> bool {
    name != "." && name != ".." && !name.contains(['/', '%'])
}

fn is_label_value(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || value.len() <= 63
            && value.chars().all(|c| plain(c) || "-_.".contains(c))
            && value.starts_with(plain)
            && value.ends_with(plain)
}

/// Is it a label's key: a name, with a domain and a slash before it or without?
fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && !name.is_empty() && is_label_value(name),
        None => !key.is_empty() && is_label_value(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resource::named;

    fn wrong(plural: &str, name: &str) -> bool {
        !metadata(named(plural), &json!({"metadata": {"name": name}})).is_empty()
    }

    #[test]
    fn every_kind_has_its_rule_for_names() {
        assert!(
            !wrong("pods", "web.1-a") && wrong("pods", "Web") && wrong("pods", "a..b") && wrong("pods", "")
        );
        assert!(!wrong("services", "web-1") && !wrong("services", "1-web") && wrong("services", "a.b"));
        assert!(wrong("services", &"a".repeat(64)) && !wrong("pods", &"a".repeat(64)));
        assert!(!wrong("clusterroles", "system:node") && wrong("clusterroles", "a/b"));
    }

    #[test]
    fn labels_have_qualified_keys_and_short_values() {
        let fine = json!({"app": "web", "kubernetes.io/name": "A_b.c", "empty": ""});
        assert!(labels(&fine, "metadata.labels").is_empty());
        for bad in
            [json!({"a b": "x"}), json!({"app": "-x"}), json!({"/x": "y"}), json!({"a": "x".repeat(64)})]
        {
            assert_eq!(labels(&bad, "metadata.labels").len(), 1, "{bad}");
        }
    }
}
