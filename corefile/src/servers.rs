//! Server blocks with their plugins, and what concerns several of them.

use std::collections::BTreeSet;

use crate::blocks::Block;
use crate::domain::Domain;
use crate::lines::Word;
use crate::model::{Bind, Corefile, Key, Server};
use crate::plugins::{self, Reading};
use crate::problem::{Place, Problem, Problems};

/// Where a server block listens that names no port.
const PORT: u16 = 53;

/// Reads all blocks. `file` is the name of the Corefile, for what concerns none of its lines.
pub(crate) fn read(file: &str, blocks: &[Block]) -> Result<Corefile, Problems> {
    let mut reading = Reading::default();
    let servers: Vec<Server> = blocks.iter().filter_map(|block| server(block, &mut reading)).collect();
    let Reading { mut problems, mut notes, .. } = reading;
    if blocks.is_empty() {
        problems.push(
            Place { file: file.into(), line: 1 }.problem("there is no server block, such as `.:53 { … }`"),
        );
    }
    problems.extend(same_zones(&servers));
    problems.extend(several_clusters(&servers));
    problems.extend(several_addresses(&servers));
    for server in &servers {
        notes.extend(never_reached(server));
        problems.extend(nobody_to_answer(server));
    }
    problems.sort();
    problems.dedup();
    notes.sort();
    notes.dedup();
    if problems.is_empty() { Ok(Corefile { servers, notes }) } else { Err(Problems(problems)) }
}

fn server(block: &Block, reading: &mut Reading) -> Option<Server> {
    let mut keys = Vec::new();
    for word in &block.keys {
        keys.extend(keys_of(word, reading));
    }
    keys.dedup();
    let place = block.keys.first()?.place.clone();
    reading.zones = keys.iter().map(|key| key.domain.clone()).collect();
    let mut server = Server {
        place,
        keys,
        bind: Vec::new(),
        kubernetes: None,
        forwards: Vec::new(),
        cache: None,
        hosts: None,
        rewrites: Vec::new(),
        templates: Vec::new(),
        autopath: None,
        logs: Vec::new(),
        health: None,
        ready: None,
        prometheus: None,
        reload: false,
        plugins: BTreeSet::new(),
    };
    for directive in &block.directives {
        plugins::read(directive, &mut server, reading);
    }
    Some(server)
}

