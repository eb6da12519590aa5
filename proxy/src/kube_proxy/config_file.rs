//! kube-proxy's configuration file (`KubeProxyConfiguration`, kubeproxy.config.k8s.io/v1alpha1) in terms of
//! our own flags. Pure; the file is read, and joined with the flags of the command line, in `options.rs`.
//!
//! A field that means what a flag means becomes that flag. A field that asks for something that is done
//! otherwise here is an error, as it is for kube-proxy to be given a mode that it lacks. All others change
//! nothing and are named.

use serde_json::{Map, Value};

pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(super) const KIND: &str = "KubeProxyConfiguration";

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// Flags, without their dashes, and their values.
    pub flags: Vec<(&'static str, String)>,
    /// Fields that are set to something and have no effect here, by their paths, and why.
    pub ignored: Vec<(String, &'static str)>,
    /// Fields that kube-proxy does not have either.
    pub unknown: Vec<String>,
    /// Fields, by their paths, whose values count in one mode, and then for which flag. None once all of the
    /// file is read.
    of_modes: Vec<(String, &'static str, &'static str, String)>,
}

impl ConfigFile {
    /// Takes what is for the mode that the file asks for.
    fn settle_modes(&mut self) {
        let asked = self.flags.iter().find(|(flag, _)| *flag == "proxy-mode").map(|(_, mode)| mode.clone());
        let asked = asked.unwrap_or_else(|| "nftables".to_owned());
        for (path, mode, flag, value) in std::mem::take(&mut self.of_modes) {
            match mode == asked {
                true => self.flags.push((flag, value)),
                false => self.ignored.push((path, "it is for another mode")),
            }
        }
    }
}

/// Why there is no such mode, and what to do.
fn without_mode(mode: &str) -> &'static str {
    match mode {
        "userspace" => {
            "no kube-proxy has that mode any more (Kubernetes 1.26), in which a process copied the bytes of every \
             connection; set nftables or iptables"
        }
        _ => "weft-proxy has the modes nftables, iptables and ipvs; set one of them, or leave it out",
    }
}

/// What a field of the file is to us.
enum Meaning {
    /// The value of that flag.
    Flag(&'static str),
    /// The same, where 0 is a value and not the absence of one.
    Number(&'static str),
    /// One of several values of which only these are supported; and what to do about another one.
    Only(&'static [&'static str], &'static str),
    /// The mode of kube-proxy.
    Mode,
    /// The value of that flag where the mode is that one.
    OfMode(&'static str, &'static str),
    /// Nothing, and why.
    Nothing(&'static str),
    /// kube-proxy does not have it.
    Unknown,
}

/// Reads a file's text, YAML or JSON.
///
/// # Errors
/// What is wrong with it, and what to do, in one line.
pub fn parse(text: &str) -> Result<ConfigFile, String> {
    let document: Value = serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    let Value::Object(mut fields) = document else {
        return Err(format!("it is not a {KIND} object"));
    };
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let given = fields.remove(name).unwrap_or_default();
        if given != wanted {
            return Err(format!("{name} is {given}, not {wanted:?}"));
        }
    }
    let mut file = ConfigFile::default();
    take_all("", &fields, &mut file)?;
    file.settle_modes();
    Ok(file)
}

fn take_all(prefix: &str, fields: &Map<String, Value>, file: &mut ConfigFile) -> Result<(), String> {
    for (name, value) in fields {
        let path = format!("{prefix}{name}");
        match value {
            Value::Object(fields) => take_all(&format!("{path}."), fields, file)?,
            value => take(path, value, file)?,
        }
    }
    Ok(())
}

/// Takes the value of one field, whose path that is.
///
/// # Errors
/// Where it asks for something that is done otherwise here.
pub(crate) fn take(path: String, value: &Value, file: &mut ConfigFile) -> Result<(), String> {
    let text = text(value).ok_or_else(|| format!("{path} has the invalid value {value}"))?;
    match meaning(&path) {
        Meaning::Number(flag) if !value.is_null() => file.flags.push((flag, text)),
        Meaning::Only(allowed, remedy) if !is_unset(value) && !allowed.contains(&text.as_str()) => {
            return Err(format!("{path} is {text:?}; {remedy}"));
        }
        _ if is_unset(value) => {}
        Meaning::Flag(flag) | Meaning::Number(flag) => file.flags.push((flag, text)),
        Meaning::Only(..) => {}
        Meaning::Mode => match text.as_str() {
            "nftables" | "iptables" | "ipvs" => file.flags.push(("proxy-mode", text)),
            _ => return Err(format!("{path} is {text:?}; {}", without_mode(&text))),
        },
        Meaning::OfMode(mode, flag) => file.of_modes.push((path, mode, flag, text)),
        Meaning::Nothing(why) => file.ignored.push((path, why)),
        Meaning::Unknown => file.unknown.push(path),
    }
    Ok(())
}

/// A value as a flag has it; `None` where no flag could.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>()?.join(","),
        Value::Object(_) => return None,
        other => other.to_string(),
    })
}

