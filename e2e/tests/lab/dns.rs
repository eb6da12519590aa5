//! What the group "DNS" of Kubernetes' sig-network tests asks, seen from inside pods with `dig` and with
//! glibc.

use serde_json::json;

use crate::case::{Case, Peer, echo};
use crate::lab::{Lab, Outcome, equal, holds, poll};

/// Runs a program inside a pod of the case.
pub(crate) fn inside(case: &Case, pod: &Peer, line: &[&str]) -> Result<String, String> {
    case.lab.run(&[&["exec", "-n", &case.namespace, &pod.name, "--"], line].concat())
}

/// Waits until `dig` brings exactly those lines, whatever their order, over UDP and TCP.
fn digs(case: &Case, pod: &Peer, question: &[&str], expected: &[String]) -> Outcome {
    let mut expected = expected.to_vec();
    expected.sort();
    for transport in ["+notcp", "+tcp"] {
        poll(&format!("dig {question:?}"), || {
            let seen = inside(case, pod, &[&["dig", transport, "+search", "+short"], question].concat())?;
            let mut lines: Vec<String> = seen.lines().map(str::to_owned).collect();
            lines.sort();
            equal(transport, lines, expected.clone())
        })?;
    }
    Ok(())
}

pub(crate) fn for_the_cluster(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "dns-cluster")?;
    let [pod] = case.run([echo("client")])?;
    for name in ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"] {
        digs(&case, &pod, &[name], &["10.96.0.1".to_owned()])?;
    }
    for server in ["10.96.0.10", "fd00:10:96::a"] {
        digs(&case, &pod, &[&format!("@{server}"), "kubernetes.default"], &["10.96.0.1".to_owned()])?;
    }
    Ok(())
}

pub(crate) fn for_services(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "dns-services")?;
    let [pod, one] = case.run([echo("client").app("client"), echo("one")])?;
    let service = case.service("web", json!({}))?;
    case.service("headless", json!({"clusterIP": "None"}))?;
    let text = |ip: &std::net::IpAddr| ip.to_string();
    for (position, record) in ["A", "AAAA"].into_iter().enumerate() {
        digs(&case, &pod, &["web", record], &[text(&service.ips[position])])?;
        digs(&case, &pod, &["headless", record], &[text(&one.ips[position])])?;
        digs(
            &case,
            &pod,
            &["-x", &text(&service.ips[position])],
            &["web.dns-services.svc.cluster.local.".to_owned()],
        )?;
    }
    let target = "0 100 80 web.dns-services.svc.cluster.local.".to_owned();
    digs(&case, &pod, &["_http._tcp.web.dns-services.svc.cluster.local", "SRV"], &[target])
}

pub(crate) fn partially_qualified_names(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "dns-partial")?;
    let service = case.service("1-digit-first", json!({}))?;
    let [pod] = case.run([echo("client").app("client")])?;
    for name in ["1-digit-first", "1-digit-first.dns-partial", "1-digit-first.dns-partial.svc"] {
        digs(&case, &pod, &[name], &[service.ips[0].to_string()])?;
        let glibc = inside(&case, &pod, &["getent", "ahosts", name])?;
        for ip in &service.ips {
            holds("glibc", &glibc, &ip.to_string())?;
        }
    }
    Ok(())
}

pub(crate) fn hostname_and_subdomain(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "dns-hostnames")?;
    case.service("group", json!({"clusterIP": "None"}))?;
    let named = json!({"hostname": "first", "subdomain": "group", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["alias.test"]}]});
    let [pod] = case.run([echo("one").spec(named)])?;
    for (ip, record) in pod.ips.iter().zip(["A", "AAAA"]) {
        digs(&case, &pod, &["first.group.dns-hostnames.svc.cluster.local", record], &[ip.to_string()])?;
    }
    holds(
        "the fully qualified name",
        &inside(&case, &pod, &["hostname", "-f"])?,
        "first.group.dns-hostnames.svc.cluster.local",
    )?;
    holds("an entry of hosts", &inside(&case, &pod, &["getent", "hosts", "alias.test"])?, "192.0.2.7")
}

pub(crate) fn external_name(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "dns-external")?;
    let [pod] = case.run([echo("client")])?;
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    case.create(
        "services",
        &json!({"metadata": {"name": "web"}, "spec": external("database.example.test")}),
    )?;
    let question = ["web", "CNAME"];
    digs(&case, &pod, &question, &["database.example.test.".to_owned()])?;
    case.change("web", external("www.example.test"))?;
    digs(&case, &pod, &question, &["www.example.test.".to_owned()])?;
    let ports = json!([{"name": "http", "port": 80}]);
    let service = case.change("web", json!({"type": "ClusterIP", "externalName": null, "ports": ports}))?;
    digs(&case, &pod, &["web"], &[service.ips[0].to_string()])
}

pub(crate) fn pod_s_own_resolver(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "dns-config")?;
    let service = case.service("web", json!({}))?;
    let many: Vec<String> = (1..=8).map(|number| format!("search{number}.example.test")).collect();
    let searches = [vec!["a_b.example.test".to_owned(), ".".to_owned()], many].concat();
    let config = json!({"searches": searches, "options": [{"name": "ndots", "value": "2"}]});
    let [own, none, on_host] = case.run([
        echo("own").spec(json!({"dnsConfig": config})),
        echo("none").spec(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["172.30.0.1"], "searches": ["example.test"]}})),
        echo("on-host").port(8700).host_network().on("node1").spec(json!({"dnsPolicy": "ClusterFirstWithHostNet"})),
    ])?;
    let resolv = inside(&case, &own, &["cat", "/etc/resolv.conf"])?;
    holds("the searches", &resolv, "search8.example.test")?;
    holds("the options", &resolv, "ndots:2")?;
    // More than six search domains, one of them with an underscore, one the root: names are found all the
    // same.
    poll("a name", || {
        holds("glibc", &inside(&case, &own, &["getent", "ahostsv4", "web"])?, &service.ips[0].to_string())
    })?;
    poll("a name outside", || {
        holds("the own server", &inside(&case, &none, &["getent", "ahostsv4", "www"])?, "172.30.0.1")
    })?;
    let from_node =
        case.lab.run(&["exec", "-n", &case.namespace, "on-host", "--", "getent", "ahostsv4", "web"])?;
    holds("on the host's network", &from_node, &service.ips[0].to_string())?;
    equal("the pod on the host", on_host.name.as_str(), "on-host")
}
