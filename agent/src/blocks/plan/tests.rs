//! Decisions one by one.

use super::*;

const NODE: &str = "node1";
const GRACE: Duration = Duration::from_secs(300);

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn planner() -> BlockPlanner {
    let cluster_cidrs = vec![network("10.0.0.0/24")];
    BlockPlanner::new(Settings { cluster_cidrs, prefixes: (28, 124), grace: GRACE }, "now".to_owned())
}

/// A block of `node1`, whose uid is `u1`, vouched for by this agent.
fn block(cidr: &str) -> IpamBlock {
    let cidr = network(cidr);
    let [node, node_uid, claim, uid, version] = [NODE, "u1", "now", "b", "7"].map(str::to_owned);
    IpamBlock { name: IpamBlock::name_of(&cidr), cidr, node, node_uid, claim, uid, version }
}

fn of(node: &str, cidr: &str) -> IpamBlock {
    IpamBlock { node: node.to_owned(), ..block(cidr) }
}

/// What is known: blocks, those in the file, and reserved addresses.
struct World {
    blocks: Vec<IpamBlock>,
    served: Vec<IpNetwork>,
    held: BTreeSet<IpAddr>,
    uid: Option<&'static str>,
}

impl World {
    fn new(blocks: &[IpamBlock], served: &[&str], held: &[&str]) -> World {
        World {
            blocks: blocks.to_vec(),
            served: served.iter().map(|text| network(text)).collect(),
            held: held.iter().map(|text| text.parse().unwrap()).collect(),
            uid: Some("u1"),
        }
    }

    fn plan(&self, planner: &mut BlockPlanner, now: Instant) -> BlockPlan {
        let known = Known {
            node: (NODE, self.uid),
            nodes: [NODE, "node2"].into(),
            blocks: self.blocks.iter().collect(),
            served: &self.served,
            held: &self.held,
        };
        planner.plan(&known, now)
    }
}

fn held(range: &str, hosts: std::ops::Range<u8>) -> BTreeSet<IpAddr> {
    hosts.map(|host| format!("{range}.{host}").parse().unwrap()).collect()
}

fn claimed(plan: &BlockPlan) -> Vec<String> {
    let claims = plan.requests.iter().filter(|request| matches!(request, Request::Claim(_)));
    claims.map(|request| request.block().cidr.to_string()).collect()
}

#[test]
fn a_node_without_a_block_claims_one_of_each_family_and_no_second_until_it_is_seen() {
    let (mut planner, now) = (planner(), Instant::now());
    planner.settings.cluster_cidrs.push(network("fd00::/112"));
    let world = World::new(&[], &[], &[]);
    let plan = world.plan(&mut planner, now);
    assert_eq!((claimed(&plan).len(), plan.lacking.len(), plan.serve.len()), (2, 2, 0));
    assert!(world.plan(&mut planner, now).requests.is_empty(), "they are asked for");
    plan.requests.iter().for_each(|request| planner.note(request, Outcome::Done, now));
    assert!(world.plan(&mut planner, now).requests.is_empty(), "they are there, though not seen yet");
    let blocks: Vec<IpamBlock> = plan.requests.iter().map(|request| request.block().clone()).collect();
    let plan = World::new(&blocks, &[], &[]).plan(&mut planner, now);
    assert_eq!((plan.serve.len(), plan.requests.len(), plan.lacking.len()), (2, 0, 0));
}

#[test]
fn a_range_that_another_node_was_faster_to_claim_is_passed_over() {
    let (mut planner, now) = (planner(), Instant::now());
    let world = World::new(&[], &[], &[]);
    let first = world.plan(&mut planner, now);
    planner.note(&first.requests[0], Outcome::Conflict, now);
    let second = world.plan(&mut planner, now);
    assert_eq!(claimed(&second).len(), 1);
    assert_ne!(claimed(&first), claimed(&second));
}

#[test]
fn the_next_block_is_claimed_before_the_last_address_is_given() {
    let (mut planner, now) = (planner(), Instant::now());
    let mut world = World::new(&[block("10.0.0.0/28")], &["10.0.0.0/28"], &[]);
    world.held = held("10.0.0", 2..12);
    assert!(world.plan(&mut planner, now).requests.is_empty(), "3 of 13 are free");
    world.held = held("10.0.0", 2..13);
    assert_eq!(claimed(&world.plan(&mut planner, now)).len(), 1, "2 are");
}

#[test]
fn a_block_of_an_agent_before_is_renewed_before_it_is_served_unless_the_file_has_it() {
    let (mut planner, now) = (planner(), Instant::now());
    let old = IpamBlock { claim: "before".to_owned(), ..block("10.0.0.0/28") };
    let plan = World::new(std::slice::from_ref(&old), &["10.0.0.0/28"], &[]).plan(&mut planner, now);
    assert_eq!((plan.serve.len(), plan.requests.len()), (1, 0), "the file has it");
    let plan = World::new(std::slice::from_ref(&old), &[], &[]).plan(&mut planner, now);
    let renewed = IpamBlock { claim: "now".to_owned(), ..old.clone() };
    assert_eq!((plan.serve, plan.requests), (vec![], vec![Request::Renew(renewed)]), "the file has not");
}

