//! The clauses of the Kubernetes DNS specification and their like, asked of the program itself by the real
//! `dig` and the real `kdig`, over UDP and TCP, IPv4 and IPv6; and what no query shows.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType::{A, PTR};
use weft_dns::zone::Zone;
use weft_types::{ChangeSet, ObjectKey, Protocol, ServiceKind};

use crate::clauses::{CLAUSES, Clause, Gets};
use crate::daemon::{Daemon, NOBODY};
use crate::fixture::*;
use crate::peers::{Server, Upstream, answer_section, in_new_namespace};

/// The SOA of every denial, without its owner.
const SOA: &str = "SOA ns.dns.~ hostmaster.~ 1700000000 7200 1800 86400 30";

/// What a client printed of one reply; sections in order, without TTL and class.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: String,
    authoritative: bool,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
}

impl Seen {
    /// Reads what `dig` or `kdig` printed from the header on.
    fn read(block: &str) -> Seen {
        let after = |mark: &str| block.to_lowercase().split(mark).nth(1).unwrap_or_default().to_owned();
        let status = after("status: ").split([',', ';']).next().unwrap_or_default().to_uppercase();
        let flags = after("flags: qr").split(';').next().unwrap_or_default().to_owned();
        let section = |name: &str| section(block, name);
        Seen {
            status,
            authoritative: flags.split(' ').any(|flag| flag == "aa"),
            answers: section("ANSWER"),
            authorities: section("AUTHORITY"),
            additionals: section("ADDITIONAL"),
        }
    }

    /// What a clause demands for the name asked.
    fn demanded(name: &str, gets: &Gets) -> Seen {
        let records = |texts: &[&str]| {
            let written = |text: &&str| text.replace('~', "cluster.local.").replace('@', name);
            let mut records: Vec<String> = texts.iter().map(written).collect();
            records.sort();
            records
        };
        let (status, answers, additionals): (_, &[&str], &[&str]) = match gets {
            Gets::Records(answers) => ("NOERROR", answers, &[]),
            Gets::With(answers, additionals) => ("NOERROR", answers, additionals),
            Gets::NoData => ("NOERROR", &[], &[]),
            Gets::NxDomain => ("NXDOMAIN", &[], &[]),
            Gets::Broken(status, answers) | Gets::Foreign(status, answers) => (status, answers, &[]),
        };
        let owner = if name.ends_with("in-addr.arpa.") { "in-addr.arpa." } else { "~" };
        let authorities = match gets {
            Gets::NoData | Gets::NxDomain | Gets::Broken(..) => records(&[&format!("{owner} {SOA}")]),
            Gets::Foreign("NXDOMAIN", _) => records(&[". SOA . . 1 2 3 4 5"]),
            _ => Vec::new(),
        };
        Seen {
            status: status.to_owned(),
            authoritative: !matches!(gets, Gets::Foreign(..)),
            answers: records(answers),
            authorities,
            additionals: records(additionals),
        }
    }
}

/// The records of one section. The cluster's hold for 30 seconds.
fn section(block: &str, name: &str) -> Vec<String> {
    let text = block.split(&format!(";; {name} SECTION:\n")).nth(1).unwrap_or_default();
    let record = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[2], "IN", "{line}");
        assert!(words[1] == "30" || !words[0].to_lowercase().ends_with("cluster.local."), "{line}");
        [&words[..1], &words[3..]].concat().join(" ")
    };
    let mut records: Vec<String> = text.lines().take_while(|line| !line.is_empty()).map(record).collect();
    records.sort();
    records
}

