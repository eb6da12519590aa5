//! How large the plan is, and which policies cannot be met as they are.

use std::collections::BTreeSet;
use std::fmt;

use weft_types::{Family, NamespacedName};

use super::rows::MOST_ROWS;
use super::{Direction, Origin, Planner, PolicyName};

/// Policies that cannot be met as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The policy that asks for the most.
    pub policy: PolicyName,
    /// The pod that is closed.
    pub pod: NamespacedName,
    /// The direction in which it is closed.
    pub direction: Direction,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { policy, pod, direction } = self;
        write!(
            f,
            "{policy}: spec.{direction}: Pod {pod} would need more than {MOST_ROWS} rows, so that all its {direction} is \
             denied; use ranges of ports (endPort) or fewer ports"
        )
    }
}

impl Planner {
    /// How many addresses of the node's pods policies select.
    pub fn endpoints(&self) -> usize {
        Family::BOTH.map(|family| self.plan().family(family).endpoints.len()).iter().sum()
    }

    /// How many rows the plan has.
    pub fn rows(&self) -> usize {
        self.size.rows
    }

    /// Policies that cannot be met as they are, in order.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = BTreeSet::new();
        for address in &self.size.too_large {
            let Some(endpoint) = self.plan().family(Family::of(*address)).endpoints.get(address) else {
                continue;
            };
            for direction in Direction::BOTH {
                let Some(Origin::TooLarge(id)) = endpoint.side(direction).map(|side| side.base.origin) else {
                    continue;
                };
                if let Some(policy) = self.policy(id).cloned() {
                    problems.insert(Problem { policy, pod: endpoint.pod.clone(), direction });
                }
            }
        }
        problems.into_iter().collect()
    }
}
