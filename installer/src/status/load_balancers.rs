//! What `weft status` says of load balancer addresses: who has some, who waits, and which agent gives them.

use serde_json::Value;

use crate::Result;
use crate::cluster::{Cluster, LOAD_BALANCER_LEASE, NAMESPACE, SERVICE, name};

/// How many Services are named that wait.
const NAMED: usize = 5;

/// What the line is made of.
#[derive(Debug, Default)]
pub(super) struct LoadBalancers {
    lease: Value,
    services: Vec<Value>,
}

/// Looks at the cluster; nothing where no agent gives addresses, or where nobody may know.
///
/// # Errors
/// Where the cluster is not to be reached.
pub(super) async fn look(cluster: &Cluster) -> Result<Option<LoadBalancers>> {
    let (kind, lease) = LOAD_BALANCER_LEASE;
    let Ok(Some(lease)) = cluster.get(kind, NAMESPACE, lease).await else { return Ok(None) };
    Ok(Some(LoadBalancers { lease, services: cluster.list(SERVICE, None, "").await? }))
}

impl LoadBalancers {
    /// One line, for a DaemonSet of agents with these flags.
    pub(super) fn line(&self, agent: Option<&Value>) -> String {
        let command = agent.map(|set| &set["spec"]["template"]["spec"]["containers"][0]["command"]);
        let mut flags = command.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let class = flags.find_map(|flag| flag.strip_prefix("--lb-class="));
        let is_ours = |service: &&Value| {
            let spec = &service["spec"];
            spec["type"] == "LoadBalancer" && spec["loadBalancerClass"].as_str() == class
        };
        let services: Vec<&Value> = self.services.iter().filter(is_ours).collect();
        let waits = |service: &&&Value| service["status"]["loadBalancer"]["ingress"][0].is_null();
        let waiting: Vec<String> = services
            .iter()
            .filter(waits)
            .map(|it| format!("{}/{}", it["metadata"]["namespace"].as_str().unwrap_or_default(), name(it)))
            .collect();
        let with = services.len() - waiting.len();
        let without = match waiting.len() {
            0 => String::new(),
            many @ ..=NAMED => format!("; without: {}", waiting[..many].join(", ")),
            many => format!("; without: {} and {} more", waiting[..NAMED].join(", "), many - NAMED),
        };
        let holder = self.lease["spec"]["holderIdentity"].as_str().unwrap_or("nobody");
        format!(
            "{with} of {} Services have addresses, given by the agent of {holder}{without}",
            services.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, class: Option<&str>, ip: Option<&str>) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": class},
            "status": {"loadBalancer": {"ingress": ip.map(|ip| vec![json!({"ip": ip})])}},
        })
    }

    #[test]
    fn those_who_wait_are_named_and_those_of_other_classes_do_not_count() {
        let seen = LoadBalancers {
            lease: json!({"spec": {"holderIdentity": "node2"}}),
            services: vec![
                service("web", None, Some("192.0.2.10")),
                service("db", None, None),
                service("other", Some("example.com/lb"), None),
                json!({"metadata": {"name": "plain"}, "spec": {"type": "ClusterIP"}}),
            ],
        };
        let line = "1 of 2 Services have addresses, given by the agent of node2; without: shop/db";
        assert_eq!(seen.line(None), line);
        let command = json!(["/weft-agent", "--lb-class=example.com/lb"]);
        let set = json!({"spec": {"template": {"spec": {"containers": [{"command": command}]}}}});
        let line = "0 of 1 Services have addresses, given by the agent of node2; without: shop/other";
        assert_eq!(seen.line(Some(&set)), line);
        let many = (0..7).map(|number| service(&format!("s{number}"), None, None)).collect();
        let text = LoadBalancers { services: many, ..seen }.line(None);
        assert!(text.ends_with("without: shop/s0, shop/s1, shop/s2, shop/s3, shop/s4 and 2 more"), "{text}");
    }
}
