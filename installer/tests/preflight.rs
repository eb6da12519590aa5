//! `weft preflight` in network namespaces: a clean one passes, and each fault that is put into one is found,
//! with what to do about it. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use weft_netlink::netns::Namespace;
use weft_nftables::{Client, Family, Observed, Rule, Statement, Table, diff};
use weft_testkit::namespace::{cable, end, sh};

/// Makes a namespace into a machine on which Weft can work.
const CLEAN: &str = "ip link set lo up
    ip link add eth0 type veth peer name wire
    ip addr add 192.0.2.11/24 dev eth0 && ip link set eth0 up && ip link set wire up
    ip route add default via 192.0.2.1
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";

struct Machine {
    namespace: Namespace,
    cni: tempfile::TempDir,
}

/// It ends with this.
struct Pod(Child);

impl Pod {
    fn report(&mut self) -> Value {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(self.0.try_wait().unwrap(), None, "it stays, or it would be started again");
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    fn clean() -> Machine {
        let machine =
            Machine { namespace: Namespace::temporary().unwrap(), cni: tempfile::tempdir().unwrap() };
        machine.sh(CLEAN);
        machine
    }

    fn with(fault: &str) -> Machine {
        let machine = Machine::clean();
        machine.sh(fault);
        machine
    }

    fn sh(&self, line: &str) {
        sh(&self.namespace, &format!("set -e\n{line}"));
    }

    fn preflight(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.arg("preflight").arg("--cni-conf-dir").arg(self.cni.path()).args(flags);
        self.namespace.run(|| command.output()).unwrap().unwrap()
    }

    /// A pod with hostNetwork on this machine.
    fn pod(&self, flags: &[&str]) -> Pod {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(["preflight-pod", "--host-root=/"]).arg("--cni-conf-dir").arg(self.cni.path());
        command.args(flags).stdout(Stdio::piped());
        Pod(self.namespace.run(|| command.spawn()).unwrap().unwrap())
    }

    /// What it prints.
    fn pod_report(&self) -> Value {
        self.pod(&[]).report()
    }

    fn report(&self, flags: &[&str]) -> Value {
        let output = self.preflight(&[&["--output", "json"], flags].concat());
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let has_failed = report["checks"].as_array().unwrap().iter().any(|check| check["verdict"] == "fail");
        assert_eq!(output.status.code(), Some(i32::from(has_failed)), "{report:#}");
        report
    }

    /// What is checked under names that begin so, by the rest of the name, with these file systems.
    fn checks_with(&self, mounts: &str, flag: &str, part: &str) -> Vec<(String, Value)> {
        let script = format!("{mounts}; exec \"$0\" preflight {flag} --output=json --cni-conf-dir=/nowhere");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_weft")]);
        let output = self.namespace.run(|| command.output()).unwrap().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        let of_part = checks.filter_map(|check| {
            Some((check["name"].as_str()?.strip_prefix(part)?.to_owned(), check.clone()))
        });
        of_part.collect()
    }

    /// The one check that does not pass, `NAME: FOUND`, and its fix.
    fn fault(&self, flags: &[&str]) -> (String, String) {
        let report = self.report(flags);
        let checks = report["checks"].as_array().unwrap().iter();
        // Whether the machine that tests run on has a container runtime is not the matter.
        let faults: Vec<&Value> = checks
            .filter(|check| check["verdict"] != "pass" && check["name"] != "container runtime")
            .collect();
        let [fault] = faults.as_slice() else { panic!("not one fault: {faults:#?}") };
        let text = |key: &str| fault[key].as_str().unwrap_or_default().to_owned();
        (format!("{} {}: {}", text("verdict"), text("name"), text("found")), text("fix"))
    }
}

#[track_caller]
fn finds(machine: &Machine, flags: &[&str], found: &str, fix: &str) {
    let (text, remedy) = machine.fault(flags);
    assert!(text.contains(found), "{text}");
    assert!(remedy.contains(fix), "{remedy}");
}

#[test]
fn a_clean_machine_passes_and_stays_as_it_is() {
    let machine = Machine::clean();
    let report = machine.report(&["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"]);
    let checks = report["checks"].as_array().unwrap();
    for check in checks.iter().filter(|check| check["name"] != "container runtime") {
        assert_eq!(check["verdict"], "pass", "{check:#}");
    }
    assert!(
        checks.iter().filter(|check| check["name"].as_str().unwrap().starts_with("kernel: ")).count() >= 6
    );
    assert_eq!(report["identity"]["macs"][0]["link"], "eth0");
    machine.sh(r#"test -z "$(nft list ruleset)" && test "$(ls /sys/class/net | wc -l)" -ge 2 && ! ip link show near"#);
    let table = machine.preflight(&[]);
    assert!(table.status.success());
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.lines().any(|line| line.contains("pass") && line.contains("net.ipv4.ip_forward")), "{text}");
}

#[test]
fn a_default_route_that_forwarding_would_cost_is_found() {
    let link = "ip link add eth7 type veth peer name far7 && ip link set eth7 up && ip link set far7 up && \
                ip addr add fd00:7::2/64 dev eth7 nodad";
    let route = "ip -6 route add default via fd00:7::1 dev eth7 proto ra expires 1800";
    let ipv6 = ["--cluster-cidr", "fd00:10:244::/56"];
    let fault = Machine::with(&format!("{link} && {route}"));
    finds(
        &fault,
        &ipv6,
        "warn router advertisements: the IPv6 default route of eth7 is lost",
        "sysctl -w net.ipv6.conf.eth7.accept_ra=2",
    );
}

#[test]
fn forwarding_that_is_off_is_found() {
    let fault = Machine::with("sysctl -qw net.ipv4.ip_forward=0");
    finds(&fault, &[], "fail net.ipv4.ip_forward: 0", "sysctl -w net.ipv4.ip_forward=1");
    let fault = Machine::with("sysctl -qw net.ipv6.conf.all.forwarding=0");
    let ipv6 = ["--cluster-cidr", "fd00:10:244::/56"];
    finds(&fault, &ipv6, "fail net.ipv6.conf.all.forwarding: 0", "sysctl -w net.ipv6.conf.all.forwarding=1");
}

#[test]
fn a_port_in_use_is_found_with_its_holder() {
    let machine = Machine::clean();
    let held = machine.namespace.run(|| TcpListener::bind("127.0.0.1:10256")).unwrap().unwrap();
    let process = std::process::id().to_string();
    finds(&machine, &[], "fail port tcp/10256: ", &format!("process {process}"));
    drop(held);
    let held = machine.namespace.run(|| UdpSocket::bind("0.0.0.0:8472")).unwrap().unwrap();
    finds(&machine, &[], "fail port udp/8472: ", &process);
    drop(held);
    let held = machine.namespace.run(|| TcpListener::bind("127.0.0.1:10242")).unwrap().unwrap();
    assert!(machine.preflight(&[]).status.success(), "not all nodes have a DNS server");
    finds(&machine, &["--node-local-dns"], "fail port tcp/10242: ", &process);
    drop(held);
    let _held = machine.namespace.run(|| TcpListener::bind("[::]:30080")).unwrap().unwrap();
    finds(&machine, &[], "warn node ports: tcp/30080", "below 30000");
}

#[test]
fn the_tunnel_port_is_busy_for_another_network_and_not_for_weft() {
    let device = |name: &str| {
        format!(
            "ip link add {name} type vxlan id 1 local 192.0.2.11 dstport 8472 nolearning && ip link set {name} up"
        )
    };
    assert_eq!(Machine::with(&device("weft-vxlan")).report(&[])["checks"].as_array().map(|_| ()), Some(()));
    let own = Machine::with(&device("weft-vxlan")).preflight(&[]);
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stdout));
    finds(
        &Machine::with(&device("overlay0")),
        &[],
        "fail port udp/8472: the kernel",
        "ip -d link show type vxlan",
    );
}

