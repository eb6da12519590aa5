//! The flags of the mode ipvs, which have kube-proxy's names. Pure.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use weft_netlink::genl::ipvs::Timeouts;
use weft_types::IpNetwork;

use crate::limits::duration;

/// How often kube-proxy compares.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// What is for the mode ipvs alone.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct IpvsOptions {
    /// For --proxy-mode=ipvs: how virtual servers choose among endpoints.
    #[arg(long = "ipvs-scheduler", value_name = "SCHEDULER", default_value = "rr")]
    pub scheduler: Scheduler,

    /// For --proxy-mode=ipvs: CIDRs whose virtual servers are others', and are left alone.
    #[arg(long = "ipvs-exclude-cidrs", value_name = "CIDR", value_delimiter = ',')]
    pub exclude_cidrs: Vec<IpNetwork>,

    /// For --proxy-mode=ipvs: answer ARP only for addresses of the interface that is asked (arp_ignore 1,
    /// arp_announce 2), as announcers of load balancers' addresses need it.
    #[arg(long = "ipvs-strict-arp", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub strict_arp: bool,

    /// For --proxy-mode=ipvs: how often to look for changes that others made to virtual servers, of which the
    /// kernel does not tell [default: 30s].
    #[arg(long = "ipvs-sync-period", value_name = "TIME", value_parser = duration)]
    pub sync_period: Option<Duration>,

    /// For --proxy-mode=ipvs: timeout of idle TCP connections; 0s leaves the kernel's as it is.
    #[arg(long = "ipvs-tcp-timeout", value_name = "TIME", value_parser = duration)]
    pub tcp_timeout: Option<Duration>,

    /// For --proxy-mode=ipvs: timeout of TCP connections after a FIN; 0s leaves the kernel's as it is.
    #[arg(long = "ipvs-tcpfin-timeout", value_name = "TIME", value_parser = duration)]
    pub tcp_fin_timeout: Option<Duration>,

    /// For --proxy-mode=ipvs: timeout of UDP; 0s leaves the kernel's as it is.
    #[arg(long = "ipvs-udp-timeout", value_name = "TIME", value_parser = duration)]
    pub udp_timeout: Option<Duration>,
}

impl IpvsOptions {
    /// How often what there is is compared with what should be.
    pub fn sync_period(&self) -> Duration {
        self.sync_period.filter(|period| !period.is_zero()).unwrap_or(SYNC_PERIOD)
    }

    /// The timeouts of connections; 0 where the kernel's stays.
    pub fn timeouts(&self) -> Timeouts {
        let seconds =
            |time: Option<Duration>| time.map_or(0, |time| time.as_secs().try_into().unwrap_or(u32::MAX));
        Timeouts {
            tcp: seconds(self.tcp_timeout),
            tcp_fin: seconds(self.tcp_fin_timeout),
            udp: seconds(self.udp_timeout),
        }
    }
}

/// A scheduler of IPVS, by the kernel's name for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scheduler {
    /// One after the other.
    #[default]
    Rr,
    /// One after the other, by weights; all of ours weigh the same.
    Wrr,
    /// The one with the fewest connections.
    Lc,
    /// The one with the fewest connections for its weight.
    Wlc,
    /// By a hash of the destination's address.
    Dh,
    /// By a hash of the client's address.
    Sh,
    /// The one with the shortest expected delay.
    Sed,
    /// One that is idle, else the one with the shortest expected delay.
    Nq,
    /// By Maglev's consistent hash of the client's address and port.
    Mh,
}

impl Scheduler {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Scheduler::Rr => "rr",
            Scheduler::Wrr => "wrr",
            Scheduler::Lc => "lc",
            Scheduler::Wlc => "wlc",
            Scheduler::Dh => "dh",
            Scheduler::Sh => "sh",
            Scheduler::Sed => "sed",
            Scheduler::Nq => "nq",
            Scheduler::Mh => "mh",
        }
    }
}
