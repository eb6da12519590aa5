//! What an installation has that is not asked for any more: `weft install` brings a cluster to its flags, and
//! takes away what only other flags give.

use serde_json::Value;

use crate::Result;
use crate::cluster::NAMESPACE;
use crate::cluster::{Cluster, DAEMON_SET, name, objects, shown};
use crate::manifests::{self, Values};

/// An object that the cluster has, and the flag that would keep it.
pub(crate) struct Unwanted {
    pub(crate) object: Value,
    flag: &'static str,
}

impl Unwanted {
    /// Tells what becomes of it.
    pub(crate) fn announcement(&self) -> String {
        let Unwanted { object, flag } = self;
        format!("{} is there, but {flag} is not given: it is deleted once the rest is ready", shown(object))
    }
}

/// The parts that these values do without, although they could be asked for, with the flags that ask for
/// them.
fn optional(values: &Values) -> Result<Vec<Unwanted>> {
    let with = Values { node_local_dns: true, ..values.clone() };
    let wanted = objects(&manifests::render(values))?;
    let is_wanted = |object: &Value| wanted.iter().any(|one| shown(one) == shown(object));
    let all = objects(&manifests::render(&with))?.into_iter();
    Ok(all
        .filter(|object| !is_wanted(object))
        .map(|object| Unwanted { object, flag: "--node-local-dns" })
        .collect())
}

/// What of that the cluster has.
///
/// # Errors
/// Where the API server cannot be asked.
pub(crate) async fn find(cluster: &Cluster, values: &Values) -> Result<Vec<Unwanted>> {
    let mut found = Vec::new();
    for unwanted in optional(values)? {
        if cluster.get(DAEMON_SET, NAMESPACE, name(&unwanted.object)).await?.is_some() {
            found.push(unwanted);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_a_flag_adds_is_one_that_goes_without_it() {
        let names = |values: &Values| {
            let parts = optional(values).unwrap();
            // They are looked for by that kind.
            assert!(parts.iter().all(|part| part.object["kind"] == DAEMON_SET.1));
            parts.iter().map(|part| name(&part.object).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&Values::default()), ["weft-dns-node"]);
        assert!(names(&Values { node_local_dns: true, ..Values::default() }).is_empty());
    }
}
