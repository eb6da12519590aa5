//! Upstreams that are slow, or take less in a query than they should: their answers reach clients all the
//! same, and what they do not take is learnt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use weft_dns::forward::{Case, ForwardOptions, Settings};
use weft_testkit::wait::eventually;

use crate::fixture::*;
use crate::peers::*;
use crate::scripted_upstream::{Asked, ScriptedUpstream};

fn good(asked: &Asked) -> Option<Message> {
    Some(asked.address(7, 60))
}

fn is_answered(text: &str) -> bool {
    text.contains("status: NOERROR") && text.contains("192.0.2.7")
}

/// A name that no spelling at random leaves in lower case.
fn long(number: usize) -> String {
    format!("abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-{number}.example.com")
}

fn has_capitals(asked: &Asked) -> bool {
    asked.name().bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Dig gives up after 5 s, as resolvers of clients do.
fn ask(server: &Server, name: &str) -> String {
    server.dig(&format!("+time=5 {name} A"))
}

#[test]
fn an_upstream_that_takes_its_time_is_listened_to() {
    for seconds in [1.2, 2.5, 4.0] {
        let upstream = ScriptedUpstream::start_slow(Duration::from_secs_f32(seconds), good);
        let server = Server::start(zone(), &[upstream.address]);
        let text = ask(&server, "www.example.com");
        assert!(is_answered(&text), "after {seconds} s: {text}");
    }
}

#[test]
fn a_slow_upstream_is_listened_to_beside_dead_ones() {
    let dead: Vec<ScriptedUpstream> = (0..5).map(|_| ScriptedUpstream::start(|_| None)).collect();
    let slow = ScriptedUpstream::start_slow(Duration::from_millis(1500), good);
    let addresses: Vec<_> = dead.iter().chain([&slow]).map(|upstream| upstream.address).collect();
    let server = Server::start(zone(), &addresses);
    assert!(is_answered(&ask(&server, "www.example.com")));
}

#[test]
fn more_dead_upstreams_than_tries_do_not_hide_the_one_that_lives() {
    let dead: Vec<ScriptedUpstream> = (0..7).map(|_| ScriptedUpstream::start(|_| None)).collect();
    let alive = ScriptedUpstream::start(good);
    let addresses: Vec<_> = dead.iter().chain([&alive]).map(|upstream| upstream.address).collect();
    let server = Server::start(zone(), &addresses);
    assert!(is_answered(&ask(&server, "www.example.com")));
}

#[test]
fn failures_of_many_do_not_hide_the_one_that_knows() {
    let failing = || ScriptedUpstream::start(|asked| Some(asked.reply(ResponseCode::FormErr)));
    let failing: Vec<ScriptedUpstream> = (0..5).map(|_| failing()).collect();
    let alive = ScriptedUpstream::start(good);
    let addresses: Vec<_> = failing.iter().chain([&alive]).map(|upstream| upstream.address).collect();
    let server = Server::start(zone(), &addresses);
    assert!(is_answered(&ask(&server, "www.example.com")));
}

/// What is said to a name with a capital, by an upstream that knows all names in lower case.
fn only_in_lower_case(
    otherwise: impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static,
) -> impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static {
    move |asked| if has_capitals(asked) { otherwise(asked) } else { good(asked) }
}

#[test]
fn a_name_that_is_denied_with_capitals_is_asked_for_in_lower_case() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let upstream = ScriptedUpstream::start(only_in_lower_case(move |asked| Some(asked.reply(code))));
        let server = Server::start(zone(), &[upstream.address]);
        for number in 0..4 {
            let text = ask(&server, &long(number));
            assert!(is_answered(&text), "{code}: {text}");
        }
        let capitals = upstream.asked().iter().filter(|asked| has_capitals(asked)).count();
        assert_eq!((capitals, upstream.asked().len()), (1, 5), "{code}: once it is known, it is spared");
    }
}

#[test]
fn a_name_that_fails_with_capitals_is_asked_for_in_lower_case() {
    let upstream =
        ScriptedUpstream::start(only_in_lower_case(|asked| Some(asked.reply(ResponseCode::ServFail))));
    let server = Server::start(zone(), &[upstream.address]);
    assert!((0..4).all(|number| is_answered(&ask(&server, &long(number)))));
}

#[test]
fn silence_to_capitals_is_broken_in_lower_case() {
    let upstream = ScriptedUpstream::start(only_in_lower_case(|_| None));
    let server = Server::start(zone(), &[upstream.address]);
    for number in 0..6 {
        let text = ask(&server, &long(number));
        assert!(is_answered(&text), "{text}");
    }
    let capitals = upstream.asked().iter().filter(|asked| has_capitals(asked)).count();
    assert!(capitals < 6, "it is learnt: {capitals}");
}

