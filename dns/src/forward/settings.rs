//! Where names outside of the cluster are asked, as values: from flags or resolv.conf, and from the
//! `kube-dns` ConfigMap that stands above both. Pure: files and objects are read by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use clap::ValueEnum;
use hickory_proto::rr::Name;
use serde_json::Value;

use super::keeping::Keeping;
use super::upstreams::{is_same, parse_upstream};
use crate::wire::name::wire_name;

/// The most upstreams of one list, as CoreDNS has it.
const MOST_UPSTREAMS: usize = 15;

/// How the letters of names are spelled to upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// At random, so that a forger has them to guess too (0x20); in lower case to upstreams that do not take
    /// that.
    #[default]
    Random,
    /// In lower case.
    Plain,
}

/// Which upstream is asked first, as CoreDNS names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// One after the other.
    RoundRobin,
    /// Always the first of the list that answers.
    Sequential,
}

/// Who is asked for the names of a domain, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Who; nobody where there is none, and the names are refused.
    pub upstreams: Vec<SocketAddr>,
    /// How.
    pub manner: Manner,
}

/// How upstreams are asked, where it is not as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Which upstream is asked first; as for all others where it is not said.
    pub policy: Option<Policy>,
    /// Whether they are asked over TCP alone.
    pub tcp: bool,
    /// For how long their answers are kept.
    pub keeping: Keeping,
}

impl From<Vec<SocketAddr>> for Route {
    fn from(upstreams: Vec<SocketAddr>) -> Route {
        Route { upstreams, manner: Manner::default() }
    }
}

/// Who is asked for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// For all names that no stub domain covers. May be empty: such names are refused.
    pub upstreams: Vec<SocketAddr>,
    /// Whether a person named them: they are not merely those that the node happens to have.
    pub chosen: bool,
    /// How those are asked.
    pub manner: Manner,
    /// Domain, in wire form -> who is asked for it and for all below it.
    pub stub_domains: BTreeMap<Box<[u8]>, Route>,
    /// The node's own search list, which pods have too, after the cluster's domains.
    pub search: Vec<Name>,
}

impl Settings {
    /// Whether the same upstreams are asked for the same names, in whatever order.
    pub(super) fn asks_like(&self, other: &Settings) -> bool {
        let sorted = |addresses: &[SocketAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        let stubs = |settings: &Settings| -> Vec<_> {
            let stubs = settings.stub_domains.iter();
            stubs
                .map(|(domain, route)| (domain.clone(), sorted(&route.upstreams), route.manner.clone()))
                .collect()
        };
        let all = |settings: &Settings| (sorted(&settings.upstreams), settings.manner.clone());
        all(self) == all(other) && stubs(self) == stubs(other)
    }
}

/// What the `kube-dns` ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `upstreamNameservers`, which replace those of the node.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// `stubDomains`.
    pub stub_domains: BTreeMap<Box<[u8]>, Vec<SocketAddr>>,
}

impl Overrides {
    /// Reads the ConfigMap's data. Keys that are not known are left alone. `own` are the addresses of this
    /// server, to which queries must not be led.
    ///
    /// # Errors
    /// One line that names the key and what is wrong with it.
    pub fn read(data: &BTreeMap<String, String>, own: &[SocketAddr]) -> Result<Overrides, String> {
        let read = |key: &str| match data.get(key).map(|text| text.trim()).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => {
                serde_json::from_str::<Value>(text).map(Some).map_err(|error| format!("{key}: {error}"))
            }
        };
        let upstreams = read("upstreamNameservers")?;
        let upstreams = upstreams.map(|value| servers("upstreamNameservers", &value, own)).transpose()?;
        let Some(stubs) = read("stubDomains")? else {
            return Ok(Overrides { upstreams, ..Overrides::default() });
        };
        let Value::Object(stubs) = stubs else {
            return Err("stubDomains: expected an object of domains and lists of addresses".to_owned());
        };
        let stub = |(domain, value): (&String, &Value)| {
            let what = format!("stubDomains: {domain}");
            let wire = wire_name(domain).map_err(|error| format!("{what}: {error}"))?;
            Ok((wire, servers(&what, value, own)?))
        };
        Ok(Overrides { upstreams, stub_domains: stubs.iter().map(stub).collect::<Result<_, String>>()? })
    }

    /// The whole: these over those of the node.
    pub fn over(&self, node: &Settings) -> Settings {
        Settings {
            upstreams: self.upstreams.clone().unwrap_or_else(|| node.upstreams.clone()),
            chosen: self.upstreams.is_some() || node.chosen,
            manner: node.manner.clone(),
            stub_domains: self
                .stub_domains
                .iter()
                .map(|(domain, servers)| (domain.clone(), servers.clone().into()))
                .collect(),
            search: node.search.clone(),
        }
    }
}

