//! The CNI configuration of this node, which tells the runtime that pods can start: `plan` says what it
//! holds, `file` writes it. So it comes last, and only where nothing keeps pods from starting. Where the
//! plugin itself says that it could start none, runtimes are told by it; the configuration stays.

pub mod file;
pub mod plan;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::info;

use crate::cni_config::plan::FILE;
use crate::subsystem::{Report, Round, Subsystem};
use crate::{Error, Result, plugin};

/// How often the plugin is asked whether it could start a pod.
const ASK: Duration = Duration::from_secs(10);

/// Keeps the file as planned.
pub(crate) struct CniConfig {
    conf_dir: PathBuf,
    bin_dir: PathBuf,
    /// When the plugin was asked last, and why it could start no pod then.
    asked: Option<(Instant, Option<String>)>,
}

impl Subsystem for CniConfig {
    fn name(&self) -> &'static str {
        "cni-config"
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        let text = round.plan.and_then(|plan| plan.cni_config_text()).filter(|_| !report.is_blocked());
        let installed = text.map(|text| self.install(&text).map(|()| text));
        match installed {
            Some(Ok(text)) => {
                if let Some(refusal) = self.refusal(&text) {
                    report.blocking(refusal);
                }
            }
            Some(Err(error)) => {
                report.blocking(error);
                self.withdraw(report);
            }
            None => {
                report.block();
                self.withdraw(report);
            }
        }
        if round.plan.is_some() {
            report.problems(file::first(&self.conf_dir).err());
        }
    }

    fn clean_up(&mut self) -> Vec<Error> {
        file::remove(&self.conf_dir).err().into_iter().collect()
    }
}

impl CniConfig {
    /// For the folders of configurations and of plugins.
    pub(crate) fn new(conf_dir: PathBuf, bin_dir: PathBuf) -> CniConfig {
        CniConfig { conf_dir, bin_dir, asked: None }
    }

    fn install(&self, text: &str) -> Result<()> {
        file::check_plugin(&self.bin_dir)?;
        if file::install(&self.conf_dir, text)? {
            info!("wrote the CNI configuration {}", self.conf_dir.join(FILE).display());
        }
        Ok(())
    }

    fn withdraw(&self, report: &mut Report) {
        report.problems(file::withdraw(&self.conf_dir).err());
    }

    /// Why the plugin could start no pod with this configuration, as its STATUS has it. Asked at most every
    /// [`ASK`].
    fn refusal(&mut self, text: &str) -> Option<String> {
        if self.asked.as_ref().is_none_or(|(moment, _)| moment.elapsed() >= ASK) {
            let config = plugin::config(text.as_bytes()).unwrap_or_default();
            let refusal = plugin::status(&self.bin_dir, &config).err();
            let told = refusal.map(|reason| format!("no pod can start on this node: {reason}"));
            self.asked = Some((Instant::now(), told));
        }
        self.asked.as_ref().and_then(|(_, refusal)| refusal.clone())
    }
}
