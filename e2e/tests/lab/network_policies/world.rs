//! Nine pods on three nodes, and who of them reaches whom.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_lab::netns;
use weft_types::Protocol;

use super::objects;
use super::table::{self, COUNT, NAMESPACES, PODS, PORTS, Table, Way};
use crate::api::Api;
use crate::case::{Case, Peer, echo};
use crate::lab::{Lab, Outcome};
use crate::probe::any;

/// How long an answer may take at first. Shorter than TCP's first repetition: what is late is asked again,
/// with more patience.
const ANSWER: Duration = Duration::from_millis(500);
/// The same while a change is on its way.
const FIRST_ANSWER: Duration = Duration::from_millis(100);
const LONGEST_ANSWER: Duration = Duration::from_secs(4);
/// Between two looks, at first and at last.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long silence must last to count as such.
const SILENCE: Duration = Duration::from_millis(200);
/// The same while a change is on its way: everything is asked once more afterwards.
const FIRST_SILENCE: Duration = Duration::from_millis(50);
/// How long a change may take until all nodes heed it, and all that may be reached answers: a very busy
/// machine's time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The namespaces and pods of the cases.
pub(super) struct World<'a> {
    pub(super) api: Api,
    pods: Vec<Peer>,
    /// Deletes them in the end.
    _namespaces: [Case<'a>; 3],
}

impl<'a> World<'a> {
    /// Makes all of it. Every node has one pod of each namespace.
    pub(super) fn new(lab: &'a Lab) -> Result<World<'a>, String> {
        let namespaces = NAMESPACES.map(|name| Case::new(lab, name));
        let [x, y, z] = namespaces;
        let namespaces = [x?, y?, z?];
        for (row, case) in namespaces.iter().enumerate() {
            case.label_namespace(json!({"ns": case.namespace}))?;
            for (column, name) in PODS.into_iter().enumerate() {
                let node = format!("node{}", (row + column) % 3 + 1);
                case.start(echo(name).labels(json!({"pod": name})).on(&node).spec(containers(name)))?;
            }
        }
        let mut pods = Vec::new();
        for case in &namespaces {
            for name in PODS {
                pods.push(case.ready(name)?);
            }
        }
        Ok(World { api: namespaces[0].api, pods, _namespaces: namespaces })
    }

    /// The addresses of a pod, IPv4 first.
    pub(super) fn ips(&self, name: &str) -> Vec<IpAddr> {
        let pod = (0..COUNT).find(|&pod| table::name(pod) == name);
        pod.map(|pod| self.pods[pod].ips.clone()).unwrap_or_default()
    }

    /// What the specifications say of the cluster as it is now.
    pub(super) fn expected(&self) -> Result<Table, String> {
        let mut cluster = objects::cluster(&self.api)?;
        let nodes: Vec<String> = cluster.nodes.keys().cloned().collect();
        let mut table = Table::open();
        for node in nodes {
            // Every node on the way has a say.
            cluster.node = node;
            let here = Table::of(|from, to, way| {
                let (source, target) = (self.pods[from].ips[way.family], self.pods[to].ips[way.family]);
                cluster.allows(source, target, Some((way.protocol, way.port)))
            });
            table = table.and(&here);
        }
        Ok(table)
    }

    /// Waits until everybody reaches exactly whom the table says. `before` is what held until now: first only
    /// what changes is asked, once from each pod to each, as the nodes need their time to heed a change; then
    /// everything.
    pub(super) fn settles(&self, before: &Table, expected: &Table) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        let asked = before.changes(expected);
        let mut look = Look { asked, answer: FIRST_ANSWER, silence: FIRST_SILENCE, stops: true };
        loop {
            let seen = self.probe(expected, &look)?;
            if seen == *expected && look.asked == Table::open() {
                return Ok(());
            } else if seen == *expected {
                let answer = ANSWER.max(look.answer);
                look = Look { asked: Table::open(), answer, silence: SILENCE, stops: true };
                continue;
            } else if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
            look.answer = LONGEST_ANSWER.min(look.answer * 2);
        }
        let whole = Look { asked: Table::open(), answer: LONGEST_ANSWER, silence: SILENCE, stops: false };
        let seen = self.probe(expected, &whole)?;
        if seen == *expected { Ok(()) } else { Err(seen.difference(expected)) }
    }

