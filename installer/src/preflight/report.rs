//! The report on a machine: one line per check, and how it prints.

use std::fmt;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::{Deserialize, Serialize};

use super::facts::{Between, Identity};
use crate::finding::{self, Finding, Id};

/// What became of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it should be.
    Pass,
    /// Weft works, but something else may not.
    Warn,
    /// Weft would not work.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Which fault that is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "finding::known")]
    pub id: Option<Id>,
}

/// All checks of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which machine.
    pub identity: Identity,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// What was heard of other nodes, where they were asked.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub between: Between,
}

fn is_nothing(between: &Between) -> bool {
    *between == Between::default()
}

impl Check {
    pub(super) fn pass(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check { name: name.into(), verdict: Verdict::Pass, found: found.into(), fix: None, id: None }
    }

    pub(super) fn warn(
        id: Id,
        name: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check { verdict: Verdict::Warn, fix: Some(fix.into()), id: Some(id), ..Check::pass(name, found) }
    }

    pub(super) fn fail(
        id: Id,
        name: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check { verdict: Verdict::Fail, ..Check::warn(id, name, found, fix) }
    }

    /// The fault of that node, where it is one.
    pub(super) fn finding(&self, node: &str) -> Option<Finding> {
        let (subject, what) = (format!("Node {node}"), format!("{}: {}", self.name, self.found));
        let id = self.id.unwrap_or(Id::Unknown);
        let finding = match self.verdict {
            Verdict::Pass => return None,
            Verdict::Warn => Finding::warning(id, subject, what),
            Verdict::Fail => Finding::error(id, subject, what),
        };
        Some(finding.fix(self.fix.clone().unwrap_or_default()))
    }
}

impl Report {
    /// Whether Weft would work: no check failed.
    pub fn passes(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Fail)
    }

    /// The report as one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING);
        for check in &self.checks {
            table.add_row([check.verdict.to_string(), check.name.clone(), check.found.clone()]);
        }
        // Lines are not padded to the right: they go into bug reports.
        for line in table.to_string().lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        for check in &self.checks {
            if let Some(fix) = &check.fix {
                writeln!(f, "\n{}: {}\n  {}", check.verdict, check.name, fix)?;
            }
        }
        Ok(())
    }
}
