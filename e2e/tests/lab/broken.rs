//! Broken on purpose: faults are made in the lab one after the other; `weft doctor` or `weft trace` must name
//! each first, and its right cause; then it is mended, and there must be nothing to say any more.
//! docs/troubleshooting.md lists what is here. What is broken on nodes is in `nodes`, in the cluster in
//! `objects`, on the way of packets in `ways`.
//!
//! `BROKEN=WORDS` tries those faults alone that are named so.

mod churn;
mod nodes;
mod objects;
mod page;
mod ways;

use std::process::Command;

use serde_json::{Value, json};

use crate::Scenario;
use crate::case::{Case, Peer, Service, echo};
use crate::lab::{Lab, Outcome, equal, holds, poll};

/// The scenarios, which disturb all others.
pub(crate) const SCENARIOS: &[Scenario] = &[
    ("broken: docs/troubleshooting.md lists every fault", page::lists_every_fault),
    ("broken: nothing is, and doctor has one line to say", nothing),
    ("broken: nothing is, while pods come and go", churn::a_few_runs),
    ("broken: objects of the cluster", |lab| all(lab, objects::FAULTS)),
    ("broken: nodes", |lab| all(lab, nodes::FAULTS)),
    ("broken: the way of packets", |lab| all(lab, ways::FAULTS)),
];
pub(crate) use churn::many_runs;

/// A fault.
struct Fault {
    /// What is broken, as people would say it.
    what: &'static str,
    named: Named,
    breaks: Breaks,
}

/// Who names it first, and how. Names in braces stand for addresses ([`Stage::filled`]).
enum Named {
    /// `weft doctor`: the id, and the object or node.
    Doctor(&'static str, &'static str),
    /// `weft trace QUESTION`: the beginning of the cause.
    Trace(&'static str, &'static str),
}

/// Makes a fault, and says how it is mended.
type Breaks = for<'a> fn(&'a Stage<'a>) -> Result<Mend<'a>, String>;
/// Mends a fault. It is called once, whatever came of it.
type Mend<'a> = Box<dyn FnOnce() -> Outcome + 'a>;

/// Where faults are made: a client on node1, a server on node2, its Service.
struct Stage<'a> {
    lab: &'a Lab,
    case: Case<'a>,
    client: Peer,
    server: Peer,
    service: Service,
}

/// The namespace of the stage.
const NAMESPACE: &str = "broken";
/// What must arrive while nothing is broken.
const WHOLE: &str = "broken/client svc/broken/web:80";

