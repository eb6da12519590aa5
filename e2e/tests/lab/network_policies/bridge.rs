//! Pods of one bridge, whose packets pass netfilter on the way through it (br_netfilter), or go by way of the
//! node alone.

use std::net::SocketAddr;

use serde_json::json;

use super::{Shop, all_dropped, all_served};
use crate::case::{Peer, echo};
use crate::lab::{Lab, Outcome, equal};

const NODE: &str = "node1";
const SETTINGS: [&str; 2] = ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];

/// What the node had before, put back when this is dropped.
struct Settings<'a> {
    lab: &'a Lab,
    before: String,
}

impl<'a> Settings<'a> {
    fn of(lab: &'a Lab) -> Result<Settings<'a>, String> {
        let before = lab.on_node(NODE, &["sysctl", "-n", SETTINGS[0]])?.trim().to_owned();
        Ok(Settings { lab, before })
    }

    fn set(&self, value: &str) -> Outcome {
        for setting in SETTINGS {
            self.lab.on_node(NODE, &["sysctl", "-qw", &format!("{setting}={value}")])?;
            equal(setting, self.lab.on_node(NODE, &["sysctl", "-n", setting])?.trim(), value)?;
        }
        Ok(())
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.set(&self.before) {
            eprintln!("lab tests: {error}");
        }
    }
}

/// A way around the node: the pod asks for the server's Ethernet address itself.
fn direct_way(shop: &Shop<'_>, from: &Peer, action: &str) -> Outcome {
    for ip in &shop.server.ips {
        let line =
            ["ip", "netns", "exec", &from.netns, "ip", "route", action, &ip.to_string(), "dev", "eth0"];
        let mut command = std::process::Command::new(line[0]);
        command.args(&line[1..]);
        crate::lab::succeed(command)?;
    }
    Ok(())
}

pub(crate) fn pods_of_one_bridge(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-bridge")?;
    let here = |name: &str| echo(name).app(name.trim_start_matches("near-")).on(NODE);
    let [client, stranger] = shop.case.run([here("near-client"), here("near-stranger")])?;
    let targets: Vec<SocketAddr> = [shop.direct(), shop.service.at(80)].concat();
    let settings = Settings::of(lab)?;
    for value in ["1", "0"] {
        settings.set(value)?;
        all_served(&stranger.netns, &targets)?;
        shop.ingress(json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]))?;
        all_dropped(&stranger.netns, &targets)?;
        all_served(&client.netns, &targets)?;
        // By way of the bridge alone, nobody gets around the policy either.
        direct_way(&shop, &stranger, "add")?;
        all_dropped(&stranger.netns, &shop.direct())?;
        direct_way(&shop, &stranger, "del")?;

        // What leaves a pod of the bridge is judged as well.
        let spec = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]});
        shop.case.create("networkpolicies", &json!({"metadata": {"name": "client"}, "spec": spec}))?;
        all_dropped(&client.netns, &targets)?;
        shop.case.delete("networkpolicies", "client")?;
        all_served(&client.netns, &targets)?;
        shop.case.delete("networkpolicies", "server")?;
    }
    Ok(())
}
