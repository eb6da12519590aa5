//! The flags of `weft-dns`. What they lead to is in [`crate::daemon`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use weft_cluster::Access;
use weft_daemon::{LogFormat, address};
use weft_types::well_known::port;

use crate::forward::{Case, ForwardOptions, Policy, SpecialUsePolicy, parse_upstream};
use crate::zone::{Exposure, PodNames, ZoneName};

/// What of the cluster is seen, and how, where it is not all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// There is none: names are only forwarded.
    pub is_away: bool,
    /// How the API server is reached, where --kubeconfig does not say.
    pub access: Option<Access>,
    /// The label selector of Services, EndpointSlices and pods.
    pub objects: Option<String>,
    /// The label selector of Namespaces.
    pub namespaces: Option<String>,
    /// Endpoints have the names of their pods.
    pub endpoint_pod_names: bool,
    /// Endpoints are not watched.
    pub without_endpoints: bool,
    /// What has names.
    pub exposure: Exposure,
}

/// Answers the names of a Kubernetes cluster, and forwards all others.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(name = "weft-dns", version)]
pub struct Options {
    /// The kubeconfig of the cluster. Without it, the pod's own service account is used.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// A Corefile, as CoreDNS reads it, that says what is not said by flags: zones, upstreams, cache, hosts,
    /// rewrites and so on. Followed where it has `reload`. See docs/dns-corefile.md.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["upstreams", "upstream_policy"])]
    pub corefile: Option<PathBuf>,

    /// What of the cluster is seen, and how. No flags: a Corefile sets it.
    #[arg(skip)]
    pub cluster: ClusterView,

    /// The domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub zone: ZoneName,

    /// Addresses to listen on, over UDP and TCP, separated by commas, at port 53 unless they name another.
    /// May be given several times.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', default_value = "0.0.0.0:53", value_parser = |text: &str| address(text, 53))]
    pub listen: Vec<SocketAddr>,

    /// Addresses to listen on for DNS over TLS, at port 853 unless another is named. May be given several
    /// times.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = |text: &str| address(text, 853), requires_all = ["tls_certificate", "tls_key"])]
    pub dot: Vec<SocketAddr>,

    /// Addresses to listen on for DNS over HTTPS, at /dns-query and port 443 unless another is named. May be
    /// given several times.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = |text: &str| address(text, 443), requires_all = ["tls_certificate", "tls_key"])]
    pub doh: Vec<SocketAddr>,

