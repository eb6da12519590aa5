//! What a server block does with names before it forwards them.

use weft_corefile::{Domain, Server};

use crate::pipeline::rules::Rules;
use crate::pipeline::rules::hosts::{Hosts, HostsSettings};
use crate::pipeline::rules::rewrite::Rewrites;
use crate::pipeline::rules::template::{Templates, wire_domain};

/// The rules of a server block; none where it has none. `text` is that of its hosts file, where there is one.
pub fn rules(server: &Server, text: Option<&str>) -> Option<Rules> {
    let wire = |domains: &[Domain]| domains.iter().map(wire_domain).collect::<Vec<_>>();
    let hosts = server.hosts.as_ref().map(|hosts| {
        let settings = HostsSettings {
            zones: wire(&hosts.zones),
            fall: wire(&hosts.fall.0),
            fall_unsupported: hosts.fall_unsupported,
            ttl: hosts.ttl,
            reverse: hosts.reverse,
        };
        Hosts::new(settings, text.into_iter().chain(hosts.inline.iter().map(String::as_str)))
    });
    let rewrites = Rewrites::new(server.rewrites.clone());
    let rules = Rules { rewrites, templates: Templates::new(server.templates.clone()), hosts };
    (!rules.is_empty()).then_some(rules)
}
