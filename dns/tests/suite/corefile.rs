//! The program with a Corefile, asked by `dig`: what it says is done, live, as a whole or not at all.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hickory_proto::op::ResponseCode;
use weft_testkit::wait::eventually;

use crate::api;
use crate::daemon::{Daemon, NOBODY, await_status, failure};
use crate::peers::{answer_section, dig};
use crate::scripted_upstream::ScriptedUpstream;

/// A folder with files.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        let this = Files(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| this.put(name, text));
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn flag(&self) -> String {
        self.path("Corefile").display().to_string()
    }
}

/// An upstream whose addresses all end so.
fn upstream(last: u8, ttl: u32) -> ScriptedUpstream {
    ScriptedUpstream::start(move |asked| Some(asked.address(last, ttl)))
}

/// With single spaces.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ask(daemon: &Daemon, arguments: &str) -> String {
    dig("127.0.0.1", daemon.dns.port(), arguments)
}

fn answers(daemon: &Daemon, arguments: &str) -> Vec<String> {
    answer_section(&ask(daemon, arguments))
}

/// kubeadm's, whose resolv.conf is one of the test's.
fn kubeadm(resolv_conf: &Path) -> String {
    let text = include_str!("../../../corefile/tests/corefiles/kubeadm");
    text.replace("/etc/resolv.conf", &resolv_conf.display().to_string())
}

#[test]
fn kubeadm_s_corefile_is_done_as_it_is() {
    let (api, upstream) = (api::start(), upstream(80, 300));
    // resolv.conf knows no ports: the upstream is named beside it.
    let files = Files::new(&[]);
    let corefile = kubeadm(Path::new("/etc/resolv.conf"))
        .replace("forward . /etc/resolv.conf", &format!("forward . {}", upstream.address));
    files.put("Corefile", &corefile);
    let daemon =
        Daemon::start_with(&api.address().to_string(), &["--corefile", &files.flag(), "--lameduck", "0"]);
    let text = await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    assert!(flat(&text).contains(" 30 IN A 10.96.0.20"), "{text}");
    assert!(ask(&daemon, "1-2-3-4.shop.pod.cluster.local A").contains("1.2.3.4"), "pods insecure");
    assert_eq!(
        answers(&daemon, "-x 10.96.0.20"),
        ["20.0.96.10.in-addr.arpa. PTR backend.shop.svc.cluster.local."]
    );
    assert!(ask(&daemon, "nothing.shop.svc.cluster.local A").contains("status: NXDOMAIN"));
    // By the full lane, and then by the fast one from the cache.
    for _ in 0..2 {
        let text = ask(&daemon, "+noedns www.example.com A");
        let ttl: u32 = text
            .lines()
            .find(|line| line.ends_with("192.0.2.80"))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        assert!((25..=30).contains(&ttl), "cache 30 bounds what clients keep: {text}");
    }
    assert_eq!(upstream.asked().len(), 1);
    let metrics = daemon.get(2, "/metrics");
    for plugin in ["kubernetes", "forward", "cache", "reload", "loadbalance"] {
        assert!(metrics.contains(&format!("name=\"{plugin}\"")), "{plugin}: {metrics}");
    }
}

/// One with rules of every kind.
fn with_rules(hosts: &Path, upstream: &ScriptedUpstream) -> String {
    format!(
        r#".:53 {{
            kubernetes cluster.local in-addr.arpa ip6.arpa {{
                fallthrough in-addr.arpa ip6.arpa
            }}
            rewrite name registry.corp.example backend.shop.svc.cluster.local
            rewrite stop {{
                name regex (.*)\.apps\.corp\.example {{1}}.shop.svc.cluster.local
                answer name (.*)\.shop\.svc\.cluster\.local {{1}}.apps.corp.example
            }}
            rewrite name suffix .old.example .new.example answer auto
            hosts {} {{
                192.0.2.13 legacy.corp.example
                ttl 60
                fallthrough
            }}
            template IN A dyn.corp.example {{
                match ^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)-(?P<c>[0-9]+)-(?P<d>[0-9]+)\.dyn\.corp\.example\.$
                answer "{{{{ .Name }}}} 60 IN A {{{{ .Group.a }}}}.{{{{ .Group.b }}}}.{{{{ .Group.c }}}}.{{{{ .Group.d }}}}"
                fallthrough
            }}
            template IN ANY blocked.example {{
                rcode NXDOMAIN
                authority "{{{{ .Zone }}}} 60 IN SOA ns.{{{{ .Zone }}}} hostmaster.{{{{ .Zone }}}} (1 60 60 60 60)"
            }}
            forward . {}
            cache 30
        }}"#,
        hosts.display(),
        upstream.address
    )
}

