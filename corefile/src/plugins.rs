//! The plugins of a server block, one after the other. All that is not supported is refused here, and in the
//! files below.

mod cache;
mod forward;
mod hosts;
mod kubernetes;
mod rewrite;
mod small;
mod template;

use std::str::FromStr;
use std::time::Duration;

use crate::blocks::{Directive, Setting};
use crate::domain::Domain;
use crate::duration::duration;
use crate::lines::Word;
use crate::model::{Fall, Server};
use crate::problem::Problem;

/// Plugins of CoreDNS that change nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 8] = [
    ("any", "ANY is always answered so (RFC 8482)"),
    ("bufsize", "datagrams are never longer than 1232 bytes"),
    ("cancel", "a query never takes longer than 5 s"),
    ("debug", "RUST_LOG sets what the log holds"),
    ("local", "localhost is always answered here; see --keep-private"),
    ("multisocket", "there is a socket for each core"),
    ("shed", "what does not fit a bounded queue is always refused"),
    ("timeouts", "a client may take 10 s"),
];
/// All other plugins that CoreDNS comes with.
const NOT_SUPPORTED: [&str; 36] = [
    "acl",
    "auto",
    "azure",
    "chaos",
    "clouddns",
    "dns64",
    "dnssec",
    "dnstap",
    "erratic",
    "etcd",
    "file",
    "geoip",
    "grpc",
    "grpc_server",
    "header",
    "https",
    "https3",
    "k8s_external",
    "metadata",
    "minimal",
    "nomad",
    "nsid",
    "on",
    "pprof",
    "proxyproto",
    "quic",
    "root",
    "route53",
    "secondary",
    "sign",
    "tls",
    "trace",
    "transfer",
    "tsig",
    "view",
    "whoami",
];

/// The plugins that are read, for who counts them.
const SUPPORTED: [&str; 16] = [
    "autopath",
    "bind",
    "cache",
    "errors",
    "forward",
    "health",
    "hosts",
    "kubernetes",
    "loadbalance",
    "log",
    "loop",
    "prometheus",
    "ready",
    "reload",
    "rewrite",
    "template",
];

/// What is found out while a Corefile is read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<Problem>,
    /// The zones of the block that is read, which plugins have where they name no others.
    pub(crate) zones: Vec<Domain>,
}

impl Reading {
    /// Something there is wrong, or not supported.
    pub(crate) fn refuse(&mut self, at: &Word, text: impl Into<String>) {
        self.problems.push(at.place.problem(text));
    }

    /// Something there has no effect.
    pub(crate) fn note(&mut self, at: &Word, text: impl Into<String>) {
        self.notes.push(at.place.problem(text));
    }

    fn take<T>(&mut self, at: &Word, value: Result<T, String>) -> Option<T> {
        value.map_err(|problem| self.refuse(at, problem)).ok()
    }

    /// Domains, or networks for their reverse zones; those of the block where none is named.
    fn zones(&mut self, words: &[Word]) -> Vec<Domain> {
        match words.is_empty() {
            true => self.zones.clone(),
            false => self.domains(words),
        }
    }

    fn domains(&mut self, words: &[Word]) -> Vec<Domain> {
        let mut domains = Vec::new();
        for word in words {
            domains.extend(self.take(word, Domain::expand(&word.text)).unwrap_or_default());
        }
        domains.dedup();
        domains
    }

    /// The only argument of an option.
    fn one<'w>(&mut self, name: &Word, words: &'w [Word], what: &str) -> Option<&'w Word> {
        match words {
            [word] => Some(word),
            _ => {
                self.refuse(name, format!("{} takes one argument: {what}", name.text));
                None
            }
        }
    }

    /// An option without arguments.
    fn none(&mut self, name: &Word, words: &[Word]) {
        if let Some(word) = words.first() {
            self.refuse(word, format!("{} takes no argument", name.text));
        }
    }

    /// A number within a range.
    fn number<N: FromStr + PartialOrd + std::fmt::Display>(
        &mut self,
        word: &Word,
        range: std::ops::RangeInclusive<N>,
    ) -> Option<N> {
        let number = word.text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(
                word,
                format!("{:?} is no number from {} to {}", word.text, range.start(), range.end()),
            );
        }
        number
    }

    fn duration(&mut self, word: &Word) -> Option<Duration> {
        let duration = duration(&word.text);
        if duration.is_none() {
            self.refuse(word, format!("{:?} is no duration, such as 5s or 1m30s", word.text));
        }
        duration
    }

    /// The domains of `fallthrough`: all where it names none.
    fn fall(&mut self, words: &[Word]) -> Fall {
        Fall(if words.is_empty() { vec![Domain::root()] } else { self.domains(words) })
    }

    fn unknown(&mut self, plugin: &Directive, option: &Setting) {
        self.refuse(
            &option.name,
            format!("{}: unknown or unsupported option {}", plugin.name.text, option.name.text),
        );
    }

    /// A plugin without lines of its own.
    fn no_body(&mut self, plugin: &Directive) {
        if let Some(option) = plugin.body.first() {
            self.unknown(plugin, option);
        }
    }
}

/// Reads one plugin into its block.
pub(crate) fn read(directive: &Directive, server: &mut Server, reading: &mut Reading) {
    let name = directive.name.text.as_str();
    if directive.nested {
        return reading
            .refuse(&directive.name, format!("{name}: braces within its braces are not supported"));
    }
    match name {
        "autopath" => small::autopath(directive, server, reading),
        "bind" => small::bind(directive, server, reading),
        "cache" => cache::read(directive, server, reading),
        "errors" => small::errors(directive, reading),
        "forward" => forward::read(directive, server, reading),
        "health" => small::health(directive, server, reading),
        "hosts" => hosts::read(directive, server, reading),
        "kubernetes" => kubernetes::read(directive, server, reading),
        "loadbalance" => small::loadbalance(directive, reading),
        "log" => small::log(directive, server, reading),
        "loop" => reading.none(&directive.name, &directive.words),
        "prometheus" => small::prometheus(directive, server, reading),
        "ready" => small::ready(directive, server, reading),
        "reload" => small::reload(directive, server, reading),
        "rewrite" => rewrite::read(directive, server, reading),
        "template" => template::read(directive, server, reading),
        _ => return others(directive, reading),
    }
    server.plugins.extend(SUPPORTED.iter().find(|supported| **supported == name));
}

fn others(directive: &Directive, reading: &mut Reading) {
    let name = directive.name.text.as_str();
    if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
        return reading.note(&directive.name, format!("{name} has no effect: {why}"));
    }
    let text = match NOT_SUPPORTED.contains(&name) {
        true => format!("the plugin {name} is not supported"),
        false => format!("{name} is no plugin that CoreDNS comes with, and is not supported"),
    };
    reading.refuse(&directive.name, text);
}
