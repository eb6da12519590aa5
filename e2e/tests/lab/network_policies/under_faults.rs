//! What network policies hold to while agents are killed, pods and policies come and go, the API server is away, labels change
//! and rules are flushed: who was refused once is refused from then on, and who may come in does, at the latest soon after.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use serde_json::{Value, json};
use weft_testkit::dice::Dice;

use super::{Shop, all_dropped, all_served};
use crate::case::echo;
use crate::daemons;
use crate::faults::Away;
use crate::lab::{Lab, Outcome};
use crate::probe::{BOTH, Seen, Via, ask, served};
use crate::soak;

/// How often the agent is killed, each time at another moment of what goes on: in `make test`, and in
/// `make soak`.
const KILLS: [usize; 2] = [3, 60];
/// The longest time after which that is, in milliseconds.
const LATEST: usize = 400;
/// A daemon that ends too often is started again later and later.
const BETWEEN_KILLS: Duration = Duration::from_millis(1500);

/// Tries forbidden ways as long as something is done, and says which of them were open.
fn never_open(from: &str, servers: &[SocketAddr], work: impl FnOnce() -> Outcome) -> Outcome {
    let (is_over, open) = (&AtomicBool::new(false), &Mutex::new(Vec::new()));
    let attempt = move |via: Via, server: SocketAddr| {
        while !is_over.load(Ordering::Relaxed) {
            if let Seen::Answer(name) = ask(from, via, server, "hostname") {
                let text = format!("{via:?} {server} from {from} was answered by {name}");
                open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text);
            }
        }
    };
    thread::scope(|scope| {
        for &server in servers {
            for via in BOTH {
                scope.spawn(move || attempt(via, server));
            }
        }
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        done
    })?;
    let open = open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if open.is_empty() { Ok(()) } else { Err(format!("denied, and open meanwhile: {open:?}")) }
}

fn clients() -> Value {
    json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}])
}

pub(crate) fn what_is_denied_stays_denied(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-faults")?;
    let direct = shop.direct();
    shop.ingress(clients())?;
    all_dropped(&shop.stranger.netns, &direct)?;
    all_served(&shop.client.netns, &direct)?;
    never_open(&shop.stranger.netns, &direct, || {
        agents_are_killed(lab, &shop)?;
        the_api_server_is_away(lab, &shop)?;
        namespaces_change(&shop)
    })?;
    rules_are_flushed(lab, &shop)
}

/// While pods that the policy selects come and go, and other policies too.
fn agents_are_killed(lab: &Lab, shop: &Shop<'_>) -> Outcome {
    let is_soak = soak::seconds().is_some();
    let seed = if is_soak { u64::from(std::process::id()) } else { 15 };
    let (mut dice, kills) = (Dice::new(seed), KILLS[usize::from(is_soak)]);
    if is_soak {
        println!("\n{kills} kills, seed {seed}");
    }
    let other = |name: &str| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "other"}}});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    for round in 0..kills {
        let (name, policy) = (format!("fresh-{round}"), format!("other-{round}"));
        shop.case.start(echo(&name).on("node1"))?;
        shop.case.create("networkpolicies", &other(&policy))?;
        sleep(Duration::from_millis(dice.below(LATEST) as u64));
        daemons::kill(lab, "node1", "weft-agent")?;
        let fresh = shop.case.ready(&name)?;
        let servers: Vec<SocketAddr> = fresh.ips.iter().map(|&ip| SocketAddr::new(ip, 8080)).collect();
        let serves = || {
            let ways = servers.iter().flat_map(|&server| BOTH.map(|via| (via, server)));
            ways.into_iter().try_for_each(|(via, server)| served(&shop.client.netns, via, server, &[&name]))
        };
        // It was closed before it ran.
        never_open(&shop.stranger.netns, &servers, serves)?;
        shop.case.delete("networkpolicies", &policy)?;
        shop.case.delete("pods", &name)?;
        all_served(&shop.client.netns, &shop.direct())?;
        sleep(BETWEEN_KILLS);
    }
    Ok(())
}

/// A pod that starts meanwhile is closed until the agent knows it.
fn the_api_server_is_away(lab: &Lab, shop: &Shop<'_>) -> Outcome {
    let away = Away::new(lab)?;
    let [late] = shop.case.run([echo("late").on("node1")])?;
    let servers: Vec<SocketAddr> = late.ips.iter().map(|&ip| SocketAddr::new(ip, 8080)).collect();
    never_open(&shop.stranger.netns, &servers, || {
        all_served(&shop.client.netns, &shop.direct())?;
        drop(away);
        let ways = servers.iter().flat_map(|&server| BOTH.map(|via| (via, server)));
        ways.into_iter().try_for_each(|(via, server)| served(&shop.client.netns, via, server, &["late"]))
    })?;
    shop.case.delete("pods", "late")
}

fn namespaces_change(shop: &Shop<'_>) -> Outcome {
    let team = |team: &str| shop.case.label_namespace(json!({"team": team}));
    team("blue")?;
    shop.ingress(json!([{"from": [{
        "namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "client"}}
    }]}]))?;
    all_served(&shop.client.netns, &shop.direct())?;
    team("red")?;
    all_dropped(&shop.client.netns, &shop.direct())?;
    team("blue")?;
    all_served(&shop.client.netns, &shop.direct())
}

/// There is a moment without any rule then, and no longer than that.
fn rules_are_flushed(lab: &Lab, shop: &Shop<'_>) -> Outcome {
    for _ in 0..2 {
        lab.on_node("node1", &["nft", "flush", "ruleset"])?;
        all_dropped(&shop.stranger.netns, &shop.direct())?;
        all_served(&shop.client.netns, &shop.direct())?;
    }
    never_open(&shop.stranger.netns, &shop.direct(), || all_served(&shop.client.netns, &shop.direct()))
}