#[test]
fn names_are_rewritten_made_and_read_from_files() {
    let (api, upstream) = (api::start(), upstream(80, 300));
    let files = Files::new(&[("NodeHosts", "192.0.2.11 node1\n192.0.2.12 node2 node2.corp.example\n")]);
    files.put("Corefile", &with_rules(&files.path("NodeHosts"), &upstream));
    let daemon =
        Daemon::start_with(&api.address().to_string(), &["--corefile", &files.flag(), "--lameduck", "0"]);
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    // Each twice: what is cached must not leave the rules aside; over both transports, and with letters of both cases.
    for way in ["+noedns", "+noedns", "+tcp", ""] {
        for (question, expected) in [
            ("registry.corp.example A", "registry.corp.example. A 10.96.0.20"),
            ("backend.apps.corp.example A", "backend.apps.corp.example. A 10.96.0.20"),
            ("www.old.example A", "www.old.example. A 192.0.2.80"),
            ("node1 A", "node1. A 192.0.2.11"),
            ("legacy.corp.example A", "legacy.corp.example. A 192.0.2.13"),
            ("-x 192.0.2.11", "11.2.0.192.in-addr.arpa. PTR node1."),
            ("ip-10-1-2-3.dyn.corp.example A", "ip-10-1-2-3.dyn.corp.example. A 10.1.2.3"),
            ("other.dyn.corp.example A", "other.dyn.corp.example. A 192.0.2.80"),
            ("www.example.com A", "www.example.com. A 192.0.2.80"),
        ] {
            assert_eq!(answers(&daemon, &format!("{way} {question}")), [expected], "{way} {question}");
        }
        let text = ask(&daemon, &format!("{way} www.blocked.example AAAA"));
        assert!(text.contains("status: NXDOMAIN") && text.contains("hostmaster.blocked.example."), "{text}");
        let text = ask(&daemon, &format!("{way} node1 MX"));
        assert!(text.contains("status: NOERROR") && answer_section(&text).is_empty(), "{text}");
    }
    assert_eq!(answers(&daemon, "WWW.Old.Example A").len(), 1);
    let asked: Vec<String> = upstream.asked().iter().map(|asked| asked.name().to_ascii_lowercase()).collect();
    assert!(
        asked.contains(&"www.new.example.".to_owned()) && !asked.contains(&"www.old.example.".to_owned()),
        "{asked:?}"
    );
    files.put("NodeHosts", "192.0.2.21 node1\n");
    eventually("the hosts file is followed", || answers(&daemon, "node1 A") == ["node1. A 192.0.2.21"]);
}

