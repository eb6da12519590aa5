//! BGP: routers learn from this node which addresses lead to it, and with `--backend bgp` nodes learn the ways
//! to each other's pods. `plan` decides whom to tell what; the speaker is `weft-announce`'s. What other nodes
//! tell goes into the route plan ([`Uplink::learned`]), so that there is one owner of routes.

pub(crate) mod options;
pub(crate) mod plan;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weft_announce::bfd::packet::State;
use weft_announce::bfd::service::Bfd;
use weft_announce::bfd::sessions::{Peer as Watched, Wanted as Watch};
use weft_announce::bgp::speaker::{Asker, Speaker, View, Wanted};
use weft_announce::hosts::{Hosts, needs_endpoints};
use weft_cluster::write::{Events, Recorder, Warning};
use weft_types::well_known::port;
use weft_types::{Kind, NamespacedName, Node, ObjectKey, Snapshot};

use crate::Result;
use crate::bfd::SharedBfd;
use crate::bgp::plan::objects::{self, Objects, Peers, needs_profiles};
use crate::bgp::plan::passwords::wanted;
use crate::bgp::plan::{Settings, Told};
use crate::bgp::secrets::Secrets;
use crate::subsystem::{Environment, Report, Round, Subsystem};
use crate::uplink::Uplink;

/// MetalLB's kinds that are about BGP.
const OBJECTS: [Kind; 4] = [Kind::BgpPeer, Kind::BgpAdvertisement, Kind::Community, Kind::IpAddressPool];

/// By this name BFD knows who has peers watched.
const USER: &str = "bgp";
/// How long a peer may take to answer BFD before somebody should know.
const UNHEARD: Duration = Duration::from_secs(10);

/// Keeps sessions and announcements as planned.
pub(crate) struct Bgp {
    settings: Settings,
    node: String,
    speaker: Option<Speaker>,
    /// Passwords, and words about them, where objects name peers.
    secrets: Option<Secrets>,
    events: Option<Events>,
    asker: Arc<OnceLock<Asker>>,
    /// The last look at the node's own side of the network.
    uplink: Uplink,
    /// What routers were told last: it stays while it is not known what to tell.
    routers: Vec<Told>,
    /// Some Service is served by nodes with endpoints alone.
    needs_slices: bool,
    /// Some peer is watched by BFD.
    needs_profiles: bool,
    watched: BTreeMap<Watched, Watch>,
    shared_bfd: SharedBfd,
    /// Once there is somebody to watch.
    bfd: Option<Arc<Bfd>>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    peers: Gauge,
    established: Gauge,
    announced: Gauge,
    learned: Gauge,
}

