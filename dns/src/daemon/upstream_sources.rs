//! Where the upstreams are named: flags, the node's resolv.conf, and the `kube-dns` ConfigMap above both.
//! Read at the start, and again whenever one of them changes. What the texts mean is in [`crate::forward`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weft_cluster::{Client, Watch, WatchFilter};
use weft_types::{Kind, NamespacedName};

use crate::error::Error;
use crate::forward::{Forwarder, Overrides, Settings, foreign, resolv_conf, search_list, unusable};
use crate::zone::ZoneConfig;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Namespace and name of the ConfigMap, as kube-dns had it.
const CONFIG_MAP: (&str, &str) = ("kube-system", "kube-dns");

/// All sources, and what they said last.
pub struct UpstreamSources {
    forwarder: Arc<Forwarder>,
    /// The addresses of this server, to which no query must be led.
    own: Vec<SocketAddr>,
    /// Knows the cluster's domain, and is told which domains below it are others'.
    zone: Arc<ZoneConfig>,
    /// The node's resolv.conf.
    file: File,
    /// Whether flags name the upstreams, so that the file does not.
    flags: bool,
    node: Settings,
    overrides: Overrides,
}

struct File {
    path: PathBuf,
    /// What it said when it was last looked at: name servers, and what is none. They may change while the
    /// text does not: interfaces come and go.
    said: (Vec<SocketAddr>, Vec<String>),
    /// Whether it could be read when it was last looked at.
    readable: bool,
}

impl UpstreamSources {
    /// Reads the sources at hand, and leads `forwarder` by them: `flags` where there are any, or else the
    /// resolv.conf at `path`. Must be called within a runtime.
    ///
    /// # Errors
    /// The file cannot be read, or a flag names this server itself.
    pub fn read(
        flags: Vec<SocketAddr>,
        path: PathBuf,
        own: Vec<SocketAddr>,
        zone: Arc<ZoneConfig>,
        forwarder: Arc<Forwarder>,
    ) -> Result<UpstreamSources, Error> {
        let text = match std::fs::read_to_string(&path) {
            Err(source) if flags.is_empty() => return Err(Error::ResolvConf { path, source }),
            text => text.unwrap_or_default(),
        };
        let file = File { path, said: Default::default(), readable: true };
        let (named, upstreams) = (!flags.is_empty(), foreign(flags, &own)?);
        let node = Settings { upstreams, chosen: named, ..Settings::default() };
        let overrides = Overrides::default();
        let mut this = UpstreamSources { forwarder, own, zone, file, flags: named, node, overrides };
        this.take_file(&text);
        this.lead();
        if this.node.upstreams.is_empty() {
            let path = this.file.path.display();
            tracing::warn!("{path} lists no upstream: only the cluster's names are answered; see --upstream");
        }
        Ok(this)
    }

