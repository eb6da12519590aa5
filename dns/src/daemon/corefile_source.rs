//! A Corefile and the files that it names: read at the start, and followed as kubelet or a person changes them.
//! What they mean is in [`crate::corefile`].

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use tokio::sync::watch;
use weft_corefile::disk::{self, Unread};
use weft_corefile::{Corefile, Server, Target};

use crate::corefile::{self, Given, Local, Site};
use crate::error::Error;
use crate::forward::{
    ForwardOptions, Forwarder, Settings, foreign, parse_upstream, resolv_conf, search_list,
};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pipeline::blocks::{Block, Blocks};
use crate::pipeline::handler::Handler;
use crate::pipeline::query_log::QueryLog;
use crate::pipeline::rules::template::wire_domain;
use crate::zone::ZoneConfig;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// All files, and what they said last.
pub struct CorefileSource {
    path: PathBuf,
    flags: Options,
    given: Given,
    read: Read,
    options: Options,
    sites: Vec<Site>,
    /// By port and first zone of a server block, so that what they know outlives a change.
    forwarders: HashMap<(u16, String), Arc<Forwarder>>,
    forward: ForwardOptions,
    /// What of the files as they are now was refused, so that it is said once.
    refused: Option<String>,
}

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq)]
struct Read {
    corefile: Option<Corefile>,
    /// Hosts files and resolv.confs by path.
    texts: BTreeMap<String, (Stamp, Arc<str>)>,
}

/// By what a file is known to be unchanged.
type Stamp = (u64, u64, i64, i64);