#[test]
fn a_node_that_registers_anew_vouches_for_its_blocks_first() {
    let (mut planner, now) = (planner(), Instant::now());
    let mut world = World::new(&[block("10.0.0.0/28")], &["10.0.0.0/28"], &["10.0.0.2"]);
    world.uid = None;
    assert_eq!(world.plan(&mut planner, now).serve.len(), 1, "nothing changes without a Node");
    world.uid = Some("u2");
    let plan = world.plan(&mut planner, now);
    assert!(
        plan.serve.is_empty() && matches!(&*plan.requests, [Request::Renew(block)] if block.node_uid == "u2")
    );
}

#[test]
fn a_block_that_overlaps_another_is_not_served_but_the_one_that_was_first_is() {
    let (mut planner, now) = (planner(), Instant::now());
    let blocks = [block("10.0.0.0/28"), of("node2", "10.0.0.0/27")];
    let plan = World::new(&blocks, &["10.0.0.0/28"], &["10.0.0.2"]).plan(&mut planner, now);
    assert_eq!((plan.serve.len(), plan.requests.len()), (1, 0));
    let plan = World::new(&blocks, &[], &[]).plan(&mut planner, now);
    assert!(plan.serve.is_empty());
    assert_eq!(plan.requests[0], Request::Release(block("10.0.0.0/28")));
}

#[test]
fn a_block_that_is_empty_for_long_leaves_the_file_first_and_the_cluster_then() {
    let (mut planner, now) = (planner(), Instant::now());
    let blocks = [block("10.0.0.0/28"), block("10.0.0.16/28")];
    let both = ["10.0.0.0/28", "10.0.0.16/28"];
    let world = World::new(&blocks, &both, &["10.0.0.2"]);
    assert_eq!(world.plan(&mut planner, now).serve.len(), 2);
    let plan = world.plan(&mut planner, now + GRACE);
    assert_eq!((plan.serve, plan.requests.len()), (vec![network("10.0.0.0/28")], 0));
    let late = World::new(&blocks, &both[..1], &["10.0.0.2", "10.0.0.18"]);
    let plan = late.plan(&mut planner, now + GRACE);
    assert_eq!((plan.serve.len(), plan.requests.len()), (2, 0), "a container got an address just before");
    assert_eq!(world.plan(&mut planner, now + GRACE).serve.len(), 2);
    assert_eq!(world.plan(&mut planner, now + GRACE * 2).serve.len(), 1);
    let plan = World::new(&blocks, &both[..1], &["10.0.0.2"]).plan(&mut planner, now + GRACE * 2);
    assert_eq!(plan.requests, [Request::Release(block("10.0.0.16/28"))]);
    planner.note(&plan.requests[0], Outcome::Unknown, now);
    let full = World { held: held("10.0.0", 2..15), ..World::new(&blocks, &both[..1], &[]) };
    let plan = full.plan(&mut planner, now + GRACE * 2);
    assert_eq!(plan.serve.len(), 1, "the request may still be on its way");
    let plan = World::new(&blocks[..1], &both[..1], &[]).plan(&mut planner, now + GRACE * 9);
    assert_eq!((plan.serve.len(), plan.requests.len()), (1, 0), "the last one stays");
}

#[test]
fn a_block_that_somebody_deleted_is_claimed_again_while_containers_have_addresses_of_it() {
    let (mut planner, now) = (planner(), Instant::now());
    let blocks = [block("10.0.0.32/28")];
    let plan = World::new(&blocks, &["10.0.0.0/28", "10.0.0.32/28"], &["10.0.0.2"]).plan(&mut planner, now);
    assert_eq!(
        (plan.serve.clone(), claimed(&plan)),
        (vec![network("10.0.0.32/28")], vec!["10.0.0.0/28".into()])
    );
    let taken = [block("10.0.0.32/28"), of("node2", "10.0.0.0/28")];
    let plan = World::new(&taken, &["10.0.0.0/28", "10.0.0.32/28"], &["10.0.0.2"]).plan(&mut planner, now);
    assert_eq!(plan.serve, [network("10.0.0.32/28")], "another node has it by now");
}

#[test]
fn the_blocks_of_a_lost_node_are_given_up_after_a_while() {
    let (mut planner, now) = (planner(), Instant::now());
    let blocks = [block("10.0.0.0/28"), of("gone", "10.0.0.16/28"), of("node2", "10.0.0.32/28")];
    let world = World::new(&blocks, &["10.0.0.0/28"], &[]);
    assert!(world.plan(&mut planner, now).requests.is_empty());
    assert!(world.plan(&mut planner, now + GRACE / 2).requests.is_empty());
    let plan = world.plan(&mut planner, now + GRACE * 2);
    assert_eq!(plan.requests, [Request::Collect(of("gone", "10.0.0.16/28"))]);
    assert!(world.plan(&mut planner, now + GRACE * 2).requests.is_empty(), "it is asked for");
    planner.note(&plan.requests[0], Outcome::Unknown, now);
    assert_eq!(world.plan(&mut planner, now + GRACE * 2).requests.len(), 1, "and asked for again");
}

#[test]
fn a_cluster_without_a_free_block_is_told_of() {
    let (mut planner, now) = (planner(), Instant::now());
    let plan = World::new(&[of("node2", "10.0.0.0/24")], &[], &[]).plan(&mut planner, now);
    assert_eq!((plan.exhausted, plan.lacking), (vec![Family::V4], vec![Family::V4]));
}
