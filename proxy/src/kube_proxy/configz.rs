//! What is in effect, in the words of kube-proxy's configuration file.

use clap::ValueEnum;
use serde_json::{Value, json};
use weft_daemon::LogFormat;

use super::config_file::{API_VERSION, KIND};
use crate::config::{NodePortAddresses, ProxyMode};
use crate::ipvs_options::IpvsOptions;
use crate::options::Options;

/// The fields of the mode.
fn of_mode(options: &Options) -> Value {
    let IpvsOptions { scheduler, exclude_cidrs, strict_arp, .. } = &options.ipvs;
    let timeouts = options.ipvs.timeouts();
    let seconds = |seconds: u32| format!("{seconds}s");
    match options.proxy_mode {
        ProxyMode::Nftables | ProxyMode::Iptables => json!({"masqueradeAll": options.masquerade_all}),
        ProxyMode::Ipvs => json!({
            "excludeCIDRs": exclude_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "masqueradeAll": options.masquerade_all,
            "scheduler": scheduler.name(),
            "strictARP": strict_arp,
            "syncPeriod": format!("{}s", options.ipvs.sync_period().as_secs()),
            "tcpFinTimeout": seconds(timeouts.tcp_fin),
            "tcpTimeout": seconds(timeouts.tcp),
            "udpTimeout": seconds(timeouts.udp),
        }),
    }
}

/// What `/configz` shows: what is in effect, as a file that would ask for just that.
pub fn configz(options: &Options) -> Value {
    let limits = &options.limits;
    let time = |time: Option<std::time::Duration>| time.map(|time| format!("{}s", time.as_secs()));
    let format = match options.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mode = options.proxy_mode.name();
    let nodeport_addresses = match &options.nodeport_addresses {
        NodePortAddresses::Primary => vec!["primary".to_owned()],
        NodePortAddresses::Networks(networks) => networks.iter().map(ToString::to_string).collect(),
    };
    let cluster_cidr: Vec<_> = options.cluster_cidr.iter().map(ToString::to_string).collect();
    json!({"kubeproxy.config.k8s.io": {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "clientConnection": {"kubeconfig": options.kubeconfig},
        "clusterCIDR": cluster_cidr.join(","),
        "conntrack": {
            "maxPerCore": limits.max_per_core,
            "min": limits.min,
            "tcpBeLiberal": limits.be_liberal.unwrap_or_default(),
            "tcpCloseWaitTimeout": time(limits.close_wait),
            "tcpEstablishedTimeout": time(limits.established),
            "udpStreamTimeout": time(limits.udp_stream),
            "udpTimeout": time(limits.udp),
        },
        "detectLocal": {
            "bridgeInterface": options.pod_bridge_interface.as_deref().unwrap_or_default(),
            "interfaceNamePrefix": options.pod_interface_name_prefix.as_deref().unwrap_or_default(),
        },
        "detectLocalMode": options.detect_local_mode.to_possible_value().map(|mode| mode.get_name().to_owned()),
        "healthzBindAddress": options.healthz_bind_address,
        "hostnameOverride": options.hostname_override,
        "logging": {"format": format},
        "metricsBindAddress": options.metrics_bind_address,
        "mode": mode,
        mode: of_mode(options),
        "nodePortAddresses": nodeport_addresses,
    }})
}
