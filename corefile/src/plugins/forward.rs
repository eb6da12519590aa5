//! `forward`.

use std::net::{IpAddr, SocketAddr};

use super::Reading;
use crate::blocks::{Directive, Setting};
use crate::domain::Domain;
use crate::lines::Word;
use crate::model::{Forward, Policy, Server, Target};

/// The most upstreams of one `forward`, as CoreDNS has it.
const MOST_UPSTREAMS: usize = 15;

pub(super) fn read(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    let Some((from, to)) = plugin.words.split_first().filter(|(_, to)| !to.is_empty()) else {
        return reading
            .refuse(&plugin.name, "forward takes a domain and who is asked for it: `forward . 192.0.2.53`");
    };
    let mut domains = reading.domains(std::slice::from_ref(from));
    if domains.len() > 1 {
        reading.refuse(
            from,
            format!(
                "forward: {} is {} zones; name each, or a network of whole octets",
                from.text,
                domains.len()
            ),
        );
    }
    let mut forward = Forward {
        place: plugin.name.place.clone(),
        from: domains.pop().unwrap_or_else(Domain::root),
        to: to.iter().filter_map(|word| target(word, reading)).collect(),
        except: Vec::new(),
        policy: Policy::Random,
        force_tcp: false,
        max_concurrent: 0,
    };
    if to.len() > MOST_UPSTREAMS {
        reading.refuse(&to[MOST_UPSTREAMS], format!("forward: more than {MOST_UPSTREAMS} upstreams"));
    }
    for option in &plugin.body {
        setting(plugin, option, &mut forward, reading);
    }
    server.forwards.push(forward);
}

fn target(word: &Word, reading: &mut Reading) -> Option<Target> {
    let (scheme, host) = match word.text.split_once("://") {
        Some((scheme, host)) => (scheme, host),
        None => ("dns", word.text.as_str()),
    };
    if scheme != "dns" {
        reading.refuse(
            word,
            format!("forward: upstreams over {scheme}:// are not supported; only UDP and TCP are"),
        );
        return None;
    }
    if host.starts_with('/') || host.starts_with("./") {
        return Some(Target::File(host.to_owned()));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).or_else(|_| host.parse());
    match address {
        Ok(address) if address.port() != 0 => Some(Target::Address(address)),
        _ if host.contains('%') => Some(Target::Scoped(host.to_owned())),
        _ => {
            let text = format!(
                "forward: {:?} is no address and no absolute path; upstreams by name are not supported",
                word.text
            );
            reading.refuse(word, text);
            None
        }
    }
}

fn setting(plugin: &Directive, option: &Setting, forward: &mut Forward, reading: &mut Reading) {
    let (name, words) = (&option.name, &option.words[..]);
    match name.text.as_str() {
        "except" if !words.is_empty() => forward.except.extend(reading.domains(words)),
        "policy" => match words {
            [policy] if policy.text == "random" => forward.policy = Policy::Random,
            [policy] if policy.text == "round_robin" => forward.policy = Policy::RoundRobin,
            [policy] if policy.text == "sequential" => forward.policy = Policy::Sequential,
            _ => reading.refuse(name, "policy takes random, round_robin or sequential"),
        },
        "force_tcp" => {
            reading.none(name, words);
            forward.force_tcp = true;
        }
        "prefer_udp" => {
            reading.none(name, words);
            reading.note(name, "prefer_udp has no effect: UDP is always tried first, but with force_tcp");
        }
        "max_concurrent" => {
            if let Some(most) =
                reading.one(name, words, "a number").and_then(|word| reading.number(word, 0..=100_000))
            {
                forward.max_concurrent = most;
            }
        }
        "max_fails" | "max_idle_conns" | "max_connect_attempts" => {
            if reading
                .one(name, words, "a number")
                .and_then(|word| reading.number(word, 0..=u32::MAX))
                .is_some()
            {
                without_effect(name, reading);
            }
        }
        "expire" | "max_age" | "read_timeout" => {
            if reading.one(name, words, "a duration").and_then(|word| reading.duration(word)).is_some() {
                without_effect(name, reading);
            }
        }
        "health_check" if !words.is_empty() => {
            if reading.duration(&words[0]).is_some() {
                without_effect(name, reading);
            }
        }
        "doh_method"
        | "failfast_all_unhealthy_upstreams"
        | "next"
        | "next_on_nodata"
        | "resolver"
        | "source_address"
        | "tls"
        | "tls_servername" => {
            reading.refuse(name, format!("forward: the option {} is not supported", name.text))
        }
        "failover" if !words.is_empty() => failover(words, reading),
        _ => reading.unknown(plugin, option),
    }
}

/// Who is asked when, and for how long, is decided by how upstreams answer.
fn without_effect(name: &Word, reading: &mut Reading) {
    let text = match name.text.as_str() {
        "expire" | "max_age" | "max_idle_conns" => "each query has a socket of its own",
        "read_timeout" | "max_connect_attempts" => {
            "other upstreams are asked after 250 ms, and all of them for 4.8 s"
        }
        _ => {
            "an upstream that does not answer within 900 ms is asked last, and looked at every 500 ms until it does"
        }
    };
    reading.note(name, format!("{} has no effect: {text}", name.text));
}

/// Every failure makes the next upstream be asked here.
fn failover(codes: &[Word], reading: &mut Reading) {
    for code in codes {
        match code.text.to_ascii_uppercase().as_str() {
            "NXDOMAIN" | "YXDOMAIN" | "NOERROR" => {
                reading.refuse(
                    code,
                    format!("failover: {} is an answer, after which nobody else is asked here", code.text),
                );
            }
            _ => reading.note(code, "failover has no effect: after every failure another upstream is asked"),
        }
    }
}
