//! The client: a pod's spec as its resolver sees it. Pure; the server knows the cluster's own search domains.

use serde_json::Value;

/// A pod's resolver, as far as it differs from the usual one of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) namespace: String,
    /// The node it runs on; none for a namespace as a whole.
    pub(super) node: Option<String>,
    /// Whether the search list begins with the cluster's domains.
    pub(super) searches_cluster: bool,
    pub(super) searches: Vec<String>,
    /// As `dnsConfig` writes it.
    pub(super) ndots: Option<String>,
    /// What to know of the pod before all else.
    pub(super) note: Option<String>,
    /// Whether it asks the cluster's DNS at all.
    pub(super) asks_cluster: bool,
}

impl Client {
    /// Any pod of a namespace.
    pub(super) fn of_namespace(namespace: &str) -> Client {
        let namespace = namespace.to_owned();
        Client { namespace, searches_cluster: true, asks_cluster: true, ..Client::default() }
    }

    /// A pod, by its object.
    pub(super) fn of_pod(pod: &Value) -> Client {
        let (spec, config) = (&pod["spec"], &pod["spec"]["dnsConfig"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(text).collect()
        };
        let options = config["options"].as_array().into_iter().flatten();
        let policy = match spec["dnsPolicy"].as_str().unwrap_or("ClusterFirst") {
            // As kubelet has it: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
            "ClusterFirst" if spec["hostNetwork"] == true => "Default",
            policy => policy,
        };
        let note = match policy {
            "Default" => Some(
                "The pod asks the name servers of its node, not those of the cluster, as its dnsPolicy and hostNetwork \
                 say: names of the cluster do not resolve there. For hostNetwork, dnsPolicy ClusterFirstWithHostNet."
                    .to_owned(),
            ),
            "None" => Some(format!(
                "The pod asks {} (dnsPolicy None); this is what the cluster's DNS says.",
                texts(&config["nameservers"]).join(" and ")
            )),
            _ => None,
        };
        Client {
            node: text(&spec["nodeName"]),
            searches_cluster: policy != "None",
            searches: texts(&config["searches"]),
            // Without kubelet's `ndots:5`, resolv.conf(5) has 1.
            ndots: options
                .filter(|option| option["name"] == "ndots")
                .find_map(|option| text(&option["value"]))
                .or((policy == "None").then(|| "1".to_owned())),
            note,
            asks_cluster: policy != "Default",
            ..Client::of_namespace(pod["metadata"]["namespace"].as_str().unwrap_or_default())
        }
    }

    /// What the server is asked on its behalf.
    pub(super) fn path(&self, name: &str, record_type: &str) -> String {
        let mut path = format!(
            "/explain?namespace={}&name={}&type={}",
            encoded(&self.namespace),
            encoded(name),
            encoded(record_type)
        );
        if !self.searches.is_empty() {
            path += &format!("&search={}", encoded(&self.searches.join(",")));
        }
        if !self.searches_cluster {
            path += "&cluster=no";
        }
        if let Some(ndots) = &self.ndots {
            path += &format!("&ndots={}", encoded(ndots));
        }
        path
    }
}

/// RFC 3986 section 2.1.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: Value) -> Client {
        Client::of_pod(&json!({"metadata": {"namespace": "shop", "name": "web-0"}, "spec": spec}))
    }

    #[test]
    fn the_usual_pod_differs_in_nothing() {
        let client = of(json!({"nodeName": "node1", "dnsPolicy": "ClusterFirst"}));
        assert_eq!(client, Client { node: Some("node1".to_owned()), ..Client::of_namespace("shop") });
        assert_eq!(client.path("a&b.svc", "srv"), "/explain?namespace=shop&name=a%26b.svc&type=srv");
    }

    #[test]
    fn dns_config_is_passed_on() {
        let config = json!({"searches": ["corp.example", "."], "options": [{"name": "edns0"}, {"name": "ndots", "value": "2"}]});
        let path = of(json!({"dnsConfig": config})).path("db", "A");
        assert!(path.ends_with("&type=A&search=corp.example%2C.&ndots=2"), "{path}");
        let alone = of(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"]}}));
        assert!(alone.path("db", "A").ends_with("&type=A&cluster=no&ndots=1"));
        assert!(alone.note.unwrap().contains("192.0.2.53"));
    }

    #[test]
    fn who_asks_the_node_s_name_servers_is_told() {
        for spec in [json!({"dnsPolicy": "Default"}), json!({"hostNetwork": true})] {
            let client = of(spec);
            assert!(!client.asks_cluster && client.note.is_some());
        }
        let with = of(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert!(with.asks_cluster && with.note.is_none());
    }
}