fn servers(what: &str, value: &Value, own: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
    let Value::Array(items) = value else {
        return Err(format!("{what}: expected a list of addresses, such as [\"192.0.2.53\"]"));
    };
    if items.is_empty() || items.len() > MOST_UPSTREAMS {
        return Err(format!("{what}: expected 1 to {MOST_UPSTREAMS} addresses, not {}", items.len()));
    }
    let server = |item: &Value| {
        let text = item.as_str().unwrap_or_default();
        let address = parse_upstream(text).map_err(|error| format!("{what}: {item}: {error}"))?;
        match own.iter().any(|own| is_same(&address, own)) {
            true => Err(format!("{what}: {address} is this server itself: questions would go in loops")),
            false => Ok(address),
        }
    };
    items.iter().map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Overrides, String> {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Overrides::read(&data, &["10.96.0.10:53".parse().unwrap()])
    }

    #[test]
    fn both_keys_are_read_as_kube_dns_has_them() {
        let overrides = read(&[
            ("stubDomains", r#"{"Acme.local": ["1.2.3.4"], "corp.example.": ["10.0.0.1:5353", "fd00::1"]}"#),
            ("upstreamNameservers", r#"["8.8.8.8", "8.8.4.4"]"#),
            ("federations", "{"),
        ])
        .unwrap();
        assert_eq!(
            overrides.upstreams,
            Some(vec!["8.8.8.8:53".parse().unwrap(), "8.8.4.4:53".parse().unwrap()])
        );
        let stubs: Vec<_> = overrides.stub_domains.iter().collect();
        assert_eq!(stubs[0].0[..], *b"\x04acme\x05local");
        assert_eq!(stubs[1].1[..], ["10.0.0.1:5353".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
    }

    #[test]
    fn without_keys_the_node_s_upstreams_stay() {
        let node = Settings { upstreams: vec!["192.0.2.1:53".parse().unwrap()], ..Settings::default() };
        assert_eq!(read(&[]).unwrap().over(&node), node);
        assert_eq!(read(&[("upstreamNameservers", " ")]).unwrap(), Overrides::default());
        let chosen = read(&[("upstreamNameservers", r#"["9.9.9.9"]"#)]).unwrap().over(&node);
        assert_eq!((&chosen.upstreams[..], chosen.chosen), (&["9.9.9.9:53".parse().unwrap()][..], true));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        for (key, value, expected) in [
            ("stubDomains", "{", "stubDomains: EOF"),
            ("stubDomains", "[]", "stubDomains: expected an object"),
            ("stubDomains", r#"{"a..b": ["1.2.3.4"]}"#, "stubDomains: a..b: "),
            ("stubDomains", r#"{"a": "1.2.3.4"}"#, "stubDomains: a: expected a list"),
            ("stubDomains", r#"{"a": ["dns.example"]}"#, "stubDomains: a: \"dns.example\": expected ADDR"),
            ("upstreamNameservers", "[1]", "upstreamNameservers: 1: expected ADDR"),
            ("upstreamNameservers", "[]", "upstreamNameservers: expected 1 to 15"),
            ("upstreamNameservers", r#"["10.96.0.10"]"#, "10.96.0.10:53 is this server itself"),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        }
    }
}
