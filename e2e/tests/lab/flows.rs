//! `weft flows` against a whole cluster: what pods really do is told, by one node each, with the names of pods
//! and Services, and what a policy denies with its name.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::case::{Case, Peer, Service, echo};
use crate::dns::inside;
use crate::lab::{Lab, Outcome, equal, holds, poll};
use crate::probe::{Via, ask, dropped, served};

const NAMESPACE: &str = "flows";

struct Shop<'a> {
    case: Case<'a>,
    client: Peer,
    server: Peer,
    service: Service,
}

impl Shop<'_> {
    /// What agents remember of this namespace and what comes in a second, a flow a line.
    fn flows(&self, flags: &[&str]) -> Result<String, String> {
        let fixed = ["--namespace", NAMESPACE, "--for", "1", "--last", "1000"];
        let (code, text) = self.case.lab.weft("flows", &[&fixed, flags].concat())?;
        if code == 0 { Ok(text) } else { Err(format!("it exits with {code}:\n{text}")) }
    }

    /// Does something until a line of what is told has all these parts. Gives the line.
    fn tells(&self, act: impl Fn() -> Outcome, flags: &[&str], parts: &[&str]) -> Result<String, String> {
        poll(&format!("a flow {parts:?}"), || {
            act()?;
            let text = self.flows(flags)?;
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            text.lines().find(has_all).map(str::to_owned).ok_or(text)
        })
    }
}

pub(crate) fn who_talks_with_whom(lab: &Lab) -> Outcome {
    let case = Case::new(lab, NAMESPACE)?;
    let service = case.service("web", json!({}))?;
    let [client, server] = case.run([echo("client").app("client").on("node1"), echo("one").on("node2")])?;
    let shop = Shop { case, client, server, service };
    for node in lab.nodes()? {
        lab.on_node(&node, &["sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1"])?;
    }
    let outcome = connections(&shop).and_then(|()| questions(&shop)).and_then(|()| denials(&shop));
    for node in lab.nodes()? {
        lab.on_node(&node, &["sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0"])?;
    }
    outcome?;
    let (code, text) = lab.weft("flows", &["--node", "node7"])?;
    equal("a node that is not there", (code, text.contains("there is no Node node7")), (1, true))
}

/// In both families, from the first packet to what was carried.
fn connections(shop: &Shop<'_>) -> Outcome {
    for (at, ip) in shop.service.at(80).into_iter().zip(&shop.server.ips) {
        let get = || served(&shop.client.netns, Via::Http, at, &["one"]);
        let begins = [" node1  allowed  flows/client:", " -> svc/flows/web:80 (flows/one:8080) TCP begins"]
            .map(|part| part.replace(" node1", "  node1"));
        shop.tells(get, &[], &[&begins[0], &begins[1]])?;
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        let end = || {
            let vip = at.ip().to_string();
            // Where there is none left, that is what is wanted.
            let line = ["conntrack", "-D", "-f", family, "-d", &vip];
            shop.case.lab.on_node("node1", &line).map(drop).or(Ok(()))
        };
        let ends = ["node1", "flows/client:", "svc/flows/web:80", " ends, sent ", " packets ", ", received "];
        shop.tells(end, &["--pod", "one"], &ends)?;
    }
    let text = shop.flows(&["--verdict", "allowed"])?;
    let doubled = |line: &&str| line.contains("  node2  ") && line.contains("  flows/client:");
    equal("what node2 tells of the client's connections", text.lines().find(doubled), None)?;

    // As it happens, as objects.
    let mut command = Command::new(shop.case.lab.program.with_file_name("weft"));
    command.args(["flows", "--follow", "--output", "json", "--last", "0", "--pod", "flows/client"]);
    command.arg("--kubeconfig").arg(shop.case.lab.dir.kubeconfig());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
    let at = shop.service.at(80)[0];
    let netns = shop.client.netns.clone();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // Connections until one is told of.
    let asking = std::thread::spawn(move || {
        while is_done
            .recv_timeout(std::time::Duration::from_millis(200))
            .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            ask(&netns, Via::Http, at, "hostname");
        }
    });
    let object = lines.map_while(Result::ok).find_map(|line| {
        let object: Value = serde_json::from_str(&line).ok()?;
        (object["event"] == "begins" && object["destination"]["service"] == "flows/web").then_some(object)
    });
    drop(done);
    let _ = asking.join();
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    let object = object.ok_or("nothing is told as it happens")?;
    let names = [&object["source"]["pod"], &object["endpoint"]["pod"], &object["node"], &object["verdict"]];
    equal(
        "its names",
        names.map(Value::as_str),
        ["flows/client", "flows/one", "node1", "allowed"].map(Some),
    )?;
    equal(
        "its protocol and port",
        (&object["protocol"], &object["destination"]["port"]),
        (&json!("TCP"), &json!(80)),
    )
}

/// What the pod asks DNS, step by step as its resolver does, and who answers.
fn questions(shop: &Shop<'_>) -> Outcome {
    let dig = |name: &'static str| {
        move || inside(&shop.case, &shop.client, &["dig", "+notcp", "+search", "+short", name]).map(drop)
    };
    let asks = "flows/client:";
    let found = "-> svc/kube-system/kube-dns:53 UDP asks web.flows.svc.cluster.local. A: NOERROR";
    shop.tells(dig("web"), &[], &[asks, found])?;
    let missing = "asks gone.flows.svc.cluster.local. A: NXDOMAIN";
    shop.tells(dig("gone"), &["--pod", "flows/client"], &[asks, missing]).map(drop)
}

/// What a policy denies, and only that.
fn denials(shop: &Shop<'_>) -> Outcome {
    let spec =
        json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": []});
    shop.case.create("networkpolicies", &json!({"metadata": {"name": "closed"}, "spec": spec}))?;
    let outcome = shop.server.ips.iter().try_for_each(|ip| {
        let get = || dropped(&shop.client.netns, Via::Http, SocketAddr::new(*ip, 8080));
        let told =
            "-> flows/one:8080 TCP ingress: isolated by NetworkPolicy flows/closed, and no rule allows it";
        let line = shop.tells(get, &["--verdict", "denied"], &["  node2  denied   flows/client:", told])?;
        holds("the line", &line, "flows/client")?;
        let all = shop.flows(&["--verdict", "denied"])?;
        let other = all.lines().find(|line| !line.contains("  denied   ") && !line.starts_with("weft: "));
        equal("what else is told", other, None)
    });
    shop.case.delete("networkpolicies", "closed")?;
    outcome
}
