//! From the plan of a Service to kube-proxy's rules for it: which chains it has of its own, and which rules
//! in the chains that are shared. Pure.
//!
//! ```text
//! KUBE-SERVICES  -d ClusterIP        -> KUBE-SVC-* (all endpoints) or KUBE-SVL-* (those of this node)
//!                -d external address -> KUBE-EXT-*, with source ranges by way of KUBE-FW-*
//! KUBE-NODEPORTS --dport NodePort    -> KUBE-EXT-*
//! KUBE-EXT-*     from pods and this node -> KUBE-SVC-*, all others -> by the external policy
//! KUBE-SVC-*     -m statistic        -> KUBE-SEP-*, which is one endpoint
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use weft_nftables::{Family, Name, Xt};
use weft_types::{NamespacedName, Protocol, TrafficPolicy};

use super::layout::{MARK_MASQ, Shared};
use super::names::{of_endpoint, of_port, port_name};
use super::rule::{Is, Matching, Rule, Target};
use crate::config::DetectLocal;
use crate::dataplane::nftables::ruleset::{address_family, table_family};
use crate::dataplane::settings::Settings;
use crate::services::plan::{Frontend, FrontendPlan, Scope, ServicePlan, Target as Led};

/// All rules of a Service, in the tables of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceRules {
    /// The chains of its own, all of them in tables `nat`.
    pub(super) chains: BTreeMap<(Family, Name), Vec<Rule>>,
    /// The rules in chains that are shared.
    pub(super) shared: BTreeMap<(Family, Shared), Vec<Rule>>,
}

/// A Service port in one family.
struct Port<'a> {
    settings: &'a Settings,
    family: Family,
    protocol: Protocol,
    name: String,
    frontends: Vec<&'a FrontendPlan>,
    rules: &'a mut ServiceRules,
}

/// The rules of a Service.
pub(super) fn rules(settings: &Settings, service: &NamespacedName, plan: &ServicePlan) -> ServiceRules {
    let mut ports: BTreeMap<_, Vec<&FrontendPlan>> = BTreeMap::new();
    for frontend in &plan.frontends {
        let family = table_family(frontend.frontend.family());
        ports.entry((&*frontend.port, frontend.frontend.protocol(), family)).or_default().push(frontend);
    }
    let mut rules = ServiceRules::default();
    for ((port, protocol, family), frontends) in ports {
        let name = port_name(service, port);
        let mut port = Port { settings, family, protocol, name, frontends, rules: &mut rules };
        port.plan();
        if let Some(number) = plan.health_check {
            port.health_check(number);
        }
    }
    rules
}

