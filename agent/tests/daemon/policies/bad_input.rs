//! Policies that cannot be met as they are: each closes its own pod, an Event says which field is at fault,
//! and other policies hold.

use super::*;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

/// Lets `web` alone reach `client`, at port 81 alone.
fn other_policy() -> Value {
    json!({
        "metadata": {"name": "client", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "client"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 81}]}],
        },
    })
}

/// A policy of that name for `web` with one rule.
fn of_web(name: &str, rule: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]},
    })
}

/// So many peers, the client among them.
fn selectors(count: usize) -> Vec<Value> {
    let far =
        (1..count).map(|number| json!({"podSelector": {"matchLabels": {"app": format!("no-{number}")}}}));
    far.chain([json!({"podSelector": {"matchLabels": {"app": "client"}}})]).collect()
}

/// So many ports of which no two touch, 81 among them.
fn scattered(count: usize) -> Vec<Value> {
    (0..count).map(|place| json!({"port": 2 * place + 1})).collect()
}

impl Cluster {
    /// A cluster where the other policy holds, and pods elsewhere have 100 different labels.
    fn with_other_policy() -> Cluster {
        let cluster = Cluster::started();
        for number in 0..100 {
            let addresses = [format!("10.244.9.{number}"), format!("fd00:244:9::{number}")];
            let addresses = addresses.map(|address| address.parse().unwrap());
            let mut pod = pod(&format!("far-{number}"), &format!("far-{number}"), &addresses);
            pod["spec"]["nodeName"] = json!("node2");
            cluster.machine.server.put(PODS, pod);
        }
        cluster.machine.server.put(POLICIES, other_policy());
        cluster.until_planned(2);
        cluster
    }

    /// Waits for the Event of a policy, and returns its note.
    fn event(&self, policy: &str, reason: &str) -> String {
        let find = || {
            let events = self.machine.server.objects(EVENTS);
            let is_it = |event: &&Value| event["regarding"]["name"] == *policy && event["reason"] == *reason;
            events.iter().find(is_it).map(|event| {
                assert_eq!(event["regarding"]["kind"], "NetworkPolicy");
                event["note"].as_str().unwrap().to_owned()
            })
        };
        self.machine.until(&format!("an Event of {policy}"), |_| find().is_some());
        find().unwrap()
    }

    fn assert_other_policy_holds(&self, meanwhile: &str) {
        let [web, _] = &self.pods;
        for client in addresses(2) {
            assert!(tcp(web, client, 81), "{meanwhile}: {client}");
            assert!(!tcp(web, client, 80) && !tcp(&self.outside, client, 81), "{meanwhile}: {client}");
        }
    }
}

#[test]
fn what_cannot_be_read_of_a_policy_closes_its_pod_and_no_other_and_an_event_names_the_field() {
    let cluster = Cluster::with_other_policy();
    let from_client = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    let with_port = |port: Value| json!({"from": from_client, "ports": [port]});
    for (name, rule, field) in [
        (
            "reversed",
            with_port(json!({"port": 90, "endPort": 80})),
            "ports[0].endPort: 80 is below the first port, 90",
        ),
        ("no-port", with_port(json!({"endPort": 80})), "ports[0].endPort: needs a port"),
        ("named-range", with_port(json!({"port": "http", "endPort": 80})), "ports[0].endPort: cannot follow"),
        ("unknown-in-port", with_port(json!({"port": 80, "rate": 5})), "ports[0].rate: is not supported"),
        ("unknown-in-rule", json!({"from": from_client, "schedule": "nights"}), "schedule: is not supported"),
        (
            "unknown-in-peer",
            json!({"from": [{"podSelector": {}, "services": {}}]}),
            "from[0].services: is not supported",
        ),
        ("no-protocol", with_port(json!({"protocol": "", "port": 80})), "ports[0].protocol: is empty"),
        ("quoted", with_port(json!({"port": "80"})), "ports[0].port: \"80\" is no name of a port"),
        ("zero", with_port(json!({"port": 0})), "ports[0].port: 0 is no port"),
        ("too-high", with_port(json!({"port": 65536})), "ports[0].port: 65536 is no port"),
        ("null-port", with_port(json!(null)), "ports[0]: is missing"),
        ("null-peer", json!({"from": [null]}), "from[0]: is missing"),
        ("null-rule", json!(null), ": is missing"),
        (
            "outside",
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.0.2.0/24"]}}]}),
            "from[0].ipBlock.except[0]: \"192.0.2.0/24\" is not within 10.0.0.0/8",
        ),
        (
            "mapped",
            json!({"from": [{"ipBlock": {"cidr": "::ffff:0.0.0.0/0"}}]}),
            "from[0].ipBlock.cidr: \"::ffff:0.0.0.0/0\" is no network",
        ),
        (
            "many",
            json!({"from": selectors(5_000)}),
            ": is too much: a policy may have 4096 rules and selectors",
        ),
        (
            "bad-operator",
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["c"]}]}}]}),
            "from[0].podSelector.matchExpressions[0]: operator",
        ),
    ] {
        cluster.machine.server.put(POLICIES, of_web(name, rule));
        cluster.until_planned(4);
        let note = cluster.event(name, "Malformed");
        let field = if field.starts_with(':') { field.to_owned() } else { format!(".{field}") };
        assert!(note.contains(&format!("spec.ingress[0]{field}")), "{name}: {note}");
        for web in addresses(1) {
            assert!(!tcp(&cluster.pods[1], web, 80) && !tcp(&cluster.outside, web, 80), "{name}: {web}");
        }
        cluster.assert_other_policy_holds(name);
        cluster.machine.server.delete(POLICIES, name);
        cluster.until_planned(2);
    }
}