    /// Follows the sources for as long as it is polled. What the API server says of the ConfigMap is waited
    /// for by nobody else.
    pub async fn follow(mut self, client: Client) {
        let name = NamespacedName::new(CONFIG_MAP.0, CONFIG_MAP.1);
        let filter = WatchFilter { config_map: Some(name.clone()), ..WatchFilter::default() };
        let mut watch = Watch::start(client, &filter, &[Kind::ConfigMap]);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = watch.next() => self.take_config_map(watch.snapshot().config_map(&name)),
                _ = look.tick() => self.look(),
            }
        }
    }

    /// Looks at the file. One that cannot be read for the moment changes nothing.
    fn look(&mut self) {
        let file = &mut self.file;
        match std::fs::read_to_string(&file.path) {
            Ok(text) => {
                file.readable = true;
                self.take_file(&text);
            }
            Err(error) => {
                if std::mem::replace(&mut file.readable, false) && !self.flags {
                    tracing::warn!(path = %file.path.display(), %error, "cannot read name servers: keeping the ones in use");
                }
            }
        }
    }

    /// A file that names no name server at all is one of a link that is down: what was known before counts.
    fn take_file(&mut self, text: &str) {
        let (before, said) = (self.node.clone(), (resolv_conf(text), unusable(text)));
        let is_new = self.file.said != said;
        if !self.flags && is_new {
            self.warn_of(&said);
        }
        if self.flags || !said.0.is_empty() {
            self.node.search = search_list(text);
        }
        if !self.flags && !said.0.is_empty() {
            let is_other = |upstream: &SocketAddr| foreign(vec![*upstream], &self.own).is_ok();
            self.node.upstreams = said.0.iter().copied().filter(is_other).collect();
        }
        self.file.said = said;
        if self.node != before {
            self.lead();
        }
    }

    fn warn_of(&self, (servers, problems): &(Vec<SocketAddr>, Vec<String>)) {
        let path = self.file.path.display();
        for problem in problems {
            tracing::warn!(%problem, "{path} lists a name server that cannot be used");
        }
        for upstream in servers.iter().filter(|upstream| foreign(vec![**upstream], &self.own).is_err()) {
            tracing::warn!(%upstream, "ignoring an upstream: {path} lists this server itself");
        }
        if servers.is_empty() && !self.node.upstreams.is_empty() {
            tracing::warn!("{path} lists no name server any more: keeping the ones in use");
        }
    }

    /// What is malformed is named, and the last good one stays.
    fn take_config_map(&mut self, data: Option<&BTreeMap<String, String>>) {
        match data.map_or(Ok(Overrides::default()), |data| Overrides::read(data, &self.own)) {
            Ok(mut overrides) => {
                let zone = &self.zone.zone;
                if overrides.stub_domains.remove(zone.wire()).is_some() {
                    tracing::warn!(
                        "ignoring the stub domain {zone}: it is the cluster's own domain; only a domain below it may be a stub domain"
                    );
                }
                self.overrides = overrides;
                self.lead();
            }
            Err(problem) => {
                let (namespace, name) = CONFIG_MAP;
                tracing::warn!(%problem, "the ConfigMap {namespace}/{name} is malformed: keeping the configuration in use");
            }
        }
    }

    fn lead(&self) {
        let settings = self.overrides.over(&self.node);
        let domains: Vec<_> = settings.stub_domains.keys().cloned().collect();
        let upstreams = settings.upstreams.clone();
        if self.forwarder.configure(settings) {
            let stub_domains = domains.len();
            tracing::info!(?upstreams, stub_domains, "forwarding names outside of the cluster");
        }
        // Only now there is somebody to ask.
        self.zone.stub_domains.set(&self.zone.zone, domains.iter());
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;

    use super::*;
    use crate::forward::ForwardOptions;
    use crate::metrics::Metrics;
    use crate::zone::{Exposure, PodNames};

    fn zone() -> Arc<ZoneConfig> {
        Arc::new(ZoneConfig {
            zone: "cluster.local".parse().unwrap(),
            ttl: 30,
            pods: PodNames::default(),
            complete_search: false,
            listen: Vec::new(),
            stub_domains: Arc::default(),
            exposure: Exposure::default(),
        })
    }

    fn forwarder() -> Arc<Forwarder> {
        let metrics = Arc::new(Metrics::new(53, "cluster.local."));
        Arc::new(Forwarder::new(ForwardOptions::default(), metrics))
    }

    #[tokio::test]
    async fn the_file_is_followed_while_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let forwarder = forwarder();
        let read = || {
            let own = vec!["127.0.0.2:53".parse().unwrap()];
            UpstreamSources::read(Vec::new(), path.clone(), own, zone(), forwarder.clone())
        };
        assert!(matches!(read(), Err(Error::ResolvConf { .. })));
        std::fs::write(&path, "search example.com\n").unwrap();
        let mut sources = read().unwrap();
        assert!(!forwarder.has_upstreams());
        for (text, leads) in [
            (Some("search example.com\nnameserver 127.0.0.1\n"), true),
            (None, true),
            (Some(""), true), // a link that is down for a moment
            (Some("search example.org\nnameserver fe80::1%nothing9\n"), true),
            (Some("nameserver 127.0.0.2\n"), false), // this server itself
            (Some("nameserver 127.0.0.2\nnameserver 127.0.0.1\n"), true),
        ] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let before = forwarder.search();
            sources.look();
            assert_eq!(forwarder.has_upstreams(), leads, "{text:?}");
            if text.is_none_or(|text| !text.contains("127.0.0")) {
                assert_eq!(forwarder.search(), before, "{text:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_cluster_s_own_domain_is_no_stub_domain_but_one_below_it_is() {
        let (forwarder, zone) = (forwarder(), zone());
        let flags = vec!["192.0.2.1:53".parse().unwrap()];
        let path = PathBuf::from("/nonexistent");
        let mut sources =
            UpstreamSources::read(flags, path, Vec::new(), zone.clone(), forwarder.clone()).unwrap();
        let stubs = r#"{"Cluster.Local.": ["192.0.2.9"], "consul.cluster.local": ["192.0.2.9"], "local": ["192.0.2.9"]}"#;
        let data = BTreeMap::from([("stubDomains".to_owned(), stubs.to_owned())]);
        sources.take_config_map(Some(&data));
        let is_delegated = |name: &str| {
            let name = crate::wire::name::QueryName::from_name(&Name::from_ascii(name).unwrap()).unwrap();
            zone.stub_domains.covers(&name, name.len() - 2)
        };
        assert!(is_delegated("consul.cluster.local.") && is_delegated("www.consul.cluster.local."));
        assert!(!is_delegated("cluster.local.") && !is_delegated("consult.cluster.local."));
        assert_eq!(sources.overrides.stub_domains.len(), 2, "what is left out is not counted");
        sources.take_config_map(None);
        assert!(!is_delegated("consul.cluster.local."));
    }
}
