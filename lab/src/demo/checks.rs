//! The checks of the demo: which requests are made from where. What their answers mean is in
//! [`super::verdict`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use weft_types::Family;

use super::manifests::{BACKEND_PORT, NAMESPACE};
use super::policy;
use super::probe_origin::{Application, ProbeOrigin, RunningPod};
use super::verdict::{self, Check};
use crate::addressing::{IpFamily, OUTSIDE_ECHO_PORT};
use crate::error::{Error, Result};

/// The NodePort of the Service frontend.
const NODE_PORT: u16 = 30080;
/// The full name of the Service backend.
const BACKEND_FQDN: &str = "backend.shop.svc.cluster.local.";
/// Within how many milliseconds traffic must follow.
const FOLLOW_MS: u64 = 1000;

/// Waits until every node has heard of the application. From then on nothing may fail any more.
pub(super) async fn settle(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let Err(error) = settled(client, probe_origin, application).await else { return Ok(()) };
        if Instant::now() > deadline {
            let what = "a network that knows the application".to_owned();
            return Err(Error::Timeout { what, seconds: patience.as_secs(), seen: error.to_string() });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn settled(client: &Client, probe_origin: &ProbeOrigin, application: &Application) -> Result<()> {
    let all = ["frontend", "backend", "database"].map(|tier| application.tier(tier)).concat();
    for pod in &all {
        // From every node: names, and the Service through that node's rules.
        for family in families_of(pod) {
            let found = probe_origin.lookup(pod, "database", record_type(family)).await?;
            if verdict::addresses(&found) != addresses_of(application.tier("database"), family) {
                let reason = format!("{found:?}");
                return Err(Error::Probe { what: "look up database".to_owned(), reason });
            }
        }
        for &address in &pod.node_addresses {
            let reached = probe_origin.get_from_outside(SocketAddr::new(address, NODE_PORT), "/").await;
            reached.map_err(|reason| Error::Probe { what: format!("NodePort of {}", pod.node), reason })?;
        }
        for url in cluster_urls(client, "backend").await? {
            for answer in probe_origin.get(pod, &url, &["--count", "6"]).await? {
                answer
                    .body
                    .map_err(|reason| Error::Probe { what: format!("{url} from {}", pod.name), reason })?;
            }
        }
    }
    Ok(())
}

/// Makes all checks. A check that cannot be made is a failed one.
pub(super) async fn all(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    patience: Duration,
    progress: &ProgressBar,
) -> Result<Vec<Check>> {
    let from = application.first("frontend")?;
    let mut checks = Vec::new();
    progress.set_message("checking names");
    checks.extend(names(client, probe_origin, application, from).await?);
    progress.set_message("checking Services");
    checks.extend(services(client, probe_origin, application, from).await?);
    progress.set_message("checking addresses");
    checks.extend(addresses(client, probe_origin, application, from).await?);
    progress.set_message("applying a NetworkPolicy and deleting a pod, under load");
    // At once: a policy disturbs nothing that it allows.
    let (policy, follows) = tokio::join!(
        policy::checks(client, probe_origin, application, patience),
        traffic_follows(client, probe_origin, application, from)
    );
    checks.extend(policy?);
    checks.push(follows?);
    Ok(checks)
}

/// DNS, as a frontend pod sees it.
async fn names(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    from: &RunningPod,
) -> Result<Vec<Check>> {
    let all_backend = cluster_ips(client, "backend").await?;
    let databases = application.tier("database");
    let mut checks = Vec::new();
    for family in families_of(from) {
        let record_type = record_type(family);
        let of_family = |addresses: &[IpAddr]| -> BTreeSet<IpAddr> {
            addresses.iter().copied().filter(|address| Family::of(*address) == family).collect()
        };
        let backend = of_family(&all_backend);
        for (what, name, expected) in [
            ("name of a Service, short", "backend", backend.clone()),
            ("name of a Service, in full", BACKEND_FQDN, backend),
            ("headless Service: its pods", "database", addresses_of(databases, family)),
            (
                "headless Service: one pod by name",
                "database-0.database",
                addresses_of(&databases[..1], family),
            ),
            ("ExternalName: address at the end", "legacy-database", of_family(&IpFamily::Dual.gateways())),
        ] {
            let what = format!("{what} ({name} {record_type})");
            checks.push(match probe_origin.lookup(from, name, record_type).await {
                Ok(found) => verdict::resolves_to(&what, &found, &expected),
                Err(error) => Check::impossible(what, &error),
            });
        }
    }
    let what = "ExternalName: alias (legacy-database)";
    checks.push(match probe_origin.lookup(from, "legacy-database", "CNAME").await {
        Ok(found) => verdict::is_alias_of(what, &found, "database.example.test."),
        Err(error) => Check::impossible(what, &error),
    });
    Ok(checks)
}

/// ClusterIP and NodePort.
async fn services(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    from: &RunningPod,
) -> Result<Vec<Check>> {
    let backends: BTreeSet<&str> = application.tier("backend").iter().map(|pod| pod.name.as_str()).collect();
    let mut checks = Vec::new();
    let by_name =
        ["backend", BACKEND_FQDN.trim_end_matches('.')].map(|host| format!("http://{host}/hostname"));
    for url in by_name.into_iter().chain(cluster_urls(client, "backend").await?) {
        let what = format!("GET {url} from a frontend pod");
        checks.push(match probe_origin.get(from, &url, &[]).await {
            Ok(answers) => verdict::answered_by(&what, &answers, &backends),
            Err(error) => Check::impossible(what, &error),
        });
    }
    let what = "spread of 300 requests over the backend pods";
    checks.push(match probe_origin.get(from, "http://backend/hostname", &["--count", "300"]).await {
        Ok(answers) => verdict::spread(what, &answers, &backends),
        Err(error) => Check::impossible(what, &error),
    });
    let itself = application.first("backend")?;
    let what = "a backend pod reaching itself through its own Service";
    checks.push(match probe_origin.get(itself, "http://backend/hostname", &["--count", "60"]).await {
        Ok(answers) => verdict::meets_itself(what, &answers, &itself.name),
        Err(error) => Check::impossible(what, &error),
    });
    checks.extend(node_ports(client, probe_origin, application).await?);
    Ok(checks)
}

/// The NodePort, from outside, on every node: those too that run no frontend pod.
async fn node_ports(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
) -> Result<Vec<Check>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_err(Error::api("list", "nodes"))?;
    let frontends: BTreeSet<&str> =
        application.tier("frontend").iter().map(|pod| pod.name.as_str()).collect();
    let mut checks = Vec::new();
    for node in nodes {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        for address in internal.filter_map(|address| address.address.parse::<IpAddr>().ok()) {
            let address = SocketAddr::new(address, NODE_PORT);
            let seen = probe_origin.get_from_outside(address, "/hostname").await;
            let passed = seen.as_ref().is_ok_and(|name| frontends.contains(name.as_str()));
            let what = format!("NodePort of {} from outside ({address})", node.name_any());
            let expected = format!("one of {} pods", frontends.len());
            checks.push(Check::new(what, expected, seen.unwrap_or_else(|error| error), passed));
        }
    }
    Ok(checks)
}

/// Who sees whom under which address.
async fn addresses(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    from: &RunningPod,
) -> Result<Vec<Check>> {
    let elsewhere = application.tier("backend").iter().find(|pod| pod.node != from.node);
    let to = elsewhere.map_or(application.first("backend")?, |pod| pod);
    let services = cluster_ips(client, "backend").await?;
    let mut checks = Vec::new();
    for family in families_of(from) {
        let pick = |addresses: &[IpAddr]| addresses.iter().copied().find(|one| Family::of(*one) == family);
        let Some((pod, node)) = pick(&from.addresses).zip(pick(&from.node_addresses)) else { continue };
        let between = format!("a pod on {} seen by one on {}", from.node, to.node);
        for (what, server, port, expected) in [
            (between.as_str(), pick(&to.addresses), BACKEND_PORT, pod),
            ("a pod seen by one behind a Service", pick(&services), 80, pod),
            (
                "a pod seen from outside: as its node",
                pick(&IpFamily::Dual.gateways()),
                OUTSIDE_ECHO_PORT,
                node,
            ),
        ] {
            let what = format!("{what} ({family})");
            let Some(server) = server else { continue };
            let url = format!("http://{}/clientip", SocketAddr::new(server, port));
            checks.push(match probe_origin.get(from, &url, &[]).await {
                Ok(answers) => verdict::seen_from(&what, &answers, expected),
                Err(error) => Check::impossible(what, &error),
            });
        }
    }
    Ok(checks)
}

/// Deletes a backend pod while a frontend pod makes requests.
async fn traffic_follows(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    from: &RunningPod,
) -> Result<Check> {
    let deleted = application.first("backend")?.name.clone();
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let load = probe_origin.get(from, "http://backend/hostname", &["--for-ms", "2500", "--every-ms", "2"]);
    let deletion = async {
        // Let the load run for a moment before.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let done = pods.delete(&deleted, &DeleteParams::default()).await;
        done.map(|_| at).map_err(Error::api("delete", format!("pod {deleted}")))
    };
    let (answers, at) = tokio::join!(load, deletion);
    let at = u64::try_from(at?.as_micros()).unwrap_or_default();
    let what = "a backend pod deleted: traffic follows";
    Ok(match answers {
        Ok(answers) => verdict::traffic_follows(what, &answers, &deleted, at, FOLLOW_MS),
        Err(error) => Check::impossible(what, &error),
    })
}

/// The families of a pod, the primary one first.
fn families_of(pod: &RunningPod) -> Vec<Family> {
    pod.addresses.iter().map(|address| Family::of(*address)).collect()
}

/// The type of the DNS records that hold addresses of that family.
fn record_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "A",
        Family::V6 => "AAAA",
    }
}

/// The pods' addresses of that family.
fn addresses_of(pods: &[RunningPod], family: Family) -> BTreeSet<IpAddr> {
    let all = pods.iter().flat_map(|pod| &pod.addresses).copied();
    all.filter(|address| Family::of(*address) == family).collect()
}

/// Where a Service is asked for its backend's name, once for each of its ClusterIPs.
async fn cluster_urls(client: &Client, service: &str) -> Result<Vec<String>> {
    let addresses = cluster_ips(client, service).await?;
    Ok(addresses.into_iter().map(|ip| format!("http://{}/hostname", SocketAddr::new(ip, 80))).collect())
}

async fn cluster_ips(client: &Client, service: &str) -> Result<Vec<IpAddr>> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let found = services.get(service).await.map_err(Error::api("get", format!("service {service}")))?;
    let texts = found.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
    let parse = |text: &String| {
        text.parse().map_err(|_| Error::Probe {
            what: format!("find the ClusterIPs of {service}"),
            reason: format!("one is {text:?}"),
        })
    };
    texts.iter().map(parse).collect()
}
