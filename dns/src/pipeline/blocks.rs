//! Which names are handled how: the server blocks of a Corefile, or one for all names. A name belongs to the
//! block with the longest of its domains, and is forwarded, cached and rewritten as that block says. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_proto::rr::{Name, RecordType};

use crate::forward::Forwarder;
use crate::pipeline::rules::Rules;
use crate::wire::name::QueryName;

/// What is done with the names of some domains.
pub struct Block {
    /// Who is asked for those that nobody here knows.
    pub forwarder: Arc<Forwarder>,
    /// Whether the cluster's names are answered here.
    pub serves_cluster: bool,
    /// What is rewritten, and answered before the cluster is looked at. None costs nothing.
    pub rules: Option<Rules>,
}

impl Block {
    /// Whether the rules may have something to say about a query: else it can be answered without them.
    pub(crate) fn touches(&self, name: &QueryName, record_type: RecordType) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.touches(name, record_type))
    }
}

/// All blocks at an address.
pub struct Blocks {
    /// For names of no other.
    all: Arc<Block>,
    /// By domain, in wire form.
    others: HashMap<Box<[u8]>, Arc<Block>>,
}

impl Blocks {
    /// One for all names: the cluster's, and what is forwarded.
    pub fn one(forwarder: Arc<Forwarder>) -> Blocks {
        Blocks::new(Block { forwarder, serves_cluster: true, rules: None }.into(), HashMap::new())
    }

    /// Those of some domains, and `all` for names of none of them.
    pub fn new(all: Arc<Block>, others: HashMap<Box<[u8]>, Arc<Block>>) -> Blocks {
        Blocks { all, others }
    }

    /// The block of a name.
    pub fn of(&self, name: &QueryName) -> &Arc<Block> {
        if self.others.is_empty() {
            return &self.all;
        }
        let longest = (0..name.len()).find_map(|start| self.others.get(name.wire(start, name.len())));
        longest.unwrap_or(&self.all)
    }

    /// Who is asked for a name.
    pub(crate) fn forwarder_of(&self, name: &Name) -> Arc<Forwarder> {
        let name = QueryName::from_name(name).unwrap_or_else(|_| QueryName::root());
        self.of(&name).forwarder.clone()
    }

    /// Each block, those of several domains several times.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Block>> {
        [&self.all].into_iter().chain(self.others.values())
    }

    /// Whether names outside of the cluster are answered too.
    pub fn recurses(&self) -> bool {
        self.iter().any(|block| block.forwarder.has_upstreams())
    }
}
