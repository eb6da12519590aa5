//! The daemon with programs that lead sockets.

use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_testkit::cgroup::{Bpffs, ControlGroup};
use weft_testkit::namespace::run_in;

use crate::machine::{Machine, SERVICES, SLICES, service, slice};

#[test]
fn programs_are_started_by_a_flag_outlive_the_daemon_and_go_with_the_flag_or_by_cleanup() {
    let (group, bpffs) = (ControlGroup::new(), Bpffs::mount());
    let mut machine = Machine::new();
    let kubeconfig = machine.server.kubeconfig().to_str().unwrap().to_owned();
    let flag = |name: &str, path: &std::path::Path| format!("--ebpf-{name}={}", path.display());
    let places = [flag("cgroup", group.path()), flag("bpffs", bpffs.path())];
    let common = ["--kubeconfig", &kubeconfig, "--hostname-override", "node1", &places[0], &places[1]];
    let with_programs = [&common[..], &["--ebpf"]].concat();
    run_in(&machine.namespace, "ip", &["address", "add", "10.244.2.2/32", "dev", "lo"]);
    run_in(&machine.namespace, "ip", &["route", "add", "10.96.0.0/16", "dev", "lo"]);
    let server = machine.namespace.run(|| std::net::TcpListener::bind("10.244.2.2:8080")).unwrap().unwrap();
    machine.server.put(SERVICES, service());
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    let peer = |machine: &Machine| {
        let connect =
            || TcpStream::connect_timeout(&"10.96.0.80:80".parse().unwrap(), Duration::from_secs(5));
        let stream = group.run(|| machine.namespace.run(connect).unwrap()).unwrap();
        // What the server was reached at, and what the client takes it for.
        (
            server.accept().unwrap().0.local_addr().unwrap().to_string(),
            stream.peer_addr().unwrap().to_string(),
        )
    };
    let translated = |machine: &Machine| {
        let counted = run_in(&machine.namespace, "cat", &["/proc/net/nf_conntrack"]);
        counted.contains("dst=10.96.0.80")
    };
    let steps = |machine: &Machine| machine.log().matches("in step with the cluster").count();

    machine.start_with(&with_programs);
    machine.until("led", |machine| machine.log().contains("sockets are led by eBPF"));
    machine.until("told", |machine| {
        machine.get(10256, "/healthz").is_ok_and(|it| it.contains("\"led\":1,\"problem\":null"))
    });
    assert!(machine.get(10249, "/metrics").unwrap().contains("kubeproxy_ebpf_frontends 1"));
    let ends = ("10.244.2.2:8080".to_owned(), "10.96.0.80:80".to_owned());
    assert_eq!(peer(&machine), ends);
    assert!(!translated(&machine));
    machine.stop(Signal::SIGKILL);
    assert_eq!(peer(&machine), ends, "they stay");
    assert!(!translated(&machine));

    machine.start_with(&with_programs);
    machine.until("in step again", |machine| steps(machine) == 2);
    machine.server.put(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
    machine.until_rules_have("10.244.2.3");
    machine.stop(Signal::SIGTERM);

    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.start_with(&common);
    machine.until("in step without programs", |machine| steps(machine) == 3);
    assert!(machine.log().contains("detached the eBPF programs of an earlier run"));
    assert_eq!(peer(&machine), ends);
    assert!(translated(&machine));
    machine.stop(Signal::SIGTERM);

    machine.start_with(&with_programs);
    machine.until("in step with programs", |machine| steps(machine) == 4);
    machine.stop(Signal::SIGTERM);
    run_in(&machine.namespace, env!("CARGO_BIN_EXE_weft-proxy"), &["--cleanup", &places[1]]);
    assert!(!bpffs.path().join("weft-proxy").exists());
    assert_eq!(machine.rules(), "");
}

#[test]
fn a_machine_without_what_programs_need_serves_services_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new();
    let kubeconfig = machine.server.kubeconfig().to_str().unwrap().to_owned();
    machine.server.put(SERVICES, service());
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    let bpffs = format!("--ebpf-bpffs={}", folder.path().display());
    machine.start_with(&["--kubeconfig", &kubeconfig, "--hostname-override", "node1", "--ebpf", &bpffs]);
    machine.until_rules_have("10.96.0.80 . tcp . 80 : 0:1");
    machine.until("told", |machine| {
        let told = machine.get(10256, "/healthz");
        told.is_ok_and(|it| {
            it.starts_with("HTTP/1.0 200") && it.contains("mount one there: mount -t bpf bpf")
        })
    });
    assert_eq!(machine.log().matches("Services are served by packets alone").count(), 1, "{}", machine.log());
}
