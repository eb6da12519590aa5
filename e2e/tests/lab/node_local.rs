//! A node-local `weft-dns` at the DNS Service's own addresses, which completes searches: what it saves the
//! resolvers of glibc and musl in pods, and that their questions leave no trace in connection tracking.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use weft_lab::addressing::IpFamily;
use weft_lab::client::http;
use weft_lab::netns;

use crate::case::{Case, Peer, echo};
use crate::dns::inside;
use crate::lab::{Lab, Outcome, equal, holds, poll};
use crate::resolvers::{build, prints};

const NAMESPACE: &str = "node-local";
const NODE: &str = "node1";
const READY: u16 = 18_181;
const METRICS: u16 = 19_153;
const PATIENCE: Duration = Duration::from_secs(5);

/// The server on the node, ended when it is dropped.
struct NodeLocal<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> NodeLocal<'a> {
    /// Starts it beside the node's other server, and waits until it is ready.
    fn start(lab: &'a Lab) -> Result<NodeLocal<'a>, String> {
        let search = lab.state.path().join("resolv.conf");
        std::fs::write(&search, "").map_err(|error| error.to_string())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.name.node(NODE)]).arg(lab.program.with_file_name("weft-dns"));
        command.arg("--kubeconfig").arg(lab.dir.node(NODE).kubeconfig()).arg("--resolv-conf").arg(search);
        command.args(["--node-local", "--complete-search", "--hostname-override", NODE, "--lameduck", "0"]);
        for address in IpFamily::Dual.cluster_dns() {
            command.args(["--listen", &SocketAddr::new(address, 53).to_string()]);
        }
        command.args(["--keep-private", "none", "--upstream", &lab.outside_ips()[0].to_string()]);
        for (flag, port) in [("health", 18_080), ("ready", READY), ("metrics", METRICS)] {
            command.args([format!("--{flag}-bind-address"), format!("127.0.0.1:{port}")]);
        }
        let child = command.stderr(Stdio::null()).spawn().map_err(|error| format!("weft-dns: {error}"))?;
        let server = NodeLocal { lab, child };
        poll("the node-local server ready", || server.get(READY, "/ready"))?;
        Ok(server)
    }

    fn get(&self, port: u16, path: &'static str) -> Result<String, String> {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ask = move || Ok(http::get(server, "dns", path, PATIENCE));
        netns::run(&self.lab.name.node(NODE), ask).map_err(|error| error.to_string())?
    }

    /// How many questions of each type came over IPv4 so far: glibc asks the first server of its list, musl
    /// all of them.
    fn asked(&self) -> Result<BTreeMap<String, u64>, String> {
        let text = self.get(METRICS, "/metrics")?;
        let mut asked = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("coredns_dns_requests_total{")) {
            let label = |name: &str| line.split(&format!("{name}=\"")).nth(1)?.split('"').next();
            let count: u64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            if let (Some("1"), Some(kind)) = (label("family"), label("type")) {
                *asked.entry(kind.to_owned()).or_default() += count;
            }
        }
        Ok(asked)
    }

    /// Does the work, which must take so many questions of each type.
    fn counts(&self, what: &str, expected: &[(&str, u64)], work: impl FnOnce() -> Outcome) -> Outcome {
        let before = self.asked()?;
        work()?;
        let mut more = self.asked()?;
        more.iter_mut().for_each(|(kind, count)| *count -= before.get(kind).unwrap_or(&0));
        more.retain(|_, count| *count > 0);
        let expected = expected.iter().map(|&(kind, count)| (kind.to_owned(), count)).collect();
        equal(&format!("questions for {what}"), more, expected)
    }

    fn end(mut self) -> Outcome {
        self.signal();
        let status = self.child.wait().map_err(|error| error.to_string())?;
        equal("the server's end", status.success(), true)
    }

    fn signal(&self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        // It may have ended by itself.
        let _ = pid.map(|pid| kill(pid, Signal::SIGTERM));
    }
}

