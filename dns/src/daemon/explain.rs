//! The walk of a pod's resolver, step by step: which names it tries for a short one, what each leads to and
//! why. Each step is what a client would get; nothing is decided here.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, Record, RecordType};

use crate::pipeline::handler::{Handler, Step};
use crate::wire::decoder::decode;
use crate::wire::format::{EXTENDED_ERROR, Transport, mnemonic};
use crate::wire::name::QueryName;
use crate::zone::{Zone, ZoneName};

/// Who asks, as far as counting is concerned.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What somebody wants to know.
#[derive(Clone, Debug)]
pub struct ExplainRequest {
    /// Who asks.
    pub resolver: Resolver,
    /// The name as the pod has it.
    pub name: String,
    /// The type.
    pub record_type: RecordType,
}

/// How a pod's resolver looks for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// The pod's namespace.
    pub namespace: String,
    /// Whether the search list begins with the cluster's domains, as with every `dnsPolicy` but `None`.
    pub searches_cluster: bool,
    /// The pod's own search domains (`dnsConfig.searches`), after those.
    pub searches: Vec<String>,
    /// Names with so many dots are tried as they are first.
    pub ndots: usize,
}

/// What became of one name.
#[derive(Debug)]
pub struct Attempt {
    name: String,
    code: ResponseCode,
    answers: Vec<Record>,
    reasons: Vec<String>,
}

impl Resolver {
    /// As kubelet sets it up for a pod that says nothing of DNS.
    pub fn usual(namespace: &str) -> Resolver {
        Resolver { namespace: namespace.to_owned(), searches_cluster: true, searches: Vec::new(), ndots: 5 }
    }

    /// The names that it tries, in order. The node's own search list is not known here.
    pub fn walk(&self, zone: &ZoneName, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let cluster = [format!("{}.svc.{zone}", self.namespace), format!("svc.{zone}"), zone.to_string()];
        let cluster = cluster.into_iter().filter(|_| self.searches_cluster);
        let own = self.searches.iter().map(|domain| format!("{}.", domain.trim_end_matches('.')));
        let below = |domain: String| format!("{name}.{domain}").replace("..", ".");
        let mut names: Vec<String> = cluster.chain(own).map(below).collect();
        let place = if name.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(place, format!("{name}."));
        names
    }
}

/// Tries one name after the other until one has an answer, and tells of it.
pub async fn explain(handler: &Arc<Handler>, request: &ExplainRequest) -> String {
    let zone = handler.zone().config().zone.clone();
    let ExplainRequest { resolver, name, record_type } = request;
    let Resolver { namespace, ndots, .. } = resolver;
    let mut text =
        format!("{name} {record_type}, asked by a pod in namespace {namespace} (ndots:{ndots}):\n");
    for (name, number) in resolver.walk(&zone, name).into_iter().zip(1..) {
        let attempted = attempt(handler, name, *record_type).await;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{number}. {attempted}");
        if !attempted.answers.is_empty() {
            return text + "The pod takes this answer.\n";
        }
    }
    text + "The pod gets no answer.\n"
}

async fn attempt(handler: &Arc<Handler>, name: String, record_type: RecordType) -> Attempt {
    let failed = |reason: &str| Attempt {
        name: name.clone(),
        code: ResponseCode::FormErr,
        answers: Vec::new(),
        reasons: vec![reason.to_owned()],
    };
    let Ok(parsed) = Name::from_ascii(&name) else { return failed("not a domain name") };
    let Ok(question) = question(parsed, record_type).to_vec() else {
        return failed("cannot encode this query");
    };
    let reply = match handler.handle(&question, NOBODY, Transport::Tcp) {
        Step::Reply(reply) => reply,
        Step::Pending(waiting) => waiting.finish().await,
        Step::Drop => Vec::new(),
    };
    // The codec knows more types by their words, but not every record.
    let Ok(reply) = Message::from_vec(&reply).or_else(|_| decode(&reply)) else {
        return failed("no reply");
    };
    let mut reasons: Vec<String> = extended_errors(&reply).collect();
    reasons.extend(reply.answers.iter().filter_map(|record| idle(&handler.zone(), record)));
    if reply.metadata.response_code == ResponseCode::NoError && reply.answers.is_empty() {
        reasons.push(format!("the name exists, but has no {record_type} record"));
    }
    Attempt { name, code: reply.metadata.response_code, answers: reply.answers, reasons }
}

fn question(name: Name, record_type: RecordType) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record_type));
    message.set_edns(Edns::new());
    message
}

fn extended_errors(reply: &Message) -> impl Iterator<Item = String> {
    let options = reply.edns.iter().flat_map(|edns| edns.options().as_ref());
    options.filter_map(|(_, option)| match option {
        EdnsOption::Unknown(EXTENDED_ERROR, data) => {
            Some(String::from_utf8_lossy(data.get(2..)?).into_owned())
        }
        _ => None,
    })
}

/// Where an address is a Service's behind which nothing is ready.
fn idle(zone: &Zone, record: &Record) -> Option<String> {
    let address = record.data.ip_addr()?;
    let name = QueryName::from_name(&record.name).ok()?;
    let branch = zone.service(name.wire(0, name.len().min(2)))?;
    let is_own = name.len() == 3 + zone.config().zone.label_count();
    (is_own && !branch.leads_anywhere())
        .then(|| format!("no ready endpoint stands behind {address}: connections to it fail"))
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, mnemonic(self.code))?;
        self.answers.iter().try_for_each(|record| write!(f, "\n     {record}"))?;
        self.reasons.iter().try_for_each(|reason| write!(f, "\n     {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_searched_first_and_long_ones_last() {
        let (zone, pod) = ("cluster.local".parse().unwrap(), Resolver::usual("shop"));
        assert_eq!(
            pod.walk(&zone, "db"),
            ["db.shop.svc.cluster.local.", "db.svc.cluster.local.", "db.cluster.local.", "db."]
        );
        assert_eq!(
            pod.walk(&zone, "a.b.c.d.e.f")[..2],
            ["a.b.c.d.e.f.", "a.b.c.d.e.f.shop.svc.cluster.local."]
        );
        assert_eq!(pod.walk(&zone, "db."), ["db."]);
    }

    #[test]
    fn a_pod_s_own_search_list_comes_after_the_cluster_s_or_alone() {
        let zone = "cluster.local".parse().unwrap();
        let searches = vec!["corp.example".to_owned(), ".".to_owned()];
        let pod = Resolver { searches, ndots: 1, ..Resolver::usual("shop") };
        assert_eq!(
            pod.walk(&zone, "db")[2..],
            ["db.cluster.local.", "db.corp.example.", "db.", "db."],
            "the root is a search domain too"
        );
        let alone = Resolver { searches_cluster: false, ..pod };
        assert_eq!(alone.walk(&zone, "a.b"), ["a.b.", "a.b.corp.example.", "a.b."]);
    }
}