#[test]
fn each_server_block_has_its_own_names_upstreams_and_cache() {
    let (api, everyone, corporate) = (api::start(), upstream(80, 300), upstream(81, 300));
    let (secret, reliable) = (upstream(82, 300), upstream(83, 300));
    let text = format!(
        ".:53 {{
            kubernetes cluster.local {{
                ttl 7
            }}
            forward corp.example {c} {{
                except hidden.corp.example
            }}
            forward . {e} {{
                force_tcp
            }}
        }}
        consul.local:53 consul.cluster.local:53 {{
            forward . {s}
            cache 10
        }}
        only.example {{
            forward . {r}
            rewrite name suffix .only.example .far.example answer auto
        }}",
        c = corporate.address,
        e = everyone.address,
        s = secret.address,
        r = reliable.address
    );
    let files = Files::new(&[("Corefile", &text)]);
    let daemon =
        Daemon::start_with(&api.address().to_string(), &["--corefile", &files.flag(), "--lameduck", "0"]);
    let text = await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    assert!(flat(&text).contains(" 7 IN A 10.96.0.20"), "{text}");
    for (name, last) in [
        ("www.example.com", 80),
        ("www.corp.example", 81),
        ("www.hidden.corp.example", 80),
        ("www.consul.local", 82),
        ("www.consul.cluster.local", 82),
        ("only.example", 83),
        ("www.only.example", 83),
    ] {
        for _ in 0..2 {
            assert_eq!(answers(&daemon, &format!("+noedns {name} A")), [format!("{name}. A 192.0.2.{last}")]);
        }
    }
    assert!(everyone.asked().iter().all(|asked| asked.tcp), "force_tcp");
    assert!(everyone.asked().len() >= 4, "without cache each query is forwarded");
    assert_eq!(secret.asked().len(), 2, "with cache none twice");
    assert!(
        reliable.asked().iter().any(|asked| asked.name().eq_ignore_ascii_case("www.far.example.")),
        "rewritten names stay in their block"
    );
    assert!(
        ask(&daemon, "1-2-3-4.shop.pod.cluster.local A").contains("status: NXDOMAIN"),
        "pods disabled is CoreDNS' default"
    );
    let text = ask(&daemon, "-x 10.96.0.20");
    assert!(!text.contains("backend.shop"), "the cluster has no zone of addresses here: {text}");
}

#[test]
fn node_local_dns_cache_needs_no_cluster() {
    let (cluster, world) = (upstream(1, 300), upstream(2, 300));
    let text = include_str!("../../../corefile/tests/corefiles/node-local-dns");
    let text = text
        .replace("bind 169.254.20.10 10.96.0.10", "bind 127.0.0.1")
        .replace("10.96.0.11", &cluster.address.to_string())
        .replace("forward . /etc/resolv.conf", &format!("forward . {}", world.address));
    let files = Files::new(&[("Corefile", &text)]);
    let daemon = Daemon::start_with(NOBODY, &["--corefile", &files.flag(), "--lameduck", "0"]);
    assert_eq!(answers(&daemon, "a.shop.svc.cluster.local A"), ["a.shop.svc.cluster.local. A 192.0.2.1"]);
    assert_eq!(answers(&daemon, "www.example.com A"), ["www.example.com. A 192.0.2.2"]);
    ask(&daemon, "1.0.244.10.in-addr.arpa A");
    let names = |upstream: &ScriptedUpstream| -> Vec<String> {
        upstream.asked().iter().map(|asked| asked.name().to_ascii_lowercase()).collect()
    };
    let reverse = "1.0.244.10.in-addr.arpa.".to_owned();
    let (of_cluster, of_world) = (names(&cluster), names(&world));
    assert!(of_cluster.contains(&reverse) && !of_world.contains(&reverse), "{of_cluster:?} {of_world:?}");
    assert!(cluster.asked().iter().all(|asked| asked.tcp));
    assert!(daemon.get(1, "/ready").starts_with("HTTP/1.1 200"));
}

