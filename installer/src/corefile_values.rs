//! What `weft install --corefile` gives to DNS servers: the ConfigMap of a Corefile, where CoreDNS has it.

use clap::Args;

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug, Default)]
pub struct CorefileValues {
    /// Have DNS servers do what the Corefile of this ConfigMap in kube-system says, as it is and as it changes:
    /// `coredns` where CoreDNS was there before. `weft dns check-corefile --configmap` tells whether they can.
    #[arg(long, value_name = "CONFIGMAP", value_parser = config_map)]
    pub corefile: Option<String>,
}

fn config_map(text: &str) -> Result<String, String> {
    let is_name = |name: &str| name.split('.').all(weft_types::is_dns_label);
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a ConfigMap in kube-system; a file becomes one by `kubectl -n kube-system create \
            configmap NAME --from-file=Corefile=FILE`"
            .to_owned()),
    }
}

impl CorefileValues {
    /// A text of the manifests with all of it in its place.
    pub(crate) fn fill(&self, text: String) -> String {
        self.parts()
            .into_iter()
            .fold(text, |text, (place, part)| text.replace(&format!("{{{{{place}}}}}"), &part))
    }

    /// What goes where.
    pub(crate) fn parts(&self) -> [(&'static str, String); 5] {
        [
            ("corefile_flags", self.flags().to_owned()),
            ("corefile_flag", self.flag().to_owned()),
            ("corefile_mounts", self.mounts().to_owned()),
            ("corefile_volumes", self.volumes()),
            ("corefile_of_node", self.of_node()),
        ]
    }

    /// The flags of DNS servers, as the rest of a list in YAML.
    fn flag(&self) -> &'static str {
        if self.corefile.is_none() {
            return "";
        }
        "
            - --corefile=/etc/coredns/Corefile"
    }

    /// The same with the addresses where the probes of the cluster's servers look.
    fn flags(&self) -> &'static str {
        if self.corefile.is_none() {
            return "";
        }
        "
            - --corefile=/etc/coredns/Corefile
            - --health-bind-address=0.0.0.0:8080
            - --ready-bind-address=0.0.0.0:8181
            - --metrics-bind-address=0.0.0.0:9153"
    }

    /// Where it is, and what people add to it, as the rest of a list in YAML.
    fn mounts(&self) -> &'static str {
        if self.corefile.is_none() {
            return "";
        }
        ", {name: corefile, mountPath: /etc/coredns, readOnly: true}, {name: corefile-custom, mountPath: /etc/coredns/custom, readOnly: true}"
    }

    /// The volumes of these.
    fn volumes(&self) -> String {
        let volumes = |name: &String| {
            format!(
                "
        - {{name: corefile, configMap: {{name: {name}}}}}
        - {{name: corefile-custom, configMap: {{name: {}, optional: true}}}}",
                crate::dns::CUSTOM_CONFIG_MAP
            )
        };
        self.corefile.as_ref().map(volumes).unwrap_or_default()
    }

    /// The mounts and volumes of a pod that has no others.
    fn of_node(&self) -> String {
        if self.corefile.is_none() {
            return String::new();
        }
        let mounts = self.mounts().trim_start_matches(", ");
        format!("          volumeMounts: [{mounts}]\n      volumes:{}\n", self.volumes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::CorefileValues;
    use crate::manifests::{Values, render};

    #[test]
    fn all_dns_servers_have_the_config_map_and_no_one_else() {
        let corefile = CorefileValues { corefile: Some("coredns".to_owned()) };
        let values = Values { corefile, node_local_dns: true, ..Values::default() };
        let all: Vec<Value> = serde_saphyr::from_multiple(&render(&values)).unwrap();
        let mut servers = 0;
        for object in &all {
            let spec = &object["spec"]["template"]["spec"];
            let containers = spec["containers"].as_array().into_iter().flatten();
            for container in containers.filter(|it| it["command"][0] == "/weft-dns") {
                servers += 1;
                let flags = container["command"].to_string();
                assert!(
                    flags.contains("--corefile=/etc/coredns/Corefile")
                        && flags.contains("--health-bind-address="),
                    "{flags}"
                );
                let mounts = container["volumeMounts"].as_array().unwrap();
                assert!(
                    mounts.iter().any(|mount| mount["mountPath"] == "/etc/coredns/custom"),
                    "{container}"
                );
                let volumes = spec["volumes"].as_array().unwrap();
                let named = volumes
                    .iter()
                    .filter_map(|volume| volume["configMap"]["name"].as_str())
                    .collect::<Vec<_>>();
                assert_eq!(named, ["coredns", "coredns-custom"]);
            }
        }
        assert_eq!(servers, 3);
        let without = render(&Values { node_local_dns: true, ..Values::default() });
        assert!(!without.contains("coredns") && !without.contains("{{"), "as it was");
    }

    #[test]
    fn a_file_is_no_name() {
        assert!(super::config_map("coredns").is_ok() && super::config_map("my.corefile").is_ok());
        assert!(super::config_map("./Corefile").unwrap_err().contains("--from-file"));
    }
}