impl Drop for NodeLocal<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal();
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn searches_are_completed_and_nothing_is_tracked(lab: &Lab) -> Outcome {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let libraries = build(folder.path())?.map(|path| path.display().to_string());
    let server = NodeLocal::start(lab)?;
    let case = Case::new(lab, NAMESPACE)?;
    let web = case.service("web", json!({}))?;
    let alias = json!({"type": "ExternalName", "externalName": format!("web.{NAMESPACE}.svc.cluster.local")});
    case.create("services", &json!({"metadata": {"name": "alias"}, "spec": alias}))?;
    let [pod, _] = case.run([echo("client").app("client").on(NODE), echo("one")])?;
    let found = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (web, outside) = (found(&web.ips), found(&lab.outside_ips()));
    // By now the server knows all of them.
    prints(&case, &pod, &[&libraries[0], "addresses", &format!("alias.{NAMESPACE}")], &web)?;
    poll("the pod's searches completed", || {
        let seen = inside(&case, &pod, &["dig", "+search", "+short", "www.example.test"])?;
        equal("lines", seen.lines().count(), 2)
    })?;

    for library in &libraries {
        for (name, addresses) in [
            ("web".to_owned(), &web),
            (format!("web.{NAMESPACE}"), &web),
            (format!("web.{NAMESPACE}.svc"), &web),
            (format!("alias.{NAMESPACE}"), &web),
            ("www.example.test".to_owned(), &outside),
        ] {
            let lookup = || prints(&case, &pod, &[library, "addresses", &name], addresses);
            server.counts(&format!("{name} by {library}"), &[("A", 1), ("AAAA", 1)], lookup)?;
        }
        // Where there is nothing to be found, the resolver walks itself.
        let failing = || {
            let failed = inside(&case, &pod, &[library, "addresses", "nothing.example.test"]);
            holds("a name that does not exist", &failed.err().unwrap_or_default(), "nothing.example.test")
        };
        server.counts(&format!("nothing by {library}"), &[("A", 4), ("AAAA", 4)], failing)?;
    }
    for (record, address) in ["A", "AAAA"].into_iter().zip(&outside) {
        let dig = || answers(&case, &pod, record, address);
        server.counts(record, &[(record, 1)], dig)?;
    }
    nothing_is_tracked(&case, &pod)?;
    server.end()?;
    equal("the interface is gone", lab.on_node(NODE, &["ip", "link", "show", "weft-dns"]).is_err(), true)?;
    prints(&case, &pod, &[&libraries[0], "addresses", "web"], &web)
}

/// The alias to the name that the search leads to, and its address.
fn answers(case: &Case, pod: &Peer, record: &str, address: &str) -> Outcome {
    let name = "www.example.test";
    let text = inside(case, pod, &["dig", "+search", "+noall", "+answer", name, record])?;
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let [alias, found] = &words[..] else { return Err(text) };
    let first = format!("{name}.{NAMESPACE}.svc.cluster.local.");
    equal("the alias", [alias[0], alias[3], alias[4]], [first.as_str(), "CNAME", "www.example.test."])?;
    equal("the address", [found[0], found[3], found[4]], ["www.example.test.", record, address])
}

/// Asks both addresses over both protocols, and the node's other server, whose questions are tracked as
/// usual.
fn nothing_is_tracked(case: &Case, pod: &Peer) -> Outcome {
    let own = IpFamily::Dual.node(1);
    for ((service, node), client) in IpFamily::Dual.cluster_dns().iter().zip(&own).zip(&pod.ips) {
        for server in [service, node] {
            for protocol in ["+notcp", "+tcp"] {
                inside(
                    case,
                    pod,
                    &["dig", &format!("@{server}"), protocol, "kubernetes.default.svc.cluster.local"],
                )?;
            }
        }
        let family = if client.is_ipv4() { "ipv4" } else { "ipv6" };
        let tracked = case.lab.on_node(NODE, &["conntrack", "-L", "-f", family])?;
        let questions = tracked.lines().filter(|line| line.contains(&format!("src={client} ")));
        let questions: Vec<&str> = questions.filter(|line| line.contains("dport=53 ")).collect();
        let to = |server: &IpAddr| {
            questions.iter().filter(|line| line.contains(&format!("dst={server} "))).count()
        };
        equal(&format!("entries to {node} and {service}: {questions:?}"), (to(node), to(service)), (2, 0))?;
        equal("entries of questions", questions.len(), 2)?;
    }
    Ok(())
}