/// kubelet changes a ConfigMap in a pod by leading a link to another folder.
#[test]
fn a_config_map_is_followed_as_kubelet_swaps_it_and_what_is_wrong_changes_nothing() {
    let (one, two) = (upstream(1, 300), upstream(2, 300));
    let text = |upstream: &ScriptedUpstream, more: &str| {
        format!(".:53 {{\n reload\n forward . {}\n{more}\n}}\n", upstream.address)
    };
    let files = Files::new(&[]);
    let swap = |version: &str, text: &str| {
        std::fs::create_dir(files.path(version)).unwrap();
        files.put(&format!("{version}/Corefile"), text);
        symlink(version, files.path("..data_tmp")).unwrap();
        std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    };
    swap("..1", &text(&one, ""));
    symlink("..data/Corefile", files.path("Corefile")).unwrap();
    let mut daemon = Daemon::start_with(NOBODY, &["--corefile", &files.flag(), "--lameduck", "0"]);
    let answered_by = |daemon: &Daemon, last: u8| {
        answers(daemon, "www.example.com A") == [format!("www.example.com. A 192.0.2.{last}")]
    };
    assert!(answered_by(&daemon, 1));
    swap("..2", &text(&two, " hosts {\n  192.0.2.9 here.example\n  fallthrough\n }"));
    eventually("the second is in force", || answered_by(&daemon, 2));
    assert_eq!(answers(&daemon, "here.example A"), ["here.example. A 192.0.2.9"]);

    swap("..3", &text(&one, " forward b tls://192.0.2.1"));
    daemon.await_log("Corefile:4: forward: upstreams over tls:// are not supported");
    assert!(answered_by(&daemon, 2));
    let metrics = daemon.get(2, "/metrics");
    assert!(
        metrics.contains("coredns_reload_failed_total{server=")
            && metrics.contains("weft_dns_corefile_refused{"),
        "{metrics}"
    );
    let refused = |daemon: &Daemon, number: u8| {
        let metrics = daemon.get(2, "/metrics");
        let line =
            metrics.lines().find(|line| line.starts_with("weft_dns_corefile_refused{")).unwrap().to_owned();
        line.ends_with(&format!(" {number}"))
    };
    assert!(refused(&daemon, 1));
    swap("..4", &text(&one, "").replace(".:53", ".:54"));
    daemon.await_log("needs a restart");
    assert!(answered_by(&daemon, 2));
    std::fs::remove_file(files.path("..data")).unwrap();
    daemon.await_log("cannot read the Corefile");
    assert!(answered_by(&daemon, 2));
    symlink("..1", files.path("..data")).unwrap();
    eventually("the first is back in force", || answered_by(&daemon, 1) && refused(&daemon, 0));
}

#[test]
fn nothing_starts_half_right() {
    let files = Files::new(&[("Corefile", ".:53 {\n forward . 192.0.2.1\n dnssec\n}\n")]);
    let refusal = |files: &Files| failure(&["--listen", "127.0.0.1:0", "--corefile", &files.flag()]);
    let said = refusal(&files);
    assert!(
        said.contains("Corefile:3: the plugin dnssec is not supported") && said.contains("check-corefile"),
        "{said}"
    );
    files.put("Corefile", ".:53 {\n forward . /nonexistent/resolv.conf\n}\n");
    assert!(refusal(&files).contains("cannot read name servers from /nonexistent/resolv.conf"));
    files.put("Corefile", ". {\n kubernetes other.example\n}\n");
    let said = failure(&["--listen", "127.0.0.1:0", "--corefile", &files.flag(), "--zone", "cluster.local"]);
    assert!(said.contains("Corefile:2: the cluster's domain is other.example."), "{said}");
    files.put("Corefile", ". {\n bind nothing9\n forward . 192.0.2.1\n}\n");
    let said = failure(&["--corefile", &files.flag()]);
    assert!(said.contains("bind nothing9"), "{said}");
    assert!(
        failure(&["--corefile", "/nonexistent/Corefile"])
            .contains("cannot read the Corefile /nonexistent/Corefile")
    );
    let said = failure(&["--corefile", &files.flag(), "--upstream", "192.0.2.1"]);
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn a_query_log_tells_what_its_rules_want() {
    let upstream = ScriptedUpstream::start(|asked| {
        let known = asked.name().to_ascii_lowercase().starts_with("www");
        Some(if known { asked.address(1, 300) } else { asked.reply(ResponseCode::NXDomain) })
    });
    let text =
        format!(".:53 {{\n forward . {}\n log corp.example {{\n  class denial\n }}\n}}\n", upstream.address);
    let files = Files::new(&[("Corefile", &text)]);
    let mut daemon = Daemon::start_with(NOBODY, &["--corefile", &files.flag(), "--lameduck", "0"]);
    for name in ["www.corp.example", "nobody.example", "nobody.corp.example"] {
        ask(&daemon, name);
    }
    let mut line = String::new();
    while !line.contains("\"query\"") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut daemon.log, &mut line).unwrap(), 0, "it ended");
    }
    assert!(line.contains("nobody.corp.example."), "{line}");
}
