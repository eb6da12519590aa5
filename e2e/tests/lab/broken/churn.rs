//! Nothing is broken: pods come and go, and doctor finds nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use super::{doctor, silent};
use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, equal};

/// How often it is asked, in CI and at length.
const FEW: usize = 5;
const MANY: usize = 100;

pub(super) fn a_few_runs(lab: &Lab) -> Outcome {
    runs(lab, FEW)
}

pub(crate) fn many_runs(lab: &Lab) -> Outcome {
    runs(lab, MANY)
}

/// Every run must say one line, and nothing was found.
fn runs(lab: &Lab, count: usize) -> Outcome {
    let case = Case::new(lab, "churn")?;
    case.service("web", json!({}))?;
    case.run([echo("steady")])?;
    silent(lab)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = scope.spawn(|| churn(&case, &is_over));
        let seen = (0..count).try_for_each(|run| {
            let (code, text) = doctor(lab, &[])?;
            let is_well = code == 0 && text.lines().count() == 1;
            equal(&format!("run {run} under churn: {text}"), is_well, true)
        });
        is_over.store(true, Ordering::Relaxed);
        let churned = churn.join().map_err(|_| "the churn panicked".to_owned())??;
        seen?;
        equal("pods came and went", churned > 0, true)
    })
}

/// Pods of the Service come, get ready and go, on all nodes, until it is over. Gives how many.
fn churn(case: &Case, is_over: &AtomicBool) -> Result<usize, String> {
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let name = format!("fleeting-{count}");
        case.start(echo(&name))?;
        case.with_condition(&name, "True")?;
        case.delete("pods", &name)?;
        count += 1;
    }
    Ok(count)
}
