//! What a plugin is given: environment variables and standard input (CNI SPEC section 2), and what it gives
//! back. Pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conflist::NetworkList;

/// A pod's connection to the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The sandbox's id, unique for each try to set the pod up.
    pub container_id: String,
    /// The pod's network namespace, as a file.
    pub netns: PathBuf,
    /// The interface inside the pod.
    pub ifname: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The ports of the node that lead to the pod, as the capability `portMappings` has them.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
}

/// A port of the node that leads to a pod (CNI conventions, `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// tcp, udp or sctp.
    pub protocol: String,
    /// The node's address; empty for all of them.
    #[serde(rename = "hostIP", default, skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// What a plugin is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Connect a pod.
    Add,
    /// Disconnect it.
    Del,
}

impl Command {
    /// As in `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
        }
    }
}

impl Attachment {
    /// The environment of a plugin, with the `CNI_ARGS` that containerd sends.
    pub fn environment(&self, command: Command, plugins: &Path) -> Vec<(&'static str, String)> {
        let arguments = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &self.pod_namespace),
            ("K8S_POD_NAME", &self.pod_name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.container_id),
            ("K8S_POD_UID", &self.pod_uid),
        ];
        let arguments: Vec<String> = arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            ("CNI_COMMAND", command.name().to_owned()),
            ("CNI_CONTAINERID", self.container_id.clone()),
            ("CNI_NETNS", self.netns.display().to_string()),
            ("CNI_IFNAME", self.ifname.clone()),
            ("CNI_PATH", plugins.display().to_string()),
            ("CNI_ARGS", arguments.join(";")),
        ]
    }
}

/// A sandbox id of 64 hexadecimal digits, as runtimes have it: from the pod's UID, the node's boot and the
/// count of tries.
pub fn container_id(pod_uid: &str, boot: &str, attempt: u32) -> String {
    let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>();
    format!("{:0<32.32}{:0<24.24}{attempt:08x}", digits(pod_uid), digits(boot))
}

/// A plugin's standard input: its configuration with the list's name and version, and the result of the
/// plugin before it, or on DEL that of the whole list (SPEC section 3, "Deriving execution configuration").
pub fn input(
    list: &NetworkList,
    plugin: &Map<String, Value>,
    attachment: &Attachment,
    previous: Option<&Value>,
) -> Value {
    let mut config = plugin.clone();
    let takes_ports = config.get("capabilities").is_some_and(|all| all["portMappings"] == true);
    if takes_ports && !attachment.port_mappings.is_empty() {
        config.insert("runtimeConfig".to_owned(), json!({"portMappings": attachment.port_mappings}));
    }
    config.insert("name".to_owned(), list.name.clone().into());
    config.insert("cniVersion".to_owned(), list.cni_version.clone().into());
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    Value::Object(config)
}

/// The pod's addresses by an ADD result of version 0.3.0 or later.
pub fn addresses(result: &Value) -> Result<Vec<IpAddr>, String> {
    let ips = result.get("ips").and_then(Value::as_array).ok_or("the result has no \"ips\"")?;
    let address = |ip: &Value| {
        let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
        text.parse::<IpNetwork>().map(|network| network.ip()).map_err(|error| format!("{text:?}: {error}"))
    };
    let found: Vec<IpAddr> = ips.iter().map(address).collect::<Result<_, _>>()?;
    if found.is_empty() { Err("the result has no address".to_owned()) } else { Ok(found) }
}

