//! A flow with names, which are wanted, and how it is shown: as a line for people, and as JSON. Pure.

use std::fmt;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_types::NamespacedName;
use weft_types::flow::{FlowEnd, FlowEvent, Happening, Traffic, protocol_name};

use super::names::{Names, Party};

/// The port of DNS.
const DNS: u16 = 53;
/// UDP.
const UDP: u8 = 17;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// It passed.
    #[value(alias = "forwarded", alias = "FORWARDED")]
    Allowed,
    /// Network policies denied it.
    #[value(alias = "dropped", alias = "DROPPED")]
    Denied,
}

/// An event, with who its ends are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) node: String,
    pub(super) event: FlowEvent,
    source: Party,
    destination: Party,
    endpoint: Option<Party>,
}

/// Which flows somebody wants: all of what is given must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) namespaces: Vec<String>,
    pub(super) pods: Vec<NamespacedName>,
    pub(super) verdict: Option<Verdict>,
}

impl Flow {
    /// An event that a node told of.
    pub(super) fn new(node: &str, event: FlowEvent, names: &Names) -> Flow {
        Flow {
            node: node.to_owned(),
            source: names.owner(event.source.address),
            destination: names.wanted(&event.destination, event.protocol),
            endpoint: event.endpoint.map(|end| names.owner(end.address)),
            event,
        }
    }

    /// Whether an answer tells of the same: then the connection that carried it is no news.
    pub(super) fn is_told_by_an_answer(&self, sees_dns: bool) -> bool {
        let event = &self.event;
        let is_news = matches!(event.event, Happening::Begins | Happening::Ends { answered: true, .. });
        let is_dns = event.protocol == UDP && event.destination.port == Some(DNS);
        // What a node itself asks is not seen.
        sees_dns && is_news && is_dns && !matches!(self.source, Party::Node(_) | Party::Unknown)
    }

    fn verdict(&self) -> Verdict {
        if self.event.event.is_allowed() { Verdict::Allowed } else { Verdict::Denied }
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        [&self.source, &self.destination].into_iter().chain(&self.endpoint)
    }
}

impl Filter {
    /// Whether a flow is wanted.
    pub(super) fn passes(&self, flow: &Flow) -> bool {
        let is_of = |wanted: &dyn Fn(&NamespacedName) -> bool, party: &Party| match party {
            Party::Pod(key) | Party::Service(key) => wanted(key),
            Party::Node(_) | Party::Unknown => false,
        };
        let in_namespace = |key: &NamespacedName| self.namespaces.iter().any(|one| *one == *key.namespace);
        let is_pod = |party: &Party| matches!(party, Party::Pod(key) if self.pods.contains(key));
        self.verdict.is_none_or(|verdict| verdict == flow.verdict())
            && (self.namespaces.is_empty() || flow.parties().any(|party| is_of(&in_namespace, party)))
            && (self.pods.is_empty() || flow.parties().any(is_pod))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Verdict::Allowed { "allowed" } else { "denied" })
    }
}

/// `04:10:11.123  node1  allowed  shop/web:4000 -> svc/shop/db:5432 (shop/db-0:5432) TCP begins`
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow { node, event, source, destination, .. } = self;
        let time = timestamp(event.time);
        let time = time.get(11..23).unwrap_or(&time);
        write!(f, "{time}  {node}  {:7}  ", self.verdict())?;
        write!(f, "{} -> {}", shown(source, &event.source), shown(destination, &event.destination))?;
        if let (Some(party), Some(end)) = (&self.endpoint, &event.endpoint) {
            write!(f, " ({})", shown(party, end))?;
        }
        write!(f, " {} ", protocol_name(event.protocol))?;
        match &event.event {
            Happening::Begins => f.write_str("begins"),
            Happening::Ends { answered, sent, received } => {
                f.write_str(if *answered { "ends" } else { "ends without an answer" })?;
                sent.iter().try_for_each(|sent| write!(f, ", sent {}", amount(sent)))?;
                let received = received.filter(|_| *answered);
                received.iter().try_for_each(|received| write!(f, ", received {}", amount(received)))
            }
            Happening::Denied { direction, reason, .. } => {
                let reason = reason.strip_prefix("denied").unwrap_or(reason).trim_start_matches([':', ' ']);
                write!(f, "{direction}: {reason}")
            }
            Happening::Asked { name, record_type, code } => write!(f, "asks {name} {record_type}: {code}"),
            Happening::Unknown => f.write_str("does something that this release does not know"),
        }
    }
}

impl Flow {
    /// One object.
    pub(super) fn json(&self) -> Value {
        let event = &self.event;
        let mut value = json!({
            "time": timestamp(event.time),
            "node": self.node,
            "verdict": self.verdict().to_string(),
            "protocol": protocol_name(event.protocol),
            "source": end_json(&self.source, &event.source),
            "destination": end_json(&self.destination, &event.destination),
        });
        if let (Some(party), Some(end)) = (&self.endpoint, &event.endpoint) {
            value["endpoint"] = end_json(party, end);
        }
        // Its kind, and what belongs to that.
        let happening = serde_json::to_value(&event.event).unwrap_or_default();
        if let (Value::Object(all), Value::Object(more)) = (&mut value, happening) {
            all.extend(more);
        }
        value
    }
}

fn end_json(party: &Party, end: &FlowEnd) -> Value {
    let mut value = json!(end);
    let (kind, name) = match party {
        Party::Pod(key) => ("pod", key.to_string()),
        Party::Service(key) => ("service", key.to_string()),
        Party::Node(node) => ("node", node.clone()),
        Party::Unknown => return value,
    };
    value[kind] = name.into();
    value
}