#[test]
fn one_domain_of_an_odd_server_does_not_make_the_others_plain() {
    let upstream = ScriptedUpstream::start(|asked| match asked.name().to_lowercase().contains("broken") {
        true => only_in_lower_case(|asked| Some(asked.reply(ResponseCode::NXDomain)))(asked),
        false => good(asked),
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert!(is_answered(&ask(&server, &long(0))));
    for number in 0..3 {
        assert!(is_answered(&ask(&server, &format!("abcdefghijklmnopqrstuvwxyz-{number}.broken.example"))));
    }
    assert!(is_answered(&ask(&server, &long(1))));
    let capitals: Vec<bool> = upstream.asked().iter().map(has_capitals).collect();
    assert_eq!(capitals, [true, true, false, false, false, true]);
}

#[test]
fn a_denial_that_holds_in_lower_case_too_is_believed() {
    let upstream = ScriptedUpstream::start(|asked| Some(asked.reply(ResponseCode::NXDomain)));
    let server = Server::start(zone(), &[upstream.address]);
    assert!(ask(&server, &long(0)).contains("status: NXDOMAIN"));
    let capitals: Vec<bool> = upstream.asked().iter().map(has_capitals).collect();
    assert_eq!(capitals, [true, false]);
}

#[test]
fn names_are_asked_in_lower_case_where_that_is_wanted() {
    let upstream = ScriptedUpstream::start(good);
    let settings = Settings { upstreams: vec![upstream.address], ..Settings::default() };
    let manner = ForwardOptions { case: Case::Plain, ..ForwardOptions::default() };
    let server = Server::start_with("127.0.0.1:0", zone(), settings, manner, MOST_WAITING);
    assert!((0..4).all(|number| is_answered(&ask(&server, &long(number)))));
    assert_eq!(upstream.asked().len(), 4);
    assert!(!upstream.asked().iter().any(has_capitals));
}

/// What is said to a query with EDNS, by an upstream that knows none.
fn without_edns(
    otherwise: impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static,
) -> impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static {
    move |asked| if asked.message.edns.is_some() { otherwise(asked) } else { good(asked) }
}

#[test]
fn an_upstream_that_refuses_edns_is_asked_without_from_then_on() {
    for (what, code, with_opt) in [
        ("FORMERR without OPT", ResponseCode::FormErr, false),
        ("FORMERR with OPT", ResponseCode::FormErr, true),
        ("NOTIMP", ResponseCode::NotImp, false),
        ("BADVERS", ResponseCode::BADVERS, true),
    ] {
        let upstream = ScriptedUpstream::start(without_edns(move |asked| {
            let mut reply = asked.reply(code);
            if let Some(edns) = &mut reply.edns {
                edns.set_rcode_high(code.high());
            }
            reply.edns = reply.edns.filter(|_| with_opt);
            Some(reply)
        }));
        let server = Server::start(zone(), &[upstream.address]);
        for number in 0..4 {
            let text = ask(&server, &long(number));
            assert!(is_answered(&text), "{what}: {text}");
        }
        let with = upstream.asked().iter().filter(|asked| asked.message.edns.is_some()).count();
        assert!(with <= 1, "{what}: {with} of {}", upstream.asked().len());
    }
}

#[test]
fn an_upstream_that_drops_edns_is_asked_without_from_then_on() {
    let upstream = ScriptedUpstream::start(without_edns(|_| None));
    let server = Server::start(zone(), &[upstream.address]);
    for number in 0..6 {
        let text = ask(&server, &long(number));
        assert!(is_answered(&text), "{text}");
    }
    let last = upstream.asked().pop().unwrap();
    assert!(last.message.edns.is_none() && has_capitals(&last), "without the one, with the other");
}

#[test]
fn an_upstream_of_the_oldest_kind_is_good_enough() {
    let upstream = ScriptedUpstream::start(|asked| {
        let takes = asked.message.edns.is_none() && !has_capitals(asked);
        takes.then(|| asked.address(7, 60))
    });
    let server = Server::start(zone(), &[upstream.address]);
    for number in 0..6 {
        let text = ask(&server, &long(number));
        assert!(is_answered(&text), "{text}");
    }
}

/// A query that was lost says nothing of what an upstream takes.
#[test]
fn an_upstream_that_comes_back_is_asked_as_before() {
    let well = Arc::new(AtomicBool::new(true));
    let upstream = ScriptedUpstream::start({
        let well = well.clone();
        move |asked| well.load(Ordering::SeqCst).then(|| asked.address(7, 60))
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert!(is_answered(&ask(&server, &long(0))));
    well.store(false, Ordering::SeqCst);
    assert!(ask(&server, &long(1)).contains("status: SERVFAIL"), "and in time");
    well.store(true, Ordering::SeqCst);
    eventually("it is asked again", || is_answered(&ask(&server, &long(2))));
    let last = upstream.asked().pop().unwrap();
    assert!(last.message.edns.is_some() && has_capitals(&last));
}