#[test]
fn what_encryption_needs_is_looked_for_where_it_is_asked_for() {
    let machine = Machine::clean();
    let held = machine.namespace.run(|| UdpSocket::bind("0.0.0.0:51820")).unwrap().unwrap();
    assert!(machine.preflight(&[]).status.success(), "nobody asked for it");
    let check = |name: &str| {
        let report = machine.report(&["--backend=wireguard"]);
        let mut checks = report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).cloned()
    };
    let port = check("port udp/51820").unwrap();
    let process = format!("(process {})", std::process::id());
    assert!(port["verdict"] == "fail" && port["fix"].as_str().unwrap().contains(&process), "{port}");
    drop(held);
    assert_eq!(check("port udp/51820").unwrap()["verdict"], "pass");
    assert_eq!(check("port udp/8472"), None, "the other tunnel's");
    // The kernel may have it or not.
    let kernel = check("kernel: WireGuard devices").unwrap();
    assert!(
        kernel["verdict"] == "pass" || kernel["fix"].as_str().unwrap().contains("modprobe wireguard"),
        "{kernel}"
    );
}

#[test]
fn ranges_that_overlap_are_found_by_name() {
    let machine = Machine::clean();
    let overlap = "the pods' range 10.96.0.0/16 overlaps the Services' range 10.96.0.0/12";
    finds(&machine, &["--cluster-cidr", "10.96.0.0/16"], overlap, "--service-cidr");
    let overlap = "the pods' range 192.0.0.0/16 overlaps the network 192.0.2.0/24 on eth0";
    finds(&machine, &["--cluster-cidr", "192.0.0.0/16"], overlap, "--cluster-cidr");
    machine.sh("ip route add 10.244.7.0/24 via 192.0.2.7");
    finds(&machine, &[], "overlaps the network 10.244.7.0/24 on eth0", "remove the route");
    machine.sh("ip route replace 10.244.7.0/24 via 192.0.2.7 proto 119");
    assert!(machine.preflight(&[]).status.success(), "Weft's own routes are no conflict");
}

