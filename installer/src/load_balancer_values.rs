//! What `weft install` has agents do about load balancer addresses: the agent's own flags, by the same names.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use weft_types::AddressRange;

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug, Default)]
pub struct LoadBalancerValues {
    /// Give these addresses to Services of the type LoadBalancer: networks, ranges such as
    /// 192.0.2.10-192.0.2.20, or addresses, of both families.
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub lb_pool: Vec<AddressRange>,
    /// Give the addresses of MetalLB's IPAddressPools to Services, too. MetalLB itself must not run.
    #[arg(long)]
    pub lb_crds: bool,
    /// The class of Services that get addresses (spec.loadBalancerClass). Without it, those that name none.
    #[arg(long, value_name = "CLASS", value_parser = NonEmptyStringValueParser::new())]
    pub lb_class: Option<String>,
}

impl LoadBalancerValues {
    /// Whether there are addresses to give.
    pub(crate) fn are_wanted(&self) -> bool {
        !self.lb_pool.is_empty() || self.lb_crds
    }

    /// The agent's flags.
    pub(crate) fn flags(&self) -> [Option<String>; 3] {
        let ranges: Vec<String> = self.lb_pool.iter().map(ToString::to_string).collect();
        [
            (!ranges.is_empty()).then(|| format!("--lb-pool={}", ranges.join(","))),
            self.lb_crds.then(|| "--lb-crds".to_owned()),
            self.lb_class.as_ref().map(|class| format!("--lb-class={class}")),
        ]
    }
}
