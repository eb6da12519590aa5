//! What `weft policy explain` says of a connection.

use std::collections::BTreeSet;

use serde::Deserialize;

/// What `weft policy explain --output json` prints, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Explanation {
    pub(super) finding: String,
    paths: Vec<Path>,
}

#[derive(Clone, Debug, Deserialize)]
struct Path {
    nodes: Vec<Report>,
}

#[derive(Clone, Debug, Deserialize)]
struct Report {
    ends: Vec<End>,
}

#[derive(Clone, Debug, Deserialize)]
struct End {
    direction: String,
    reason: String,
}

impl Explanation {
    /// Why those who ask may come in, or may not: the same for every family.
    pub(super) fn at_the_entrance(&self) -> String {
        let ends = self.paths.iter().flat_map(|path| &path.nodes).flat_map(|report| &report.ends);
        let entering = ends.filter(|end| end.direction == "ingress");
        let reasons: BTreeSet<&str> = entering.map(|end| end.reason.as_str()).collect();
        reasons.into_iter().collect::<Vec<_>>().join("; ")
    }
}
