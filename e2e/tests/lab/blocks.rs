//! A lab of its own whose nodes claim small blocks of addresses: pods start beyond the first block, also while
//! agents are killed, reach each other, and what a lost node had is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use crate::case::{Case, Peer, echo};
use crate::daemons::kill;
use crate::lab::{Lab, Outcome, equal, holds, poll, succeed};
use crate::probe::{BOTH, served};

/// More than one block of either family has room for: five and six.
const MANY: usize = 8;

pub(crate) fn pods_beyond_the_first_block(_: &Lab) -> Outcome {
    let lab = Lab::new("e2e-blocks")?;
    lab.run(&["up", "--nodes", "3", "--ipam", "blocks"])?;
    for node in lab.nodes()? {
        equal("the first blocks of a node", blocks(&lab)?.get(&node).map(BTreeSet::len), Some(2))?;
    }
    let case = Case::new(&lab, "blocks")?;
    let many: [Peer; MANY] =
        case.run(std::array::from_fn(|number| echo(&format!("many{number}")).on("node2")))?;
    let others = case.run([echo("one").on("node1"), echo("three").on("node3")])?;
    let claimed = blocks(&lab)?["node2"].len();
    if claimed < 4 {
        return Err(format!("node2 has {claimed} blocks, though its pods need two of each family"));
    }
    reach(&others[0], &many)?;
    reach(&many[MANY - 1], &others)?;
    // Killed in the midst of it, the agent goes on where it left off.
    kill(&lab, "node1", "weft-agent")?;
    let more: [Peer; MANY] =
        case.run(std::array::from_fn(|number| echo(&format!("more{number}")).on("node1")))?;
    reach(&others[1], &more)?;
    distinct(many.iter().chain(&others).chain(&more))?;
    poll("every address known", || {
        let status = weft_ipam_status(&lab)?;
        holds("use", &status, "5/5").and_then(|()| holds("leaks", &status, "LEAKED"))
    })?;
    drop(case);
    lab.run(&["stop", "node3"])?;
    lab.kubectl(&["delete", "node", "node3"])?;
    poll("the blocks of the lost node given up", || {
        equal("blocks of node3", blocks(&lab)?.get("node3").cloned(), None)
    })?;
    poll("blocks without pods given up", || {
        let counts: Vec<usize> = blocks(&lab)?.values().map(BTreeSet::len).collect();
        equal("blocks", counts, vec![2, 2])
    })
}

/// The blocks that nodes have claimed.
fn blocks(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let list = lab.api()?.get("/apis/weft.internal/v1/ipamblocks")?;
    let mut blocks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for block in list["items"].as_array().into_iter().flatten() {
        let text = |field: &str| block["spec"][field].as_str().unwrap_or_default().to_owned();
        blocks.entry(text("node")).or_default().insert(text("cidr"));
    }
    Ok(blocks)
}

/// By both families.
fn reach(from: &Peer, to: &[Peer]) -> Outcome {
    for peer in to {
        for ip in &peer.ips {
            for via in BOTH {
                served(&from.netns, via, SocketAddr::new(*ip, 8080), &[&peer.name])?;
            }
        }
    }
    Ok(())
}

fn distinct<'a>(pods: impl Iterator<Item = &'a Peer>) -> Outcome {
    let addresses: Vec<IpAddr> = pods.flat_map(|pod| pod.ips.iter().copied()).collect();
    let distinct: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    equal("addresses, each one pod's", addresses.len(), distinct.len())
}

fn weft_ipam_status(lab: &Lab) -> Result<String, String> {
    let mut command = Command::new(lab.program.with_file_name("weft"));
    command.args(["ipam", "status", "--kubeconfig"]).arg(lab.dir.kubeconfig());
    succeed(command)
}