/// `[dns://]ZONE[:PORT]`, where the zone may be a network.
fn keys_of(word: &Word, reading: &mut Reading) -> Vec<Key> {
    let text = match word.text.split_once("://") {
        None => word.text.as_str(),
        Some(("dns", text)) => text,
        Some((scheme, _)) => {
            reading.refuse(
                word,
                format!(
                    "{scheme}:// is not supported in a Corefile; see the flags --dot, --doh, --doq and --doh3"
                ),
            );
            return Vec::new();
        }
    };
    let (zone, port) = match text.rsplit_once(':') {
        Some((zone, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => match port.parse::<u16>() {
            Ok(port) if port > 0 => (zone, port),
            _ => {
                reading.refuse(word, format!("{:?}: {port:?} is no port", word.text));
                return Vec::new();
            }
        },
        _ => (text, PORT),
    };
    match Domain::expand(zone) {
        Ok(domains) => domains.into_iter().map(|domain| Key { domain, port }).collect(),
        Err(problem) => {
            reading.refuse(word, format!("no zone: {problem}"));
            Vec::new()
        }
    }
}

/// Whether two blocks listen at a common address: without `bind` everywhere.
fn share_addresses(one: &Server, other: &Server) -> bool {
    let places = |server: &Server| {
        server.bind.iter().filter(|bind| !matches!(bind, Bind::Except(_))).cloned().collect::<Vec<_>>()
    };
    let (one, other) = (places(one), places(other));
    one.is_empty() || other.is_empty() || one.iter().any(|bind| other.contains(bind))
}

/// A name must belong to one block.
fn same_zones(servers: &[Server]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        for key in &server.keys {
            let other = servers[..number]
                .iter()
                .find(|other| other.keys.contains(key) && share_addresses(other, server));
            if let Some(other) = other {
                let text = format!(
                    "the zone {} with port {} stands in the block of line {} already",
                    key.domain, key.port, other.place.line
                );
                problems.push(server.place.problem(text));
            }
        }
        for other in &servers[..number] {
            let same_port = other.keys.iter().any(|one| server.keys.iter().any(|two| one.port == two.port));
            if same_port && other.bind != server.bind {
                let text = format!(
                    "all server blocks of a port must have the same bind, here and in the block of line {}: \
                    addresses of their own for zones of one port are not supported",
                    other.place.line
                );
                problems.push(server.place.problem(text));
            }
        }
    }
    problems
}

fn several_clusters(servers: &[Server]) -> Vec<Problem> {
    let clusters: Vec<_> = servers.iter().filter_map(|server| server.kubernetes.as_ref()).collect();
    let first = clusters.first().map_or(0, |first| first.place.line);
    let text = format!(
        "a second kubernetes is not supported: the one of line {first} may have several zones of addresses"
    );
    let mut problems: Vec<Problem> =
        clusters.iter().skip(1).map(|cluster| cluster.place.problem(text.clone())).collect();
    let alone = |server: &&Server| server.autopath.is_some() && server.kubernetes.is_none();
    let alone = servers.iter().filter(alone);
    problems.extend(alone.map(|server| {
        server.place.problem("autopath @kubernetes needs kubernetes in the same server block")
    }));
    problems
}

/// These are of the whole process.
fn several_addresses(servers: &[Server]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let before = &servers[..number];
        let other = |differs: &dyn Fn(&Server) -> bool| {
            before.iter().find(|other| differs(other)).map(|other| other.place.line)
        };
        let health = |other: &Server| {
            other.health.is_some() && server.health.is_some() && other.health != server.health
        };
        let ready =
            |other: &Server| other.ready.is_some() && server.ready.is_some() && other.ready != server.ready;
        let prometheus = |other: &Server| {
            other.prometheus.is_some() && server.prometheus.is_some() && other.prometheus != server.prometheus
        };
        let found =
            [("health", other(&health)), ("ready", other(&ready)), ("prometheus", other(&prometheus))];
        for (name, line) in found {
            if let Some(line) = line {
                problems.push(server.place.problem(format!(
                    "{name} differs from that of the block of line {line}: there is one for all"
                )));
            }
        }
    }
    problems
}

/// A `forward` after one that takes all of its names, or of names that are another block's.
fn never_reached(server: &Server) -> Vec<Problem> {
    let mut notes = Vec::new();
    for (number, forward) in server.forwards.iter().enumerate() {
        let taken = server.forwards[..number]
            .iter()
            .find(|other| other.from.covers(&forward.from) && other.except.is_empty());
        let of_others = !server
            .keys
            .iter()
            .any(|key| key.domain.covers(&forward.from) || forward.from.covers(&key.domain));
        match taken {
            Some(other) => notes.push(forward.place.problem(format!(
                "forward {} is never reached: forward {} of line {} takes all of its names; put it first",
                forward.from, other.from, other.place.line
            ))),
            None if of_others => {
                notes.push(forward.place.problem(format!(
                    "forward {} is never reached: this server block has none of its names",
                    forward.from
                )));
            }
            None => {}
        }
    }
    notes
}

/// As CoreDNS, which would refuse every query.
fn nobody_to_answer(server: &Server) -> Option<Problem> {
    let answers = server.kubernetes.is_some()
        || !server.forwards.is_empty()
        || server.hosts.is_some()
        || !server.templates.is_empty();
    let unknown = server.plugins.is_empty();
    (!answers && !unknown).then(|| {
        server.place.problem(
            "nothing in this server block answers: it has none of kubernetes, forward, hosts and template",
        )
    })
}
