//! Where it is said who is asked for names outside of the cluster: in flags and the ConfigMap of kube-dns, or in
//! a Corefile.

use std::sync::Arc;

use weft_cluster::Client;

use crate::daemon::corefile_source::{CorefileSource, Led};
use crate::daemon::upstream_sources::UpstreamSources;
use crate::error::Error;
use crate::forward::Forwarder;
use crate::options::Options;
use crate::zone::ZoneConfig;

/// One of both.
pub(crate) enum Sources<'d> {
    /// Flags, the node's resolv.conf, and the ConfigMap of kube-dns above both.
    Flags(Box<UpstreamSources>),
    /// A Corefile, and what it leads.
    Corefile(Box<CorefileSource>, Led<'d>),
}

impl<'d> Sources<'d> {
    /// A Corefile where there is one, or else what flags name, which lead `forwarder`.
    ///
    /// # Errors
    /// A query would be led to this server itself, or a file cannot be read.
    pub(crate) fn new(
        corefile: Option<CorefileSource>,
        led: Led<'d>,
        options: &Options,
        (config, forwarder): (Arc<ZoneConfig>, Arc<Forwarder>),
    ) -> Result<Sources<'d>, Error> {
        if let Some(mut corefile) = corefile {
            corefile.start(&led)?;
            return Ok(Sources::Corefile(Box::new(corefile), led));
        }
        plugins(options).for_each(|name| led.metrics.enabled(name));
        let (flags, file) = (options.upstreams.clone(), options.resolv_conf.clone());
        UpstreamSources::read(flags, file, led.own, config, forwarder)
            .map(|sources| Sources::Flags(Box::new(sources)))
    }

    /// Follows them for as long as it is polled.
    pub(crate) async fn follow(self, client: Option<Client>) {
        match (self, client) {
            (Sources::Flags(sources), Some(client)) => sources.follow(client).await,
            (Sources::Corefile(corefile, led), _) => corefile.follow(led).await,
            (Sources::Flags(_), None) => std::future::pending().await,
        }
    }
}

/// What CoreDNS calls that which this server does.
fn plugins(options: &Options) -> impl Iterator<Item = &'static str> {
    let always = ["errors", "forward", "health", "kubernetes", "loadbalance", "loop", "prometheus", "ready"];
    let cache = (options.cache_size > 0).then_some("cache");
    let autopath = options.complete_search.then_some("autopath");
    always.into_iter().chain(cache).chain(autopath)
}
