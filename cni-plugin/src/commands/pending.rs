//! Pods that policies may select start closed: the agent lets through what their policies say, and takes them
//! out of the set of those that wait, in one step. ADD puts them into that set before they can be reached,
//! and waits for the agent for a while.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use weft_cni_spec::{Args, Attachment, Invocation, Success};
use weft_ipam::Ipam;
use weft_policy::pending::{GuardedNamespaces, WaitingPod};

use super::ipam::Source;
use super::record::data_dir;
use crate::kernel::Lock;
use crate::nft::Tables;
use crate::plan::Pending;
use crate::{Error, Result};

/// The shortest and the longest pause between two looks at the set.
const PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// The pod that a container is, where policies may select it. Of containers that are no pods of Kubernetes
/// there are none.
pub(super) fn pod(invocation: &Invocation, args: &Args) -> Result<Option<WaitingPod>> {
    let Some(pod) = args.pod.clone() else { return Ok(None) };
    let path = GuardedNamespaces::path(data_dir(invocation));
    let guarded =
        GuardedNamespaces::read(&path).map_err(|source| Error::PolicyNamespaces { path, source })?;
    let waits = || WaitingPod { namespace: pod.namespace.clone(), name: pod.name, uid: pod.uid };
    Ok(guarded.contains(&pod.namespace).then(waits))
}

/// Connects a pod that is closed before, where it is to wait for its policies; and waits for them.
pub(super) fn closed(
    pending: Option<&Pending>,
    timeout: Duration,
    connect: impl FnOnce() -> Result<Success>,
) -> Result<Success> {
    let Some(pending) = pending else { return connect() };
    let mut tables = Tables::open_for(|| format!("NetworkPolicy of namespace {}", pending.pod.namespace))?;
    let lock = Lock::shared()?;
    tables.add_pending(pending, &lock)?;
    drop(lock);
    let result = connect().inspect_err(|_| {
        // The first error is the one to report.
        let _ = tables.delete_pending(&pending.addresses.iter().copied().collect());
    })?;
    if !timeout.is_zero() && !is_answered(&mut tables, pending, timeout) {
        let WaitingPod { namespace, name, .. } = &pending.pod;
        // Whoever closed standard error does not read it.
        let _ = writeln!(
            io::stderr(),
            "weft-cni: pod {namespace}/{name} stays closed until weft-agent has read its policies: there was no answer \
             within {} s",
            timeout.as_secs()
        );
    }
    Ok(result)
}

/// Waits until the agent has opened the pod. Pauses grow with the time that it takes, so that nothing is late
/// by more than a quarter of it.
fn is_answered(tables: &mut Tables, pending: &Pending, timeout: Duration) -> bool {
    let begun = Instant::now();
    // What cannot be read now can be later.
    while tables.is_pending(pending).unwrap_or(true) {
        let waited = begun.elapsed();
        if waited >= timeout {
            return false;
        }
        let (shortest, longest) = PAUSES;
        thread::sleep((waited / 4).clamp(shortest, longest).min(timeout - waited));
    }
    true
}

/// Without a policy anywhere nobody waits: the agent takes its word of them back when its tables are gone.
fn nobody_waits(invocation: &Invocation) -> bool {
    GuardedNamespaces::are_none(&GuardedNamespaces::path(data_dir(invocation)))
}

/// DEL: nobody waits any more. The addresses must be the container's still: another pod that gets one may
/// wait, too.
pub(super) fn release(invocation: &Invocation, attachment: &Attachment) -> Result<()> {
    if nobody_waits(invocation) {
        return Ok(());
    }
    let Some(mut tables) = Tables::open()? else { return Ok(()) };
    if tables.pending()?.is_empty() {
        return Ok(());
    }
    let _lock = Lock::exclusive()?;
    let own = Source::of(invocation)?.addresses(invocation, attachment)?;
    tables.delete_pending(&own.into_iter().collect())
}

/// GC: addresses of the network's ranges that nobody has wait for nothing. Those of a foreign IPAM plugin are
/// not known; the next pod that gets one waits in its own name.
pub(super) fn collect(invocation: &Invocation) -> Result<()> {
    if nobody_waits(invocation) {
        return Ok(());
    }
    let Some(mut tables) = Tables::open()? else { return Ok(()) };
    if tables.pending()?.is_empty() || Source::of(invocation)? != Source::BuiltIn {
        return Ok(());
    }
    let _lock = Lock::exclusive()?;
    let pool = Ipam::pool(invocation).map_err(|error| error.failure())?;
    let reserved = Ipam::reserved(invocation, None).map_err(|error| error.failure())?;
    let pending = tables.pending()?.into_iter();
    let stale: BTreeSet<_> =
        pending.filter(|address| pool.holds(*address) && !reserved.contains(address)).collect();
    tables.delete_pending(&stale)
}
