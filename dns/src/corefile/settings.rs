//! The flags that a Corefile sets, and the addresses at which its server blocks are. A flag that is given on
//! the command line stands above the Corefile; the cluster's domain must be the same in both.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_cluster::Access;
use weft_corefile::{self as corefile, Bind, Corefile, Domain, HttpAddress, Kubernetes, Pods, Server};

use crate::options::{ClusterView, Options};
use crate::pipeline::rules::template::wire_domain;
use crate::zone::{Exposure, PodNames, ZoneName};

/// The flags that the command line gave, by their names with `_`.
#[derive(Clone, Debug, Default)]
pub struct Given(pub BTreeSet<String>);

/// What there is on this machine.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// The addresses of each interface.
    pub interfaces: Vec<(String, IpAddr)>,
}

/// All server blocks of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The port.
    pub port: u16,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The numbers of its server blocks.
    pub servers: Vec<usize>,
}

impl Given {
    fn has(&self, flag: &str) -> bool {
        self.0.contains(flag)
    }
}

/// The flags with what the Corefile says in the place of all that is not given.
///
/// # Errors
/// What contradicts the command line, in one line.
pub fn apply(flags: &Options, given: &Given, corefile: &Corefile) -> Result<Options, String> {
    let mut options = flags.clone();
    let clusters =
        corefile.servers.iter().find_map(|server| server.kubernetes.as_ref().map(|it| (server, it)));
    match clusters {
        None => options.cluster.is_away = true,
        Some((server, kubernetes)) => cluster(&mut options, given, server, kubernetes)?,
    }
    let caches = corefile.servers.iter().filter_map(|server| server.cache.as_ref());
    if !given.has("cache_size") {
        options.cache_size =
            caches.map(|cache| cache.success.capacity.max(cache.denial.capacity)).max().unwrap_or(0);
    }
    let forwards = corefile.servers.iter().flat_map(|server| &server.forwards);
    let most = forwards.map(|forward| forward.max_concurrent).max().filter(|most| *most > 0);
    if let Some(most) = most.filter(|_| !given.has("max_concurrent")) {
        options.max_concurrent = most;
    }
    let http = |flag: &str, address: &mut SocketAddr, found: Option<HttpAddress>| {
        if let Some(HttpAddress { ip, port }) = found.filter(|_| !given.has(flag)) {
            *address = SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port);
        }
    };
    let servers = || corefile.servers.iter();
    let health = servers().find_map(|server| server.health);
    http("health_bind_address", &mut options.health_bind_address, health.map(|health| health.address));
    http("ready_bind_address", &mut options.ready_bind_address, servers().find_map(|server| server.ready));
    http(
        "metrics_bind_address",
        &mut options.metrics_bind_address,
        servers().find_map(|server| server.prometheus),
    );
    if let Some(lameduck) = health.and_then(|health| health.lameduck).filter(|_| !given.has("lameduck")) {
        options.lameduck = lameduck;
    }
    Ok(options)
}

fn cluster(
    options: &mut Options,
    given: &Given,
    server: &Server,
    kubernetes: &Kubernetes,
) -> Result<(), String> {
    let zone = kubernetes.zone.as_str();
    let named = zone.parse::<ZoneName>().map_err(|error| format!("{}: {error}", kubernetes.place))?;
    if given.has("zone") && options.zone != named {
        return Err(format!(
            "{}: the cluster's domain is {zone} here, and --zone says {}",
            kubernetes.place, options.zone
        ));
    }
    options.zone = named;
    if !given.has("ttl") {
        options.ttl = kubernetes.ttl;
    }
    if !given.has("pods") {
        options.pods = match kubernetes.pods {
            Pods::Disabled => PodNames::Disabled,
            Pods::Insecure => PodNames::Insecure,
            Pods::Verified => PodNames::Verified,
        };
    }
    options.complete_search |= server.autopath.is_some();
    let access = match &kubernetes.access {
        corefile::Access::InCluster => None,
        corefile::Access::Kubeconfig { file, context } => {
            Some(Access::File { file: file.into(), context: context.clone() })
        }
        corefile::Access::Endpoint { url, tls } => {
            Some(Access::At { url: url.clone(), tls: tls.clone().map(|files| files.map(Into::into)) })
        }
    };
    let wire = |domains: &[Domain]| domains.iter().map(wire_domain).collect::<Vec<_>>();
    options.cluster = ClusterView {
        is_away: false,
        access: access.filter(|_| !given.has("kubeconfig")),
        objects: kubernetes.labels.clone(),
        namespaces: kubernetes.namespace_labels.clone(),
        endpoint_pod_names: kubernetes.endpoint_pod_names,
        without_endpoints: kubernetes.noendpoints,
        exposure: Exposure {
            reverse: Some(wire(&kubernetes.reverse)),
            fall: wire(&kubernetes.fall.0),
            namespaces: kubernetes.namespaces.iter().map(|name| name.as_str().into()).collect(),
            only_watched_namespaces: kubernetes.namespace_labels.is_some(),
            only_ready_services: kubernetes.ignore_empty_service,
        },
    };
    Ok(())
}

