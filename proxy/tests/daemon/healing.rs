//! What others do to the kernel's rules and to the way to the API server, and that nothing is lost or stale
//! after it.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::machine::{Machine, NODES, SERVICES, SLICES, node, programmed, service, slice};
use weft_testkit::api_server::GoneAs;
use weft_testkit::namespace::run_in;

/// What the kernel holds, in an order of its own.
fn lines(machine: &Machine) -> Vec<String> {
    let mut lines: Vec<_> = machine.rules().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn what_another_program_destroys_is_put_back_at_once() {
    let machine = programmed();
    let rules = lines(&machine);
    for damage in [
        "flush ruleset",
        "delete element ip weft endpoints { 10.96.0.80 . tcp . 80 . 0 }",
        "delete table ip6 weft",
        "add rule ip weft services drop",
        "flush chain ip weft lb-2",
        "delete chain ip weft postrouting",
        "flush map ip weft frontends",
        "flush map ip weft dispatch",
        "add element ip weft endpoints { 10.96.0.80 . tcp . 80 . 7 : 10.9.9.9 . 9 }",
        "add chain ip weft foreign",
    ] {
        run_in(&machine.namespace, "nft", &[damage]);
        let start = Instant::now();
        machine.until(damage, |machine| lines(machine) == rules);
        println!("{damage}: put right after {:?}", start.elapsed());
    }
    let warnings = machine.log().matches("another program changed the rules").count();
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.until_rules_have("goto lb-1");
    run_in(&machine.namespace, "nft", &["add table ip other"]);
    machine.server.put(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
    machine.until_rules_have("goto lb-2");
    let log = machine.log();
    assert_eq!(
        log.matches("another program changed the rules").count(),
        warnings,
        "own changes are none: {log}"
    );
}

/// The kernel throws announcements away when nobody takes them for long (ENOBUFS).
#[test]
fn what_was_destroyed_while_announcements_were_lost_is_put_back() {
    let machine = programmed();
    let rules = lines(&machine);
    let daemon = Pid::from_raw(machine.daemon.as_ref().unwrap().id() as i32);
    kill(daemon, Signal::SIGSTOP).unwrap();
    let mut nft = machine
        .namespace
        .run(|| Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn())
        .unwrap()
        .unwrap();
    let mut flood =
        "add set ip weft flood { type ipv4_addr; }\nadd element ip weft flood { 10.0.0.0".to_owned();
    (1..200_000u32)
        .for_each(|number| flood += &format!(", {}", std::net::Ipv4Addr::from(0x0a00_0000 + number)));
    flood += " }\ndelete element ip weft endpoints { 10.96.0.80 . tcp . 80 . 0 }\n";
    nft.stdin.take().unwrap().write_all(flood.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
    kill(daemon, Signal::SIGCONT).unwrap();
    machine.until("put right", |machine| lines(machine) == rules);
    let log = machine.log();
    assert!(!log.contains("another program changed the rules"), "no announcement of it came: {log}");
}

#[test]
fn two_proxies_of_different_flags_name_each_other_and_slow_down() {
    let mut machine = programmed();
    let first = machine.daemon.take();
    let rules = lines(&machine);
    let kubeconfig = machine.server.kubeconfig().to_str().unwrap().to_owned();
    let node = ["--kubeconfig", &kubeconfig, "--hostname-override", "node1", "--masquerade-all"];
    let ports = ["--healthz-bind-address=127.0.0.1:10356", "--metrics-bind-address=127.0.0.1:10349"];
    machine.start_with(&[&node[..], &ports[..]].concat());
    let events =
        |machine: &Machine| machine.server.objects("/apis/events.k8s.io/v1/namespaces/default/events");
    machine.until("told of", |machine| events(machine).len() >= 2);
    for event in events(&machine) {
        assert_eq!(
            (&event["reason"], &event["regarding"]["name"]),
            (&json!("RulesContested"), &json!("node1"))
        );
        let note = event["note"].as_str().unwrap();
        assert!(note.starts_with("weft-proxy (process ") && note.contains("stop one of them"), "{note}");
    }
    let log = machine.log();
    assert_eq!(log.matches("another program changed the rules: weft-proxy (process ").count(), 20, "{log}");
    machine.stop(Signal::SIGTERM);
    machine.daemon = first;
    machine.until("the other one's rules are gone", |machine| lines(machine) == rules);
}

#[test]
fn a_commit_that_the_kernel_refuses_leads_to_the_difference_and_not_to_a_rebuild() {
    let machine = programmed();
    let daemon = Pid::from_raw(machine.daemon.as_ref().unwrap().id() as i32);
    let handle = |machine: &Machine| {
        let tables = run_in(&machine.namespace, "nft", &["-a", "list", "tables"]);
        tables.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let tables = handle(&machine);
    // Behind its back, what its next change deletes; and then the change, before it hears of either.
    kill(daemon, Signal::SIGSTOP).unwrap();
    run_in(&machine.namespace, "nft", &["delete element ip weft endpoints { 10.96.0.80 . tcp . 80 . 1 }"]);
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    kill(daemon, Signal::SIGCONT).unwrap();
    machine.until_rules_have("10.96.0.80 . tcp . 80 : 0:1");
    machine.until("no second slot", |machine| !machine.rules().contains("tcp . 80 . 1 :"));
    assert_eq!(handle(&machine), tables, "the tables are still the same ones");
}

#[test]
fn what_changed_while_the_api_server_was_gone_is_caught_up_with() {
    let mut machine = programmed();
    let rules = machine.rules();
    machine.server.stop();
    machine.until("noticed", |machine| machine.log().contains("cannot watch"));
    assert_eq!(machine.rules(), rules, "nothing is lost meanwhile");
    assert!(
        machine.get(10256, "/healthz").unwrap().starts_with("HTTP/1.0 200"),
        "that is no fault of this node"
    );
    machine.server.put(SLICES, slice(&["10.244.2.9"]));
    machine.server.put(NODES, node("172.30.0.19"));
    let Machine { namespace, server, .. } = &mut machine;
    namespace.run(|| server.restart()).unwrap();
    machine.until_rules_have("10.96.0.80 . tcp . 80 . 0 : 10.244.2.9 . 8080");
    machine.until_rules_have("elements = { 172.30.0.19 }");
    assert!(machine.rules().contains("goto lb-1") && !machine.rules().contains("10.244.2.3"));
}

#[test]
fn nothing_stale_stays_after_versions_are_gone() {
    for gone_as in [GoneAs::Event, GoneAs::Status] {
        let machine = programmed();
        machine.server.delete_in_silence(SERVICES, "web", gone_as);
        machine.server.close_watches();
        machine.until("no Service", |machine| !machine.rules().contains("10.96.0.80"));
        machine.server.put(SERVICES, service());
        machine.until_rules_have("10.96.0.80 . tcp . 80 : 0:2");
    }
}

#[test]
fn events_that_come_twice_or_for_services_before_their_time_change_nothing_else() {
    let machine = programmed();
    let rules = lines(&machine);
    let again = |path: &str, mut object: serde_json::Value| {
        object["metadata"]["resourceVersion"] = "1000".into();
        machine.server.send_line(path, &json!({"type": "ADDED", "object": object}).to_string());
    };
    again(SERVICES, service());
    again(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
    // Endpoints before their Service, and a Service that goes before its endpoints do.
    let mut early = slice(&["10.244.2.7"]);
    early["metadata"] = json!({
        "name": "early-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "early"},
    });
    machine.server.put(SLICES, early);
    let mut service = service();
    service["metadata"]["name"] = "early".into();
    service["spec"] =
        json!({"clusterIP": "10.96.0.70", "clusterIPs": ["10.96.0.70"], "ports": [{"port": 70}]});
    machine.server.put(SERVICES, service);
    machine.until_rules_have("10.96.0.70 . tcp . 70 . 0 : 10.244.2.7 . 8080");
    machine.server.delete(SERVICES, "early");
    machine.until("as before", |machine| lines(machine) == rules);
    machine.server.delete(SLICES, "early-1");
    machine.server.answer_once(SLICES, StatusCode::INTERNAL_SERVER_ERROR, "out of order");
    machine.server.close_watches();
    machine.server.put(SLICES, slice(&["10.244.2.3"]));
    machine.until_rules_have("goto lb-1");
    assert!(!machine.log().contains("another program"), "{}", machine.log());
}

/// Events that come a few bytes at a time, in watches that end in the midst of one, while the state goes on
/// changing: of Services behind those of their endpoints, and the other way round.
#[test]
fn a_slow_watch_loses_no_rule_and_leaves_none_stale() {
    for slow in [SERVICES, SLICES] {
        let machine = programmed();
        let rules = lines(&machine);
        machine.server.slow_down(slow);
        machine.server.close_watches();
        for round in 0..6u8 {
            let name = format!("passing-{round}");
            let mut passing = service();
            passing["metadata"]["name"] = name.clone().into();
            passing["spec"] = json!({
                "clusterIP": format!("10.96.1.{round}"), "clusterIPs": [format!("10.96.1.{round}")],
                "ports": [{"port": 70}],
            });
            machine.server.put(SERVICES, passing);
            machine.server.put(SLICES, slice(&[&format!("10.244.3.{round}"), "10.244.2.3"]));
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(u64::from(round) * 40) {
                assert!(machine.rules().contains("10.96.0.80 . tcp . 80 : 0:2"), "served meanwhile");
            }
            machine.server.delete(SERVICES, &name);
            machine.server.close_watches();
        }
        machine.until_rules_have("10.96.0.80 . tcp . 80 . 0 : 10.244.3.5 . 8080");
        machine.server.put(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
        machine.until("as before", |machine| lines(machine) == rules);
        assert!(!machine.log().contains("ERROR"), "{}", machine.log());
    }
}

/// A signal comes while every other call to the kernel is under way (EINTR).
#[test]
fn signals_in_the_midst_of_commits_and_reads_go_unnoticed() {
    let machine = programmed();
    let rules = lines(&machine);
    let record = tempfile::NamedTempFile::new().unwrap();
    let interrupter = interrupt(&machine, record.path().to_str().unwrap());
    for pods in
        [&["10.244.2.2"][..], &["10.244.2.9", "10.244.2.2", "10.244.2.8"], &["10.244.2.2", "10.244.2.3"]]
    {
        machine.server.put(SLICES, slice(pods));
        machine.until_rules_have(&format!("10.96.0.80 . tcp . 80 : 0:{}", pods.len()));
    }
    for damage in ["delete element ip weft endpoints { 10.96.0.80 . tcp . 80 . 0 }", "flush ruleset"] {
        run_in(&machine.namespace, "nft", &[damage]);
        machine.until(damage, |machine| lines(machine) == rules);
    }
    end(interrupter, Signal::SIGINT);
    let record = fs::read_to_string(record.path()).unwrap();
    for call in ["sendto", "recvfrom"] {
        // Of two threads' calls at once, each one's end has a line of its own.
        let names = [format!("{call}("), format!("{call} resumed>")];
        let interrupted = |line: &&str| {
            names.iter().any(|name| line.contains(name))
                && line.ends_with("EINTR (Interrupted system call) (INJECTED)")
        };
        assert!(record.lines().filter(interrupted).count() > 1, "{call}: {record}");
    }
    let log = machine.log();
    assert_eq!(
        log.matches("WARN").count(),
        log.matches("another program changed the rules").count(),
        "{log}"
    );
    assert!(!log.contains("ERROR"), "{log}");
}

/// Lets every other call that the daemon makes at its netlink sockets fail as one does into which a signal
/// comes. What happened is recorded.
fn interrupt(machine: &Machine, record: &str) -> Child {
    let daemon = machine.daemon.as_ref().unwrap().id();
    let netlink = fs::read_to_string(format!("/proc/{daemon}/net/netlink")).unwrap();
    let sockets: Vec<String> = netlink
        .lines()
        .skip(1)
        .flat_map(|line| ["-P".to_owned(), format!("socket:[{}]", line.split_whitespace().last().unwrap())])
        .collect();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-p", &daemon.to_string(), "-o", record]).args(sockets);
    strace.args(["-e", "trace=sendto,recvfrom", "-e", "inject=sendto,recvfrom:error=EINTR:when=1+2"]);
    let strace = strace.stderr(Stdio::null()).spawn().unwrap();
    machine.until("every thread is watched", |_| {
        let threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
        let mut states = threads
            .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default());
        states.all(|state| !state.contains("TracerPid:\t0"))
    });
    strace
}

fn end(mut program: Child, signal: Signal) {
    kill(Pid::from_raw(program.id() as i32), signal).unwrap();
    program.wait().unwrap();
}