impl Bgp {
    /// With these settings. Speaks with nobody where they name nobody.
    pub(crate) fn new(settings: Settings, shared_bfd: SharedBfd, registry: &mut Registry) -> Bgp {
        let figures = Figures::default();
        for (name, help, gauge) in [
            ("bgp_peers", "BGP peers that there are to be", &figures.peers),
            ("bgp_sessions_established", "BGP sessions that are up", &figures.established),
            (
                "bgp_announced_prefixes",
                "Prefixes that BGP peers were told of, of all peers",
                &figures.announced,
            ),
            ("bgp_learned_prefixes", "Prefixes that were learned by BGP", &figures.learned),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Bgp {
            settings,
            node: String::new(),
            speaker: None,
            secrets: None,
            events: None,
            asker: Arc::default(),
            uplink: Uplink::default(),
            routers: Vec::new(),
            needs_slices: false,
            needs_profiles: false,
            watched: BTreeMap::new(),
            shared_bfd,
            bfd: None,
            figures,
        }
    }

    fn is_wanted(&self) -> bool {
        self.settings.is_backend || self.settings.reads_objects || !self.settings.routers.is_empty()
    }

    /// What routers are to be told; none while that is not known.
    fn tell_routers(
        &mut self,
        own: &Node,
        cluster: &Snapshot,
        round: &Round<'_>,
        report: &mut Report,
    ) -> Option<Vec<Told>> {
        let nothing = Snapshot::default();
        for kind in self.kinds() {
            if let Some(refusal) = round.refusal(kind) {
                report.problem(format!("BGP peers are not told of all load balancers: {refusal}"));
            }
        }
        let services = match self.settings.needs_services() {
            true => round.objects(Kind::Service)?,
            false => &nothing,
        };
        self.needs_slices = needs_endpoints(services);
        let slices = if self.needs_slices { Some(round.objects(Kind::EndpointSlice)?) } else { None };
        let here = &Hosts::new(cluster, slices).addresses(&own.name, services);
        let mut told = plan::routers(own, here, &self.uplink, &self.settings);
        if self.settings.reads_objects {
            let [peers, advertisements, communities, pools] = listed(round)?;
            self.needs_profiles = needs_profiles(peers);
            let profiles = match self.needs_profiles {
                true => round.objects(Kind::BfdProfile),
                false => None,
            };
            let passwords = self.secrets.as_ref().map(|secrets| {
                secrets.want(wanted(own, peers));
                secrets.known()
            });
            let passwords = &passwords.unwrap_or_default();
            let objects =
                Objects { peers, advertisements, communities, pools, profiles, passwords, services, here };
            let Peers { told: more, watched, problems, without_password } =
                objects::peers(own, objects, &self.uplink);
            report.problems(problems);
            self.tell_of_passwords(without_password);
            told.extend(more);
            self.watched = watched;
        }
        Some(told)
    }

    /// Events about BGPPeers whose password is not known.
    fn tell_of_passwords(&mut self, without: BTreeMap<NamespacedName, String>) {
        let warnings = without.into_iter().map(|(peer, problem)| Warning {
            about: ObjectKey::BgpPeer(peer),
            reason: "PasswordUnknown",
            note: format!("spec.passwordSecret: {problem}"),
        });
        if let Some(events) = &mut self.events {
            events.tell(warnings.collect());
        }
    }

    /// Has BFD watch the peers that are to be watched.
    fn watch(&mut self, report: &mut Report) {
        let Some(speaker) = &self.speaker else { return };
        if self.bfd.is_none() && !self.watched.is_empty() {
            match self.shared_bfd.get() {
                Ok(bfd) => {
                    bfd.listen(speaker.watcher());
                    self.bfd = Some(bfd);
                }
                Err(error) => report.problem(error),
            }
        }
        let Some(bfd) = &self.bfd else { return };
        bfd.want(USER, self.watched.clone());
        report.problems(bfd.problem());
        for (peer, health) in bfd.health().iter().filter(|(peer, _)| self.watched.contains_key(peer)) {
            if health.state != State::Up && health.since.elapsed() > UNHEARD {
                let port = if self.watched[peer].is_multihop { port::BFD_MULTIHOP } else { port::BFD };
                report.problem(format_args!(
                    "BFD does not hear BGP peer {}: see that it speaks BFD with this node, and allow UDP port {port}; until \
                     then its death is known after the hold time",
                    peer.address
                ));
            }
        }
    }

    fn count(&self, view: &View, peers: usize) {
        let set = |gauge: &Gauge, count: usize| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        set(&self.figures.peers, peers);
        set(&self.figures.established, view.established);
        set(&self.figures.announced, view.announced);
        set(&self.figures.learned, view.routes.len());
    }
}

impl Subsystem for Bgp {
    fn name(&self) -> &'static str {
        "bgp"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        if self.is_wanted() {
            let wake = environment.wake.clone();
            let speaker = Speaker::start(move || wake.wake());
            // It is set once, as this is called once.
            let _ = self.asker.set(speaker.asker());
            self.speaker = Some(speaker);
        }
        if self.settings.reads_objects {
            let Environment { client, node, wake, .. } = environment;
            self.secrets = Some(Secrets::start(client.clone(), wake.clone()));
            self.events = Some(Events::start(Recorder::new(client.clone(), "weft-agent", node)));
        }
        self.node.clone_from(&environment.node);
        Ok(())
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        let services = self.settings.needs_services().then_some(Kind::Service);
        let slices = self.needs_slices.then_some(Kind::EndpointSlice);
        let objects = if self.settings.reads_objects { &OBJECTS[..] } else { &[] };
        let profiles = self.needs_profiles.then_some(Kind::BfdProfile);
        objects.iter().copied().chain(services).chain(slices).chain(profiles).collect()
    }

    fn endpoints(&self) -> Router {
        let asker = self.asker.clone();
        Router::new().route("/bgp", get(move || status(asker.clone())))
    }

    fn observe(&mut self, _node: Option<&Node>, uplink: &mut Uplink) -> Result<()> {
        if let Some(speaker) =
            self.speaker.as_ref().filter(|_| self.settings.is_backend || !self.settings.imports.is_empty())
        {
            let view = speaker.view();
            uplink.learned = view.routes;
            uplink.is_settled = view.is_settled;
        }
        self.uplink = uplink.clone();
        Ok(())
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        let cluster = round.objects(Kind::Node);
        let own = cluster.and_then(|cluster| Some((cluster, cluster.node(&self.node)?)));
        let Some((cluster, own)) = own.filter(|_| self.speaker.is_some()) else { return };
        if let Some(routers) = self.tell_routers(own, cluster, round, report) {
            self.routers = routers;
        }
        let mut peers = plan::mesh(own, cluster, &self.uplink, &self.settings);
        peers.extend(self.routers.iter().cloned());
        let count = peers.len();
        self.watch(report);
        let Some(speaker) = &self.speaker else { return };
        speaker.set(Wanted { peers, listen: self.settings.port });
        let view = speaker.view();
        report.problems(&view.problems);
        self.count(&view, count);
    }

    /// Peers that BFD watches hear that this is on purpose; BGP says nothing, so that they keep the routes.
    fn stop(&mut self) {
        self.bfd = None;
    }
}

/// The objects that name peers and what they are told, once all of them are listed.
fn listed<'a>(round: &'a Round<'_>) -> Option<[&'a Snapshot; 4]> {
    let [peers, advertisements, communities, pools] = OBJECTS;
    Some([
        round.objects(peers)?,
        round.objects(advertisements)?,
        round.objects(communities)?,
        round.objects(pools)?,
    ])
}

/// How sessions and routes are, in JSON.
async fn status(asker: Arc<OnceLock<Asker>>) -> Response {
    let Some(asker) = asker.get() else {
        let why = "this agent speaks no BGP: it has neither --bgp-peer nor --backend bgp\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    match asker.status().await.map(|status| serde_json::to_string(&status)) {
        Some(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        // It is about to end.
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the agent stops\n").into_response(),
    }
}
