//! What pods send out of the cluster leaves under their node's address: `plan` says for whom, `rules` are the
//! nf_tables tables.

pub mod plan;
pub mod rules;

use self::rules::{MasqueradeRules, TABLE};
use crate::plan::NodePlan;
use crate::subsystem::{Report, Round, Subsystem};
use crate::{Error, Result};

/// Keeps the tables as planned.
pub(crate) struct Masquerade(MasqueradeRules);

impl Masquerade {
    /// In the calling thread's network namespace.
    pub(crate) fn open() -> Result<Masquerade> {
        Ok(Masquerade(MasqueradeRules::open()?))
    }
}

impl Subsystem for Masquerade {
    fn name(&self) -> &'static str {
        "masquerade"
    }

    fn tables(&self) -> &'static [&'static str] {
        &[TABLE]
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        // A Node that registers anew has no pod CIDR for a moment. Its pods still run, and still leave the
        // cluster.
        let Some(plan) = round.plan.map(|plan| &plan.masquerade).filter(|plan| !plan.pods.is_empty()) else {
            return;
        };
        if let Err(error) = self.0.apply(plan) {
            report.blocking(error);
        }
    }

    fn clean_up(&mut self) -> Vec<Error> {
        self.0.apply(&NodePlan::default().masquerade).err().into_iter().collect()
    }
}