impl Port<'_> {
    fn plan(&mut self) {
        for frontend in self.frontends.clone() {
            match frontend.scope {
                Scope::Internal => self.internal(frontend),
                Scope::External => self.external(frontend),
            }
        }
        self.external_chain();
        self.firewall_chain();
        let (cluster, local) = (self.cluster(), self.local());
        for (prefix, endpoints) in [("KUBE-SVC-", &cluster), ("KUBE-SVL-", &local)] {
            if !endpoints.is_empty() {
                self.spread(prefix, endpoints);
            }
        }
        for endpoint in cluster.into_iter().chain(local) {
            self.endpoint(endpoint);
        }
    }

    /// The endpoints of all nodes.
    fn cluster(&self) -> Vec<SocketAddr> {
        let of_cluster = self.frontends.iter().filter(|frontend| frontend.policy == TrafficPolicy::Cluster);
        first(of_cluster.map(|frontend| frontend.target.endpoints()))
    }

    /// Those of this node.
    fn local(&self) -> Vec<SocketAddr> {
        let of_node = self.frontends.iter().filter(|frontend| frontend.policy == TrafficPolicy::Local);
        let outside = self.frontends.iter().filter_map(|frontend| frontend.outside.as_ref());
        first(of_node.map(|frontend| &frontend.target).chain(outside).map(Led::endpoints))
    }

    fn chain_name(&self, prefix: &str) -> Name {
        of_port(prefix, &self.name, self.protocol)
    }

    fn endpoint_name(&self, endpoint: SocketAddr) -> Name {
        of_endpoint(&self.name, self.protocol, &endpoint.to_string())
    }

    fn push(&mut self, chain: &Name, rule: Rule) {
        self.rules.chains.entry((self.family, chain.clone())).or_default().push(rule);
    }

    fn share(&mut self, chain: Shared, rule: Rule) {
        self.rules.shared.entry((self.family, chain)).or_default().push(rule);
    }

    /// A rule for what comes to a frontend.
    fn to(&self, frontend: &FrontendPlan, comment: &str) -> Rule {
        match frontend.frontend {
            Frontend::Address(address, protocol, port) => {
                Rule::commented(comment).to(Is::Equal(address.into())).at(protocol, port)
            }
            Frontend::NodePort(_, protocol, port) => Rule::commented(comment).at(protocol, port),
        }
    }

    /// A ClusterIP.
    fn internal(&mut self, frontend: &FrontendPlan) {
        let prefix = match frontend.policy {
            TrafficPolicy::Cluster => "KUBE-SVC-",
            TrafficPolicy::Local => "KUBE-SVL-",
        };
        let Led::Endpoints(_) = frontend.target else {
            return self.refuse(frontend, &frontend.target, Shared::Refused);
        };
        let (chain, rule) =
            (self.chain_name(prefix), self.to(frontend, &format!("{} cluster IP", self.name)));
        self.share(Shared::Services, rule.clone().jump(&chain));
        let masqueraded = match self.settings.config.masquerade_all {
            true => Some(rule),
            false => self.of_pods(rule, false),
        };
        if let Some(rule) = masqueraded {
            self.push(&chain, rule.jump(&MARK_MASQ.into()));
        }
    }

    /// An external address, one of a load balancer, or a NodePort.
    fn external(&mut self, frontend: &FrontendPlan) {
        if frontend.target == Led::Reject {
            return self.refuse(frontend, &Led::Reject, Shared::ExternalRefused);
        }
        let chain = match frontend.sources.is_empty() {
            true => self.chain_name("KUBE-EXT-"),
            false => self.chain_name("KUBE-FW-"),
        };
        match (frontend.frontend, frontend.is_load_balancer) {
            (Frontend::NodePort(..), _) => {
                let rule = self.to(frontend, &self.name).jump(&chain);
                self.share(Shared::NodePorts, rule);
            }
            (_, is_load_balancer) => {
                let kind = if is_load_balancer { "loadbalancer" } else { "external" };
                let rule = self.to(frontend, &format!("{} {kind} IP", self.name)).jump(&chain);
                self.share(Shared::Services, rule);
            }
        }
        if !frontend.sources.is_empty() {
            let comment = format!("{} traffic not accepted by {chain}", self.name);
            self.share(Shared::Firewall, self.to(frontend, &comment).then(Target::Drop));
        }
        if let Some(outside) = frontend.outside.as_ref().filter(|outside| **outside == Led::Drop) {
            self.refuse(frontend, outside, Shared::ExternalRefused);
        }
    }

    /// What leads nowhere is not rewritten, and so found by its own address in the table `filter`.
    fn refuse(&mut self, frontend: &FrontendPlan, target: &Led, chain: Shared) {
        let (what, target) = match target {
            Led::Drop => ("no local endpoints", Target::Drop),
            _ => ("no endpoints", Target::Xt(Xt::Reject(self.family))),
        };
        let comment = format!("{} has {what}", self.name);
        let rule = match frontend.frontend {
            Frontend::Address(..) => self.to(frontend, &comment),
            Frontend::NodePort(_, protocol, port) => {
                Rule::commented(comment).and(Matching::Xt(Xt::DestinationIsLocal)).at(protocol, port)
            }
        };
        self.share(chain, rule.then(target));
    }

    /// A rule for traffic of pods, or for that of all others; none where they cannot be told apart.
    fn of_pods(&self, rule: Rule, are_pods: bool) -> Option<Rule> {
        fn is<T>(value: T, are_pods: bool) -> Is<T> {
            if are_pods { Is::Equal(value) } else { Is::Not(value) }
        }
        if let DetectLocal::Interface(name) = &self.settings.config.detect_local {
            return Some(rule.via(is(name.as_str().into(), are_pods)));
        }
        // kube-proxy, too, knows one network of each family.
        let network = self.settings.cluster_cidrs(address_family(self.family)).next()?;
        Some(rule.from(is(network, are_pods)))
    }

    /// Where clients of all external frontends are led.
    fn external_chain(&mut self) {
        let is_served = |plan: &&&FrontendPlan| plan.scope == Scope::External && plan.target != Led::Reject;
        let Some(&frontend) = self.frontends.iter().find(is_served) else { return };
        let (chain, all) = (self.chain_name("KUBE-EXT-"), self.chain_name("KUBE-SVC-"));
        let comment = |what: &str| Rule::commented(format!("{what} for {} external destinations", self.name));
        let Some(outside) = &frontend.outside else {
            let masquerade = comment("masquerade traffic").jump(&MARK_MASQ.into());
            self.push(&chain, masquerade);
            return self.push(&chain, Rule::default().jump(&all));
        };
        let pods = self.of_pods(comment("pod traffic"), true).map(|rule| rule.jump(&all));
        let own = |what, target: &Name| comment(what).and(Matching::Xt(Xt::SourceIsLocal)).jump(target);
        let mut rules: Vec<Rule> = pods.into_iter().collect();
        rules.push(own("masquerade LOCAL traffic", &MARK_MASQ.into()));
        rules.push(own("route LOCAL traffic", &all));
        if let Led::Endpoints(_) = outside {
            rules.push(Rule::default().jump(&self.chain_name("KUBE-SVL-")));
        }
        rules.into_iter().for_each(|rule| self.push(&chain, rule));
    }

    /// Who may connect to the addresses of a load balancer.
    fn firewall_chain(&mut self) {
        let is_restricted = |plan: &&&FrontendPlan| plan.target != Led::Reject && !plan.sources.is_empty();
        let Some(&frontend) = self.frontends.iter().find(is_restricted) else { return };
        let (chain, external) = (self.chain_name("KUBE-FW-"), self.chain_name("KUBE-EXT-"));
        for source in &frontend.sources {
            let allowed = Rule::commented(format!("{} loadbalancer IP", self.name));
            self.push(&chain, allowed.from(Is::Equal(*source)).jump(&external));
        }
        let comment = format!("other traffic to {} will be dropped by KUBE-PROXY-FIREWALL", self.name);
        self.push(&chain, Rule::commented(comment));
    }

    /// Lets load balancers ask for the Service's health, whatever other rules say. kube-proxy does so once
    /// for each port.
    fn health_check(&mut self, number: u16) {
        let rule = Rule::commented(format!("{} health check node port", self.name));
        self.share(Shared::HealthChecks, rule.at(Protocol::Tcp, number).then(Target::Accept));
    }

    /// Leads to one of the endpoints: the one that the client had last, or any.
    fn spread(&mut self, prefix: &str, endpoints: &[SocketAddr]) {
        let chain = self.chain_name(prefix);
        let lead = |endpoint: &SocketAddr| Rule::commented(format!("{} -> {endpoint}", self.name));
        let mut rules = Vec::new();
        if let Some(seconds) = self.affinity() {
            rules.extend(endpoints.iter().map(|endpoint| {
                let name = self.endpoint_name(*endpoint);
                lead(endpoint).and(Matching::Xt(Xt::Recent(self.family, name.clone(), seconds))).jump(&name)
            }));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let rule = match endpoints.len() - index {
                1 => lead(endpoint),
                left => lead(endpoint).and(Matching::Xt(Xt::once_in(left))),
            };
            rules.push(rule.jump(&self.endpoint_name(*endpoint)));
        }
        rules.into_iter().for_each(|rule| self.push(&chain, rule));
    }

    /// Leads to one endpoint.
    fn endpoint(&mut self, endpoint: SocketAddr) {
        let chain = self.endpoint_name(endpoint);
        if self.rules.chains.contains_key(&(self.family, chain.clone())) {
            return; // It is one of this node's, and of all.
        }
        let itself = Rule::commented(&self.name).from(Is::Equal(endpoint.ip().into()));
        self.push(&chain, itself.jump(&MARK_MASQ.into()));
        let mut rule = Rule::commented(&self.name);
        if self.affinity().is_some() {
            rule = rule.and(Matching::Xt(Xt::Remember(self.family, chain.clone())));
        }
        let protocol = Matching::Xt(Xt::Transport(self.protocol.number(), None));
        self.push(&chain, rule.of(self.protocol, protocol).then(Target::Xt(Xt::Dnat(endpoint))));
    }

    fn affinity(&self) -> Option<u32> {
        self.frontends.iter().find_map(|frontend| frontend.affinity).map(NonZeroU32::get)
    }
}

/// The first of these lists of endpoints that is not empty: all of them are alike.
fn first<'a>(mut lists: impl Iterator<Item = &'a [SocketAddr]>) -> Vec<SocketAddr> {
    lists.find(|endpoints| !endpoints.is_empty()).unwrap_or_default().to_vec()
}