/// What follows a change.
pub struct Led<'d> {
    /// The handler of each site, in order, and the port that it has.
    pub handlers: &'d [(u16, Arc<Handler>)],
    /// The addresses of this server, to which no query must be led.
    pub own: Vec<SocketAddr>,
    /// The query log.
    pub log: Arc<QueryLog>,
    /// The settings of the zone.
    pub zone: watch::Sender<Arc<ZoneConfig>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl CorefileSource {
    /// Reads the Corefile and all that it names.
    ///
    /// # Errors
    /// It cannot be read or done, in its own words.
    pub fn read(path: PathBuf, flags: Options, given: Given) -> Result<CorefileSource, Error> {
        let corefile = read_corefile(&path)?;
        let (options, sites) = settled(&flags, &given, &corefile).map_err(Error::Corefile)?;
        let mut read = Read { corefile: Some(corefile), texts: BTreeMap::new() };
        read.take_texts(&flags, true)?;
        let forward = ForwardOptions {
            cache_size: options.cache_size,
            keep_private: options.keep_private,
            case: options.upstream_case,
            ..ForwardOptions::default()
        };
        let (forwarders, refused) = (HashMap::new(), None);
        Ok(CorefileSource { path, flags, given, read, options, sites, forwarders, forward, refused })
    }

    /// The flags with what the Corefile says.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Ports besides the first one, and where they are listened on.
    pub fn other_sites(&self) -> impl Iterator<Item = (u16, Vec<SocketAddr>)> {
        self.sites.iter().skip(1).map(|site| (site.port, site.listen.clone()))
    }

    /// Tells what of the Corefile has no effect, and handles queries by it. Must be called within a runtime.
    ///
    /// # Errors
    /// A query would be led to this server itself.
    pub fn start(&mut self, led: &Led<'_>) -> Result<(), Error> {
        let notes = self.read.corefile.iter().flat_map(|corefile| &corefile.notes);
        notes.for_each(|note| tracing::info!("{note}"));
        let read = self.read.clone();
        self.lead(&read, led).map_err(Error::Corefile)
    }

    /// Follows the files for as long as it is polled.
    pub async fn follow(mut self, led: Led<'_>) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            self.look(&led);
        }
    }

    /// Looks at the files, and takes what they say as a whole or not at all.
    fn look(&mut self, led: &Led<'_>) {
        match self.changed() {
            Ok(None) => {
                if self.refused.take().is_some() {
                    tracing::info!(path = %self.path.display(), "the Corefile is again as it was taken");
                    led.metrics.reloaded(true);
                }
            }
            Ok(Some(read)) => match self.take(&read, led) {
                Ok(()) => {
                    let services = read.corefile.as_ref().map_or(0, |corefile| corefile.servers.len());
                    tracing::info!(path = %self.path.display(), servers = services, "took a changed Corefile");
                    (self.read, self.refused) = (read, None);
                    led.metrics.reloaded(true);
                }
                Err(problem) => self.refuse(problem, &led.metrics),
            },
            Err(error) => self.refuse(error.to_string(), &led.metrics),
        }
    }

    fn refuse(&mut self, problem: String, metrics: &Metrics) {
        if self.refused.as_ref() != Some(&problem) {
            tracing::error!(path = %self.path.display(), %problem, "the changed Corefile is refused: what was there before goes on");
            metrics.reloaded(false);
            self.refused = Some(problem);
        }
    }

    /// What the files say now, where that is something else.
    fn changed(&self) -> Result<Option<Read>, Error> {
        let mut read = self.read.clone();
        let follows = |corefile: &Corefile| corefile.servers.iter().any(|server| server.reload);
        if self.read.corefile.as_ref().is_some_and(follows) {
            read.corefile = Some(read_corefile(&self.path)?);
        }
        read.take_texts(&self.flags, false)?;
        Ok((read != self.read).then_some(read))
    }

    fn take(&mut self, read: &Read, led: &Led<'_>) -> Result<(), String> {
        let Some(corefile) = &read.corefile else { return Ok(()) };
        let (options, sites) = settled(&self.flags, &self.given, corefile)?;
        let places =
            |sites: &[Site]| sites.iter().map(|site| (site.port, site.listen.clone())).collect::<Vec<_>>();
        if corefile::fixed_part(&options) != corefile::fixed_part(&self.options)
            || places(&sites) != places(&self.sites)
        {
            return Err("what it changes needs a restart: addresses and ports, the cluster's domain, how the API server is \
                reached or watched, the size of caches, max_concurrent or lameduck; see `kubectl rollout restart`"
                .to_owned());
        }
        let before = std::mem::replace(&mut self.sites, sites);
        if let Err(problem) = self.lead(read, led) {
            self.sites = before;
            return Err(problem);
        }
        let config = |config: &Arc<ZoneConfig>| ZoneConfig {
            ttl: options.ttl,
            pods: options.pods,
            exposure: options.cluster.exposure.clone(),
            ..ZoneConfig::clone(config)
        };
        led.zone.send_if_modified(|now| {
            let new = config(&*now);
            let is_new = (new.ttl, new.pods, &new.exposure) != (now.ttl, now.pods, &now.exposure);
            *now = Arc::new(new);
            is_new
        });
        self.options = options;
        Ok(())
    }

    /// Handles queries by what the files say. All that can go wrong does before anything is changed.
    fn lead(&mut self, read: &Read, led: &Led<'_>) -> Result<(), String> {
        let Some(corefile) = &read.corefile else { return Ok(()) };
        let search =
            read.text(&self.flags.resolv_conf.display().to_string()).map(search_list).unwrap_or_default();
        let mut all = Vec::new();
        for (site, (port, _)) in self.sites.iter().zip(led.handlers) {
            let own: Vec<SocketAddr> = led.own.iter().copied().filter(|own| own.port() == *port).collect();
            for &number in &site.servers {
                let server = &corefile.servers[number];
                let upstreams = |target: &Target| read.upstreams(target, &own);
                check(server, &own)?;
                all.push(corefile::settings(server, &upstreams, search.clone()));
            }
        }
        let mut all = all.into_iter();
        for (site, (_, handler)) in self.sites.clone().iter().zip(led.handlers) {
            let blocks = self.blocks(site, corefile, read, &mut all, &led.metrics);
            handler.set_blocks(blocks);
        }
        led.log.set_rules(corefile::log_rules(corefile));
        let plugins = corefile.servers.iter().flat_map(|server| &server.plugins);
        plugins.for_each(|&name| led.metrics.enabled(name));
        Ok(())
    }

    fn blocks(
        &mut self,
        site: &Site,
        corefile: &Corefile,
        read: &Read,
        settings: &mut impl Iterator<Item = Settings>,
        metrics: &Arc<Metrics>,
    ) -> Blocks {
        let (mut all, mut others) = (None, HashMap::new());
        for &number in &site.servers {
            let server = &corefile.servers[number];
            let forwarder = self.forwarder(site.port, server, metrics);
            if let Some(settings) = settings.next() {
                forwarder.configure(settings);
            }
            let text = server.hosts.as_ref().and_then(|hosts| read.text(&hosts.file));
            let rules = corefile::rules(server, text);
            let block = Arc::new(Block { forwarder, serves_cluster: server.kubernetes.is_some(), rules });
            for key in server.keys.iter().filter(|key| key.port == site.port) {
                match key.domain.as_str() {
                    "." => all = Some(block.clone()),
                    _ => drop(others.insert(wire_domain(&key.domain), block.clone())),
                }
            }
        }
        // Names of no server block are refused.
        let nobody = || Forwarder::new(ForwardOptions { cache_size: 0, ..self.forward }, metrics.clone());
        let nobody = || Arc::new(Block { forwarder: Arc::new(nobody()), serves_cluster: false, rules: None });
        Blocks::new(all.unwrap_or_else(nobody), others)
    }

    fn forwarder(&mut self, port: u16, server: &Server, metrics: &Arc<Metrics>) -> Arc<Forwarder> {
        let first = server.keys.first().map(|key| key.domain.to_string()).unwrap_or_default();
        let fresh = match self.forwarders.values().next() {
            Some(other) => other.beside(self.forward),
            None => Forwarder::new(self.forward, metrics.clone()),
        };
        self.forwarders.entry((port, first)).or_insert_with(|| Arc::new(fresh)).clone()
    }
}

