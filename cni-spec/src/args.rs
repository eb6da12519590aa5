//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`, from runtimes that know no capability arguments (SPEC section 2).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

/// What `CNI_ARGS` says. Keys that are not the plugins' (a runtime's `K8S_POD_INFRA_CONTAINER_ID`, ...) are
/// left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `IP`: an address asked for.
    pub ip: Option<IpAddr>,
    /// `MAC`: the container interface's Ethernet address, as written.
    pub mac: Option<String>,
    /// The Kubernetes pod that the container is, where the runtime says so.
    pub pod: Option<KubernetesPod>,
}

/// A pod as Kubernetes' runtimes name it: `K8S_POD_NAMESPACE`, `K8S_POD_NAME` and `K8S_POD_UID`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesPod {
    /// Its namespace, which is not empty.
    pub namespace: String,
    /// Its name, which is not empty.
    pub name: String,
    /// Its uid; empty where the runtime does not say it.
    pub uid: String,
}

/// What is wrong with `CNI_ARGS`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidArgs {
    /// A part without exactly one `=`.
    #[error("CNI_ARGS: {0:?} is not of the form KEY=VALUE")]
    NotAPair(String),
    /// A value that cannot be what its key says.
    #[error("CNI_ARGS: {key}={value} is not valid")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Keys that no plugin knows, without `IgnoreUnknown=1`.
    #[error("CNI_ARGS: unknown keys {}; set IgnoreUnknown=1 to have them ignored", .0.join(", "))]
    Unknown(Vec<String>),
}

impl Args {
    /// Parses the variable's value. Keys are case-sensitive; of a key given twice the last counts.
    pub fn parse(text: &str) -> Result<Args, InvalidArgs> {
        let mut args = Args::default();
        let mut pod = KubernetesPod::default();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| InvalidArgs::NotAPair(pair.to_owned()))?;
            let invalid = || InvalidArgs::Value { key: key.to_owned(), value: value.to_owned() };
            match key {
                // Not set.
                "IP" | "MAC" if value.is_empty() => {}
                "IgnoreUnknown" => ignore_unknown = boolean(value).ok_or_else(invalid)?,
                "IP" => args.ip = Some(address(value).ok_or_else(invalid)?),
                "MAC" => args.mac = Some(value.to_owned()),
                "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
                "K8S_POD_NAME" => pod.name = value.to_owned(),
                "K8S_POD_UID" => pod.uid = value.to_owned(),
                // host-local has it, and takes no notice of it.
                "GATEWAY" => {}
                _ => unknown.push(key.to_owned()),
            }
        }
        args.pod = (!pod.namespace.is_empty() && !pod.name.is_empty()).then_some(pod);
        if unknown.is_empty() || ignore_unknown { Ok(args) } else { Err(InvalidArgs::Unknown(unknown)) }
    }
}

/// With a prefix, which does not count, or without.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse().ok().map(|network: IpNetwork| network.ip()))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "True" | "TRUE" => Some(true),
        "0" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_and_containerds_are_ignored() {
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.1.0.9;MAC=0a:58:0a:01:00:09").unwrap();
        assert_eq!(args.ip, Some("10.1.0.9".parse().unwrap()));
        assert_eq!(args.mac.as_deref(), Some("0a:58:0a:01:00:09"));
        assert_eq!(Args::parse("IP=10.1.0.9/24").unwrap().ip, args.ip);
        assert_eq!(Args::parse(""), Ok(Args::default()));
        assert_eq!(Args::parse("IP=;MAC="), Ok(Args::default()), "runtimes' templates leave them empty");
    }

    #[test]
    fn a_pod_has_a_namespace_and_a_name() {
        let pod = |text: &str| Args::parse(text).unwrap().pod;
        let web = KubernetesPod { namespace: "shop".into(), name: "web".into(), uid: "0a1b".into() };
        let named = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1";
        assert_eq!(pod(&format!("{named};K8S_POD_UID=0a1b")), Some(web.clone()));
        assert_eq!(pod(named), Some(KubernetesPod { uid: String::new(), ..web }));
        for text in ["", "K8S_POD_NAMESPACE=shop", "K8S_POD_NAME=web", "K8S_POD_NAMESPACE=;K8S_POD_NAME=web"]
        {
            assert_eq!(pod(text), None, "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_an_error_that_names_all_of_them() {
        let expected = InvalidArgs::Unknown(vec!["A".into(), "ip".into()]);
        assert_eq!(Args::parse("A=1;ip=10.0.0.1"), Err(expected.clone()));
        assert_eq!(Args::parse("A=1;ip=10.0.0.1;IgnoreUnknown=false"), Err(expected));
    }

    #[test]
    fn malformed_pairs_and_values() {
        for text in ["IP", "IP=1=2", "IP=10.0.0"] {
            assert!(Args::parse(text).is_err(), "{text}");
        }
        assert!(Args::parse("IgnoreUnknown=maybe").is_err());
    }
}
