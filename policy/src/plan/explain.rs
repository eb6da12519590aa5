//! Why traffic passes or not.

use std::fmt;
use std::net::IpAddr;

use weft_types::{Family, NamespacedName};

use super::policies::{Policy, PolicyName};
use super::{Decision, Direction, Origin, Packet, Planner, PolicyId, Verdict, index};

/// What this node does with a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it passes.
    pub verdict: Verdict,
    /// What decides, in the order of the packet's way: at the pod that sends it, and at the one that gets it.
    pub steps: Vec<Step>,
}

/// What decides at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The pod whose policies decide; nothing where it does not come to policies.
    pub pod: Option<NamespacedName>,
    /// The way of the packet, seen from that pod.
    pub direction: Direction,
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

/// Why traffic passes or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A pod may always reach itself.
    Itself,
    /// A pod and its own node may always reach each other.
    OwnNode,
    /// No policy selects the pod for that direction, or none has a rule for that traffic.
    Unselected,
    /// A rule decides.
    Rule {
        /// The policy.
        policy: PolicyName,
        /// The rule's place among those of its direction, from 0.
        rule: u32,
        /// The rule's name, where it has one.
        name: String,
    },
    /// These NetworkPolicies isolate the pod, and no rule of them lets the traffic through.
    Isolated(Vec<PolicyName>),
    /// The pod's policies are too large, of which this one most.
    TooLarge(Option<PolicyName>),
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.verdict == Verdict::Accept { "allowed" } else { "denied" })?;
        for step in &self.steps {
            write!(f, "; {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pod) = &self.pod {
            write!(f, "{} of Pod {pod} ", self.direction)?;
        }
        f.write_str(&self.decision())
    }
}

impl Step {
    /// The field of the rule that decides, as `spec.ingress[0]`.
    pub fn rule(&self) -> Option<String> {
        match &self.reason {
            Reason::Rule { rule, .. } => Some(format!("spec.{}[{rule}]", self.direction)),
            _ => None,
        }
    }

    /// What happens and why, in words.
    pub fn decision(&self) -> String {
        let verb = if self.verdict == Verdict::Accept { "allowed" } else { "denied" };
        match &self.reason {
            Reason::Itself => format!("{verb}: a pod may always reach itself"),
            Reason::OwnNode => format!("{verb}: a pod and its own node may always reach each other"),
            Reason::Unselected => format!("{verb}: no policy says anything about it"),
            Reason::Rule { policy, rule, name } => {
                let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
                format!("{verb} by {policy}, spec.{}[{rule}]{name}", self.direction)
            }
            Reason::Isolated(policies) => {
                let names: Vec<String> = policies.iter().map(PolicyName::to_string).collect();
                format!("{verb}: isolated by {}, and no rule allows it", names.join(", "))
            }
            Reason::TooLarge(Some(policy)) => {
                format!("{verb}: the pod's policies come to too many rows, most of them by {policy}")
            }
            Reason::TooLarge(None) => format!("{verb}: the pod's policies come to too many rows"),
        }
    }
}

impl Reason {
    /// The policies that decide.
    pub fn policies(&self) -> &[PolicyName] {
        match self {
            Reason::Rule { policy, .. } | Reason::TooLarge(Some(policy)) => std::slice::from_ref(policy),
            Reason::Isolated(policies) => policies,
            Reason::Itself | Reason::OwnNode | Reason::Unselected | Reason::TooLarge(None) => &[],
        }
    }
}

impl Planner {
    /// What this node does with a packet, and why, as of the last commit.
    pub fn explain(&self, packet: &Packet) -> Explanation {
        let own = |address| self.plan().own_addresses.contains(&address);
        let always = if packet.source == packet.destination {
            Some(Reason::Itself)
        } else if own(packet.source) || own(packet.destination) {
            Some(Reason::OwnNode)
        } else {
            None
        };
        if let Some(reason) = always {
            let step = Step { pod: None, direction: Direction::Egress, verdict: Verdict::Accept, reason };
            return Explanation { verdict: Verdict::Accept, steps: vec![step] };
        }
        let leaves = self.step(packet.source, packet.destination, Direction::Egress, packet);
        let enters = self.step(packet.destination, packet.source, Direction::Ingress, packet);
        let steps: Vec<Step> = leaves.into_iter().chain(enters).collect();
        let verdict = steps.iter().map(|step| step.verdict).max().unwrap_or(Verdict::Accept);
        Explanation { verdict, steps }
    }

    /// What decides at a local pod; nothing where the address is none's.
    fn step(&self, address: IpAddr, peer: IpAddr, direction: Direction, packet: &Packet) -> Option<Step> {
        let family = self.plan().family(Family::of(address));
        let classes = &self.classes[index(Family::of(address))];
        let owner = classes.owner(address)?;
        let local = self.locals.get(&owner)?;
        let pod = self.world.pod(owner)?.pod.key.clone();
        let step = |verdict, reason| Some(Step { pod: Some(pod.clone()), direction, verdict, reason });
        let Some(profile) = &local.profiles[direction.index()] else {
            return step(Verdict::Accept, Reason::Unselected);
        };
        let side = family.endpoints.get(&address).and_then(|endpoint| endpoint.side(direction));
        if let Some(Origin::TooLarge(id)) = side.map(|side| side.base.origin) {
            return step(Verdict::Deny, Reason::TooLarge(self.policy(id).cloned()));
        }
        let vector = classes.vector(family.class(peer));
        let Decision { verdict, origin } = profile.traffic(vector, self.features()).decision(packet.port);
        let names = |ids: &[PolicyId]| ids.iter().filter_map(|id| self.policy(*id).cloned()).collect();
        let reason = match origin {
            Origin::Unselected => Reason::Unselected,
            Origin::Isolated(_) => Reason::Isolated(names(&profile.isolating)),
            Origin::TooLarge(id) => Reason::TooLarge(self.policy(id).cloned()),
            Origin::Rule { policy, rule } => Reason::Rule {
                policy: self.policy(policy).cloned()?,
                rule,
                name: self.rule_name(policy, direction, rule),
            },
        };
        step(verdict, reason)
    }

    fn rule_name(&self, policy: PolicyId, direction: Direction, rule: u32) -> String {
        let policy = self.policies.get(policy).and_then(|state| state.policy.as_ref());
        let Some(Policy::Cluster(policy)) = policy else {
            return String::new();
        };
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        rules.get(rule as usize).map(|rule| rule.name.to_string()).unwrap_or_default()
    }
}
