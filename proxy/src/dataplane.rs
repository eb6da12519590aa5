//! What carries out the plans of Services. The daemon, the sync loop and `--dry-run` know this trait alone;
//! what stands behind it may be tables, chains, virtual servers or programs.

pub mod ebpf;
pub mod iptables;
pub mod ipvs;
mod kernel;
mod monitor;
pub mod nftables;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Notify;
pub use weft_nftables::Author;
use weft_types::NamespacedName;

use crate::config::{Config, Ebpf, ProxyMode};
use crate::counters::ReadCounters;
use crate::error::Error;
use crate::services::plan::ServicePlan;
use crate::services::planner::Stage;

use ebpf::EbpfDataplane;
use iptables::IptablesDataplane;
use ipvs::IpvsDataplane;
use nftables::NftablesDataplane;

/// Carries out plans. It owns those that were staged: it needs them to put right what others change.
///
/// ```text
/// adopt, stage…, resync          at the start
/// stage…, commit                 for each change
/// stage…, resync                 after an error of `commit` or `resync`, and after a foreign change
/// ```
pub trait Dataplane: Stage + fmt::Debug + Send {
    /// Reads what an earlier run left. To be called before anything is staged, so that what is there and
    /// still wanted stays as it is. The next call but for those of [`Stage`] is [`Dataplane::resync`].
    ///
    /// # Errors
    /// What cannot be read.
    fn adopt(&mut self) -> Result<(), Error>;

    /// Carries out what was staged since the last commit: all of it or, where the kernel allows for that,
    /// nothing.
    ///
    /// # Errors
    /// What was refused. What is in effect then is not known until [`Dataplane::resync`].
    fn commit(&mut self) -> Result<Outcome, Error>;

    /// Brings into effect all that was ever staged, wherever the kernel is: reads what is there and corrects
    /// the difference.
    ///
    /// # Errors
    /// What cannot be read, or was refused.
    fn resync(&mut self) -> Result<(), Error>;

    /// The plan of a Service that was staged last; none where no frontend of it is served.
    fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan>;

    /// How many Services are staged.
    fn services(&self) -> usize;

    /// All that was staged, as the text that people know from the backend's own tool.
    fn render(&self) -> String;

    /// The way of a packet (`SOURCE -> ADDRESS:PORT[/PROTOCOL]`), as text for people.
    ///
    /// # Errors
    /// What of the packet cannot be understood or followed.
    fn trace(&mut self, packet: &str, through: Through) -> Result<String, Error>;

    /// What reads the counters of all Services that are staged now. It may take long, and is to be called on
    /// a thread of its own.
    fn counters(&self) -> ReadCounters;

    /// Begins to notice what others change, if it has not begun. `other_programs` is woken when they change
    /// what is theirs. Returns whether nobody has changed anything of ours since it was last brought into
    /// effect, as far as can be told.
    ///
    /// # Errors
    /// Why changes will not be noticed.
    fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error>;

    /// Whether somebody else has changed what was put into effect, which calls for [`Dataplane::resync`].
    /// Wakes the task when that may be so.
    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange>;

    /// What becomes of programs that lead sockets, where there are to be some.
    fn programs(&self) -> Option<Programs> {
        None
    }

    /// Deletes all that this or an earlier run put into effect.
    ///
    /// # Errors
    /// What was refused.
    fn clean_up(&mut self) -> Result<(), Error>;
}

/// How plans came into effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With what changed only.
    Partial,
    /// By reading all of it and correcting the difference.
    Full,
}

/// How programs that lead sockets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// How many addresses and ports they lead sockets from.
    pub led: usize,
    /// Why they do not run, if they do not.
    pub problem: Option<String>,
}

/// What a packet is traced through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// What is in effect on this machine, with what other programs do.
    Kernel,
    /// What was staged, on a machine that has nothing else.
    Staged,
}

/// A change that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignChange {
    /// By that program.
    By(Author),
    /// Notifications were lost: anything may have changed.
    Unknown,
}

/// The data plane for the calling thread's network namespace.
///
/// # Errors
/// Where the kernel cannot be used.
pub fn open(config: &Config) -> Result<Box<dyn Dataplane>, Error> {
    if config.mode == ProxyMode::Iptables {
        iptables::refuse_beside_legacy_tables()?;
    }
    kernel::tell_of_limits()?;
    Ok(EbpfDataplane::before(reachable(config)?, &config.ebpf))
}

/// The data planes of all other modes, to clean up what they left in the network namespace of the calling
/// thread.
///
/// # Errors
/// Where the kernel cannot be used.
pub fn of_other_modes(mode: ProxyMode) -> Result<Vec<Box<dyn Dataplane>>, Error> {
    let mut others: Vec<Box<dyn Dataplane>> = Vec::new();
    for other in ProxyMode::ALL.into_iter().filter(|other| *other != mode) {
        match other {
            ProxyMode::Ipvs => {
                others.extend(IpvsDataplane::left()?.map(|left| Box::new(left) as Box<dyn Dataplane>));
            }
            // The mode ipvs has the same tables, and has made them its own.
            ProxyMode::Nftables if mode == ProxyMode::Ipvs => {}
            mode => others.push(reachable(&Config { mode, ..Config::default() })?),
        }
    }
    Ok(others)
}

/// One whose way to the kernel is open.
fn reachable(config: &Config) -> Result<Box<dyn Dataplane>, Error> {
    Ok(match config.mode {
        ProxyMode::Nftables => Box::new(NftablesDataplane::open(config)?),
        ProxyMode::Iptables => Box::new(IptablesDataplane::open(config)?),
        ProxyMode::Ipvs => Box::new(IpvsDataplane::open(config)?),
    })
}

/// Deletes all that data planes of any mode put into effect in the network namespace of the calling thread.
///
/// # Errors
/// What was refused.
pub fn clean_up(ebpf: &Ebpf) -> Result<(), Error> {
    let of = |mode| offline(&Config { mode, ebpf: ebpf.clone(), ..Config::default() });
    ProxyMode::ALL.into_iter().try_for_each(|mode| of(mode).clean_up())
}

/// One that stages, renders and traces, and needs the kernel for all else only.
pub fn offline(config: &Config) -> Box<dyn Dataplane> {
    let packets: Box<dyn Dataplane> = match config.mode {
        ProxyMode::Nftables => Box::new(NftablesDataplane::new(config)),
        ProxyMode::Iptables => Box::new(IptablesDataplane::new(config)),
        ProxyMode::Ipvs => Box::new(IpvsDataplane::new(config)),
    };
    EbpfDataplane::before(packets, &config.ebpf)
}
