//! What the group "Services" of Kubernetes' sig-network tests asks of every cluster, for both families:
//! frontends, types, ports, policies.

use std::net::SocketAddr;

use serde_json::json;

use crate::case::{Case, echo, number};
use crate::lab::{Lab, Outcome, equal, holds, poll};
use crate::probe::{BOTH, Seen, Via, ask, dropped, refused, seen_as, served};

pub(crate) fn basic_endpoint(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "basic-endpoint")?;
    let service = case.service("web", json!({}))?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["one"])?;
    }
    case.run([echo("two")])?;
    for server in service.at(80) {
        BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, &["one", "two"]))?;
    }
    case.delete("pods", "one")?;
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["two"])?;
    }
    case.delete("pods", "two")?;
    service.at(80).into_iter().try_for_each(|server| refused(&client.netns, Via::Http, server))
}

pub(crate) fn multiport_endpoints(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "multiport")?;
    let ports = json!([{"name": "first", "port": 80, "targetPort": 8100}, {"name": "second", "port": 81, "targetPort": 8101}]);
    let service = case.service("web", json!({"ports": ports}))?;
    let [client, _, _] =
        case.run([echo("client").app("client"), echo("one").port(8100), echo("two").port(8101)])?;
    // Both pods are endpoints of both ports; each serves only one of them.
    case.patch("pods", "two", &json!({"metadata": {"labels": {"app": "other"}}}))?;
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["one"])?;
    }
    case.patch("pods", "two", &json!({"metadata": {"labels": {"app": "server"}}}))?;
    case.patch("pods", "one", &json!({"metadata": {"labels": {"app": "other"}}}))?;
    service.at(81).into_iter().try_for_each(|server| served(&client.netns, Via::Http, server, &["two"]))
}

pub(crate) fn functioning_node_port(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "node-port")?;
    let service = case.service("web", json!({"type": "NodePort"}))?;
    let [client, _, _] = case.run([echo("client").app("client"), echo("one"), echo("two").on("node2")])?;
    let both: &[&str] = &["one", "two"];
    for node in 1..=3 {
        for (position, via) in BOTH.into_iter().enumerate() {
            for server in lab.node_at(node, service.node_port(position)) {
                served(&lab.outside(), via, server, both)?;
                served(&client.netns, via, server, both)?;
            }
        }
    }
    for server in lab.node_at(1, service.node_port(0)) {
        served(&lab.name.node("node1"), Via::Http, server, both)?;
        served(&lab.name.node("node3"), Via::Http, server, both)?;
    }
    Ok(())
}

pub(crate) fn change_of_type(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "type-changes")?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    let external = json!({"type": "ExternalName", "externalName": "www.example.test"});
    case.create("services", &json!({"metadata": {"name": "web"}, "spec": external}))?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let selected = json!({"type": "ClusterIP", "externalName": null, "selector": {"app": "server"},
        "ipFamilyPolicy": "RequireDualStack", "ports": ports});
    let service = case.change("web", selected)?;
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["one"])?;
    }
    let with_port = case.change("web", json!({"type": "NodePort"}))?;
    let at_node = lab.node_at(2, with_port.node_port(0));
    for &server in &at_node {
        served(&lab.outside(), Via::Http, server, &["one"])?;
    }
    case.change("web", json!({"type": "ClusterIP"}))?;
    for &server in &at_node {
        refused(&lab.outside(), Via::Http, server)?;
    }
    case.change(
        "web",
        json!({"type": "ExternalName", "externalName": "www.example.test", "selector": null, "ports": null}),
    )?;
    let released = service.at(80);
    poll("the old ClusterIP serves nobody", || {
        match released
            .iter()
            .map(|&server| crate::probe::ask(&client.netns, Via::Http, server, "hostname"))
            .find(|seen| matches!(seen, crate::probe::Seen::Answer(_)))
        {
            None => Ok(()),
            Some(seen) => Err(format!("{seen:?}")),
        }
    })
}

pub(crate) fn same_port_other_protocols(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "same-port")?;
    let [client, _, _] =
        case.run([echo("client").app("client"), echo("over-tcp").port(8200), echo("over-udp").port(8201)])?;
    case.patch("pods", "over-tcp", &json!({"metadata": {"labels": {"app": "tcp"}}}))?;
    let tcp = json!({"type": "NodePort", "selector": {"app": "tcp"}, "ports": [{"name": "a", "port": 80, "targetPort": 8200}]});
    let service = case.service("web", tcp)?;
    let port = service.node_port(0);
    let ports = json!([{"name": "a", "port": 80, "targetPort": 8200, "nodePort": port},
        {"name": "b", "port": 80, "targetPort": 8200, "protocol": "UDP", "nodePort": port}]);
    let service = case.change("web", json!({"ports": ports}))?;
    equal("one node port for both protocols", service.node_port(1), port)?;
    for server in service.at(80).into_iter().chain(lab.node_at(1, port)) {
        BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, &["over-tcp"]))?;
    }
    Ok(())
}

