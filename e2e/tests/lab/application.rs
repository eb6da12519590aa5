//! Services and names, as pods see them, and what the kernel holds for them.

use std::fmt::Write;
use std::net::UdpSocket;
use std::time::Duration;

use indicatif::ProgressBar;
use weft_lab::demo::{self, verdict};
use weft_lab::netns;

use crate::lab::{Lab, Outcome, equal, holds, poll};

pub(crate) fn every_check_of_the_demo_passes(lab: &Lab) -> Outcome {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let checks = runtime.block_on(async {
        demo::run(lab.client()?, lab.probe_origin(), &ProgressBar::hidden())
            .await
            .map_err(|error| error.to_string())
    })?;
    match checks.iter().all(|check| check.passed) {
        true => {
            // Later scenarios begin without policies.
            lab.kubectl(&["-n", "shop", "delete", "networkpolicy", "backend"])?;
            lab.wait_for_pods("shop", "app=backend", 3)
        }
        false => Err(verdict::table(&checks).to_string()),
    }
}

pub(crate) fn cluster_ip(lab: &Lab, service: &str) -> Result<String, String> {
    lab.kubectl(&["-n", "shop", "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])
}

pub(crate) fn glibc_resolves_services(lab: &Lab) -> Outcome {
    let address = cluster_ip(lab, "backend")?;
    for name in ["backend", "backend.shop", "backend.shop.svc", "backend.shop.svc.cluster.local"] {
        let seen = lab.exec("frontend", &["getent", "ahostsv4", name])?;
        holds(name, &seen, &address)?;
    }
    // From another namespace the short name alone is not enough, but the namespace's is.
    let database = lab.exec("frontend", &["getent", "ahostsv4", "database-1.database"])?;
    holds("a pod by its own name", &database, "10.244.")
}

pub(crate) fn dig_inside_a_pod(lab: &Lab) -> Outcome {
    let address = cluster_ip(lab, "backend")?;
    for transport in ["+notcp", "+tcp"] {
        let seen = lab.exec("frontend", &["dig", transport, "+search", "+short", "backend"])?;
        equal(transport, seen.trim(), &address)?;
    }
    let alias = lab.exec("frontend", &["dig", "+search", "+short", "legacy-database"])?;
    equal("ExternalName and its target", alias.as_str(), "database.example.test.\n172.30.0.1\n")?;
    let unknown = lab.exec("frontend", &["dig", "nothing.shop.svc.cluster.local"])?;
    holds("an unknown name", &unknown, "status: NXDOMAIN")?;
    holds("an unknown name", &unknown, "SOA")
}

pub(crate) fn datagrams_reach_a_service(lab: &Lab) -> Outcome {
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: datagrams, namespace: shop}\nspec:\n  \
         selector: {app: backend}\n  ports: [{name: echo, port: 7, targetPort: 8080, protocol: UDP}]\n",
    )?;
    let address = cluster_ip(lab, "datagrams")?;
    let namespace = lab.frontend_namespace()?;
    poll("an answer", || {
        let address = address.clone();
        let answer = netns::run(&namespace, move || Ok(ask(&address)));
        let answer = answer.map_err(|error| error.to_string())??;
        holds("a backend's name", &answer, "backend-")
    })?;
    lab.kubectl(&["-n", "shop", "delete", "service", "datagrams"]).map(drop)
}

/// Sends `hostname` from a fresh port, which is a fresh connection to the kernel.
fn ask(address: &str) -> Result<String, String> {
    let exchange = || -> std::io::Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(b"hostname", (address, 7))?;
        let mut buffer = [0; 256];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    exchange().map_err(|error| error.to_string())
}

/// How many chains and rules a listing has: rules are the lines of chains that are no declaration.
fn chains_and_rules(ruleset: &str) -> (usize, usize) {
    let (mut chains, mut rules, mut in_chain) = (0, 0, false);
    for line in ruleset.lines().map(str::trim) {
        if line.starts_with("chain ") {
            (in_chain, chains) = (true, chains + 1);
        } else if line == "}" {
            in_chain = false;
        } else if in_chain && !line.starts_with("type ") && !line.starts_with("comment ") {
            rules += 1;
        }
    }
    (chains, rules)
}

pub(crate) fn no_rule_for_one_service(lab: &Lab) -> Outcome {
    let list = |node: &str| lab.on_node(node, &["nft", "list", "ruleset"]);
    let before = chains_and_rules(&list("node1")?);
    let mut manifest = String::new();
    for number in 0..12 {
        let _ = write!(
            manifest,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: many-{number}, namespace: shop, labels: {{many: 'true'}}}}\n\
             spec:\n  selector: {{app: backend}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
        );
    }
    lab.apply(&manifest)?;
    let address = cluster_ip(lab, "many-11")?;
    for node in lab.nodes()? {
        let listing = poll("the last Service in the kernel", || {
            let listing = list(&node)?;
            holds("its address", &listing, &address).map(|()| listing)
        })?;
        holds("the address of a backend", &listing, "10.244.")?;
    }
    let after = chains_and_rules(&list("node1")?);
    equal("chains and rules with 12 more Services", after, before)?;
    lab.kubectl(&["-n", "shop", "delete", "services", "-l", "many=true"])?;
    poll("the Services gone from the kernel", || {
        let listing = list("node1")?;
        match listing.contains(&format!("{address} ")) {
            true => Err(listing),
            false => Ok(()),
        }
    })
}