    /// Everybody asks everybody who is to be asked, all at once; the rest is taken as expected.
    fn probe(&self, expected: &Table, look: &Look) -> Result<Table, String> {
        let asked = &look.asked;
        let (answer, silence, stops) = (look.answer, look.silence, look.stops);
        let stop = watch::Sender::new(false);
        let ask = |from: usize| {
            let mut targets: Vec<Target> = self.targets(from, expected);
            targets.retain(|target| asked.has(from, target.place.0, target.place.1));
            let stop = stops.then(|| stop.clone());
            let probe = move || async move { Ok(probe_all(targets, (answer, silence), stop).await) };
            netns::run_async(&self.pods[from].netns, probe).map_err(|error| error.to_string())
        };
        let ask = &ask;
        std::thread::scope(|scope| {
            let askers: Vec<_> = (0..COUNT).map(|from| scope.spawn(move || ask(from))).collect();
            let mut seen = expected.clone();
            for (from, asker) in askers.into_iter().enumerate() {
                let reached = asker.join().map_err(|_| "a prober panicked".to_owned())??;
                for to in 0..COUNT {
                    for bit in (0..Way::all().len()).filter(|bit| asked.has(from, to, *bit)) {
                        seen.set(from, to, bit, reached.contains(&(to, bit)));
                    }
                }
            }
            Ok(seen)
        })
    }

    fn targets(&self, from: usize, expected: &Table) -> Vec<Target> {
        let mut targets = Vec::new();
        for (to, pod) in self.pods.iter().enumerate() {
            for (bit, way) in Way::all().into_iter().enumerate() {
                targets.push(Target {
                    place: (to, bit),
                    name: pod.name.clone(),
                    address: SocketAddr::new(pod.ips[way.family], way.port),
                    protocol: way.protocol,
                    expected: expected.has(from, to, bit),
                });
            }
        }
        targets
    }
}

/// What is asked, how long answers may take, how long silence must last, and whether it ends with the first
/// answer that should not have come.
struct Look {
    asked: Table,
    answer: Duration,
    silence: Duration,
    stops: bool,
}

/// Two servers, on 80 and 81. `web` is a name of 80 in pods a and b, and of 81 in c.
fn containers(pod: &str) -> Value {
    let container = |port: u16| {
        let mut ports = vec![
            json!({"name": format!("serve-{port}-tcp"), "containerPort": port}),
            json!({"name": format!("serve-{port}-udp"), "containerPort": port, "protocol": "UDP"}),
        ];
        if port == if pod == "c" { 81 } else { 80 } {
            ports.push(json!({"name": "web", "containerPort": port}));
        }
        let probe = json!({"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 5});
        json!({"name": format!("echo-{port}"), "image": "weft/echo", "args": ["--port", port.to_string()],
            "ports": ports, "readinessProbe": probe})
    };
    json!({"containers": PORTS.map(container)})
}

/// One request.
struct Target {
    /// The pod and the bit of the way.
    place: (usize, usize),
    name: String,
    address: SocketAddr,
    protocol: Protocol,
    expected: bool,
}

/// Gives those that were reached, by then where it is to stop.
async fn probe_all(
    targets: Vec<Target>,
    (answer, silence): (Duration, Duration),
    stop: Option<watch::Sender<bool>>,
) -> Vec<(usize, usize)> {
    let mut stopped = stop.as_ref().map(watch::Sender::subscribe);
    let mut requests = JoinSet::new();
    for target in targets {
        requests.spawn(async move {
            let patience = if target.expected { answer } else { silence };
            let reached = timeout(patience, reaches(&target)).await.is_ok_and(|seen| seen.unwrap_or(false));
            (target.place, reached, target.expected)
        });
    }
    let mut reached = Vec::new();
    loop {
        let done = tokio::select! {
            done = requests.join_next() => done,
            () = until_stopped(&mut stopped) => return reached,
        };
        match done {
            None => return reached,
            Some(Ok((place, true, expected))) => {
                reached.push(place);
                if let Some(stop) = stop.as_ref().filter(|_| !expected) {
                    stop.send_replace(true);
                }
            }
            Some(_) => {}
        }
    }
}

async fn until_stopped(stop: &mut Option<watch::Receiver<bool>>) {
    match stop {
        Some(stop) => drop(stop.wait_for(|stop| *stop).await),
        None => pending().await,
    }
}

async fn reaches(target: &Target) -> std::io::Result<bool> {
    if target.protocol == Protocol::Tcp {
        let connection = TcpStream::connect(target.address).await?;
        // Ended by RST, which nodes forget in seconds, instead of minutes.
        connection.set_zero_linger()?;
        return Ok(true);
    }
    let socket = UdpSocket::bind(any(target.address)).await?;
    socket.connect(target.address).await?;
    socket.send(b"hostname").await?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).await?;
    Ok(&answer[..length] == target.name.as_bytes())
}