pub(crate) fn ports_added_and_deleted(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "ports-change")?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": 8080});
    let service = case.service("web", json!({"ports": [port("a", 80)]}))?;
    let expect = |number: u16, there: bool| {
        service.at(number).into_iter().try_for_each(|server| match there {
            true => served(&client.netns, Via::Http, server, &["one"]),
            false => refused(&client.netns, Via::Http, server),
        })
    };
    expect(80, true)?;
    expect(81, false)?;
    case.change("web", json!({"ports": [port("a", 80), port("b", 81)]}))?;
    expect(81, true)?;
    case.change("web", json!({"ports": [port("b", 81)]}))?;
    expect(80, false)?;
    expect(81, true)
}

pub(crate) fn source_address_is_kept(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "source-kept")?;
    let service = case.service("web", json!({}))?;
    let [near, far, _] = case.run([
        echo("near").app("client").on("node1"),
        echo("far").app("client").on("node2"),
        echo("one").on("node1"),
    ])?;
    for client in [near, far] {
        for (server, own) in service.at(80).into_iter().zip(&client.ips) {
            BOTH.into_iter().try_for_each(|via| seen_as(&client.netns, via, server, *own))?;
        }
    }
    Ok(())
}

pub(crate) fn hairpin(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "hairpin")?;
    let service = case.service("web", json!({"type": "NodePort"}))?;
    let [pod] = case.run([echo("one").on("node1")])?;
    for server in service.at(80).into_iter().chain(lab.node_at(1, service.node_port(0))) {
        BOTH.into_iter().take(1).try_for_each(|via| served(&pod.netns, via, server, &["one"]))?;
    }
    service.at(80).into_iter().try_for_each(|server| served(&pod.netns, Via::Udp, server, &["one"]))
}

pub(crate) fn up_and_down(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "up-and-down")?;
    let [client, _, _] =
        case.run([echo("client").app("client"), echo("one").app("a"), echo("two").app("b")])?;
    let select = |app: &str| json!({"selector": {"app": app}});
    // Addresses of the part that is kept for those who choose: nobody else gets them in between.
    let chosen = json!({"selector": {"app": "a"}, "clusterIPs": ["10.96.0.200", "fd00:10:96::c8"]});
    let (first, second) = (case.service("first", chosen.clone())?, case.service("second", select("b"))?);
    let expect = |service: &crate::case::Service, by: &str| {
        service.at(80).into_iter().try_for_each(|server| served(&client.netns, Via::Http, server, &[by]))
    };
    expect(&first, "one")?;
    expect(&second, "two")?;
    case.delete("services", "first")?;
    expect(&second, "two")?;
    let third = case.service("third", select("a"))?;
    expect(&third, "one")?;
    // Made again with the same address, it serves again.
    let again = case.service("first", chosen)?;
    equal("its address", &again.ips, &first.ips)?;
    expect(&again, "one")?;
    expect(&second, "two")
}

pub(crate) fn external_ip(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "external-ip")?;
    let service = case.service("web", json!({"externalIPs": ["192.0.2.80", "2001:db8::80"]}))?;
    let [client, _] = case.run([echo("client").app("client").on("node1"), echo("one").on("node2")])?;
    equal("its addresses", service.ips.len(), 2)?;
    for ip in ["192.0.2.80", "2001:db8::80"] {
        let server = SocketAddr::new(ip.parse().map_err(|error| format!("{error}"))?, 80);
        served(&client.netns, Via::Http, server, &["one"])?;
        served(&lab.name.node("node3"), Via::Http, server, &["one"])?;
    }
    Ok(())
}

pub(crate) fn node_ports_are_released(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "ports-released")?;
    let with = |port: u16| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let first = case.service("first", json!({"type": "NodePort"}))?;
    let port = first.node_port(0);
    let collision = case.service("second", with(port)).err().unwrap_or_default();
    holds("a node port that is taken", &collision, "already allocated")?;
    let outside = case.service("second", with(40000)).err().unwrap_or_default();
    holds("a node port out of range", &outside, "not in the valid range")?;
    case.delete("services", "first")?;
    equal("the node port given again", case.service("second", with(port))?.node_port(0), port)
}

