//! A container's environment and the `$(NAME)` references in its command line. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// What the downward API can tell beyond the object itself.
#[derive(Clone, Debug)]
pub(super) struct PodFacts {
    /// The pod's addresses, the first of which is `status.podIP`.
    pub(super) addresses: Vec<IpAddr>,
    /// The node's name.
    pub(super) node: String,
    /// The node's addresses, the first of which is `status.hostIP`.
    pub(super) node_addresses: Vec<IpAddr>,
}

/// The container's environment in the order of its spec. References see the variables before them.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
) -> Result<Vec<(String, String)>, String> {
    if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return Err("envFrom is not supported in the lab: list the variables under env".to_owned());
    }
    let mut variables = Vec::new();
    for variable in container.env.iter().flatten() {
        let value = value(pod, variable, facts, &variables)?;
        variables.push((variable.name.clone(), value));
    }
    Ok(variables)
}

fn value(
    pod: &Pod,
    variable: &EnvVar,
    facts: &PodFacts,
    before: &[(String, String)],
) -> Result<String, String> {
    let Some(source) = &variable.value_from else {
        return Ok(expand(variable.value.as_deref().unwrap_or_default(), before));
    };
    let Some(field) = &source.field_ref else {
        return Err(format!("env {}: only fieldRef is supported in the lab", variable.name));
    };
    field_value(pod, &field.field_path, facts)
        .ok_or_else(|| format!("env {}: field {:?} is not known", variable.name, field.field_path))
}

fn field_value(pod: &Pod, path: &str, facts: &PodFacts) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let values = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return None,
        };
        return Some(values.as_ref().and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "spec.nodeName" => facts.node.clone(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" => facts.node_addresses.first()?.to_string(),
        "status.hostIPs" => listed(&facts.node_addresses),
        "status.podIP" => facts.addresses.first()?.to_string(),
        "status.podIPs" => listed(&facts.addresses),
        _ => return None,
    })
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// Replaces `$(NAME)` by the variable's value; `$$` gives `$`; an unknown name stays as it is.
pub(super) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        // The last of several variables of one name counts, as in a process's environment.
        let known = reference
            .and_then(|(name, after)| Some((variables.iter().rfind(|(known, _)| known == name)?, after)));
        match known {
            Some(((_, value), after)) => {
                expanded.push_str(value);
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> PodFacts {
        PodFacts {
            addresses: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            node: "node1".to_owned(),
            node_addresses: vec!["172.30.0.11".parse().unwrap(), "fd00:30::11".parse().unwrap()],
        }
    }

    fn environment_of(env: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "env": env}]}
        }))
        .unwrap();
        environment(&pod, &pod.spec.as_ref().unwrap().containers[0], &facts())
    }

    #[test]
    fn fields_of_the_pod_become_variables() {
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let variables = environment_of(json!([
            field("POD_NAME", "metadata.name"),
            field("POD_IP", "status.podIP"),
            field("POD_IPS", "status.podIPs"),
            field("NODE_NAME", "spec.nodeName"),
            field("HOST_IP", "status.hostIP"),
            field("HOST_IPS", "status.hostIPs"),
            field("APP", "metadata.labels['app']"),
            {"name": "URL", "value": "http://$(POD_IP):80/$(MISSING)"},
        ]))
        .unwrap();
        let values: Vec<&str> = variables.iter().map(|(_, value)| value.as_str()).collect();
        let url = "http://10.244.1.2:80/$(MISSING)";
        let hosts = "172.30.0.11,fd00:30::11";
        assert_eq!(
            values,
            ["p", "10.244.1.2", "10.244.1.2,fd00::2", "node1", "172.30.0.11", hosts, "x", url]
        );
    }

    #[test]
    fn what_is_not_supported_is_said_by_name() {
        let secret = json!([{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        assert!(environment_of(secret).unwrap_err().contains("PASSWORD"));
        let unknown = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.what"}}}]);
        assert!(environment_of(unknown).unwrap_err().contains("spec.what"));
    }

    #[test]
    fn dollars_are_escaped_by_dollars() {
        let variables = [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
        for (text, expected) in
            [("$(A)$(A)", "22"), ("$$(A)", "$(A)"), ("$(B) $A $", "$(B) $A $"), ("$(A", "$(A"), ("", "")]
        {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
