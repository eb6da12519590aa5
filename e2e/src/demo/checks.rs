//! The checks of the demo: which requests are made from where. What their answers mean is in [`super::verdict`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};

use super::manifests::NAMESPACE;
use super::vantage::{Application, RunningPod, Vantage};
use super::verdict::{self, Check};
use crate::addressing::{GATEWAY, OUTSIDE_ECHO_PORT};
use crate::error::{Error, Result};

/// The NodePort of the Service frontend.
const NODE_PORT: u16 = 30080;
/// The port on which backend pods listen.
const BACKEND_PORT: u16 = 8080;
/// The full name of the Service backend.
const BACKEND_FQDN: &str = "backend.shop.svc.cluster.local.";
/// Within how many milliseconds traffic must follow.
const FOLLOW_MS: u64 = 1000;

/// Waits until every node has heard of the application. From then on nothing may fail any more.
pub(super) async fn settle(vantage: &Vantage, application: &Application, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let Err(error) = settled(vantage, application).await else { return Ok(()) };
        if Instant::now() > deadline {
            let what = "a network that knows the application".to_owned();
            return Err(Error::Timeout { what, seconds: patience.as_secs(), seen: error.to_string() });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn settled(vantage: &Vantage, application: &Application) -> Result<()> {
    let all = ["frontend", "backend", "database"].map(|tier| application.tier(tier)).concat();
    for pod in &all {
        // From every node: names, and the Service through that node's rules.
        for answer in vantage.get(pod, "http://backend/hostname", &["--count", "6"]).await? {
            answer
                .body
                .map_err(|reason| Error::Probe { what: format!("backend from {}", pod.name), reason })?;
        }
        let found = vantage.lookup(pod, "database", "A").await?;
        if verdict::addresses(&found).len() != application.tier("database").len() {
            return Err(Error::Probe { what: "look up database".to_owned(), reason: format!("{found:?}") });
        }
        let reached = vantage.get_from_outside(SocketAddr::new(pod.node_address, NODE_PORT), "/").await;
        reached.map_err(|reason| Error::Probe { what: format!("NodePort of {}", pod.node), reason })?;
    }
    Ok(())
}

/// Makes all checks. A check that cannot be made is a failed one.
pub(super) async fn all(
    client: &Client,
    vantage: &Vantage,
    application: &Application,
    progress: &ProgressBar,
) -> Result<Vec<Check>> {
    let from = application.first("frontend")?;
    let mut checks = Vec::new();
    progress.set_message("checking names");
    checks.extend(names(client, vantage, application, from).await?);
    progress.set_message("checking Services");
    checks.extend(services(client, vantage, application, from).await?);
    progress.set_message("checking addresses");
    checks.extend(addresses(vantage, application, from).await?);
    progress.set_message("deleting a pod under load");
    checks.push(follow(client, vantage, application, from).await?);
    Ok(checks)
}

/// DNS, as a frontend pod sees it.
async fn names(
    client: &Client,
    vantage: &Vantage,
    application: &Application,
    from: &RunningPod,
) -> Result<Vec<Check>> {
    let backend = BTreeSet::from([cluster_ip(client, "backend").await?]);
    let databases: BTreeSet<IpAddr> = application.tier("database").iter().map(|pod| pod.address).collect();
    let first = BTreeSet::from([application.first("database")?.address]);
    let outside = BTreeSet::from([IpAddr::V4(GATEWAY)]);
    let mut checks = Vec::new();
    for (what, name, expected) in [
        ("name of a Service, short", "backend", &backend),
        ("name of a Service, in full", BACKEND_FQDN, &backend),
        ("headless Service: its pods", "database", &databases),
        ("headless Service: one pod by name", "database-0.database", &first),
        ("ExternalName: address at the end", "legacy-database", &outside),
    ] {
        let what = format!("{what} ({name})");
        checks.push(match vantage.lookup(from, name, "A").await {
            Ok(found) => verdict::resolves_to(&what, &found, expected),
            Err(error) => Check::impossible(what, &error),
        });
    }
    let what = "ExternalName: alias (legacy-database)";
    checks.push(match vantage.lookup(from, "legacy-database", "CNAME").await {
        Ok(found) => verdict::is_alias_of(what, &found, "database.example.test."),
        Err(error) => Check::impossible(what, &error),
    });
    Ok(checks)
}

/// ClusterIP and NodePort.
async fn services(
    client: &Client,
    vantage: &Vantage,
    application: &Application,
    from: &RunningPod,
) -> Result<Vec<Check>> {
    let backends: BTreeSet<&str> = application.tier("backend").iter().map(|pod| pod.name.as_str()).collect();
    let mut checks = Vec::new();
    for host in ["backend", BACKEND_FQDN.trim_end_matches('.')] {
        let what = format!("GET http://{host}/hostname from a frontend pod");
        checks.push(match vantage.get(from, &format!("http://{host}/hostname"), &[]).await {
            Ok(answers) => verdict::answered_by(&what, &answers, &backends),
            Err(error) => Check::impossible(what, &error),
        });
    }
    let what = "spread of 300 requests over the backend pods";
    checks.push(match vantage.get(from, "http://backend/hostname", &["--count", "300"]).await {
        Ok(answers) => verdict::spread(what, &answers, &backends),
        Err(error) => Check::impossible(what, &error),
    });
    let itself = application.first("backend")?;
    let what = "a backend pod reaching itself through its own Service";
    checks.push(match vantage.get(itself, "http://backend/hostname", &["--count", "60"]).await {
        Ok(answers) => verdict::meets_itself(what, &answers, &itself.name),
        Err(error) => Check::impossible(what, &error),
    });
    checks.extend(node_ports(client, vantage, application).await?);
    Ok(checks)
}

/// The NodePort, from outside, on every node: those too that run no frontend pod.
async fn node_ports(client: &Client, vantage: &Vantage, application: &Application) -> Result<Vec<Check>> {
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
            let seen = vantage.get_from_outside(address, "/hostname").await;
            let passed = seen.as_ref().is_ok_and(|name| frontends.contains(name.as_str()));
            let what = format!("NodePort of {} from outside ({address})", node.name_any());
            let expected = format!("one of {} pods", frontends.len());
            checks.push(Check::new(what, expected, seen.unwrap_or_else(|error| error), passed));
        }
    }
    Ok(checks)
}