pub(crate) fn publish_not_ready_addresses(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "not-ready")?;
    let hidden = case.service("hidden", json!({}))?;
    let published = case.service("published", json!({"publishNotReadyAddresses": true}))?;
    let [client] = case.run([echo("client").app("client")])?;
    let never = lab.state.path().join("never");
    case.start(echo("unready").ready_while(&never).lingering(20))?;
    case.with_condition("unready", "False")?;
    let expect = |leaving: &str| -> Outcome {
        for server in published.at(80) {
            served(&client.netns, Via::Http, server, &["unready"])
                .map_err(|error| format!("{leaving}: {error}"))?;
        }
        hidden.at(80).into_iter().try_for_each(|server| refused(&client.netns, Via::Http, server))
    };
    expect("unready")?;
    case.delete("pods", "unready")?;
    poll("the endpoint is terminating", || {
        let slices = case.list("endpointslices")?;
        let text = format!("{slices:?}");
        holds("terminating", &text, "\"terminating\": Bool(true)")
    })?;
    expect("terminating and unready")
}

pub(crate) fn proxy_name_and_headless(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "other-proxy")?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let name = label.rsplit('/').next().unwrap_or_default();
        let service = case.service_with(name, json!({label: "other"}), json!({}))?;
        let ours = case.service(&format!("{name}-ours"), json!({}))?;
        for (server, other) in ours.at(80).into_iter().zip(service.at(80)) {
            // Once the second one serves, the first one is known, and left alone.
            served(&client.netns, Via::Http, server, &["one"])?;
            if let Seen::Answer(name) = ask(&client.netns, Via::Http, other, "hostname") {
                return Err(format!("{label}: answered by {name}"));
            }
        }
        let labels = json!({"metadata": {"labels": {label: null}}});
        case.patch("services", name, &labels)?;
        if label.ends_with("proxy-name") {
            service
                .at(80)
                .into_iter()
                .try_for_each(|server| served(&client.netns, Via::Http, server, &["one"]))?;
        }
    }
    Ok(())
}

pub(crate) fn rejected_without_endpoints(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "no-endpoints")?;
    let service = case.service("web", json!({"type": "NodePort"}))?;
    let [client] = case.run([echo("client").app("client").on("node1")])?;
    for server in service.at(80) {
        for from in [client.netns.clone(), lab.name.node("node2")] {
            BOTH.into_iter().try_for_each(|via| refused(&from, via, server))?;
        }
    }
    lab.node_at(1, service.node_port(0))
        .into_iter()
        .try_for_each(|server| refused(&lab.outside(), Via::Http, server))
}

pub(crate) fn rejected_for_ended_pods(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "ended-pods")?;
    let service = case.service("web", json!({}))?;
    let [client] = case.run([echo("client").app("client")])?;
    let container = json!({"name": "main", "image": "host", "command": ["false"]});
    case.start(echo("ended").spec(json!({"restartPolicy": "Never", "containers": [container]})))?;
    poll("the pod has failed", || {
        equal("its phase", case.get("pods", "ended")?["status"]["phase"].as_str(), Some("Failed"))
    })?;
    service.at(80).into_iter().try_for_each(|server| refused(&client.netns, Via::Http, server))
}

pub(crate) fn named_target_ports(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "named-ports")?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let service = case.service("web", json!({"ports": ports}))?;
    let [client, _, _] =
        case.run([echo("client").app("client"), echo("one").port(8300), echo("two").port(8301)])?;
    service
        .at(80)
        .into_iter()
        .try_for_each(|server| served(&client.netns, Via::Http, server, &["one", "two"]))
}

pub(crate) fn sctp_is_programmed(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "sctp")?;
    let ports = json!([{"name": "a", "port": 9080, "targetPort": 9080, "protocol": "SCTP"}]);
    let service = case.service("web", json!({"ports": ports, "type": "NodePort"}))?;
    let container_ports = json!([{"name": "a", "containerPort": 9080, "protocol": "SCTP"}]);
    let [pod] = case.run([echo("one").ports(container_ports)])?;
    for (ip, backend) in service.ips.iter().zip(&pod.ips) {
        let table = if ip.is_ipv4() { "ip" } else { "ip6" };
        poll("the elements of both families", || {
            let listing = lab.on_node("node1", &["nft", "list", "table", table, "weft"])?;
            holds("the ClusterIP", &listing, &format!("{ip} . sctp . 9080"))?;
            holds("the NodePort", &listing, &format!("sctp . {}", service.node_port(0)))?;
            holds("the endpoint", &listing, &format!("{backend} . 9080"))
        })?;
    }
    Ok(())
}