#[test]
fn other_pod_networks_are_found() {
    let machine = Machine::clean();
    std::fs::write(machine.cni.path().join("10-flannel.conflist"), "{}").unwrap();
    std::fs::write(machine.cni.path().join("10-weft.conflist"), "{}").unwrap();
    finds(
        &machine,
        &[],
        "fail other pod networks: the CNI configuration 10-flannel.conflist",
        "ip link delete",
    );
    let fault = Machine::with("ip link add flannel.1 type bridge");
    finds(&fault, &[], "the interface flannel.1 (Flannel)", "Uninstall");
}

#[test]
fn kube_proxy_is_found_in_each_of_its_modes() {
    let fix = "delete daemonset kube-proxy";
    let iptables = "nft add table ip nat; nft add chain ip nat KUBE-SERVICES";
    finds(&Machine::with(iptables), &[], "fail kube-proxy: rules in table ip nat", fix);
    // A set of a kind that Weft never makes must not keep it from looking.
    let nftables = "nft add table ip6 kube-proxy; nft add chain ip6 kube-proxy services; nft add set ip6 kube-proxy \
                    affinity '{ type ipv6_addr; flags dynamic, timeout; timeout 3h; }'";
    finds(&Machine::with(nftables), &[], "rules in table ip6 kube-proxy", fix);
    finds(&Machine::with("ip link add kube-ipvs0 type bridge"), &[], "the interface kube-ipvs0", fix);
    let kubelet =
        "nft add table ip nat; nft add chain ip nat KUBE-MARK-MASQ; nft add chain ip nat KUBE-KUBELET-CANARY";
    assert!(Machine::with(kubelet).preflight(&[]).status.success(), "a kubelet's own chains are no conflict");
}

/// What `weft-proxy` makes in its other modes.
#[test]
fn chains_and_an_interface_of_kube_proxy_that_are_wefts_own_are_no_conflict() {
    for (table, chain, link) in [("nat", "KUBE-SERVICES", ""), ("weft", "prerouting", "kube-ipvs0")] {
        let machine = match link {
            "" => Machine::clean(),
            link => Machine::with(&format!("ip link add {link} type bridge")),
        };
        let mut planned = Table::new(Family::Ip, table);
        planned.chain(chain, None, vec![Rule::new([Statement::masquerade()])]);
        let put = || Client::open()?.commit(&diff(&[planned], &Observed::default()));
        machine.namespace.run(put).unwrap().unwrap();
        let told = machine.preflight(&[]);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    }
}

#[test]
fn what_ebpf_lacks_is_warned_of_where_it_is_asked_for() {
    let machine = Machine::clean();
    let said = |mounts: &str| -> Vec<String> {
        let checks = machine.checks_with(mounts, "--proxy-ebpf", "eBPF: ");
        let verdicts =
            checks.iter().map(|(name, check)| format!("{name} {}", check["verdict"].as_str().unwrap()));
        verdicts.collect()
    };
    let without = said("umount -l /sys/fs/bpf 2>/dev/null; umount -lR /sys/fs/cgroup");
    assert_eq!(without, ["kernel pass", "cgroups warn", "pins warn"]);
    let with = said("mount -t bpf bpf /sys/fs/bpf && mount -t cgroup2 cgroup /sys/fs/cgroup");
    assert_eq!(with, ["kernel pass", "cgroups pass", "pins pass"]);
    let names = machine.report(&[])["checks"].to_string();
    assert!(!names.contains("eBPF"), "nobody asked: {names}");
}

