//! What `weft doctor` says: one short paragraph for each finding, the worst first; one line where nothing is
//! found.

use std::fmt;

use serde::Serialize;

use crate::finding::{Finding, Severity};

/// What came of looking at a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many objects and machines were looked at.
    pub checked: usize,
    /// How many nodes.
    pub nodes: usize,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_well(&self) -> bool {
        self.findings.is_empty()
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_well() {
            let (checked, nodes) = (self.checked, self.nodes);
            let plural = if nodes == 1 { "" } else { "s" };
            return writeln!(f, "checked {checked} things on {nodes} node{plural}: nothing found");
        }
        for (position, finding) in self.findings.iter().enumerate() {
            let word = match finding.severity {
                Severity::Error => "ERROR",
                Severity::Warning => "WARNING",
            };
            let gap = if position == 0 { "" } else { "\n" };
            let since = finding.since.as_ref().map(|since| format!(", since {since}")).unwrap_or_default();
            writeln!(f, "{gap}{word} {finding} ({}{since})", finding.id)?;
            if !finding.fix.is_empty() {
                writeln!(f, "  fix: {}", finding.fix)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Id;

    #[test]
    fn a_healthy_cluster_has_one_line() {
        let report = Report { checked: 42, nodes: 3, findings: Vec::new() };
        assert_eq!(report.to_string(), "checked 42 things on 3 nodes: nothing found\n");
    }

    #[test]
    fn each_finding_is_a_paragraph_with_its_fix() {
        let first = Finding::error(Id::AgentSilent, "Node node1", "its agent does not answer").fix("Look");
        let second =
            Finding::warning(Id::ClockSkew, "Node node2", "30 s behind").since(Some("2026-01-01T00:00:00Z"));
        let report = Report { checked: 2, nodes: 2, findings: vec![first, second] };
        assert_eq!(
            report.to_string(),
            "ERROR Node node1: its agent does not answer (agent-silent)\n  fix: Look\n\n\
             WARNING Node node2: 30 s behind (clock-skew, since 2026-01-01T00:00:00Z)\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["findings"][0]["id"], "agent-silent");
        assert_eq!(json["findings"][1]["since"], "2026-01-01T00:00:00Z");
    }
}