/// Who sees whom under which address.
async fn addresses(vantage: &Vantage, application: &Application, from: &RunningPod) -> Result<Vec<Check>> {
    let elsewhere = application.tier("backend").iter().find(|pod| pod.node != from.node);
    let to = elsewhere.map_or(application.first("backend")?, |pod| pod);
    let direct = format!("http://{}/clientip", SocketAddr::new(to.address, BACKEND_PORT));
    let outside = format!("http://{GATEWAY}:{OUTSIDE_ECHO_PORT}/clientip");
    let mut checks = Vec::new();
    for (what, url, expected) in [
        (format!("a pod on {} seen by one on {}", from.node, to.node), direct.as_str(), from.address),
        ("a pod seen by one behind a Service".to_owned(), "http://backend/clientip", from.address),
        ("a pod seen from outside: as its node".to_owned(), outside.as_str(), from.node_address),
    ] {
        checks.push(match vantage.get(from, url, &[]).await {
            Ok(answers) => verdict::seen_from(&what, &answers, expected),
            Err(error) => Check::impossible(what, &error),
        });
    }
    Ok(checks)
}

/// Deletes a backend pod while a frontend pod makes requests.
async fn follow(
    client: &Client,
    vantage: &Vantage,
    application: &Application,
    from: &RunningPod,
) -> Result<Check> {
    let deleted = application.first("backend")?.name.clone();
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let load = vantage.get(from, "http://backend/hostname", &["--for-ms", "2500", "--every-ms", "2"]);
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

async fn cluster_ip(client: &Client, service: &str) -> Result<IpAddr> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let found = services.get(service).await.map_err(Error::api("get", format!("service {service}")))?;
    let address = found.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    address.parse().map_err(|_| Error::Probe {
        what: format!("find the ClusterIP of {service}"),
        reason: format!("it is {address:?}"),
    })
}