/// Whether it is what the API machinery writes for a field that was left out.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Bool(true) | Value::Object(_) => false,
    }
}

fn meaning(path: &str) -> Meaning {
    use Meaning::{Flag, Mode, Nothing, Number, OfMode, Only, Unknown};
    match path {
        "bindAddress" => Only(
            &["0.0.0.0", "::"],
            "weft-proxy knows the node's addresses from its Node; leave it out, and choose those that serve \
             NodePorts by nodePortAddresses",
        ),
        "clientConnection.kubeconfig" => Flag("kubeconfig"),
        "clusterCIDR" => Flag("cluster-cidr"),
        "conntrack.maxPerCore" => Number("conntrack-max-per-core"),
        "conntrack.min" => Number("conntrack-min"),
        "conntrack.tcpBeLiberal" => Flag("conntrack-tcp-be-liberal"),
        "conntrack.tcpCloseWaitTimeout" => Number("conntrack-tcp-timeout-close-wait"),
        "conntrack.tcpEstablishedTimeout" => Number("conntrack-tcp-timeout-established"),
        "conntrack.udpStreamTimeout" => Flag("conntrack-udp-timeout-stream"),
        "conntrack.udpTimeout" => Flag("conntrack-udp-timeout"),
        "detectLocal.bridgeInterface" => Flag("pod-bridge-interface"),
        "detectLocal.interfaceNamePrefix" => Flag("pod-interface-name-prefix"),
        "detectLocalMode" => Flag("detect-local-mode"),
        "healthzBindAddress" => Flag("healthz-bind-address"),
        "hostnameOverride" => Flag("hostname-override"),
        "iptables.masqueradeAll" => OfMode("iptables", "masquerade-all"),
        "ipvs.excludeCIDRs" => OfMode("ipvs", "ipvs-exclude-cidrs"),
        "ipvs.masqueradeAll" => OfMode("ipvs", "masquerade-all"),
        "ipvs.scheduler" => OfMode("ipvs", "ipvs-scheduler"),
        "ipvs.strictARP" => OfMode("ipvs", "ipvs-strict-arp"),
        "ipvs.syncPeriod" => OfMode("ipvs", "ipvs-sync-period"),
        "ipvs.tcpFinTimeout" => OfMode("ipvs", "ipvs-tcpfin-timeout"),
        "ipvs.tcpTimeout" => OfMode("ipvs", "ipvs-tcp-timeout"),
        "ipvs.udpTimeout" => OfMode("ipvs", "ipvs-udp-timeout"),
        "nftables.masqueradeAll" => OfMode("nftables", "masquerade-all"),
        "logging.format" => Flag("log-format"),
        "metricsBindAddress" => Flag("metrics-bind-address"),
        "mode" => Mode,
        "nodePortAddresses" => Flag("nodeport-addresses"),
        path => without_effect(path).map_or(Unknown, Nothing),
    }
}