/// The server blocks by their ports, the most important port first: the cluster's, or 53, or the first. Its
/// addresses are those of `--listen` where that is given, and those of the others the same with their ports.
///
/// # Errors
/// An interface that is not there.
pub fn sites(
    flags: &Options,
    given: &Given,
    corefile: &Corefile,
    local: &Local,
) -> Result<Vec<Site>, String> {
    let mut ports: Vec<u16> = Vec::new();
    for key in corefile.servers.iter().flat_map(|server| &server.keys) {
        if !ports.contains(&key.port) {
            ports.push(key.port);
        }
    }
    let of_cluster = corefile.servers.iter().find(|server| server.kubernetes.is_some());
    let first = of_cluster.and_then(|server| server.keys.first()).map_or(53, |key| key.port);
    ports.sort_by_key(|port| *port != first);
    let mut sites = Vec::new();
    for port in ports {
        let is_there = |server: &Server| server.keys.iter().any(|key| key.port == port);
        let servers = corefile.servers.iter().enumerate().filter(|(_, server)| is_there(server));
        let servers: Vec<usize> = servers.map(|(number, _)| number).collect();
        let listen = match (given.has("listen"), sites.is_empty()) {
            (true, true) => flags.listen.clone(),
            (true, false) => flags.listen.iter().map(|address| SocketAddr::new(address.ip(), port)).collect(),
            (false, _) => bound(&corefile.servers[servers[0]], port, local)?,
        };
        sites.push(Site { port, listen, servers });
    }
    Ok(sites)
}

fn bound(server: &Server, port: u16, local: &Local) -> Result<Vec<SocketAddr>, String> {
    let everywhere = |ip: IpAddr| SocketAddr::new(ip, port);
    if server.bind.is_empty() {
        let v6 = local.interfaces.iter().any(|(_, address)| address.is_ipv6());
        let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        return Ok([IpAddr::V4(Ipv4Addr::UNSPECIFIED)].into_iter().chain(v6).map(everywhere).collect());
    }
    let mut addresses = Vec::new();
    for bind in &server.bind {
        match bind {
            Bind::Address(address) => addresses.push(*address),
            Bind::Except(_) => {}
            Bind::Interface(name) => {
                let own = local.interfaces.iter().filter(|(interface, _)| interface == name);
                let own: Vec<IpAddr> =
                    own.map(|(_, address)| *address).filter(|address| !is_of_link(address)).collect();
                if own.is_empty() {
                    return Err(format!(
                        "{}: bind {name}: there is no such interface here, or it has no address",
                        server.place
                    ));
                }
                addresses.extend(own);
            }
        }
    }
    addresses.retain(|address| !server.bind.contains(&Bind::Except(*address)));
    addresses.dedup();
    Ok(addresses.into_iter().map(everywhere).collect())
}

/// Those mean nothing without their interface.
fn is_of_link(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The options without what can change while the server runs: two that are equal so need no restart.
pub fn fixed_part(options: &Options) -> Options {
    let mut fixed = options.clone();
    fixed.ttl = 0;
    fixed.cluster.exposure = Exposure::default();
    if fixed.pods == PodNames::Insecure {
        fixed.pods = PodNames::Disabled;
    }
    fixed
}