impl<'a> Stage<'a> {
    fn new(lab: &'a Lab) -> Result<Stage<'a>, String> {
        // The one before may not be gone yet.
        let case = poll("the stage", || Case::new(lab, NAMESPACE))?;
        let service = case.service("web", json!({"type": "NodePort", "externalTrafficPolicy": "Local"}))?;
        let [client, server] =
            case.run([echo("client").app("client").on("node1"), echo("one").on("node2")])?;
        Ok(Stage { lab, case, client, server, service })
    }

    /// A text with the addresses in the place of their names in braces.
    fn filled(&self, text: &str) -> String {
        let port = self.service.node_port(0).to_string();
        let client = self.client.ips[0].to_string();
        // An address of node2 that no pod has: they are given from the other end of the range.
        let server = self.server.ips[0].to_string();
        let nobody = server.rsplit_once('.').map(|(network, _)| format!("{network}.250")).unwrap_or_default();
        let names = [("{client}", &client), ("{server}", &server), ("{nobody}", &nobody), ("{port}", &port)];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn check(&self, fault: &Fault) -> Outcome {
        let mend = (fault.breaks)(self)?;
        let named = match fault.named {
            Named::Doctor(id, subject) => first(self.lab, id, subject),
            Named::Trace(question, cause) => self.traced(question, cause),
        };
        mend()?;
        named?;
        match fault.named {
            Named::Doctor(..) => silent(self.lab),
            Named::Trace(..) => self.arrives(),
        }
    }

    /// Waits until the first cause that a trace names is that one.
    fn traced(&self, question: &str, cause: &str) -> Outcome {
        let (question, cause) = (self.filled(question), self.filled(cause));
        let words: Vec<&str> = question.split(' ').collect();
        poll(&format!("{question:?}: {cause}"), || {
            let (code, text) = self.lab.weft("trace", &words)?;
            let first = text.lines().find_map(|line| line.strip_prefix("  cause")).unwrap_or_default().trim();
            equal("arrives", code == 0, false)?;
            match first.starts_with(&cause) {
                true => holds("the remedy", &text, "  fix "),
                false => Err(text),
            }
        })
    }

    fn arrives(&self) -> Outcome {
        let words: Vec<&str> = WHOLE.split(' ').collect();
        poll(WHOLE, || match self.lab.weft("trace", &words)? {
            (0, _) => Ok(()),
            (_, text) => Err(text),
        })
    }
}

/// Checks all faults, and says which are not named as they should be.
fn all(lab: &Lab, faults: &[Fault]) -> Outcome {
    let stage = Stage::new(lab)?;
    stage.arrives()?;
    silent(lab)?;
    let wanted = std::env::var("BROKEN").unwrap_or_default();
    let failed = faults.iter().filter(|fault| fault.what.contains(&wanted)).filter_map(|fault| {
        let error = stage.check(fault).err()?;
        Some(format!("{}: {error}", fault.what))
    });
    let failed: Vec<String> = failed.collect();
    let after = silent(lab);
    match failed.is_empty() {
        true => after,
        false => Err(failed.join("\n\n")),
    }
}

fn nothing(lab: &Lab) -> Outcome {
    silent(lab)?;
    let text = doctor(lab, &["--settle=1"])?.1;
    equal("lines", text.lines().count(), 1)?;
    equal("a healthy cluster", text.trim_end().ends_with(" on 3 nodes: nothing found"), true)
}

/// `weft doctor ARGUMENTS…` against the lab: its exit code, and what it printed.
fn doctor(lab: &Lab, arguments: &[&str]) -> Result<(i32, String), String> {
    let mut command = Command::new(lab.program.with_file_name("weft"));
    command.args(["doctor", "--kubeconfig"]).arg(lab.dir.kubeconfig()).args(arguments);
    let output = command.output().map_err(|error| format!("weft doctor: {error}"))?;
    match output.status.code() {
        Some(code @ (0 | 1)) => Ok((code, String::from_utf8_lossy(&output.stdout).into_owned())),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What doctor finds, the worst first.
fn findings(lab: &Lab, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let (code, text) = doctor(lab, &[arguments, &["--output=json"]].concat())?;
    let report: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let findings = report["findings"].as_array().cloned().ok_or("no findings")?;
    equal("the exit code", code, i32::from(!findings.is_empty()))?;
    Ok(findings)
}

/// Waits until nothing is found.
fn silent(lab: &Lab) -> Outcome {
    poll("doctor silent", || match findings(lab, &["--settle=1"])? {
        none if none.is_empty() => Ok(()),
        found => Err(Value::from(found).to_string()),
    })
}

/// Waits until doctor names the fault first.
fn first(lab: &Lab, id: &str, subject: &str) -> Outcome {
    poll(&format!("{id} of {subject} named first"), || {
        let found = findings(lab, &["--settle=0"])?;
        match found.first().is_some_and(|first| first["id"] == id && first["subject"] == subject) {
            true => Ok(()),
            false => Err(Value::from(found).to_string()),
        }
    })
}

/// Breaks by a command on a node, and mends by another.
fn by_command<'a>(
    stage: &'a Stage<'a>,
    node: &'static str,
    make: &str,
    mend: &str,
) -> Result<Mend<'a>, String> {
    let (make, mend) = (stage.filled(make), stage.filled(mend));
    let run = move |line: &str| stage.lab.on_node(node, &["sh", "-ec", line]).map(drop);
    if let Err(error) = run(&make) {
        // As far as it came.
        let _ = run(&mend);
        return Err(error);
    }
    Ok(Box::new(move || run(&mend)))
}
