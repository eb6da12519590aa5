//! Where the upstreams are named: flags, the node's resolv.conf, and the `kube-dns` ConfigMap above both. Read at the
//! start, and again whenever one of them changes. What the texts mean is in [`crate::forward`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weft_cluster::{Client, Scope, View, Watch};
use weft_types::{Kind, NamespacedName};

use crate::error::Error;
use crate::forward::{Forwarder, Overrides, Settings, foreign, resolv_conf, search_list};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Namespace and name of the ConfigMap, as kube-dns had it.
const CONFIG_MAP: (&str, &str) = ("kube-system", "kube-dns");

/// All sources, and what they said last.
pub struct Sources {
    forwarder: Arc<Forwarder>,
    /// The addresses of this server, to which no question must be led.
    own: Vec<SocketAddr>,
    /// The node's resolv.conf.
    file: File,
    /// Whether flags name the upstreams, so that the file does not.
    flags: bool,
    node: Settings,
    overrides: Overrides,
}

struct File {
    path: PathBuf,
    text: String,
    /// Whether it could be read when it was last looked at.
    readable: bool,
}

impl Sources {
    /// Reads the sources at hand, and leads `forwarder` by them: `flags` where there are any, or else the resolv.conf
    /// at `path`. Must be called within a runtime.
    ///
    /// # Errors
    /// The file cannot be read, or a flag names this server itself.
    pub fn read(
        flags: Vec<SocketAddr>,
        path: PathBuf,
        own: Vec<SocketAddr>,
        forwarder: Arc<Forwarder>,
    ) -> Result<Sources, Error> {
        let text = match std::fs::read_to_string(&path) {
            Err(source) if flags.is_empty() => return Err(Error::ResolvConf { path, source }),
            text => text.unwrap_or_default(),
        };
        let file = File { path, text: String::new(), readable: true };
        let (named, upstreams) = (!flags.is_empty(), foreign(flags, &own)?);
        let (node, overrides) = (Settings { upstreams, ..Settings::default() }, Overrides::default());
        let mut this = Sources { forwarder, own, file, flags: named, node, overrides };
        this.take_file(text);
        Ok(this)
    }

    /// Follows the sources for as long as it is polled. What the API server says of the ConfigMap is waited for by
    /// nobody else.
    pub async fn follow(mut self, client: Client) {
        let name = NamespacedName::new(CONFIG_MAP.0, CONFIG_MAP.1);
        let scope = Scope { config_map: Some(name.clone()), ..View::Whole.into() };
        let mut watch = Watch::start(client, scope, &[Kind::ConfigMap]);
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
            Ok(text) if text != file.text => {
                file.readable = true;
                self.take_file(text);
            }
            Ok(_) => file.readable = true,
            Err(error) => {
                if std::mem::replace(&mut file.readable, false) && !self.flags {
                    tracing::warn!(path = %file.path.display(), %error, "cannot read name servers; keeping those known");
                }
            }
        }
    }

    fn take_file(&mut self, text: String) {
        self.node.search = search_list(&text);
        if !self.flags {
            self.node.upstreams = self.upstreams(&text);
        }
        self.file.text = text;
        self.lead();
    }

    fn upstreams(&self, text: &str) -> Vec<SocketAddr> {
        let path = self.file.path.display();
        let (mine, others): (Vec<_>, Vec<_>) =
            resolv_conf(text).into_iter().partition(|&upstream| foreign(vec![upstream], &self.own).is_err());
        for upstream in mine {
            tracing::warn!(%upstream, "left out of the upstreams: {path} names this server itself");
        }
        if others.is_empty() {
            tracing::warn!("{path} names no upstream: only the cluster's names are answered; see --upstream");
        }
        others
    }

    /// What is malformed is named, and the last good one stays.
    fn take_config_map(&mut self, data: Option<&BTreeMap<String, String>>) {
        match data.map_or(Ok(Overrides::default()), |data| Overrides::read(data, &self.own)) {
            Ok(overrides) => {
                self.overrides = overrides;
                self.lead();
            }
            Err(problem) => {
                let (namespace, name) = CONFIG_MAP;
                tracing::warn!(%problem, "the ConfigMap {namespace}/{name} is malformed; keeping what it said before");
            }
        }
    }

    fn lead(&self) {
        let settings = self.overrides.over(&self.node);
        let stub_domains = settings.stub_domains.len();
        let upstreams = settings.upstreams.clone();
        if self.forwarder.lead(settings) {
            tracing::info!(?upstreams, stub_domains, "asking for names outside of the cluster");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Manner;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn the_file_is_followed_while_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let metrics = Arc::new(Metrics::new(53, "cluster.local."));
        let forwarder = Arc::new(Forwarder::new(Manner::default(), metrics));
        let read = || {
            let own = vec!["127.0.0.2:53".parse().unwrap()];
            Sources::read(Vec::new(), path.clone(), own, forwarder.clone())
        };
        assert!(matches!(read(), Err(Error::ResolvConf { .. })));
        std::fs::write(&path, "search example.com\n").unwrap();
        let mut sources = read().unwrap();
        assert!(!forwarder.leads_anywhere());
        for (text, leads) in [
            (Some("nameserver 127.0.0.1\n"), true),
            (None, true),
            (Some("nameserver 127.0.0.2\n"), false), // this server itself
            (Some("nameserver 127.0.0.2\nnameserver 127.0.0.1\n"), true),
        ] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            sources.look();
            assert_eq!(forwarder.leads_anywhere(), leads, "{text:?}");
        }
    }
}
