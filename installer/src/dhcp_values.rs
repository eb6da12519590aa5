//! What `weft install` has agents do about DHCP: the agent's own flag, by the same name, and what comes with it.

use clap::Args;

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug, Default)]
pub struct DhcpValues {
    /// Have agents serve the CNI plugin dhcp: containers of other networks (macvlan, a bridge with an uplink)
    /// get leases of the DHCP server there, which are renewed and given back.
    #[arg(long)]
    pub dhcp: bool,
}

impl DhcpValues {
    /// The agent's flag, where it differs from its default.
    pub(crate) fn agent_flag(&self) -> Option<String> {
        self.dhcp.then(|| "--dhcp=true".to_owned())
    }

    /// What enters containers' network namespaces, as the rest of a list in YAML.
    pub(crate) fn agent_capabilities(&self) -> &'static str {
        if self.dhcp { ", SYS_ADMIN" } else { "" }
    }

    /// Where the plugin finds the agent, and the agent containers' namespaces, by the two paths that runtimes
    /// call them.
    pub(crate) fn mounts(&self) -> &'static str {
        if !self.dhcp {
            return "";
        }
        "
            - {name: run-cni, mountPath: /run/cni}
            - {name: netns, mountPath: /run/netns, mountPropagation: HostToContainer}
            - {name: netns, mountPath: /var/run/netns, mountPropagation: HostToContainer}"
    }

    /// The volumes of these.
    pub(crate) fn volumes(&self) -> &'static str {
        if !self.dhcp {
            return "";
        }
        "
        - {name: run-cni, hostPath: {path: /run/cni, type: DirectoryOrCreate}}
        - {name: netns, hostPath: {path: /run/netns, type: DirectoryOrCreate}}"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::DhcpValues;
    use crate::fast_path_values::FastPathValues;
    use crate::manifests::{Values, render};

    fn agent(values: &Values) -> Value {
        let all: Vec<Value> = serde_saphyr::from_multiple(&render(values)).unwrap();
        let is_agent = |it: &&Value| it["kind"] == "DaemonSet" && it["metadata"]["name"] == "weft-agent";
        all.iter().find(is_agent).unwrap()["spec"]["template"]["spec"].clone()
    }

    fn capabilities(values: &Values) -> String {
        agent(values)["containers"][0]["securityContext"]["capabilities"]["add"].to_string()
    }

    #[test]
    fn the_agent_enters_containers_only_where_it_serves_the_plugin_dhcp() {
        let values = Values { dhcp: DhcpValues { dhcp: true }, ..Values::default() };
        let pod = agent(&values);
        assert!(pod["containers"][0]["command"].as_array().unwrap().contains(&"--dhcp=true".into()));
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        for mount in ["/run/cni", "/run/netns", "/var/run/netns"] {
            let mount = mounts.iter().find(|it| it["mountPath"] == mount).unwrap();
            assert!(pod["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == mount["name"]));
        }
        assert!(capabilities(&values).contains("SYS_ADMIN"));
        let usual = agent(&Values::default()).to_string();
        assert!(!usual.contains("SYS_ADMIN") && !usual.contains("netns") && !usual.contains("dhcp"));
        let fast = Values { fast_path: FastPathValues { fast_path: "ebpf".to_owned() }, ..values };
        assert_eq!(capabilities(&fast).matches("SYS_ADMIN").count(), 1);
    }
}