pub(crate) fn internal_policy_local(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "internal-local")?;
    let service = case.service("web", json!({"internalTrafficPolicy": "Local"}))?;
    let on_host = case.service(
        "on-host",
        json!({"internalTrafficPolicy": "Local", "selector": {"app": "on-host"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8400}]}),
    )?;
    let [near, far, _, host] = case.run([
        echo("near").app("client").on("node1"),
        echo("far").app("client").on("node2"),
        echo("one").on("node1"),
        echo("two").app("on-host").on("node1").port(8400).host_network(),
    ])?;
    for (service, by) in [(&service, "one"), (&on_host, "node1")] {
        for server in service.at(80) {
            served(&near.netns, Via::Http, server, &[by])?;
            served(&host.netns, Via::Http, server, &[by])?;
            dropped(&far.netns, Via::Http, server)?;
            dropped(&lab.name.node("node2"), Via::Http, server)?;
        }
    }
    Ok(())
}

pub(crate) fn external_policy_local(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "external-local")?;
    let service = case.service("web", json!({"type": "NodePort", "externalTrafficPolicy": "Local"}))?;
    let port = service.node_port(0);
    let [pod, _] = case.run([echo("pod").app("client").on("node2"), echo("one").on("node1")])?;
    for (server, outside) in lab.node_at(1, port).into_iter().zip(lab.outside_ips()) {
        served(&lab.outside(), Via::Http, server, &["one"])?;
        seen_as(&lab.outside(), Via::Http, server, outside)?;
    }
    for server in lab.node_at(2, port) {
        dropped(&lab.outside(), Via::Http, server)?;
        // From inside the cluster every node leads to every endpoint.
        served(&pod.netns, Via::Http, server, &["one"])?;
        served(&lab.name.node("node2"), Via::Http, server, &["one"])?;
    }
    case.change("web", json!({"externalTrafficPolicy": "Cluster"}))?;
    lab.node_at(2, port)
        .into_iter()
        .try_for_each(|server| served(&lab.outside(), Via::Http, server, &["one"]))
}

pub(crate) fn terminating_endpoints(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "terminating")?;
    let local =
        json!({"type": "NodePort", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    let (cluster, local) =
        (case.service("cluster", json!({"type": "NodePort"}))?, case.service("local", local)?);
    let [near, far, _] = case.run([
        echo("near").app("client").on("node1"),
        echo("far").app("client").on("node2"),
        echo("one").on("node1").lingering(25),
    ])?;
    let serves = || -> Outcome {
        for server in cluster.at(80).into_iter().chain(lab.node_at(2, cluster.node_port(0))) {
            served(&far.netns, Via::Http, server, &["one"])?;
        }
        for server in local.at(80) {
            served(&near.netns, Via::Http, server, &["one"])?;
        }
        lab.node_at(1, local.node_port(0))
            .into_iter()
            .try_for_each(|server| served(&lab.outside(), Via::Http, server, &["one"]))
    };
    serves()?;
    // No endpoint is ready any more, but one still serves.
    case.delete("pods", "one")?;
    poll("the endpoint is terminating", || {
        let text = format!("{:?}", case.list("endpointslices")?);
        holds("terminating", &text, "\"terminating\": Bool(true)")
    })?;
    serves()?;
    // One that is ready is preferred at once.
    case.run([echo("two").on("node1")])?;
    cluster.at(80).into_iter().try_for_each(|server| served(&far.netns, Via::Http, server, &["two"]))
}

pub(crate) fn status_lifecycle(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "service-status")?;
    let service = case.service("web", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}))?;
    let health = number(&service.object["spec"]["healthCheckNodePort"]);
    equal("a port for health checks", (30000..=32767).contains(&health), true)?;
    case.balance("web", json!([{"ip": "192.0.2.9"}]))?;
    // A write of the object leaves the status alone, and the other way round.
    let changed = case.change("web", json!({"externalTrafficPolicy": "Cluster"}))?.object;
    equal("the address", changed["status"]["loadBalancer"]["ingress"][0]["ip"].as_str(), Some("192.0.2.9"))?;
    equal("the health port given back", changed["spec"].get("healthCheckNodePort").is_none(), true)
}

pub(crate) fn on_different_service_cidrs(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "service-cidrs")?;
    let cidrs = "/apis/networking.k8s.io/v1/servicecidrs";
    let ranges = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.98.0.0/24", "fd00:98::/112"]}});
    case.api.create(cidrs, &ranges)?;
    let [client, _] = case.run([echo("client").app("client").on("node2"), echo("one").on("node1")])?;
    let far = case.service("far", json!({"clusterIPs": ["10.98.0.7", "fd00:98::7"]}))?;
    let near = case.service("near", json!({}))?;
    for server in far.at(80).into_iter().chain(near.at(80)) {
        BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, &["one"]))?;
    }
    // An address that no Service has leads nowhere, as long as it is one of the cluster's.
    case.delete("services", "far")?;
    far.at(80).into_iter().try_for_each(|server| dropped(&client.netns, Via::Http, server))?;
    case.api.delete(&format!("{cidrs}/more"))?;
    near.at(80).into_iter().try_for_each(|server| served(&client.netns, Via::Http, server, &["one"]))
}