/// Why another field of kube-proxy (1.36) has no effect here; nothing of those that it does not have.
fn without_effect(path: &str) -> Option<&'static str> {
    Some(match path {
        "bindAddressHardFail" => "weft-proxy always exits when it cannot bind its addresses",
        "clientConnection.acceptContentTypes"
        | "clientConnection.burst"
        | "clientConnection.contentType"
        | "clientConnection.qps" => "it asks the API server for lists and watches only",
        "configSyncPeriod"
        | "iptables.minSyncPeriod"
        | "iptables.syncPeriod"
        | "ipvs.minSyncPeriod"
        | "nftables.minSyncPeriod"
        | "nftables.syncPeriod" => "there are no periodic syncs: a change is made when it comes",
        "enableProfiling" => "there is no profiling",
        "iptables.localhostNodePorts" => "NodePorts are never served at loopback addresses",
        "iptables.masqueradeBit" => "the mode iptables uses bit 14",
        "nftables.masqueradeBit" => "the mode nftables uses no packet marks",
        "logging.flushFrequency" | "logging.verbosity" | "logging.vmodule" => {
            "RUST_LOG sets what the log holds"
        }
        "oomScoreAdj" => "the pod's quality of service sets that",
        "portRange" => "there is no mode userspace",
        "showHiddenMetricsForVersion" => "no metrics are hidden",
        "windowsRunAsService"
        | "winkernel.enableDSR"
        | "winkernel.forwardHealthCheckVip"
        | "winkernel.networkName"
        | "winkernel.rootHnsEndpointName"
        | "winkernel.sourceVip" => "that is for Windows",
        path if path.starts_with("featureGates.") => "it has no feature gates",
        path if path.starts_with("logging.options.") => "RUST_LOG sets what the log holds",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(fields: &str) -> Result<ConfigFile, String> {
        parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{fields}"))
    }

    #[test]
    fn kubeadms_default_is_taken_without_a_word() {
        let file = parse(include_str!("../../tests/manifests/kubeadm-config.yaml")).unwrap();
        let kubeconfig = "/var/lib/kube-proxy/kubeconfig.conf".to_owned();
        let flags = vec![("kubeconfig", kubeconfig), ("cluster-cidr", "10.244.0.0/16".to_owned())];
        assert_eq!(file, ConfigFile { flags, ..ConfigFile::default() });
    }

    #[test]
    fn fields_become_flags() {
        let file = file(
            "healthzBindAddress: 192.0.2.1\nmetricsBindAddress: '[::]:9999'\nnodePortAddresses: [10.0.0.0/8, fd00::/8]\n\
             detectLocalMode: InterfaceNamePrefix\ndetectLocal: {bridgeInterface: '', interfaceNamePrefix: veth}\n\
             nftables: {masqueradeAll: true}\nconntrack: {maxPerCore: 0, min: null, tcpCloseWaitTimeout: 1h0m0s, udpTimeout: 0s, tcpBeLiberal: true}",
        );
        let mut expected = [
            ("healthz-bind-address", "192.0.2.1"),
            ("metrics-bind-address", "[::]:9999"),
            ("nodeport-addresses", "10.0.0.0/8,fd00::/8"),
            ("detect-local-mode", "InterfaceNamePrefix"),
            ("pod-interface-name-prefix", "veth"),
            ("masquerade-all", "true"),
            ("conntrack-max-per-core", "0"),
            ("conntrack-tcp-timeout-close-wait", "1h0m0s"),
            ("conntrack-tcp-be-liberal", "true"),
        ];
        let mut flags = file.unwrap().flags;
        flags.sort();
        expected.sort();
        assert_eq!(flags, expected.map(|(flag, value)| (flag, value.to_owned())));
    }

    #[test]
    fn what_has_no_effect_and_what_nobody_knows_is_named() {
        let file = file(
            "ipvs: {scheduler: rr, strictARP: false, sheduler: rr}\noomScoreAdj: -999\nfeatureGates: {A: true}\nclusterCidr: x",
        );
        let mut file = file.unwrap();
        file.ignored.sort();
        let ignored: Vec<_> = file.ignored.iter().map(|(field, _)| field).collect();
        assert_eq!(ignored, ["featureGates.A", "ipvs.scheduler", "oomScoreAdj"]);
        let unknown = vec!["clusterCidr".to_owned(), "ipvs.sheduler".to_owned()];
        assert_eq!((file.unknown, file.flags), (unknown, vec![]));
    }

    #[test]
    fn every_field_of_kube_proxys_configuration_is_honoured_or_named_as_one_without_effect() {
        let everything = format!(
            "{}\niptables: {{localhostNodePorts: true, masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}}\n\
             ipvs: {{excludeCIDRs: [10.0.0.0/8], minSyncPeriod: 1s, scheduler: rr, strictARP: true, syncPeriod: 30s, \
             tcpFinTimeout: 1s, tcpTimeout: 1s, udpTimeout: 1s}}\n\
             winkernel: {{enableDSR: true, forwardHealthCheckVip: true, networkName: a, rootHnsEndpointName: a, sourceVip: a}}\n\
             bindAddressHardFail: true\nenableProfiling: true\nconfigSyncPeriod: 15m\noomScoreAdj: -999\nportRange: 1-2\n\
             showHiddenMetricsForVersion: '1.35'\nwindowsRunAsService: true\nfeatureGates: {{A: true}}",
            include_str!("../../tests/manifests/full-config.yaml")
        );
        let file = parse(&everything).unwrap();
        assert_eq!(file.unknown, [""; 0]);
        assert_eq!((file.flags.len(), file.ignored.len()), (17, 25));
    }

    #[test]
    fn what_asks_for_something_else_is_refused_with_a_remedy() {
        for (fields, words) in [
            ("mode: ebpf", ["mode is \"ebpf\"", "nftables, iptables and ipvs"]),
            ("mode: userspace", ["mode is \"userspace\"", "set nftables or iptables"]),
            ("bindAddress: 192.0.2.1", ["bindAddress", "leave it out"]),
            ("clusterCIDR: [{}]", ["clusterCIDR", "invalid value"]),
        ] {
            let error = file(fields).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{fields}: {error}");
        }
    }

    #[test]
    fn what_is_said_for_one_mode_counts_in_that_mode() {
        let masquerade_all = ("masquerade-all", "true".to_owned());
        let both = "iptables: {masqueradeAll: true}";
        let of = |mode: &str| file(&format!("{both}\n{mode}")).unwrap();
        assert_eq!(of("mode: iptables").flags, [("proxy-mode", "iptables".to_owned()), masquerade_all]);
        for other in ["mode: nftables", ""] {
            assert_eq!(of(other).ignored, [("iptables.masqueradeAll".to_owned(), "it is for another mode")]);
        }
    }

    #[test]
    fn other_documents_are_refused_in_one_line() {
        for (text, words) in [
            ("[]", "not a KubeProxyConfiguration"),
            ("kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1", "not \"kubeproxy"),
            ("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: Pod", "kind is \"Pod\""),
            ("a: [", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