#[test]
fn a_product_of_a_million_rows_closes_its_pod_and_no_other_and_an_event_names_the_policy() {
    let cluster = Cluster::with_other_policy();
    let far =
        (0..100).map(|number| json!({"podSelector": {"matchLabels": {"app": format!("far-{number}")}}}));
    let client = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    let from: Vec<Value> = far.chain([client]).collect();
    cluster.machine.server.put(POLICIES, of_web("huge", json!({"from": from, "ports": scattered(10_000)})));
    cluster.until_planned(4);
    let expected = "NetworkPolicy shop/huge: spec.ingress: Pod shop/web would need more than 16384 rows";
    let note = cluster.event("huge", "PolicyTooLarge");
    assert!(note.contains(expected.split_once(": ").unwrap().1), "{note}");
    assert!(cluster.machine.ask("/healthz").1.contains(expected));
    for web in addresses(1) {
        assert!(!tcp(&cluster.pods[1], web, 81) && !tcp(&cluster.outside, web, 81), "{web}");
    }
    cluster.assert_other_policy_holds("a million rows");
    // With fewer ports it is met.
    let from = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    cluster.machine.server.put(POLICIES, of_web("huge", json!({"from": from, "ports": scattered(100)})));
    cluster.machine.until("the way in", |_| tcp(&cluster.pods[1], addresses(1)[0], 81));
    assert!(!cluster.machine.ask("/healthz").1.contains("shop/huge"));
}

#[test]
fn thousands_of_ports_and_a_selector_that_matches_everything_are_met_as_they_are() {
    let cluster = Cluster::with_other_policy();
    let from = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    cluster.machine.server.put(POLICIES, of_web("many", json!({"from": from, "ports": scattered(10_000)})));
    cluster.until_planned(4);
    for web in addresses(1) {
        assert!(tcp(&cluster.pods[1], web, 81), "{web}");
        assert!(!tcp(&cluster.pods[1], web, 80) && !tcp(&cluster.outside, web, 81), "{web}");
    }
    cluster.assert_other_policy_holds("thousands of ports");
    cluster.machine.server.delete(POLICIES, "many");

    let everybody = json!([{"namespaceSelector": {}, "podSelector": {}}]);
    let mut policy = of_web("everything", json!({"from": everybody}));
    policy["spec"]["podSelector"] = json!({});
    cluster.machine.server.put(POLICIES, policy);
    cluster.machine.until("its effect", |_| tcp(&cluster.pods[0], addresses(2)[0], 80));
    for (web, client) in addresses(1).into_iter().zip(addresses(2)) {
        assert!(tcp(&cluster.pods[1], web, 80) && tcp(&cluster.pods[0], client, 80));
        assert!(!tcp(&cluster.outside, web, 80) && !tcp(&cluster.outside, client, 80));
    }
    let names: Vec<Value> =
        cluster.machine.server.objects(EVENTS).iter().map(|event| event["note"].clone()).collect();
    assert!(names.is_empty(), "nothing is wrong: {names:?}");
}

/// More than most clusters have, and as somebody sends them who wants to keep nodes busy.
#[test]
fn a_hundred_thousand_networks_and_ports_are_met_as_they_are() {
    let cluster = Cluster::with_other_policy();
    let network = |number: u32| {
        let address = std::net::Ipv4Addr::from(0x1400_0000 + 2 * number);
        json!({"ipBlock": {"cidr": format!("{address}/32")}})
    };
    let mut from: Vec<Value> = (0..100_000).map(network).collect();
    from.push(json!({"podSelector": {"matchLabels": {"app": "client"}}}));
    let ports: Vec<Value> = (0..100_000).map(|number| json!({"port": 1 + number % 80})).collect();
    cluster.machine.server.put(POLICIES, of_web("long", json!({"from": from, "ports": ports})));
    cluster.until_planned(4);
    for web in addresses(1) {
        assert!(tcp(&cluster.pods[1], web, 80), "{web}");
        assert!(!tcp(&cluster.pods[1], web, 81) && !tcp(&cluster.outside, web, 80), "{web}");
    }
    cluster.assert_other_policy_holds("a hundred thousand networks");
    cluster.machine.server.delete(POLICIES, "long");
    cluster.until_planned(2);
    cluster.assert_other_policy_holds("they are gone");
    assert!(cluster.machine.server.objects(EVENTS).is_empty(), "nothing is wrong");
}
