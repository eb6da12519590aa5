//! `weft dns explain` against a whole cluster, through its API server: each thing that can be missing is
//! named.

use std::net::UdpSocket;

use serde_json::json;
use weft_lab::addressing::IpFamily;
use weft_lab::netns;

use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, equal, holds, poll};

const NAMESPACE: &str = "dns-explain";
/// The ConfigMap that the DNS servers follow.
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps";

/// Waits until the explanation of `question` has all these parts.
fn tells(lab: &Lab, question: &[&str], parts: &[&str]) -> Outcome {
    poll(&format!("explain {question:?}"), || {
        let text = lab.explain(question)?;
        parts.iter().try_for_each(|part| holds("the explanation", &text, part))
    })
}

pub(crate) fn every_missing_piece_is_named(lab: &Lab) -> Outcome {
    let case = Case::new(lab, NAMESPACE)?;
    let web = case.service("web", json!({}))?;
    let never = lab.state.path().join("never");
    let broken = json!({"selector": {"app": "broken"}});
    case.service("broken", broken.clone())?;
    case.service("headless", json!({"selector": {"app": "broken"}, "clusterIP": "None"}))?;
    case.service("aimless", json!({"selector": {"app": "nobody"}}))?;
    case.start(echo("unready").app("broken").ready_while(&never))?;
    let own = json!({"dnsConfig": {"searches": ["own.example.test"], "options": [{"name": "ndots", "value": "2"}]}});
    let on_host = echo("on-host").port(8701).host_network().on("node1");
    let [_, client, _] = case.run([echo("one"), echo("client").app("client").spec(own), on_host])?;
    case.with_condition("unready", "False")?;

    let found = format!("web.{NAMESPACE}.svc.cluster.local. 30 IN A {}", web.ips[0]);
    tells(lab, &[NAMESPACE, "web"], &["(ndots:5)", &found, "The pod takes this answer."])?;
    let pod = format!("{NAMESPACE}/{}", client.name);
    tells(lab, &[&pod, "web", "AAAA"], &["(ndots:2)", &web.ips[1].to_string()])?;
    tells(lab, &[&pod, "nothing"], &["4. nothing.own.example.test. NXDOMAIN", "The pod gets no answer."])?;
    tells(lab, &[&format!("{NAMESPACE}/on-host"), "web"], &["The pod asks the name servers of its node"])?;

    let nobody = lab.explain(&["nowhere", "web"]).err().unwrap_or_default();
    holds("who asks", &nobody, "there is no namespace nowhere in the cluster")?;
    let nobody = lab.explain(&[&format!("{NAMESPACE}/nobody"), "web"]).err().unwrap_or_default();
    holds("who asks", &nobody, &format!("there is no pod {NAMESPACE}/nobody in the cluster"))?;
    let missing = format!("web.nowhere.{NAMESPACE}.svc.cluster.local. NXDOMAIN");
    tells(
        lab,
        &[NAMESPACE, "web.nowhere"],
        &[&missing, "web.nowhere.svc.cluster.local. NXDOMAIN\n     no such namespace"],
    )?;
    tells(lab, &[NAMESPACE, "nothing"], &["no such service in the namespace"])?;

    let unready = "its selector app=broken matches unready (running, but not ready)";
    tells(lab, &[NAMESPACE, "broken"], &["no ready endpoint stands behind", unready])?;
    tells(lab, &[NAMESPACE, "headless"], &["the headless service has no ready endpoint", unready])?;
    let nothing = "its selector app=nobody matches no pod of the namespace";
    tells(lab, &[NAMESPACE, "aimless"], &["no ready endpoint stands behind", nothing])
}

pub(crate) fn an_upstream_that_is_silent_is_named(lab: &Lab) -> Outcome {
    // It takes questions, and says nothing.
    let gateway = IpFamily::Dual.gateways()[0];
    let bound = netns::run(&lab.outside(), move || Ok(UdpSocket::bind((gateway, 0))));
    let socket = bound.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let silent = socket.local_addr().map_err(|error| error.to_string())?;
    let api = lab.api()?;
    let stub = json!({"silent.example": [silent.to_string()]}).to_string();
    api.create(CONFIG_MAP, &json!({"metadata": {"name": "kube-dns"}, "data": {"stubDomains": stub}}))?;
    let reason = format!("upstream {silent} did not answer in time");
    let told = tells(lab, &["default", "www.silent.example"], &["www.silent.example. SERVFAIL", &reason]);
    let removed = api.delete(&format!("{CONFIG_MAP}/kube-dns"));
    told?;
    equal("the ConfigMap's removal", removed.map(drop), Ok(()))
}
