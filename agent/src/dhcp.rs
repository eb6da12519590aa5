//! Addresses of DHCP servers for containers of other networks (`ipam.type: dhcp`). The daemon is
//! `weft-dhcp`'s, and acts beside the rounds; here it is started, and what is wrong with leases is told.

pub(crate) mod options;

use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::info;
use weft_dhcp::daemon::{Daemon, Error as DaemonError, Settings};

use crate::subsystem::{Environment, Report, Round, Subsystem, Wake};
use crate::{Error, Result};

/// How soon it is tried again to listen, while another daemon has the socket.
const AGAIN: Duration = Duration::from_secs(5);

/// Keeps the daemon, where there is to be one.
pub(crate) struct Dhcp {
    is_on: bool,
    settings: Settings,
    wake: Wake,
    daemon: Option<Daemon>,
    tried: Option<Instant>,
    problem: Option<String>,
    leases: Gauge,
}

impl Dhcp {
    /// With these settings. Where it is not on, nothing is done but to clean up.
    pub(crate) fn new(is_on: bool, settings: Settings, registry: &mut Registry) -> Dhcp {
        let leases = Gauge::default();
        registry.register("dhcp_leases", "DHCP leases that containers have", leases.clone());
        Dhcp { is_on, settings, wake: Wake::default(), daemon: None, tried: None, problem: None, leases }
    }

    /// Another daemon may have ended, or a folder have come.
    fn listen(&mut self) {
        let is_early = self.tried.is_some_and(|tried| tried.elapsed() < AGAIN);
        if !self.is_on || self.daemon.is_some() || is_early {
            return;
        }
        self.tried = Some(Instant::now());
        let wake = self.wake.clone();
        match Daemon::start(self.settings.clone(), move || wake.wake()) {
            Ok(daemon) => (self.daemon, self.problem) = (Some(daemon), None),
            Err(error) => {
                self.problem = Some(format!("no container gets an address of a DHCP server: {error}"))
            }
        }
    }
}

impl Subsystem for Dhcp {
    fn name(&self) -> &'static str {
        "dhcp"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        self.wake = environment.wake.clone();
        // Without the API server too.
        self.listen();
        Ok(())
    }

    fn reconcile(&mut self, _round: &Round<'_>, report: &mut Report) {
        self.listen();
        report.problems(&self.problem);
        if let Some(daemon) = &self.daemon {
            report.problems(daemon.problems());
            self.leases.set(i64::try_from(daemon.leases()).unwrap_or(i64::MAX));
        }
    }

    fn clean_up(&mut self) -> Vec<Error> {
        match Daemon::clean_up(&self.settings) {
            Ok(0) => Vec::new(),
            Ok(kept) => {
                info!(kept, "left DHCP leases that containers use; clean up again once these are gone");
                Vec::new()
            }
            // The reference daemon's is none of ours.
            Err(DaemonError::Taken(_)) => Vec::new(),
            Err(problem) => vec![Error::Dhcp { problem }],
        }
    }
}
