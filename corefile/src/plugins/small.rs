//! The plugins of a line or two.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Reading;
use crate::blocks::Directive;
use crate::domain::Domain;
use crate::lines::Word;
use crate::model::{AnswerClass, Bind, Health, HttpAddress, Log, Server};

pub(super) fn autopath(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    reading.no_body(plugin);
    match plugin.words.split_last() {
        Some((from, zones)) if from.text == "@kubernetes" => {
            let zones = reading.zones(zones);
            server.autopath.get_or_insert_default().extend(zones);
        }
        _ => reading.refuse(&plugin.name, "autopath: only the search lists of @kubernetes are supported"),
    }
}

pub(super) fn bind(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    if plugin.words.is_empty() {
        reading.refuse(&plugin.name, "bind takes addresses or interfaces");
    }
    for word in &plugin.words {
        let address = word.text.parse::<IpAddr>().map(Bind::Address);
        let is_interface = word.text.len() < 16 && !word.text.contains(['/', ':', '%']);
        match address {
            Ok(address) => server.bind.push(address),
            Err(_) if is_interface => server.bind.push(Bind::Interface(word.text.clone())),
            Err(_) => reading.refuse(word, format!("bind: {:?} is no address and no interface", word.text)),
        }
    }
    for option in &plugin.body {
        if option.name.text != "except" || option.words.is_empty() {
            reading.unknown(plugin, option);
            continue;
        }
        for word in &option.words {
            match word.text.parse() {
                Ok(address) => server.bind.push(Bind::Except(address)),
                Err(_) => reading.refuse(
                    word,
                    format!("except: {:?} is no address; interfaces are not supported", word.text),
                ),
            }
        }
    }
}

pub(super) fn errors(plugin: &Directive, reading: &mut Reading) {
    if let Some(word) = plugin.words.iter().find(|word| word.text != "stdout") {
        reading.refuse(word, "errors takes no argument but stdout");
    }
    for option in &plugin.body {
        match option.name.text.as_str() {
            "consolidate" | "stacktrace" => {
                reading.note(
                    &option.name,
                    format!("{} has no effect: RUST_LOG sets what the log holds", option.name.text),
                );
            }
            _ => reading.unknown(plugin, option),
        }
    }
}

pub(super) fn health(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    let mut health = Health { address: address(plugin, 8080, reading), lameduck: None };
    for option in &plugin.body {
        match option.name.text.as_str() {
            "lameduck" => {
                let word = reading.one(&option.name, &option.words, "a duration");
                health.lameduck = word.and_then(|word| reading.duration(word));
            }
            _ => reading.unknown(plugin, option),
        }
    }
    server.health = Some(health);
}

pub(super) fn ready(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    server.ready = Some(address(plugin, 8181, reading));
    for option in &plugin.body {
        match (option.name.text.as_str(), &option.words[..]) {
            ("monitor", [mode]) if ["until-ready", "continuously"].contains(&mode.text.as_str()) => {
                reading.note(
                    &option.name,
                    "monitor has no effect: /ready says yes while the cluster's names are known",
                );
            }
            _ => reading.unknown(plugin, option),
        }
    }
}

pub(super) fn prometheus(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    let address = address(plugin, 9153, reading);
    // CoreDNS' default, unlike that of health and ready.
    let local = plugin.words.is_empty().then_some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    server.prometheus = Some(HttpAddress { ip: local.or(address.ip), ..address });
    for option in &plugin.body {
        match option.name.text.as_str() {
            "runtime_metrics" => {
                reading.note(&option.name, "runtime_metrics has no effect: there is no Go runtime")
            }
            _ => reading.unknown(plugin, option),
        }
    }
}

/// `[HOST]:PORT`
fn address(plugin: &Directive, port: u16, reading: &mut Reading) -> HttpAddress {
    let every = HttpAddress { ip: None, port };
    let [word] = &plugin.words[..] else {
        if let Some(word) = plugin.words.get(1) {
            reading.refuse(word, format!("{} takes one argument: ADDRESS:PORT", plugin.name.text));
        }
        return every;
    };
    let parsed = word.text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ip = match host {
            "" => None,
            "localhost" => Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            host => Some(host.parse().ok()?),
        };
        Some(HttpAddress { ip, port: port.parse().ok()? })
    });
    if parsed.is_none() {
        reading.refuse(word, format!("{}: {:?} is no ADDRESS:PORT", plugin.name.text, word.text));
    }
    parsed.unwrap_or(every)
}

pub(super) fn loadbalance(plugin: &Directive, reading: &mut Reading) {
    match plugin.words.first().map(|word| word.text.as_str()) {
        None | Some("round_robin") => {}
        Some(other) => {
            reading.refuse(
                &plugin.words[0],
                format!("loadbalance {other} is not supported: answers rotate (round_robin)"),
            );
        }
    }
    for option in &plugin.body {
        reading.unknown(plugin, option);
    }
}

pub(super) fn log(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    let mut names = &plugin.words[..];
    if let Some((format, before)) =
        names.split_last().filter(|(last, before)| !before.is_empty() && last.text.contains('{'))
    {
        reading.note(
            format,
            "the format of log has no effect: each answer is a line of Weft's own, see --log-format",
        );
        names = before;
    }
    let mut classes = BTreeSet::new();
    for option in &plugin.body {
        if option.name.text != "class" || option.words.is_empty() {
            reading.unknown(plugin, option);
        }
        for word in &option.words {
            match word.text.as_str() {
                "all" => classes.extend(ALL),
                "success" => classes.extend([AnswerClass::Success]),
                "denial" => classes.extend([AnswerClass::Denial]),
                "error" => classes.extend([AnswerClass::Error]),
                other => reading
                    .refuse(word, format!("class: {other:?} is none of success, denial, error and all")),
            }
        }
    }
    if classes.is_empty() {
        classes.extend(ALL);
    }
    let zones = if names.is_empty() { vec![Domain::root()] } else { reading.domains(names) };
    server.logs.extend(zones.into_iter().map(|zone| Log { zone, classes: classes.clone() }));
}

const ALL: [AnswerClass; 3] = [AnswerClass::Success, AnswerClass::Denial, AnswerClass::Error];

pub(super) fn reload(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    reading.no_body(plugin);
    server.reload = true;
    let times: Vec<&Word> = plugin.words.iter().collect();
    if times.len() > 2 {
        reading.refuse(times[2], "reload takes an interval and a jitter");
    }
    let mut given = false;
    for word in times.into_iter().take(2) {
        given |= reading.duration(word).is_some();
    }
    if given {
        reading.note(&plugin.name, "the times of reload have no effect: a change is seen within 2 s");
    }
}
