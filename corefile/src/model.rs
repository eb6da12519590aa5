//! What a Corefile says, as values. Whatever is in here Weft's DNS server does.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::domain::Domain;
use crate::pattern::Pattern;
use crate::problem::{Place, Problem};

/// A whole Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// Its server blocks, in order.
    pub servers: Vec<Server>,
    /// What is read without effect, and why, in the order of lines.
    pub notes: Vec<Problem>,
}

/// A server block: some zones at some addresses, and what is done with their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it begins.
    pub place: Place,
    /// Its zones, each with a port.
    pub keys: Vec<Key>,
    /// `bind`: where to listen; everywhere where it is empty.
    pub bind: Vec<Bind>,
    /// `kubernetes`.
    pub kubernetes: Option<Kubernetes>,
    /// `forward`, in order.
    pub forwards: Vec<Forward>,
    /// `cache`.
    pub cache: Option<Cache>,
    /// `hosts`.
    pub hosts: Option<Hosts>,
    /// `rewrite`, in order.
    pub rewrites: Vec<Rewrite>,
    /// `template`, in order.
    pub templates: Vec<Template>,
    /// `autopath @kubernetes`, and its zones.
    pub autopath: Option<Vec<Domain>>,
    /// `log`, in order.
    pub logs: Vec<Log>,
    /// `health`.
    pub health: Option<Health>,
    /// `ready`.
    pub ready: Option<HttpAddress>,
    /// `prometheus`.
    pub prometheus: Option<HttpAddress>,
    /// `reload`: the Corefile is followed.
    pub reload: bool,
    /// The names of all plugins that it has.
    pub plugins: BTreeSet<&'static str>,
}

/// A zone of a server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The zone.
    pub domain: Domain,
    /// The port.
    pub port: u16,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// At this address.
    Address(IpAddr),
    /// At all addresses of that interface.
    Interface(String),
    /// Not at this address, of those of interfaces.
    Except(IpAddr),
}

/// The address of an HTTP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// The address; every one where there is none.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// `health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where.
    pub address: HttpAddress,
    /// `lameduck`.
    pub lameduck: Option<Duration>,
}

/// Names that are passed on where there is no answer: those below these domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fall(pub Vec<Domain>);

impl Fall {
    /// Whether a name is passed on.
    pub fn through(&self, name: &Domain) -> bool {
        self.0.iter().any(|domain| domain.covers(name))
    }
}

/// `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Its line.
    pub place: Place,
    /// The cluster's domain.
    pub zone: Domain,
    /// The zones of addresses' names that the cluster has.
    pub reverse: Vec<Domain>,
    /// How the API server is reached.
    pub access: Access,
    /// `namespaces`: only these, where there are any.
    pub namespaces: BTreeSet<String>,
    /// `namespace_labels`: only namespaces with these labels.
    pub namespace_labels: Option<String>,
    /// `labels`: only objects with these labels.
    pub labels: Option<String>,
    /// `pods`.
    pub pods: Pods,
    /// `endpoint_pod_names`.
    pub endpoint_pod_names: bool,
    /// `ttl`, in seconds.
    pub ttl: u32,
    /// `noendpoints`.
    pub noendpoints: bool,
    /// `fallthrough`.
    pub fall: Fall,
    /// `ignore empty_service`.
    pub ignore_empty_service: bool,
}

/// How the API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// By the pod's own service account, or by the flags.
    #[default]
    InCluster,
    /// `kubeconfig FILE [CONTEXT]`
    Kubeconfig {
        /// The file.
        file: String,
        /// The context; the current one where none is named.
        context: Option<String>,
    },
    /// `endpoint URL`, with `tls`.
    Endpoint {
        /// The URL.
        url: String,
        /// Files of certificate, key and authority.
        tls: Option<[String; 3]>,
    },
}

/// Which names of pods there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// None.
    #[default]
    Disabled,
    /// Those of every address.
    Insecure,
    /// Those of addresses that a pod has.
    Verified,
}

/// `forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its line.
    pub place: Place,
    /// The names that are forwarded.
    pub from: Domain,
    /// Who is asked.
    pub to: Vec<Target>,
    /// `except`.
    pub except: Vec<Domain>,
    /// `policy`.
    pub policy: Policy,
    /// `force_tcp`.
    pub force_tcp: bool,
    /// `max_concurrent`; any number where it is 0.
    pub max_concurrent: u32,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This server.
    Address(SocketAddr),
    /// The address of a link, with the name of its interface: `fe80::1%eth0`. As it stands.
    Scoped(String),
    /// The name servers of this resolv.conf.
    File(String),
}