fn shown(party: &Party, end: &FlowEnd) -> String {
    match (party, end.port) {
        (Party::Unknown, _) => end.to_string(),
        (party, Some(port)) => format!("{party}:{port}"),
        (party, None) => party.to_string(),
    }
}

fn timestamp(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(|time| Timestamp::from_millisecond(time).ok());
    time.map_or_else(|| milliseconds.to_string(), |time| format!("{time:.3}"))
}

/// `12 packets, 3.1 kB`
fn amount(traffic: &Traffic) -> String {
    let Traffic { packets, bytes } = *traffic;
    let plural = if packets == 1 { "" } else { "s" };
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut tenths = bytes / 100;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    let size = match bytes {
        0..1000 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    };
    format!("{packets} packet{plural} {size}")
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::{event, names};
    use super::*;

    fn flow(node: &str, happening: Happening) -> Flow {
        let event = event("10.244.0.2:40212", "10.96.0.7:5432", Some("10.244.1.3:5432"));
        Flow::new(node, FlowEvent { event: happening, ..event }, &names())
    }

    fn ends(answered: bool, bytes: u64) -> Happening {
        let traffic = |packets, bytes| Some(Traffic { packets, bytes });
        Happening::Ends { answered, sent: traffic(1, 60), received: traffic(10, bytes) }
    }

    fn denied() -> Flow {
        let (direction, policies) = ("ingress".to_owned(), vec!["NetworkPolicy shop/closed".to_owned()]);
        let reason = "denied: isolated by NetworkPolicy shop/closed, and no rule allows it".to_owned();
        let event = event("10.244.0.2:40218", "10.244.1.3:5432", None);
        let event = FlowEvent { event: Happening::Denied { direction, policies, reason }, ..event };
        Flow::new("node2", event, &names())
    }

    fn asked() -> Flow {
        let [name, record_type, code] = ["db.shop.svc.cluster.local.", "AAAA", "NOERROR"].map(str::to_owned);
        let event = event("10.244.0.2:40001", "172.30.0.12:53", None);
        Flow::new(
            "node1",
            FlowEvent { protocol: UDP, event: Happening::Asked { name, record_type, code }, ..event },
            &names(),
        )
    }

    #[test]
    fn each_flow_is_one_line() {
        let outside = Flow::new("node1", event("198.51.100.7:4000", "172.30.0.11:22", None), &names());
        let ping = event("10.244.0.2:0", "10.244.1.3:0", None);
        let ping = Flow::new("node1", FlowEvent { protocol: 1, ..ping }, &names());
        let lines = [
            flow("node1", Happening::Begins),
            flow("node1", ends(true, 20_449)),
            flow("node1", ends(false, 0)),
            flow("node1", Happening::Ends { answered: true, sent: None, received: None }),
            denied(),
            asked(),
            outside,
            ping,
            flow("node1", Happening::Unknown),
        ];
        insta::assert_snapshot!(lines.map(|line| line.to_string()).join("\n"));
    }

    #[test]
    fn each_flow_is_one_object() {
        let objects = [flow("node1", ends(true, 20_449)), denied(), asked()];
        insta::assert_snapshot!(objects.map(|flow| flow.json().to_string()).join("\n"));
    }

    #[test]
    fn amounts_are_short_and_in_one_unit() {
        let amounts = [(0, 0), (1, 999), (2, 1000), (3, 999_949), (4, 1_000_000), (5, 123_456_789_012)];
        let told = amounts.map(|(packets, bytes)| amount(&Traffic { packets, bytes }));
        let expected = [
            "0 packets 0 B",
            "1 packet 999 B",
            "2 packets 1.0 kB",
            "3 packets 999.9 kB",
            "4 packets 1.0 MB",
            "5 packets 123.4 GB",
        ];
        assert_eq!(told, expected);
        assert!(amount(&Traffic { packets: u64::MAX, bytes: u64::MAX }).ends_with(" TB"));
    }

    #[test]
    fn a_filter_passes_what_somebody_wants() {
        let pod = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            NamespacedName::new(namespace, name)
        };
        let passes = |filter: &Filter| {
            [flow("node1", Happening::Begins), denied(), asked()].map(|flow| filter.passes(&flow))
        };
        let all = Filter::default();
        assert_eq!(passes(&all), [true; 3]);
        assert_eq!(passes(&Filter { verdict: Some(Verdict::Denied), ..all.clone() }), [false, true, false]);
        assert_eq!(passes(&Filter { namespaces: vec!["shop".into()], ..all.clone() }), [true; 3]);
        assert_eq!(passes(&Filter { namespaces: vec!["sho".into()], ..all.clone() }), [false; 3]);
        assert_eq!(passes(&Filter { pods: vec![pod("shop/db-0")], ..all.clone() }), [true, true, false]);
        // Not the Service of that name.
        assert_eq!(passes(&Filter { pods: vec![pod("shop/db")], ..all }), [false; 3]);
    }

    #[test]
    fn what_a_dns_answer_tells_of_is_told_once() {
        let dns = |source: &str, happening: Happening| {
            let event = event(source, "10.96.0.7:53", None);
            Flow::new("node1", FlowEvent { protocol: UDP, event: happening, ..event }, &names())
        };
        let pod = "10.244.0.2:4000";
        assert!(dns(pod, Happening::Begins).is_told_by_an_answer(true));
        assert!(dns(pod, ends(true, 1)).is_told_by_an_answer(true));
        assert!(!dns(pod, ends(false, 0)).is_told_by_an_answer(true), "no answer came");
        assert!(!dns(pod, Happening::Begins).is_told_by_an_answer(false));
        assert!(!dns("172.30.0.11:4000", Happening::Begins).is_told_by_an_answer(true), "a node's own");
        assert!(
            !asked().is_told_by_an_answer(true)
                && !flow("node1", Happening::Begins).is_told_by_an_answer(true)
        );
    }
}
