//! The answer, from what the nodes say: as lines for people and as JSON. Pure.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::json;
use weft_policy::report::{Finding, Report};
use weft_types::Protocol;

/// Whether a connection may be made, by every family that it can be made by.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) paths: Vec<Path>,
}

/// The same for a pair of addresses.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Path {
    /// Who begins it, as people read it.
    pub(super) from: String,
    pub(super) source: IpAddr,
    /// Who is to answer.
    pub(super) to: String,
    pub(super) destination: IpAddr,
    /// `TCP port 80`, or that there is none.
    pub(super) traffic: String,
    pub(super) nodes: Vec<Report>,
    /// The nodes that do not answer, with the reason.
    pub(super) silent: Vec<String>,
}

/// As people read it.
pub(super) fn traffic(port: Option<(Protocol, u16)>) -> String {
    match port {
        Some((protocol, port)) => format!("{} port {port}", protocol.to_string().to_uppercase()),
        None => "traffic without ports, as of ping".to_owned(),
    }
}

impl Path {
    fn finding(&self) -> Finding {
        let silent = self.silent.iter().map(|_| Finding::Unknown);
        self.nodes.iter().map(Report::finding).chain(silent).max().unwrap_or(Finding::Allowed)
    }
}

impl Answer {
    /// What happens: where a family is denied what another one is allowed, it is denied.
    pub fn finding(&self) -> Finding {
        self.paths.iter().map(Path::finding).max().unwrap_or(Finding::Unknown)
    }

    /// One object.
    pub fn json(&self) -> String {
        let paths = self.paths.iter().map(|path| {
            let mut value = json!(path);
            value["finding"] = json!(path.finding());
            value
        });
        json!({"finding": self.finding(), "paths": paths.collect::<Vec<_>>()}).to_string()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.paths.iter().try_for_each(|path| write!(f, "{path}"))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Path { from, to, traffic, .. } = self;
        writeln!(f, "{}: {from} -> {to}, {traffic}", self.finding())?;
        for report in &self.nodes {
            for end in &report.ends {
                let of = end
                    .pod
                    .as_ref()
                    .map(|pod| format!(", {} of Pod {pod}", end.direction))
                    .unwrap_or_default();
                writeln!(f, "  Node {}{of}: {}", report.node, end.reason)?;
                end.place.iter().try_for_each(|place| writeln!(f, "    {place}"))?;
            }
            report.notes.iter().try_for_each(|note| writeln!(f, "  Node {}: {note}", report.node))?;
        }
        self.silent.iter().try_for_each(|silent| writeln!(f, "  {silent}"))?;
        if self.nodes.is_empty() && self.silent.is_empty() {
            writeln!(f, "  neither end is a pod with a network of its own: no policy is about it")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::report::End;

    use super::*;

    fn end(direction: &str, pod: &str, finding: Finding, reason: &str, place: &str) -> End {
        let [direction, pod, reason, place] = [direction, pod, reason, place].map(str::to_owned);
        End {
            direction,
            pod: Some(pod),
            finding,
            reason,
            policies: Vec::new(),
            rule: None,
            place: Some(place),
        }
    }

    fn path() -> Path {
        let egress = end(
            "egress",
            "shop/web",
            Finding::Allowed,
            "allowed: no policy says anything about it",
            "hook forward, accepted in chain leaving of table ip weft-policy",
        );
        let ingress = end(
            "ingress",
            "shop/db",
            Finding::Denied,
            "denied: isolated by NetworkPolicy shop/db, and no rule allows it",
            "hook forward, dropped in chain entering of table ip weft-policy",
        );
        let report = |node: &str, end| Report { node: node.to_owned(), ends: vec![end], notes: Vec::new() };
        Path {
            from: "Pod shop/web 10.244.1.2".to_owned(),
            source: "10.244.1.2".parse().unwrap(),
            to: "Pod shop/db 10.244.2.3".to_owned(),
            destination: "10.244.2.3".parse().unwrap(),
            traffic: traffic(Some((Protocol::Tcp, 5432))),
            nodes: vec![report("node1", egress), report("node2", ingress)],
            silent: Vec::new(),
        }
    }

    #[test]
    fn each_end_is_told_with_its_node_its_policy_and_its_place_in_the_kernel() {
        let answer = Answer { paths: vec![path()] };
        assert_eq!(answer.finding(), Finding::Denied);
        insta::assert_snapshot!(answer, @r"
        denied: Pod shop/web 10.244.1.2 -> Pod shop/db 10.244.2.3, TCP port 5432
          Node node1, egress of Pod shop/web: allowed: no policy says anything about it
            hook forward, accepted in chain leaving of table ip weft-policy
          Node node2, ingress of Pod shop/db: denied: isolated by NetworkPolicy shop/db, and no rule allows it
            hook forward, dropped in chain entering of table ip weft-policy
        ");
        let json: serde_json::Value = serde_json::from_str(&answer.json()).unwrap();
        assert_eq!(
            (&json["finding"], &json["paths"][0]["nodes"][1]["node"]),
            (&json!("denied"), &json!("node2"))
        );
    }

    #[test]
    fn a_node_that_does_not_answer_leaves_it_open_unless_the_other_denies() {
        let mut path = path();
        path.silent.push("Node node1 does not answer: no route".to_owned());
        path.nodes.remove(0);
        let finding = |path: &Path| Answer { paths: vec![path.clone()] }.finding();
        assert_eq!(finding(&path), Finding::Denied);
        path.nodes.clear();
        assert_eq!(finding(&path), Finding::Unknown);
        assert!(path.to_string().ends_with("\n  Node node1 does not answer: no route\n"), "{path}");
        path.silent.clear();
        assert_eq!(finding(&path), Finding::Allowed);
        assert!(path.to_string().contains("no policy is about it"), "{path}");
    }
}
