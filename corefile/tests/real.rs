//! Corefiles as they are in clusters: kubeadm's and kind's, those of k3s, RKE2, NodeLocal DNSCache and OpenShift,
//! and one with the usual additions; then what is refused.

#![allow(clippy::unwrap_used)] // a test that cannot go on must fail; clippy only knows this of #[test] functions

use std::collections::BTreeSet;

use proptest::prelude::*;
use weft_corefile::{Bind, Corefile, Domain, Pods, Problems, Rule, Surroundings, Target, read};

/// Nothing besides the Corefile itself.
struct Alone;

impl Surroundings for Alone {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn import(&self, _from: &str, pattern: &str) -> Result<Vec<(String, String)>, String> {
        if pattern.contains('*') { Ok(Vec::new()) } else { Err("no such file".to_owned()) }
    }
}

fn named(name: &str) -> Corefile {
    let path = format!("{}/tests/corefiles/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    read("Corefile", &text, &Alone).unwrap_or_else(|problems| panic!("{name}: {problems}"))
}

fn told(text: &str) -> String {
    match read("Corefile", text, &Alone) {
        Ok(corefile) => panic!("{text} is taken: {corefile:?}"),
        Err(Problems(problems)) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

fn domain(text: &str) -> Domain {
    Domain::new(text).unwrap()
}

#[test]
fn kubeadm_and_kind() {
    let corefile = named("kubeadm");
    let [server] = &corefile.servers[..] else { panic!("{corefile:?}") };
    let kubernetes = server.kubernetes.as_ref().unwrap();
    assert_eq!(
        (kubernetes.zone.as_str(), kubernetes.ttl, kubernetes.pods),
        ("cluster.local.", 30, Pods::Insecure)
    );
    assert!(
        kubernetes.fall.through(&domain("1.0.0.10.in-addr.arpa"))
            && !kubernetes.fall.through(&domain("cluster.local"))
    );
    assert_eq!(server.forwards[0].to, [Target::File("/etc/resolv.conf".to_owned())]);
    assert_eq!(server.forwards[0].max_concurrent, 1000);
    let cache = server.cache.as_ref().unwrap();
    assert_eq!(
        (cache.success.longest, cache.denial.longest, &cache.success.except[..]),
        (30, 30, &[domain("cluster.local")][..])
    );
    assert_eq!(server.health.unwrap().lameduck.unwrap().as_secs(), 5);
    assert!(server.reload && corefile.notes.is_empty(), "{:?}", corefile.notes);
}

#[test]
fn k3s_and_rke2() {
    let corefile = named("k3s");
    let hosts = corefile.servers[0].hosts.as_ref().unwrap();
    assert_eq!((hosts.file.as_str(), hosts.ttl, hosts.reload), ("/etc/coredns/NodeHosts", 60, true));
    assert_eq!(corefile.servers[0].kubernetes.as_ref().unwrap().ttl, 5, "CoreDNS' own default");
    assert_eq!(corefile.notes.len(), 1, "{:?}", corefile.notes);
    assert_eq!(
        named("rke2").servers[0].kubernetes.as_ref().unwrap().zone,
        domain("cluster.local"),
        "named twice"
    );
}

#[test]
fn node_local_dns_cache() {
    let corefile = named("node-local-dns");
    assert_eq!(corefile.servers.len(), 4);
    assert!(corefile.servers.iter().all(|server| server.kubernetes.is_none() && server.bind.len() == 2));
    assert_eq!(corefile.servers[0].bind[0], Bind::Address("169.254.20.10".parse().unwrap()));
    assert!(corefile.servers[0].forwards[0].force_tcp && !corefile.servers[3].forwards[0].force_tcp);
    assert_eq!(corefile.servers[0].cache.as_ref().unwrap().denial.longest, 5);
}

#[test]
fn openshift_and_the_usual_additions() {
    let corefile = named("openshift");
    assert_eq!(corefile.servers[0].keys[0].port, 5353);
    assert_eq!(corefile.servers[1].logs[0].classes.len(), 1);
    let corefile = named("stub-domains");
    let [cluster, consul] = &corefile.servers[..] else { panic!("{corefile:?}") };
    assert_eq!((cluster.rewrites.len(), cluster.templates.len(), cluster.autopath.is_some()), (2, 1, true));
    assert!(matches!(&cluster.rewrites[1].rule, Rule::Name { answers, .. } if answers.len() == 1));
    assert_eq!(cluster.kubernetes.as_ref().unwrap().namespaces.len(), 3);
    assert_eq!(cluster.hosts.as_ref().unwrap().inline, ["10.11.12.13 legacy.corp.example legacy"]);
    assert_eq!(
        consul.keys.iter().map(|key| key.domain.as_str()).collect::<Vec<_>>(),
        ["consul.local.", "consul.test."]
    );
    assert_eq!(consul.forwards[0].to[1], Target::Address("10.150.0.2:8600".parse().unwrap()));
    assert_eq!(consul.zone_of(&domain("a.consul.test")), Some(&domain("consul.test")));
}

/// A line that is refused, and a word of what is said of it.
const REFUSED: &[(&str, &str)] = &[
    ("dnssec", "the plugin dnssec is not supported"),
    ("forwad . 1.1.1.1", "forwad is no plugin"),
    ("forward . tls://1.1.1.1", "tls:// are not supported"),
    ("forward . dns.example", "upstreams by name"),
    ("forward .", "forward takes"),
    ("forward . 1.1.1.1:0", "no address"),
    ("forward . 1.1.1.1 {\n tls_servername a\n}", "tls_servername is not supported"),
    ("forward . 1.1.1.1 {\n police random\n}", "unknown or unsupported option police"),
    ("forward . 1.1.1.1 {\n policy weighted\n}", "policy takes"),
    ("cache ten.a..b", "no domain name"),
    ("cache 0", "no number from 1"),
    ("cache {\n keepttl\n}", "keepttl is not supported"),
    ("cache {\n servfail 1h\n}", "over 5m"),
    ("cache\n cache", "already"),
    ("kubernetes", "zone"),
    ("kubernetes in-addr.arpa", "cluster's own zone"),
    ("kubernetes a b", "second zone"),
    ("kubernetes a {\n pods all\n}", "pods takes"),
    ("kubernetes a {\n ttl 3601\n}", "3600"),
    ("kubernetes a {\n zonal\n}", "zonal is not supported"),
    ("kubernetes a {\n multicluster a\n}", "multicluster is not supported"),
    ("kubernetes a {\n labels a in\n}", "label selector"),
    ("hosts relative", "absolute path"),
    ("hosts {\n example.org 10.0.0.1\n}", "unknown or unsupported option example.org"),
    ("hosts {\n 10.0.0.1 a..b\n}", "no host name"),
    ("hosts {\n fallthrough_unsupported\n}", "requires fallthrough"),
    ("rewrite name regex ( a", "no regular expression"),
    ("rewrite name regex (a) {2}", "group 2"),
    ("rewrite name a b c d", "none of exact"),
    ("rewrite edns0 local set 0xffee 0x61", "edns0 is not supported"),
    ("rewrite class CH IN", "class is not supported"),
    ("rewrite ttl a 5-3", "MIN-MAX"),
    ("rewrite rcode a SERVFAIL 23", "response code"),
    ("rewrite", "rewrite takes"),
    ("template ANY", "template takes"),
    ("template CH A a", "class CH"),
    ("template IN A a {\n answer \"{{ parseInt .Name 10 8 }} 60 IN A 1.2.3.4\"\n}", "parseInt"),
    ("template IN A a {\n answer \"{{ .Group.x }} 60 IN A 1.2.3.4\"\n}", "group x"),
    ("template IN A a {\n answer \"{{ .Name }} 60 IN LOC x\"\n}", "type LOC"),
    ("template IN A a {\n answer \"a\"\n}", "no record"),
    ("template IN A a {\n expr true\n}", "expr is not supported"),
    ("autopath /etc/resolv.conf", "@kubernetes"),
    ("autopath @kubernetes", "needs kubernetes"),
    ("loadbalance weighted w", "weighted is not supported"),
    ("log {\n class bad\n}", "class"),
    ("health localhost", "ADDRESS:PORT"),
    ("health {\n lameduck long\n}", "no duration"),
    ("bind 10.0.0.0/8", "no address and no interface"),
    ("reload soon", "no duration"),
    ("errors /var/log/x", "stdout"),
    ("view x {\n expr y\n}", "view is not supported"),
];

#[test]
fn what_is_not_supported_is_named_with_its_line() {
    let within = |line: &str| format!(". {{\n forward . 192.0.2.1\n {line}\n}}\n");
    for (line, expected) in REFUSED {
        let said = told(&within(line));
        assert!(said.contains(expected), "{line}: {said}");
        let number: u32 = said.split(':').nth(1).unwrap().parse().unwrap();
        assert!((1..=5).contains(&number), "{said}");
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_lines() {
    let said = told(
        "tls://a {\n forward . 1.1.1.1\n}\n. {\n dnssec\n cache 0\n forward . 1.1.1.1\n}\nb:99999 {\n forward . 1.1.1.1\n}\n",
    );
    let lines: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["Corefile:1:", "Corefile:5:", "Corefile:6:", "Corefile:9:"], "{said}");
}

#[test]
fn server_blocks_must_not_contradict_each_other() {
    let block = |keys: &str, lines: &str| format!("{keys} {{\n forward . 1.1.1.1\n {lines}\n}}\n");
    for (blocks, expected) in [
        ([block("a", ""), block("b a", "")], "Corefile:5: the zone a. with port 53"),
        ([block("a", "bind 127.0.0.1"), block("b", "")], "Corefile:5: all server blocks of a port"),
        ([block("a", "kubernetes c"), block("b", "kubernetes c")], "Corefile:7: a second kubernetes"),
        ([block("a", "prometheus :9153"), block("b", "prometheus :9154")], "Corefile:5: prometheus differs"),
    ] {
        let said = told(&blocks.concat());
        assert!(said.contains(expected), "{said}");
    }
    assert!(told("a {\n errors\n}\n").contains("nothing in this server block answers"));
    assert!(told("").contains("Corefile:1: there is no server block"));
    let fine = block("a:53", "bind 127.0.0.1") + &block("a:54", "");
    assert_eq!(read("Corefile", &fine, &Alone).unwrap().servers.len(), 2);
}

#[test]
fn what_has_no_effect_is_noted() {
    let text = ". {\n loop\n bufsize 512\n forward . 1.1.1.1 {\n  expire 10s\n  max_fails 3\n }\n forward a 1.1.1.2\n cache {\n  serve_stale\n }\n}\n";
    let notes = read("Corefile", text, &Alone).unwrap().notes;
    let lines: BTreeSet<u32> = notes.iter().map(|note| note.place.line).collect();
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), [3, 5, 6, 8, 10], "{notes:?}");
}

const WORDS: &[&str] = &[
    ".",
    ":53",
    "{",
    "}",
    "\n",
    "\n",
    "\n",
    " ",
    "kubernetes",
    "cluster.local",
    "forward",
    "1.1.1.1",
    "cache",
    "30",
    "hosts",
    "rewrite",
    "name",
    "regex",
    "(.*)",
    "{1}",
    "template",
    "IN",
    "A",
    "answer",
    "\"",
    "match",
    "import",
    "(a)",
    "a",
    "fallthrough",
    "ttl",
    "{$X}",
    "{%",
    "%}",
    "#",
    ",",
    "10.0.0.0/9",
    "fd00::/9",
    "continue",
    "type",
    "ANY",
    "{{ .Name }}",
    "{{",
    "}}",
    "bind",
    "health",
    "log",
    "class",
    "\\",
    "ederror",
    "rcode",
    "disable",
    "success",
    "::",
    "%",
    "dns://",
    "policy",
];

/// Words of real Corefiles, in any order: that is nearer to one than any characters are.
fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(WORDS), 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_stands_in_it_the_reader_does_not_panic(text in any::<String>(), soup in soup()) {
        let _ = read("Corefile", &text, &Alone);
        if let Err(Problems(problems)) = read("Corefile", &soup, &Alone) {
            prop_assert!(!problems.is_empty());
        }
        if let Err(Problems(problems)) = read("Corefile", &format!(". {{\n{soup}\n}}"), &Alone) {
            prop_assert!(!problems.is_empty());
        }
    }
}