/// Who of them is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// One after the other.
    RoundRobin,
    /// Always the first.
    Sequential,
}

/// `cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Whose names are cached.
    pub zones: Vec<Domain>,
    /// Answers.
    pub success: Kept,
    /// Denials.
    pub denial: Kept,
    /// For how long failures are kept.
    pub servfail: Duration,
}

/// How answers or denials are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How many at most.
    pub capacity: usize,
    /// For how many seconds at most.
    pub longest: u32,
    /// For how many seconds at least.
    pub shortest: u32,
    /// `disable`: not of these names.
    pub except: Vec<Domain>,
}

/// `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The file.
    pub file: String,
    /// Whose names it has.
    pub zones: Vec<Domain>,
    /// Lines of such a file that stand in the Corefile.
    pub inline: Vec<String>,
    /// `ttl`, in seconds.
    pub ttl: u32,
    /// Whether addresses lead back to names.
    pub reverse: bool,
    /// `reload`: whether the file is followed.
    pub reload: bool,
    /// `fallthrough`.
    pub fall: Fall,
    /// `fallthrough_unsupported`.
    pub fall_unsupported: bool,
}

/// `rewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Whether rules after this one are tried too.
    pub goes_on: bool,
    /// What is rewritten.
    pub rule: Rule,
}

/// What a `rewrite` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `name`: another name is looked for.
    Name {
        /// Which names.
        matcher: Matcher,
        /// What stands in the place of what matched.
        to: String,
        /// Whether names in the answer are led back.
        auto: bool,
        /// `answer name` and `answer value`, in order.
        answers: Vec<AnswerRule>,
    },
    /// `type`: another type is looked for. By name, in upper case.
    Type {
        /// The type asked for.
        from: String,
        /// The one that is looked for.
        to: String,
    },
    /// `ttl`: times to live of the answer are brought into this range.
    Ttl {
        /// Which names.
        matcher: Matcher,
        /// At least, in seconds.
        shortest: u32,
        /// At most, in seconds.
        longest: u32,
    },
    /// `rcode`: the answer has another code.
    Code {
        /// Which names.
        matcher: Matcher,
        /// The code of the answer.
        from: u16,
        /// The one that clients get.
        to: u16,
    },
}

/// Which names a rule is about: those in lower case, with the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// This one.
    Exact(String),
    /// Those that begin so.
    Prefix(String),
    /// Those that end so.
    Suffix(String),
    /// Those with this in them.
    Substring(String),
    /// Those that match.
    Regex(Pattern),
}

/// `answer name FROM TO` and `answer value FROM TO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRule {
    /// Whether it is about the names in records' data, and not about their owners.
    pub value: bool,
    /// What is replaced.
    pub from: Pattern,
    /// By what; `{1}` is a group.
    pub to: String,
}

/// `template`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The type, in upper case; every one where there is none.
    pub record_type: Option<String>,
    /// Whose names.
    pub zones: Vec<Domain>,
    /// Any of these must match.
    pub patterns: Vec<Pattern>,
    /// The records of answer, authority and additional section.
    pub records: [Vec<RecordText>; 3],
    /// The response code.
    pub code: u16,
    /// `ederror`: code and words.
    pub extended: Option<(u16, String)>,
    /// `fallthrough`.
    pub fall: Fall,
}

/// A record as text with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    /// Its line.
    pub place: Place,
    /// The pieces, one after the other.
    pub pieces: Vec<Piece>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `{{ .Name }}`
    Name,
    /// `{{ .Zone }}`
    Zone,
    /// `{{ .Class }}`
    Class,
    /// `{{ .Type }}`
    Type,
    /// `{{ .Remote }}`
    Remote,
    /// `{{ index .Match 1 }}` and `{{ .Group.1 }}`
    Match(usize),
    /// `{{ .Group.name }}`
    Group(String),
}

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Whose names.
    pub zone: Domain,
    /// Which answers.
    pub classes: BTreeSet<AnswerClass>,
}

/// What became of a query, as `log` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerClass {
    /// There is an answer.
    Success,
    /// There is no such name, or no such record.
    Denial,
    /// It failed.
    Error,
}

impl Server {
    /// Whether a name with that port is looked for in this block, and by which of its zones.
    pub fn zone_of(&self, name: &Domain) -> Option<&Domain> {
        let covering = self.keys.iter().map(|key| &key.domain).filter(|domain| domain.covers(name));
        covering.max_by_key(|domain| domain.as_str().len())
    }
}