/// A plugin's error in one line: its error object (SPEC section 5, "Error"), or all that it said.
pub fn error_text(stdout: &[u8], stderr: &[u8]) -> String {
    let Ok(error) = serde_json::from_slice::<Value>(stdout) else {
        let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
        return format!("{}{}", stdout.trim(), stderr.trim());
    };
    let text = |key| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let code = error.get("code").and_then(Value::as_u64).unwrap_or_default();
    match text("details") {
        "" => format!("code {code}: {}", text("msg")),
        details => format!("code {code}: {}: {details}", text("msg")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::conflist;

    fn attachment() -> Attachment {
        Attachment {
            container_id: container_id("0a1b2c3d-0000-1111-2222-333344445555", "b0", 2),
            netns: "/run/netns/weft-pod-0a1b2c3d".into(),
            ifname: "eth0".to_owned(),
            pod_namespace: "shop".to_owned(),
            pod_name: "backend-1".to_owned(),
            pod_uid: "0a1b2c3d-0000-1111-2222-333344445555".to_owned(),
            port_mappings: Vec::new(),
        }
    }

    #[test]
    fn the_environment_is_that_of_containerd() {
        let environment = attachment().environment(Command::Add, Path::new("/opt/cni/bin"));
        let id = "0a1b2c3d000011112222333344445555b0000000000000000000000000000002".to_owned();
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=backend-1;K8S_POD_INFRA_CONTAINER_ID={id};\
             K8S_POD_UID=0a1b2c3d-0000-1111-2222-333344445555"
        );
        let expected = [
            ("CNI_COMMAND", "ADD".to_owned()),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", "/run/netns/weft-pod-0a1b2c3d".to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
            ("CNI_ARGS", arguments),
        ];
        assert_eq!(environment, expected);
    }

    #[test]
    fn every_try_has_its_own_id_of_64_digits() {
        let ids = [("1", 0), ("1", 1), ("2", 0)].map(|(boot, attempt)| container_id("ab-cd", boot, attempt));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        assert!(ids.iter().all(|id| id.len() == 64));
    }

    #[test]
    fn the_list_gives_name_and_version_and_the_previous_result() {
        let list = conflist::parse(
            r#"{"cniVersion":"1.1.0","name":"weft","plugins":[{"type":"weft-cni","name":"x","mtu":1400}]}"#,
        )
        .unwrap();
        let first = input(&list, &list.plugins[0], &attachment(), None);
        assert_eq!(first, json!({"type": "weft-cni", "mtu": 1400, "name": "weft", "cniVersion": "1.1.0"}));
        let second = input(&list, &list.plugins[0], &attachment(), Some(&json!({"ips": []})));
        assert_eq!(second["prevResult"], json!({"ips": []}));
    }

    #[test]
    fn port_mappings_go_to_the_plugin_that_asks_for_them() {
        let mapping = |host_ip: &str| PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".to_owned(),
            host_ip: host_ip.to_owned(),
        };
        let attachment =
            Attachment { port_mappings: vec![mapping(""), mapping("172.30.0.11")], ..attachment() };
        let list = |capabilities: Value| {
            let plugin = json!({"type": "p", "capabilities": capabilities});
            conflist::parse(&json!({"cniVersion": "1.1.0", "name": "n", "plugins": [plugin]}).to_string())
                .unwrap()
        };
        let asks = list(json!({"portMappings": true}));
        let expected = json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "172.30.0.11"},
        ]});
        assert_eq!(input(&asks, &asks.plugins[0], &attachment, None)["runtimeConfig"], expected);
        let silent = list(json!({"portMappings": false}));
        assert!(input(&silent, &silent.plugins[0], &attachment, None).get("runtimeConfig").is_none());
    }

    #[test]
    fn addresses_come_without_their_prefix() {
        let result = json!({"ips": [{"address": "10.244.1.2/24"}, {"address": "fd00::2/64"}]});
        let expected: Vec<IpAddr> = vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(addresses(&result), Ok(expected));
        for bad in [json!({}), json!({"ips": []}), json!({"ips": [{"address": "x"}]})] {
            assert!(addresses(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_object_becomes_one_line() {
        let stdout = br#"{"cniVersion":"1.1.0","code":11,"msg":"try again","details":"no address"}"#;
        assert_eq!(error_text(stdout, b""), "code 11: try again: no address");
        assert_eq!(error_text(b"", b"panicked\n"), "panicked");
    }
}
