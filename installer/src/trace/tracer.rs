//! Asks one node after the other, there and back, and says what came of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_policy::report::{Finding as Allowed, Report as PolicyReport};
use weft_trace::{Cause, End, Entry, NodeTrace, Question as NodeQuestion, Socket, Step, Tuple};

use super::cause::{Finding, finding, is_policy, not_masqueraded, nothing_listens};
use super::error::Error;
use super::question::Question;
use super::report::{Outcome, Path};
use super::way::{Ask, Goal, Way};
use super::world::{Site, World, key};
use crate::cluster::Cluster;

/// The client's port: the first of those that nobody is registered for (RFC 6335 section 6).
const CLIENT_PORT: u16 = 49152;
/// The numbers of ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];
/// So many endpoints of a Service are followed.
const MOST_ENDPOINTS: usize = 8;

/// Whoever asks the nodes.
pub(super) struct Tracer<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) world: &'a World,
    pub(super) question: &'a Question,
    pub(super) at: Option<&'a str>,
}

impl Tracer<'_> {
    /// The ways between a pair of addresses: one to each endpoint of a Service.
    pub(super) async fn pair(
        &self,
        from: &Site,
        to: &Site,
        (source, destination): (IpAddr, IpAddr),
    ) -> Result<Vec<Path>, Error> {
        let (protocol, port) = self.traffic(destination)?;
        let first = self.first(from, (source, destination), (protocol, port)).map_err(Error::Question)?;
        let shown = |site: &Site, address: IpAddr| match site.name.is_empty() {
            true => address.to_string(),
            false => format!("{} {address}", site.name),
        };
        let traffic = match (self.question.protocol, port) {
            (Some(protocol), Some(port)) => format!("{} port {port}", protocol.to_string().to_uppercase()),
            _ => "ping".to_owned(),
        };
        let empty =
            || Path::new(Outcome::Unknown, shown(from, source), shown(to, destination), traffic.clone());
        let there = self.go(first.clone(), None).await;
        let endpoints = there.nodes.iter().find(|trace| trace.endpoints.len() > 1);
        let Some((node, endpoints)) = endpoints.map(|trace| (trace.node.clone(), trace.endpoints.clone()))
        else {
            return Ok(vec![self.whole(empty(), first, there).await]);
        };
        let mut paths = Vec::new();
        for endpoint in endpoints.iter().take(MOST_ENDPOINTS) {
            let there = self.go(first.clone(), Some((&node, *endpoint))).await;
            let path = Path { endpoint: Some((*endpoint, endpoints.len())), ..empty() };
            paths.push(self.whole(path, first.clone(), there).await);
        }
        Ok(paths)
    }

    /// The protocol's number and the port.
    fn traffic(&self, destination: IpAddr) -> Result<(u8, Option<u16>), Error> {
        let service = self.world.service_at(destination);
        match (self.question.protocol, self.question.port, service) {
            (None, ..) => Ok((ICMP[usize::from(destination.is_ipv6())], None)),
            (Some(protocol), port, Some(service)) => {
                let port = self.world.port(service, &protocol.to_string(), port).map_err(Error::Question)?;
                Ok((protocol.number(), Some(port)))
            }
            (Some(protocol), Some(port), None) => Ok((protocol.number(), Some(port))),
            (Some(protocol), None, None) => {
                Err(Error::Question(format!("{protocol} needs a port, as in TO:80")))
            }
        }
    }

    /// What is asked first, and of which node.
    fn first(
        &self,
        from: &Site,
        (source, destination): (IpAddr, IpAddr),
        (protocol, port): (u8, Option<u16>),
    ) -> Result<Ask, String> {
        let source_port = port.map(|_| CLIENT_PORT);
        let ask = |entry, source, node: &str| {
            let packet = Tuple { source, source_port, destination, port };
            Ask { node: node.to_owned(), question: NodeQuestion::new(entry, packet, protocol) }
        };
        // A node's own packets get their source by the way that they take.
        let any: IpAddr = match source {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        match &from.node {
            Some(node) if from.is_pod => Ok(ask(Entry::Pod, source, node)),
            Some(node) => Ok(ask(Entry::Here, any, node)),
            None => match self.at.or(self.world.node_at(destination)) {
                Some(node) => Ok(ask(Entry::Link, source, node)),
                None => Err(format!(
                    "at which node a packet from {source} to {destination} comes in is not known: say so with --at NODE"
                )),
            },
        }
    }

    /// Follows a packet from node to node.
    async fn go(&self, first: Ask, endpoint: Option<(&str, SocketAddr)>) -> Way {
        let mut way = Way::default();
        let mut next = Some(first);
        while let Some(mut ask) = next {
            ask.question.endpoint = endpoint.filter(|(node, _)| *node == ask.node).map(|(_, to)| to);
            next = self.ask(&mut way, &ask).await;
        }
        way
    }

    async fn ask(&self, way: &mut Way, ask: &Ask) -> Option<Ask> {
        let path = format!("/trace?{}", ask.question.query());
        match self.cluster.ask_agent::<NodeTrace>(&ask.node, &path).await {
            Ok(trace) => way.take(self.world, ask, trace),
            Err(problem) => {
                let reason = format!("the agent of Node {} does not answer: {problem}", ask.node);
                way.goal = Some(Goal::Unknown { reason });
                None
            }
        }
    }

    /// The answer's way back, and what came of both.
    async fn whole(&self, mut path: Path, first: Ask, there: Way) -> Path {
        path.there = there;
        let arrives =
            matches!(&path.there.goal, Some(Goal::Arrives { socket, .. }) if *socket != Socket::Nothing);
        if arrives {
            let mut back = Way::default();
            let mut next = path.there.answer(first.question.protocol);
            while let Some(mut ask) = next {
                if !back.nodes.is_empty() {
                    ask.question = path.there.answering(&ask.node, ask.question);
                }
                next = self.ask(&mut back, &ask).await;
            }
            path.back = Some(back);
        }
        path.name_pods(self.world);
        path.notes.extend(mtu(&path.there));
        let came = path.there.nodes.first().map_or(first.question.packet(), |trace| trace.came);
        self.conclude(&mut path, &came).await;
        path
    }

    async fn conclude(&self, path: &mut Path, came: &Tuple) {
        let (outcome, finding) = self.there(path, came).await;
        (path.outcome, path.finding) = (outcome, finding);
        let Some(back) = &path.back else { return };
        let (outcome, finding) = match &back.goal {
            Some(Goal::Stops { .. }) => (Outcome::DoesNotArrive, self.stopped(back).await),
            Some(Goal::Unknown { reason }) => (Outcome::Unknown, Some(unknown(reason))),
            _ if back.returns_to(came) => (Outcome::Arrives, None),
            _ => {
                let seen = back.nodes.last().map(|last| last.left.to_string()).unwrap_or_default();
                let cause = format!("the answer comes back as {seen}, which the client waits for in vain");
                (Outcome::DoesNotArrive, Some(Finding::new(cause, "see the answer's way back above")))
            }
        };
        if path.finding.is_none() {
            let answer =
                |finding: Finding| Finding { cause: format!("the answer: {}", finding.cause), ..finding };
            path.finding = finding.map(answer);
        }
        path.outcome = path.outcome.max(outcome);
        let is_doubtful = path.doubts().any(|(_, doubt)| doubt.stops);
        if path.outcome == Outcome::Arrives && is_doubtful {
            path.outcome = Outcome::Unknown;
        }
    }

    /// What comes of the way there.
    async fn there(&self, path: &Path, came: &Tuple) -> (Outcome, Option<Finding>) {
        let way = &path.there;
        let last = way.nodes.last();
        match &way.goal {
            Some(Goal::Arrives { socket: Socket::Listens, .. }) => (Outcome::Arrives, None),
            Some(Goal::Arrives { socket: Socket::Nothing, node }) => {
                let port = last.and_then(|last| last.left.port);
                let at = last.and_then(|last| self.world.pod_at(last.left.destination));
                let at = at.unwrap_or_else(|| format!("Node {node}"));
                let finding = self
                    .service(came, node)
                    .unwrap_or_else(|| nothing_listens(&at, self.question.protocol, port));
                (Outcome::DoesNotArrive, Some(finding))
            }
            Some(Goal::Arrives { socket: Socket::Unseen, .. }) => {
                let fix = "look in the pod: kubectl exec POD -- ss -lnt; the agent sees it by the machine's /proc (--host-proc)";
                (Outcome::Unknown, Some(Finding::new("whether something listens there is not known", fix)))
            }
            Some(Goal::Outside { node, device }) => self.outside(way, came, (node, device)),
            Some(Goal::Stops { node }) => {
                let by_policy =
                    last.is_some_and(|last| matches!(&last.end, End::Stops { cause } if is_policy(cause)));
                let service = self.service(came, node).filter(|_| !by_policy && way.nodes.len() == 1);
                let finding = match service {
                    Some(finding) => Some(finding),
                    None => self.stopped(way).await,
                };
                (Outcome::DoesNotArrive, finding)
            }
            Some(Goal::Unknown { reason }) => (Outcome::Unknown, Some(unknown(reason))),
            None => (Outcome::Unknown, None),
        }
    }

    /// What comes of a packet that leaves the cluster on a node, by an interface.
    fn outside(&self, way: &Way, came: &Tuple, (node, device): (&str, &str)) -> (Outcome, Option<Finding>) {
        let last = way.nodes.last();
        let service = self.world.service_at(came.destination);
        let service = service.filter(|_| last.is_some_and(|last| last.left.destination == came.destination));
        if let Some(service) = service {
            let first = &way.nodes[0].node;
            let not_led = || {
                let cause =
                    format!("nothing on {first} leads {came} to the endpoints of Service {}", key(service));
                Finding::new(cause, format!("see weft status, and the log of weft-proxy on {first}"))
            };
            let finding = self.service(came, first).unwrap_or_else(not_led);
            return (Outcome::DoesNotArrive, Some(finding));
        }
        let source = last.map(|last| last.left.source);
        let of_pod = source.filter(|source| self.world.node_of_pods(*source).is_some());
        let cause = format!("it leaves the cluster on {node} by {device}");
        let finding = match of_pod {
            Some(source) => not_masqueraded(&cause, source, node),
            None => Finding::new(
                format!("{cause}: what is beyond is not known"),
                "look on from there, as with tracepath",
            ),
        };
        (Outcome::Unknown, Some(finding))
    }

    /// What is wrong with the Service that the packet was sent to.
    fn service(&self, came: &Tuple, node: &str) -> Option<Finding> {
        let of_port = || came.port.filter(|_| self.world.node_at(came.destination).is_some());
        let service = self
            .world
            .service_at(came.destination)
            .or_else(|| self.world.service_of_node_port(of_port()?))?;
        let problem = self.world.without_endpoints(service, came.destination, node)?;
        let (namespace, name) = (key(service).namespace.to_string(), key(service).name.to_string());
        let fix = format!(
            "kubectl -n {namespace} describe service {name}; kubectl -n {namespace} get pods --show-labels: correct the \
             selector or the labels, or make the pods ready"
        );
        Some(Finding::new(format!("no endpoints: {problem}"), fix))
    }

    /// What stops a packet at the end of a way.
    async fn stopped(&self, way: &Way) -> Option<Finding> {
        let last = way.nodes.last()?;
        let End::Stops { cause } = &last.end else { return None };
        match is_policy(cause) {
            true => Some(self.policy(last, cause).await),
            false => Some(finding(cause, last, self.world)),
        }
    }

    /// Which policy denies a packet, by the words of `weft policy explain`.
    async fn policy(&self, trace: &NodeTrace, cause: &Cause) -> Finding {
        let Tuple { source, destination, port, .. } = trace.left;
        let protocol = self.question.protocol.filter(|_| port.is_some());
        let port = protocol.zip(port).map(|(protocol, port)| format!("&protocol={protocol}&port={port}"));
        let asked =
            format!("/policy/explain?source={source}&destination={destination}{}", port.unwrap_or_default());
        let report = self.cluster.ask_agent::<PolicyReport>(&trace.node, &asked).await;
        let report = report.unwrap_or_default();
        let denied = report.ends.into_iter().find(|end| end.finding == Allowed::Denied);
        match denied {
            Some(end) => {
                let of =
                    end.pod.map(|pod| format!("{} of Pod {pod}", end.direction)).unwrap_or(end.direction);
                let fix = match end.policies.first() {
                    Some(policy) => {
                        format!("allow it in {policy}, or in another policy that selects the pod")
                    }
                    None => "see weft policy explain".to_owned(),
                };
                Finding::new(format!("{}, {of} on {}", end.reason, trace.node), fix)
            }
            None => finding(cause, trace, self.world),
        }
    }
}

fn unknown(reason: &str) -> Finding {
    Finding::new(reason, "see weft status, and ask again")
}

/// Where the way becomes narrower than it begins.
fn mtu(way: &Way) -> Option<String> {
    let steps = way.nodes.iter().flat_map(|trace| trace.steps.iter().map(move |step| (&trace.node, step)));
    let mut known = steps.filter_map(|(node, step)| match step {
        Step::Pod { device, mtu, .. } => Some((*mtu, format!("{device} in the pod"))),
        Step::Enters { device, mtu, .. } | Step::Routed { device, mtu, .. } => {
            Some((*mtu, format!("{device} on {node}")))
        }
        _ => None,
    });
    let first = known.next()?;
    let narrow = known.min_by_key(|(mtu, _)| *mtu).filter(|(mtu, _)| *mtu < first.0)?;
    Some(format!(
        "MTU {} at {}, {} at {}: larger packets need ICMP's \"fragmentation needed\" to come back",
        first.0, first.1, narrow.0, narrow.1
    ))
}