impl Read {
    fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(|(_, text)| &**text)
    }

    /// Whom a target names. A resolv.conf may name this server itself, which is passed over.
    fn upstreams(&self, target: &Target, own: &[SocketAddr]) -> Vec<SocketAddr> {
        match target {
            Target::Address(address) => vec![*address],
            Target::Scoped(text) => parse_upstream(text).into_iter().collect(),
            Target::File(path) => {
                let named = self.text(path).map(resolv_conf).unwrap_or_default();
                named.into_iter().filter(|address| foreign(vec![*address], own).is_ok()).collect()
            }
        }
    }

    /// Reads the files that the Corefile names. At the start a resolv.conf must be there; later one that cannot
    /// be read, or names nobody, changes nothing, as where a link is down for a moment.
    fn take_texts(&mut self, flags: &Options, first: bool) -> Result<(), Error> {
        let servers = self.corefile.iter().flat_map(|corefile| &corefile.servers);
        let (mut wanted, mut texts) = (BTreeMap::new(), BTreeMap::new());
        for server in servers {
            for target in server.forwards.iter().flat_map(|forward| &forward.to) {
                if let Target::File(path) = target {
                    wanted.insert(path.clone(), true);
                }
            }
            if let Some(hosts) = server.hosts.as_ref() {
                if !hosts.reload
                    && let Some(text) = self.texts.get(&hosts.file)
                {
                    texts.insert(hosts.file.clone(), text.clone());
                    continue;
                }
                wanted.entry(hosts.file.clone()).or_insert(false);
            }
        }
        wanted.entry(flags.resolv_conf.display().to_string()).or_insert(false);
        for (path, is_resolv_conf) in wanted {
            let before = self.texts.get(&path);
            match (read_text(&path, before), before) {
                (Ok(text), Some(before)) if is_resolv_conf && resolv_conf(&text.1).is_empty() => {
                    texts.insert(path, before.clone());
                }
                (Ok(text), _) => drop(texts.insert(path, text)),
                (Err(_), Some(before)) if is_resolv_conf => drop(texts.insert(path, before.clone())),
                (Err(source), None) if is_resolv_conf => {
                    return Err(Error::ResolvConf { path: path.into(), source });
                }
                (Err(error), _) if first => {
                    tracing::warn!(%path, %error, "cannot read a file that the Corefile names")
                }
                (Err(_), _) => {}
            }
        }
        self.texts = texts;
        Ok(())
    }
}

/// An upstream that is this server at the same port would be asked in circles.
fn check(server: &Server, own: &[SocketAddr]) -> Result<(), String> {
    for forward in &server.forwards {
        for target in &forward.to {
            let address = match target {
                Target::Address(address) => *address,
                Target::Scoped(text) => {
                    parse_upstream(text).map_err(|problem| format!("{}: {problem}", forward.place))?
                }
                Target::File(_) => continue,
            };
            if foreign(vec![address], own).is_err() {
                return Err(format!(
                    "{}: upstream {address} is this server itself: queries would loop",
                    forward.place
                ));
            }
        }
    }
    Ok(())
}

fn read_corefile(path: &Path) -> Result<Corefile, Error> {
    disk::read(path).map_err(|unread| match unread {
        Unread::File(source) => Error::ReadCorefile { path: path.to_owned(), source },
        Unread::Refused(problems) => Error::Corefile(problems.to_string()),
    })
}

fn settled(flags: &Options, given: &Given, corefile: &Corefile) -> Result<(Options, Vec<Site>), String> {
    let mut options = corefile::apply(flags, given, corefile)?;
    let interfaces = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let address = v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
        Some((interface.interface_name, address))
    });
    let sites = corefile::sites(&options, given, corefile, &Local { interfaces: interfaces.collect() })?;
    if let Some(main) = sites.first() {
        options.listen = main.listen.clone();
    }
    Ok((options, sites))
}

/// A file's text; the one from before where it did not change.
fn read_text(path: &str, before: Option<&(Stamp, Arc<str>)>) -> std::io::Result<(Stamp, Arc<str>)> {
    let stamp =
        |metadata: Metadata| (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    let stamp = stamp(std::fs::metadata(path)?);
    match before.filter(|(old, _)| *old == stamp) {
        Some(before) => Ok(before.clone()),
        None => Ok((stamp, std::fs::read_to_string(path)?.into())),
    }
}