#[test]
fn what_the_fast_path_lacks_is_warned_of_where_it_is_asked_for() {
    let machine = Machine::clean();
    let said =
        |mounts: &str| machine.checks_with(mounts, "--fast-path=ebpf", "fast path: ").remove(0).1.to_string();
    let with = said("true");
    assert!(with.contains(r#""pass""#), "{with}");
    let without = said("mount -t tmpfs types /sys/kernel/btf");
    assert!(without.contains(r#""warn""#) && without.contains("Linux 6.6"), "{without}");
    let names = machine.report(&[])["checks"].to_string();
    assert!(!names.contains("fast path"), "nobody asked: {names}");
}

#[test]
fn another_engine_of_network_policies_is_found() {
    let kube_router =
        "nft 'add table ip filter; add chain ip filter KUBE-POD-FW-X; add chain ip filter KUBE-NWPLCY-Y'";
    let fix = "--network-policy=false";
    finds(
        &Machine::with(kube_router),
        &[],
        "warn network policies: rules of kube-router in table ip filter",
        fix,
    );
    let queue = "nft 'add table inet kube-network-policies; add chain inet kube-network-policies p { type filter hook \
                 postrouting priority 95; }'";
    finds(&Machine::with(queue), &[], "rules of kube-network-policies or kindnet in table inet kube-", fix);
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_found() {
    let fault = Machine::with(
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    finds(&fault, &[], "ip filter FORWARD", "iptables -P FORWARD ACCEPT");
}

#[test]
fn a_firewall_of_both_families_under_any_name_is_found() {
    let fault = Machine::with(
        "nft 'add table inet fire; add chain inet fire way { type filter hook forward priority 9; policy drop; }'",
    );
    finds(&fault, &[], "inet fire way", "Let the pods' ranges through");
}

#[test]
fn machines_that_are_copies_of_each_other_are_found() {
    let one = Machine::clean();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.json");
    let report = one.report(&[]);
    let against = |report: &Value| {
        std::fs::write(&path, report.to_string()).unwrap();
        ["--against".to_owned(), path.display().to_string()]
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut other = report.clone();
        other["identity"] = serde_json::json!({"hostname": "other", "machine_id": "other", "macs": []});
        change(&mut other["identity"]);
        against(&other)
    };
    let check = |flags: [String; 2], found: &str, fix: &str| {
        finds(&one, &flags.each_ref().map(String::as_str), found, fix);
    };
    let own = &report["identity"];
    check(
        with(&|other| other["hostname"] = own["hostname"].clone()),
        "fail hostname: another node",
        "set-hostname",
    );
    check(
        with(&|other| other["macs"] = own["macs"].clone()),
        "fail Ethernet addresses: other has",
        "of its own",
    );
    let mac = own["macs"][0]["mac"].as_str().unwrap();
    one.sh(&format!("ip neigh replace 192.0.2.99 lladdr {mac} dev eth0 nud reachable"));
    finds(&one, &[], "fail Ethernet addresses: 192.0.2.99 has that of eth0", "of its own");
}

#[test]
fn a_report_that_cannot_be_read_is_named() {
    let output = Machine::clean().preflight(&["--against", "/no/such/report"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/no/such/report") && text.contains("--output json"), "{text}");
    assert!(!Path::new("/no/such/report").exists());
}

#[test]
fn a_pod_on_the_node_sees_what_the_command_on_the_node_sees() {
    let machine = Machine::with("sysctl -qw net.ipv4.ip_forward=0");
    assert_eq!(machine.pod_report(), machine.report(&[]));
}

/// Two machines on one link, of which the second drops what comes to the tunnel, and has the port of BFD already.
#[test]
fn nodes_ask_each_other_at_the_ports_that_they_need() {
    let machines = [Machine::clean(), Machine::clean()];
    machines.iter().for_each(|machine| machine.sh("ip link del eth0"));
    cable(
        &end(&machines[0].namespace, "eth0", ["192.0.2.1/24"]),
        &end(&machines[1].namespace, "eth0", ["192.0.2.2/24"]),
    );
    machines[1]
        .sh("nft add table ip closed; nft 'add chain ip closed in { type filter hook input priority 0; }'
        nft add rule ip closed in udp dport 51820 drop");
    let _held = machines[1].namespace.run(|| UdpSocket::bind("0.0.0.0:3784")).unwrap().unwrap();
    let flags = ["--tunnel=wireguard", "--load-balancers", "--peers=a=192.0.2.1,b=192.0.2.2", "--patience=6"];
    let mut pods: Vec<Pod> = machines.iter().map(|machine| machine.pod(&flags)).collect();
    let [one, two] = [0, 1].map(|pod| pods[pod].report());
    let heard = |report: &Value| -> Vec<String> {
        let attempts = report["between"]["attempts"].as_array().unwrap();
        let words = |it: &Value| {
            let text = |field: &str| it[field].as_str().unwrap().to_owned();
            format!("{} {}/{} {}", text("node"), text("transport"), it["port"], text("outcome"))
        };
        attempts.iter().map(words).collect()
    };
    assert_eq!(heard(&one), ["b udp/51820 silent", "b tcp/10246 answered", "b udp/3784 silent"]);
    assert_eq!(heard(&two), ["a udp/51820 answered", "a tcp/10246 answered", "a udp/3784 answered"]);
    assert_eq!(two["between"]["held"], serde_json::json!([["udp", 3784]]));
    assert_eq!(one["between"].get("held"), None);
}
