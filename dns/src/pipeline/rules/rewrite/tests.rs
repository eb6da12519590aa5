//! Rules as a Corefile has them, and what becomes of names.

use hickory_proto::rr::rdata::A;
use weft_corefile::{Corefile, Surroundings};

use super::*;

struct Alone;

impl Surroundings for Alone {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Ok(Vec::new())
    }
}

fn rules(lines: &str) -> Rewrites {
    let text = format!(". {{\n{lines}\nforward . 192.0.2.1\n}}\n");
    let Corefile { mut servers, .. } = weft_corefile::read("Corefile", &text, &Alone).unwrap();
    Rewrites::new(servers.remove(0).rewrites)
}

/// What is asked for in the place of a name's A records, and the names of an answer with an alias.
fn through(lines: &str, name: &str, answer: [&str; 2]) -> (String, Vec<String>) {
    let rules = rules(lines);
    assert!(rules.touches(name, RecordType::A), "{name}: the fast lane leaves it alone");
    let rewritten = rules.apply(name, RecordType::A).expect(name);
    let names = answer.map(|name| Name::from_ascii(name).unwrap());
    let mut reply = Reply::empty(ResponseCode::NoError);
    reply.answers = vec![
        Record::from_rdata(names[0].clone(), 60, RData::CNAME(CNAME(names[1].clone()))),
        Record::from_rdata(names[1].clone(), 60, RData::A(A::new(192, 0, 2, 1))),
    ];
    lead_back(&mut reply, &rewritten.back);
    let told = reply.answers.iter().map(|record| format!("{} {} {}", record.name, record.ttl, record.data));
    (rewritten.name.map_or("none".to_owned(), |name| name.to_ascii()), told.collect())
}

#[test]
fn an_exact_name_is_led_back() {
    let (asked, answer) =
        through("rewrite name a.example b.example", "a.example.", ["b.example.", "x.b.example."]);
    assert_eq!(asked, "b.example.");
    assert_eq!(answer, ["a.example. 60 x.a.example.", "x.a.example. 60 192.0.2.1"]);
}

#[test]
fn the_other_kinds_are_led_back_where_it_is_said() {
    let answer = ["www.new.", "cdn.new."];
    let (asked, told) = through("rewrite name suffix .old .new", "www.old.", answer);
    assert_eq!((asked.as_str(), told[0].as_str()), ("www.new.", "www.new. 60 cdn.new."), "as it is");
    let (_, told) = through("rewrite name suffix .old .new answer auto", "www.old.", answer);
    assert_eq!(told, ["www.old. 60 cdn.old.", "cdn.old. 60 192.0.2.1"]);
    let (asked, told) = through("rewrite name prefix www. cdn. answer auto", "www.new.", answer);
    assert_eq!((asked.as_str(), told[0].as_str()), ("cdn.new.", "www.new. 60 www.new."));
}

#[test]
fn patterns_have_groups() {
    let lines = r"rewrite stop {
        name regex (.*)-(us-west-1)\.corp\.example {1}.service.{2}.consul
        answer name (.*)\.service\.(us-west-1)\.consul {1}-{2}.corp.example
        answer value (.*)\.consul {1}.corp.example
    }";
    let (asked, told) =
        through(lines, "ftp-us-west-1.corp.example.", ["ftp.service.us-west-1.consul.", "x.consul."]);
    assert_eq!(asked, "ftp.service.us-west-1.consul.");
    assert_eq!(told, ["ftp-us-west-1.corp.example. 60 x.corp.example.", "x.consul. 60 192.0.2.1"]);
}

#[test]
fn rules_go_on_or_stop() {
    let lines = "rewrite continue name a b\nrewrite continue ttl b 5-30\nrewrite name b c\nrewrite name c d";
    let (asked, told) = through(lines, "a.", ["c.", "x."]);
    assert_eq!(asked, "c.");
    assert_eq!(told, ["a. 30 x.", "x. 30 192.0.2.1"]);
    let rules = rules("rewrite type ANY HINFO\nrewrite name a b");
    let any = rules.apply("a.", RecordType::ANY).unwrap();
    assert_eq!(
        (any.name.unwrap().to_ascii(), any.record_type),
        ("a.".to_owned(), RecordType::HINFO),
        "it stopped"
    );
    assert!(rules.apply("x.", RecordType::A).is_none() && !rules.touches("x.", RecordType::A));
}

#[test]
fn what_is_no_name_is_none() {
    let long = format!("{}.example.", "a".repeat(60));
    let rules = rules("rewrite name regex (a+)\\.example {1}{1}.example");
    assert_eq!(rules.apply(&long, RecordType::A).unwrap().name, None);
}

#[test]
fn codes_become_others() {
    let rewritten =
        rules("rewrite rcode suffix .example SERVFAIL NOERROR").apply("a.example.", RecordType::A).unwrap();
    let mut reply = Reply::empty(ResponseCode::ServFail);
    lead_back(&mut reply, &rewritten.back);
    assert_eq!(reply.code, ResponseCode::NoError);
    let mut reply = Reply::empty(ResponseCode::NXDomain);
    lead_back(&mut reply, &rewritten.back);
    assert_eq!(reply.code, ResponseCode::NXDomain);
}