/// Asks all queries in one run of a client.
fn ask_all(client: &[&str], server: SocketAddr, questions: &[String]) -> Vec<Seen> {
    let (address, port) = (format!("@{}", server.ip()), server.port().to_string());
    let output = Command::new(client[0])
        .args([&address, "-p", &port])
        .args(&client[1..])
        .args(questions.iter().flat_map(|question| question.split(' ')))
        .output()
        .expect("dig and kdig, of the Debian packages bind9-dnsutils and knot-dnsutils, must be installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let replies: Vec<Seen> = text.split("->>HEADER<<-").skip(1).map(Seen::read).collect();
    assert_eq!(replies.len(), questions.len(), "{client:?} at {server}: {text}");
    replies
}

/// Compares every reply with its clause; tells all that is not as it should be.
fn check(client: &[&str], server: SocketAddr, clauses: &[&Clause]) -> Vec<String> {
    let questions: Vec<String> =
        clauses.iter().map(|(_, _, asked, _)| asked.replace('~', "cluster.local.")).collect();
    let replies = ask_all(client, server, &questions);
    let differs = |((clause, question), seen): ((&&Clause, &String), Seen)| {
        let (of, says, _, gets) = clause;
        let demanded = Seen::demanded(question.split(' ').next().unwrap(), gets);
        let text =
            format!("{of}, {says}: {question}, {client:?} at {server}\n  got {seen:?}\n  not {demanded:?}");
        (seen != demanded).then_some(text)
    };
    clauses.iter().zip(&questions).zip(replies).filter_map(differs).collect()
}

#[test]
fn every_clause_holds_for_dig_and_kdig_over_udp_and_tcp() {
    let clauses: Vec<&Clause> = CLAUSES.iter().copied().flatten().collect();
    in_new_namespace(&["10.244.0.2/32", "fd00:10:244::2/128"], || {
        let (upstream, folder) = (Upstream::start(), tempfile::tempdir().unwrap());
        let (file, upstream) = (folder.path().join("cluster.yaml"), upstream.address.to_string());
        fs::copy(CLUSTER, &file).unwrap();
        // The SOA's serial is the time of the last change.
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        File::options().append(true).open(&file).unwrap().set_modified(changed).unwrap();
        let daemon = Daemon::start_with(
            NOBODY,
            &[
                "--snapshot",
                file.to_str().unwrap(),
                "--upstream",
                &upstream,
                "--listen",
                "10.244.0.2:0",
                "--listen",
                "[fd00:10:244::2]:0",
            ],
        );
        let mut failures = Vec::new();
        for &server in &daemon.also {
            for transport in ["+notcp", "+tcp"] {
                failures.extend(check(&["dig", transport, "+tries=1", "+time=6"], server, &clauses));
                failures.extend(check(
                    &["kdig", transport, "+noidn", "+retry=0", "+time=6"],
                    server,
                    &clauses,
                ));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
}

#[test]
fn s2_4_3_a_hostname_is_a_better_pointer_than_an_address() {
    let shared = |name: &str, hostname| {
        let endpoints = vec![endpoint("10.244.1.7", hostname, true)];
        [service(name, ServiceKind::Headless, vec![]), slice(&name[5..], name, ("p", 1), endpoints)]
    };
    let objects = [shared("shop/a", None), shared("shop/db", Some("db-0")), shared("shop/z", None)].concat();
    let zone = Zone::compile(&snapshot(objects), config(), 0);
    let name = "7.1.244.10.in-addr.arpa.";
    assert_eq!(answers(&zone, name, PTR), [format!("{name} PTR db-0.db.shop.svc.cluster.local.")]);
}

#[test]
fn c_weights_share_a_hundred_and_are_never_0() {
    for endpoints in [1, 2, 3, 7, 99, 100, 101, 150_u8] {
        let endpoints: Vec<_> =
            (0..endpoints).map(|last| endpoint(&format!("10.244.1.{last}"), None, true)).collect();
        let (count, weight) = (endpoints.len(), (100 / endpoints.len()).max(1));
        let ports = vec![port("pg", Protocol::Tcp, 5432)];
        let objects = vec![
            service("shop/db", ServiceKind::Headless, ports),
            slice("db-1", "shop/db", ("pg", 5432), endpoints),
        ];
        let server = Server::start(Zone::compile(&snapshot(objects), config(), 1), &[]);
        let answers = answer_section(&server.dig("+tcp _pg._tcp.db.shop.svc.cluster.local SRV"));
        let start = format!("_pg._tcp.db.shop.svc.cluster.local. SRV 0 {weight} 5432 10-244-1-");
        assert!(
            answers.len() == count && answers.iter().all(|line| line.starts_with(&start)),
            "{count}: {answers:?}"
        );
    }
}

#[test]
fn c_a_chain_is_followed_ten_times() {
    let zone = zone();
    assert_eq!(answers(&zone, "step-2.shop.svc.cluster.local.", A).len(), 11, "ten aliases and the address");
    let reply = ask(&zone, "step-1.shop.svc.cluster.local.", A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "eleven are too many");
}

#[test]
fn a_circle_of_aliases_is_a_failure_that_names_itself() {
    let to = |name: &str| ServiceKind::ExternalName(format!("{name}.shop.svc.cluster.local"));
    let names = [("a", "b"), ("b", "c"), ("c", "b")];
    let objects = names.map(|(name, target)| service(&format!("shop/{name}"), to(target), vec![])).into();
    let server = Server::start(Zone::compile(&snapshot(objects), config(), 1), &[]);
    for name in ["a", "b", "c"] {
        for asked in ["A", "AAAA", "SRV"] {
            let text = server.dig(&format!("{name}.shop.svc.cluster.local {asked}"));
            assert!(text.contains("status: SERVFAIL"), "{text}");
            assert!(answer_section(&text).is_empty(), "nothing to follow: {text}");
            assert!(
                text.contains("EDE: 0 (Other): (CNAME loop: the external names lead to each other"),
                "{text}"
            );
        }
        let text = server.dig(&format!("{name}.shop.svc.cluster.local CNAME"));
        assert_eq!(answer_section(&text).len(), 1, "{text}");
    }
}

#[test]
fn c_a_namespace_exists_as_soon_as_one_of_its_services_is_seen() {
    let service = service("early/db", ServiceKind::ClusterIp(vec![ip("10.96.0.40")]), vec![]);
    let zone = Zone::compile(&snapshot(vec![service]), config(), 1_700_000_000);
    assert!(!is_missing(&zone, "early.svc.cluster.local.", A), "RFC 8020: a name below it exists");
    assert_eq!(answers(&zone, "10-1-2-3.early.pod.cluster.local.", A).len(), 1);
}

#[test]
fn c_before_the_first_list_nothing_is_denied() {
    let zone = Zone::unsynced(config());
    for name in ["backend.shop.svc.cluster.local.", "nothing.cluster.local.", "20.0.96.10.in-addr.arpa."] {
        let reply = ask(&zone, name, A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}");
    }
}

#[test]
fn c_replies_begin_at_different_records() {
    let zone = zone();
    let first = |id| {
        let mut query = query("db.shop.svc.cluster.local.", A);
        query.metadata.id = id;
        ask_message(&zone, &query).answers[0].data.to_string()
    };
    assert_eq!(
        [first(0), first(1), first(2), first(3)],
        ["10.244.1.7", "10.244.2.7", "10.244.2.8", "10.244.1.7"]
    );
}

#[test]
fn the_zone_of_a_change_is_the_zone_compiled_whole() {
    let mut snapshot = cluster();
    let before = Zone::compile(&snapshot, config(), 1);
    let mut changes = ChangeSet::default();
    snapshot.delete(&ObjectKey::Service("shop/bare".parse().unwrap()), &mut changes);
    snapshot.apply(
        slice("db-v4", "shop/db", ("pg", 15432), vec![endpoint("10.244.3.1", None, true)]),
        &mut changes,
    );
    let after = before.recompile(&snapshot, &changes, 2);
    assert!(ask(&after, "bare.shop.svc.cluster.local.", A).metadata.response_code == ResponseCode::NXDomain);
    assert_eq!(answers(&after, "db.shop.svc.cluster.local.", A), ["db.shop.svc.cluster.local. A 10.244.3.1"]);
    assert_eq!(after.pointers(ip("10.96.0.30")).len(), 0);
    assert_eq!(after.serial(), 2);
    assert_eq!(
        answers(&before, "bare.shop.svc.cluster.local.", A).len(),
        1,
        "the zone before stays as it was"
    );
}
