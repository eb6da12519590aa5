//! What of nft's own does the same as a match or a target of iptables: by that it is followed, and shown.

use super::{Assign, Nat, Operator, Source, Statement, Translation, Xt};
use crate::expression::Expression;
use crate::value::Value;
use weft_netlink::Family;

/// The statement that does the same, where there is one.
pub(crate) fn native(xt: &Xt) -> Option<Statement> {
    Some(match xt {
        Xt::SourceIsLocal => Statement::fib_saddr_local(),
        Xt::DestinationIsLocal => Statement::fib_daddr_local(),
        Xt::Transport(_, Some(port)) => {
            Statement::compare(Expression::DPORT, Operator::Equal, Value::Port(*port))
        }
        Xt::Mark { value, mask } => {
            let source = Source::Bits { of: Expression::MARK, mask: !mask, flipped: *value };
            Statement::Assign(Assign { target: Expression::MARK, source })
        }
        Xt::Masquerade(_) => Statement::masquerade(),
        Xt::Dnat(to) => {
            let translation = Translation::To(to.ip(), Some(to.port()));
            Statement::Nat(Nat::Destination(Family::of(to.ip()), translation))
        }
        Xt::Reject(family) => Statement::reject(*family),
        Xt::Comment(_) | Xt::Statistic(_) | Xt::Recent(..) | Xt::Remember(..) | Xt::Transport(_, None) => {
            return None;
        }
    })
}
