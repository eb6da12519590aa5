//! `hosts`.

use super::Reading;
use crate::blocks::{Directive, Setting};
use crate::domain::Domain;
use crate::model::{Fall, Hosts, Server};

pub(super) fn read(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    if server.hosts.is_some() {
        return reading.refuse(&plugin.name, "hosts stands in this server block already");
    }
    let (file, zones) =
        plugin.words.split_first().map_or((None, &[][..]), |(file, zones)| (Some(file), zones));
    if let Some(file) = file.filter(|file| !file.text.starts_with('/')) {
        reading.refuse(file, format!("hosts: {:?} is no absolute path", file.text));
    }
    let mut hosts = Hosts {
        file: file.map_or("/etc/hosts", |file| file.text.as_str()).to_owned(),
        zones: reading.zones(zones),
        inline: Vec::new(),
        ttl: 3600,
        reverse: true,
        reload: true,
        fall: Fall::default(),
        fall_unsupported: false,
    };
    for option in &plugin.body {
        setting(plugin, option, &mut hosts, reading);
    }
    if hosts.fall_unsupported && hosts.fall.0.is_empty() {
        reading.refuse(&plugin.name, "hosts: fallthrough_unsupported requires fallthrough");
    }
    server.hosts = Some(hosts);
}

fn setting(plugin: &Directive, option: &Setting, hosts: &mut Hosts, reading: &mut Reading) {
    let (name, words) = (&option.name, &option.words[..]);
    match name.text.as_str() {
        "fallthrough" => hosts.fall = reading.fall(words),
        "fallthrough_unsupported" => {
            reading.none(name, words);
            hosts.fall_unsupported = true;
        }
        "no_reverse" => {
            reading.none(name, words);
            hosts.reverse = false;
        }
        "ttl" => {
            if let Some(ttl) =
                reading.one(name, words, "seconds").and_then(|word| reading.number(word, 1..=65_535))
            {
                hosts.ttl = ttl;
            }
        }
        "reload" => {
            let time = reading.one(name, words, "a duration").and_then(|word| reading.duration(word));
            if let Some(time) = time {
                hosts.reload = !time.is_zero();
                if hosts.reload {
                    reading.note(
                        name,
                        "the time of reload has no effect: a change of the file is seen within 2 s",
                    );
                }
            }
        }
        // CoreDNS takes any line before fallthrough, and passes over what is none of a hosts file. Here it is refused.
        address
            if address
                .split('%')
                .next()
                .is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok()) =>
        {
            for word in words
                .iter()
                .filter(|word| Domain::new(word.text.strip_prefix("*.").unwrap_or(&word.text)).is_err())
            {
                reading.refuse(word, format!("hosts: {:?} is no host name", word.text));
            }
            let names = words.iter().map(|word| word.text.as_str());
            hosts.inline.push([address].into_iter().chain(names).collect::<Vec<_>>().join(" "));
        }
        _ => reading.unknown(plugin, option),
    }
}