    /// Addresses to listen on for DNS over QUIC, at port 853 unless another is named. May be given several
    /// times.
    #[cfg(feature = "quic")]
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = |text: &str| address(text, 853), requires_all = ["tls_certificate", "tls_key"])]
    pub doq: Vec<SocketAddr>,

    /// Addresses to listen on for DNS over HTTP/3, at /dns-query and port 443 unless another is named. May be
    /// given several times.
    #[cfg(feature = "quic")]
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = |text: &str| address(text, 443), requires_all = ["tls_certificate", "tls_key"])]
    pub doh3: Vec<SocketAddr>,

    /// The certificate chain for encrypted DNS, in PEM. Reloaded when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// The private key of --tls-certificate, in PEM. Reloaded when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// Take the sockets over from the server that runs at the same address, and hand them over to the next
    /// one: an upgrade loses no query.
    #[arg(long)]
    pub handover: bool,

    /// Run as a standby: share the sockets of the server that runs at the same address, and answer as soon as
    /// it is gone, however it ends. For two servers with the same flags, of which one answers.
    #[arg(long, requires = "handover", conflicts_with = "node_local")]
    pub standby: bool,

    /// Give the addresses of --listen to an interface of this server's own, and keep what is asked there out
    /// of connection tracking. For one server on each node, in the host's network; takes the capability
    /// NET_ADMIN.
    #[arg(long)]
    pub node_local: bool,

    /// Remove what a server with --node-local left behind when it was killed, and end.
    #[arg(long)]
    pub cleanup: bool,

    /// Upstream resolvers for names outside of the cluster; may be given several times. Default: the name
    /// servers of --resolv-conf.
    #[arg(long = "upstream", value_name = "ADDR[:PORT]", value_parser = parse_upstream)]
    pub upstreams: Vec<SocketAddr>,

    /// The file that lists the node's name servers and search domains. Read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,

    /// Which upstream is asked first. Unhealthy ones are asked last, whatever the policy.
    #[arg(long, value_name = "POLICY", default_value = "random")]
    pub upstream_policy: Policy,

    /// How the letters of names are spelled to upstreams. Random case (0x20) makes answers harder to forge;
    /// upstreams that do not support it are detected, and asked in lower case.
    #[arg(long, value_name = "CASE", default_value = "random")]
    pub upstream_case: Case,

    /// How many queries may wait for upstreams at a time. More are refused; so are those of a client that has
    /// more places than are free.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_concurrent: u32,

    /// How many upstream answers are cached, and as many negative answers and failures. 0 disables the cache.
    #[arg(long, value_name = "NUMBER", default_value_t = ForwardOptions::default().cache_size)]
    pub cache_size: usize,

    /// Which special-use names are answered here and not forwarded. Stub domains are asked in any case;
    /// upstreams that --upstream or the ConfigMap name are asked for what some network may know, such as
    /// .test.
    #[arg(long, value_name = "WHICH", default_value = "names")]
    pub keep_private: SpecialUsePolicy,

    /// How many queries a second each client may ask over UDP: an IPv4 address, or the /64 of an IPv6
    /// address. 0 sets no limit.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub client_rate: u32,

    /// For how many seconds clients may cache the cluster's names.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub ttl: u32,

    /// Which names of pods there are: none, those of every address, or those of addresses that a pod has
    /// (which takes permission to watch pods).
    #[arg(long, value_name = "WHICH", default_value = "insecure")]
    pub pods: PodNames,

    /// Walk the search list of a pod's resolver here, where the pod is known by its address: the first query
    /// for a short name gets the answer of the whole walk (takes permission to watch pods).
    #[arg(long)]
    pub complete_search: bool,

    /// The Node whose pods ask here, where a server runs on each: for --complete-search only its pods are
    /// watched.
    #[arg(long, value_name = "NODE")]
    pub hostname_override: Option<String>,

    /// A file that is kept up to date with the cluster's names. They are answered from it at the start, until
    /// the cluster is listed.
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,

    /// The address of /health, which is 200 while the process runs.
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = SocketAddr::from(([0, 0, 0, 0], port::DNS_HEALTH)), value_parser = |text: &str| address(text, port::DNS_HEALTH))]
    pub health_bind_address: SocketAddr,

    /// The address of /ready, which is 200 once the cluster's names are known, and of /explain.
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = SocketAddr::from(([0, 0, 0, 0], port::DNS_READY)), value_parser = |text: &str| address(text, port::DNS_READY))]
    pub ready_bind_address: SocketAddr,

    /// The address of /metrics, for Prometheus.
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = SocketAddr::from(([0, 0, 0, 0], port::DNS_METRICS)), value_parser = |text: &str| address(text, port::DNS_METRICS))]
    pub metrics_bind_address: SocketAddr,

    /// For how many seconds to go on answering after SIGTERM, while /ready already says no; and up to four
    /// times as long while queries still come.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub lameduck: Duration,

    /// How the log on stderr looks. What it holds is set by RUST_LOG.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u16>().map_err(|_| "expected whole seconds, at most 65535".to_owned())?;
    Ok(Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::try_parse_from([&["weft-dns"], arguments].concat()).map_err(|error| error.to_string())
    }

    #[test]
    fn listeners_and_upstreams_repeat() {
        let options = parse(&[
            "--listen",
            "10.96.0.10:53",
            "--listen",
            "[fd00::a]:53",
            "--upstream",
            "1.1.1.1",
            "--upstream",
            "[::1]:5353",
        ])
        .unwrap();
        assert_eq!(options.listen, ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
        assert_eq!(options.upstreams, ["1.1.1.1:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
        assert_eq!(options.zone, "cluster.local".parse().unwrap());
    }

    /// As the pod's own addresses are given to it.
    #[test]
    fn an_address_of_either_family_needs_no_port_and_no_brackets() {
        let options = parse(&["--listen=fd00::5,10.244.0.5", "--ready-bind-address=::1"]).unwrap();
        assert_eq!(options.listen, ["[fd00::5]:53".parse().unwrap(), "10.244.0.5:53".parse().unwrap()]);
        assert_eq!(options.ready_bind_address, "[::1]:8181".parse().unwrap());
        let tls = ["--tls-certificate=a", "--tls-key=b", "--dot=fd00::5", "--doh=fd00::5"];
        let options = parse(&tls).unwrap();
        assert_eq!([options.dot[0].port(), options.doh[0].port()], [853, 443]);
    }

    #[test]
    #[cfg(feature = "quic")]
    fn quic_has_the_ports_of_its_kind_and_needs_a_certificate() {
        let flags = ["--doq=fd00::5", "--doh3=10.244.0.5"];
        assert!(parse(&flags).unwrap_err().contains("--tls-certificate"));
        let options = parse(&[&flags[..], &["--tls-certificate=a", "--tls-key=b"]].concat()).unwrap();
        assert_eq!([options.doq[0].port(), options.doh3[0].port()], [853, 443]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        for (flag, value) in [
            ("--upstream", "dns.example"),
            ("--zone", "a..b"),
            ("--listen", "53"),
            ("--listen", ""),
            ("--ttl", "-1"),
            ("--pods", "all"),
        ] {
            let argument = format!("{flag}={value}");
            let error = parse(&[&argument]).unwrap_err();
            assert!(error.contains(flag) && error.contains(value), "{error}");
        }
    }
}
