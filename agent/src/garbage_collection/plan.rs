//! Which attachments on this node belong to no sandbox any more: decided from what the node holds and what
//! the runtime has, over time. Values only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A container's interface that something on this node is kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attachment {
    /// The container's id: that of its sandbox.
    pub(crate) container: String,
    /// The interface's name inside the container.
    pub(crate) ifname: String,
}

/// Attachments without a sandbox, and since when each was seen without one.
///
/// A sandbox that is just being made has its addresses before the runtime lists it. So nothing is garbage at
/// first sight: it must be without a sandbox at every look for a time in which any sandbox is made or given
/// up.
#[derive(Debug)]
pub(crate) struct OrphanTracker {
    patience: Duration,
    since: BTreeMap<Attachment, Instant>,
}

impl OrphanTracker {
    /// Nobody is suspected yet; `patience` is how long one must be.
    pub(crate) fn new(patience: Duration) -> OrphanTracker {
        OrphanTracker { patience, since: BTreeMap::new() }
    }

    /// Looks once: `held` is what the node holds, `sandboxes` what the runtime has. Returns what is garbage
    /// by now.
    pub(crate) fn look(
        &mut self,
        held: &BTreeSet<Attachment>,
        sandboxes: &BTreeSet<String>,
        now: Instant,
    ) -> Vec<Attachment> {
        let lost = held.iter().filter(|attachment| !sandboxes.contains(&attachment.container));
        let since =
            lost.map(|attachment| (attachment.clone(), self.since.get(attachment).copied().unwrap_or(now)));
        self.since = since.collect();
        let is_old = |since: &Instant| now.duration_since(*since) >= self.patience;
        self.since.iter().filter(|(_, since)| is_old(since)).map(|(lost, _)| lost.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(180);

    fn attachment(container: &str) -> Attachment {
        Attachment { container: container.to_owned(), ifname: "eth0".to_owned() }
    }

    fn held(containers: &[&str]) -> BTreeSet<Attachment> {
        containers.iter().map(|container| attachment(container)).collect()
    }

    fn sandboxes(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_stays_without_a_sandbox_is_garbage_after_a_while() {
        let (mut orphans, start) = (OrphanTracker::new(PATIENCE), Instant::now());
        let mut look = |held: &[&str], ids: &[&str], seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            orphans.look(&self::held(held), &sandboxes(ids), now)
        };
        assert_eq!(look(&["pod", "lost"], &["pod"], 0), []);
        assert_eq!(look(&["pod", "lost"], &["pod"], 179), []);
        assert_eq!(look(&["pod", "lost"], &["pod"], 180), [attachment("lost")]);
        assert_eq!(look(&["pod", "lost"], &["pod"], 181), [attachment("lost")], "until it is gone");
        assert_eq!(look(&["pod"], &["pod"], 182), []);
    }

    #[test]
    fn a_sandbox_that_is_being_made_is_left_alone() {
        let (mut orphans, start) = (OrphanTracker::new(PATIENCE), Instant::now());
        assert_eq!(orphans.look(&held(&["new"]), &sandboxes(&[]), start), []);
        assert_eq!(orphans.look(&held(&["new"]), &sandboxes(&["new"]), start + PATIENCE / 2), []);
        let gone = start + PATIENCE * 2;
        assert_eq!(orphans.look(&held(&["new"]), &sandboxes(&[]), gone), [], "suspected from now on only");
        assert_eq!(orphans.look(&held(&["new"]), &sandboxes(&[]), gone + PATIENCE), [attachment("new")]);
    }
}
