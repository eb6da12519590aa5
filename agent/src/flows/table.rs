//! The rules by which the kernel tells the agent of answers of DNS servers: of the first bytes of each, at the
//! end of its way, where addresses are as who asked knows them. They belong to the agent's socket, and go with
//! it. Pure.

use weft_nftables::{
    Base, Expression, Family, Hook, Limit, Log, Operator, PRIORITY_SRCNAT, Rule, Statement, Table, Value,
};
use weft_types::well_known::nflog;

/// The name of the tables, one per family.
pub(crate) const NAME: &str = "weft-flows";
/// How many answers a second are told of at the most, of each family.
pub(crate) const RATE: u32 = 1000;
/// UDP.
const UDP: u8 = 17;
/// Where DNS servers answer.
const DNS: u16 = 53;

/// The tables of both families.
pub(crate) fn tables() -> [Table; 2] {
    Family::BOTH.map(|family| {
        let mut table = Table::new(family, NAME);
        let limit = Limit { burst: RATE, ..Limit::packets(RATE.into(), 1) };
        let log = Log { prefix: Some(NAME.into()), group: Some(nflog::DNS_ANSWERS), ..Log::default() };
        let answers = Rule::new([
            Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(UDP)),
            Statement::compare(Expression::SPORT, Operator::Equal, Value::Port(DNS)),
            Statement::Limit(limit),
            Statement::Log(log),
        ]);
        // After the addresses of Services are put back.
        let base = Base::filter(Hook::Postrouting, PRIORITY_SRCNAT + 1);
        table.chain("dns-answers", Some(base), vec![answers]);
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_dns_servers_are_logged_behind_all_translation() {
        let [v4, v6] = tables().map(|table| table.to_string());
        for line in [
            "type filter hook postrouting priority srcnat + 1; policy accept;",
            "meta l4proto udp th sport 53 limit rate 1000/second burst 1000 packets log prefix \"weft-flows\" group 8",
        ] {
            assert!(v4.contains(line) && v6.contains(line), "{line} in {v4}");
        }
    }
}
