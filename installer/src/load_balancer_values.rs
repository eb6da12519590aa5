//! What `weft install` has agents do about load balancer addresses: the agent's own flags, by the same names.

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args};
use weft_types::AddressRange;

pub use crate::bgp_values::BgpValues;

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
    /// Answer ARP and Neighbor Discovery for load balancer addresses. Without it, it is done where addresses
    /// are given; with it and without these, for all addresses, whoever gives them.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub lb_l2: Option<bool>,
    /// The interfaces of nodes on which load balancer addresses are answered. Without it, those that suit an
    /// address.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub lb_interface: Vec<String>,
    /// How routers learn of them, and nodes of each other's pods.
    #[command(flatten)]
    pub bgp: BgpValues,
}

impl LoadBalancerValues {
    /// Whether there are addresses to give, or to announce on links.
    pub(crate) fn are_wanted(&self) -> bool {
        self.are_given() || self.lb_l2 == Some(true)
    }

    /// Whether there are addresses to give. Announcing those that others give takes no more than reading.
    pub(crate) fn are_given(&self) -> bool {
        !self.lb_pool.is_empty() || self.lb_crds
    }

    /// What the agent may do besides: what answers within a time runs before ordinary threads.
    pub(crate) fn agent_capabilities(&self) -> &'static str {
        if self.are_wanted() || self.bgp.bgp_crds { ", SYS_NICE" } else { "" }
    }

    /// The agent's flags.
    pub(crate) fn flags(&self) -> impl Iterator<Item = Option<String>> {
        let ranges: Vec<String> = self.lb_pool.iter().map(ToString::to_string).collect();
        let own = [
            (!ranges.is_empty()).then(|| format!("--lb-pool={}", ranges.join(","))),
            self.lb_crds.then(|| "--lb-crds".to_owned()),
            self.lb_class.as_ref().map(|class| format!("--lb-class={class}")),
            self.lb_l2.map(|is_on| format!("--lb-l2={is_on}")),
            (!self.lb_interface.is_empty())
                .then(|| format!("--lb-interface={}", self.lb_interface.join(","))),
        ];
        own.into_iter().chain(self.bgp.flags())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use crate::manifests::{Values, render};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        values: Values,
    }

    fn rendered(flags: &[&str]) -> String {
        render(&Cli::parse_from([&"weft"].into_iter().chain(flags)).values)
    }

    fn documents(yaml: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(yaml).unwrap()
    }

    #[test]
    fn agents_may_write_addresses_only_where_they_have_some() {
        assert!(!rendered(&[]).contains("services/status") && !rendered(&[]).contains("leases"));
        for flags in [&["--lb-pool=192.0.2.10-192.0.2.20,2001:db8::/126"][..], &["--lb-crds"]] {
            let text = rendered(flags);
            assert_eq!(documents(&text).len(), 22);
            assert!(text.contains("[services/status]") && text.contains("[weft-load-balancers]"));
            assert!(text.contains("NET_RAW, DAC_OVERRIDE, SYS_NICE]") && !rendered(&[]).contains("SYS_NICE"));
        }
        let text =
            rendered(&["--lb-pool=192.0.2.10", "--lb-pool=192.0.2.16/28", "--lb-crds", "--lb-class=a/b"]);
        let flags = r#", "--lb-pool=192.0.2.10,192.0.2.16-192.0.2.31", "--lb-crds", "--lb-class=a/b""#;
        assert!(text.contains(flags), "{text}");
        assert!(Cli::try_parse_from(["weft", "--lb-pool=192.0.2.20-192.0.2.10"]).is_err());
        let text = rendered(&["--lb-l2=true", "--lb-interface=eth1,eth2"]);
        assert!(text.contains(r#", "--lb-l2=true", "--lb-interface=eth1,eth2""#), "{text}");
    }

    #[test]
    fn agents_that_announce_what_others_give_only_read() {
        for flags in [["--lb-l2=true"], ["--bgp-crds"]] {
            let text = rendered(&flags);
            assert!(!text.contains("services/status") && !text.contains("leases"), "{text}");
            assert!(text.contains("SYS_NICE"), "what answers within a time runs before ordinary threads");
        }
        let text = rendered(&["--bgp-crds"]);
        for kind in ["services]", "endpointslices]", "bgppeers, bgpadvertisements, bfdprofiles, communities"]
        {
            assert!(text.contains(kind), "{kind}");
        }
    }
}
