//! Single statements against the real `nft`: what is committed prints as planned, what is printed leads to
//! the same, and what the kernel holds reads back. Needs root and the nftables package.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use weft_netlink::netns::Namespace;
use weft_nftables::{
    Client, Ct, Expression, Family, Limit, Log, Meta, Observed, Operand, Operator, Reject, Rule, Statement,
    Table, Value, diff,
};
use weft_testkit::program::run_with_input;

/// Rules that limit, log, count and reject.
fn refuse(family: Family) -> Vec<Rule> {
    let codes: &[u8] = match family {
        Family::Ip => &[0, 1, 2, 3, 9, 10, 13],
        Family::Ip6 => &[0, 1, 3, 4, 5, 6],
    };
    let bytes = Limit { counts_bytes: true, burst: 3 << 20, ..Limit::packets(10 << 20, 1) };
    let logs = [
        Log { prefix: Some("denied: ".into()), ..Log::default() },
        Log { level: Some(6), ..Log::default() },
        Log { group: Some(5), ..Log::default() },
        Log { prefix: Some("x y".into()), group: Some(5), snaplen: 64, queue_threshold: 3, level: None },
    ];
    let ports = [Operator::Less, Operator::AtMost, Operator::Greater, Operator::AtLeast, Operator::NotEqual];
    let limits = [
        Limit::packets(5, 1),
        Limit { is_over: true, burst: 8, ..Limit::packets(10, 60) },
        Limit::packets(3, 604_800),
        bytes,
    ];
    let single = |statement: Statement| Rule::new([statement]);
    let state = |operator, bits| {
        single(Statement::compare(Ct::STATE.into(), operator, Operand::Bits(Value::CtState(bits))))
    };
    let port = |operator| {
        let port = Statement::compare(Expression::DPORT, operator, Value::Port(80));
        Rule::new([port, Statement::Counter { packets: 0, bytes: 0 }])
    };
    let mut rules = vec![
        state(Operator::Equal, 6),
        state(Operator::NotEqual, 1),
        single(Statement::compare(Meta::MARK.into(), Operator::Equal, Value::Mark(7))),
        single(Statement::fib_saddr_local()),
    ];
    rules.extend(limits.map(|limit| single(Statement::Limit(limit))));
    rules.extend(logs.map(|log| single(Statement::Log(log))));
    rules.extend(ports.map(port));
    rules.extend(codes.iter().map(|code| single(Statement::Reject(Reject::Icmp(family, *code)))));
    rules
}

/// Runs `nft` and returns what it printed.
fn nft(arguments: &[&str], input: &str) -> String {
    run_with_input("nft", arguments, input)
}

#[test]
fn statements_print_as_nft_prints_them_and_read_back_as_they_were_meant() {
    Namespace::temporary()
        .unwrap()
        .run(|| {
            let mut client = Client::open().unwrap();
            for family in Family::BOTH {
                let mut table = Table::new(family, "weft-test");
                table.chain("refusals", None, refuse(family));
                client.commit(&diff(&[table.clone()], &Observed::default())).unwrap();
                let listed = nft(&["list", "table", &family.to_string(), "weft-test"], "");
                let printed = |text: &str| {
                    let lines = text.lines().map(|line| line.trim().to_owned());
                    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
                };
                assert_eq!(printed(&table.to_string()), printed(&listed));
                let read = client.rules(&(family.into(), "weft-test".into())).unwrap();
                assert_eq!(read["refusals"], table.chains["refusals"].rules);
                nft(&["flush", "ruleset"], "");
                nft(&["-f", "-"], &table.to_string());
                assert_eq!(nft(&["list", "table", &family.to_string(), "weft-test"], ""), listed);
            }
        })
        .unwrap();
}
