//! The ways from a frontend to its endpoints: which maps and chains a connection goes through.

use weft_netlink::nft::{Family, Name, Rule, Selector, Statement};

use super::{SetName, frontend_key, nodeport_key};
use crate::service::{Audience, Frontend};

/// The way from a kind of frontend, for an audience, to its endpoints: a map of frontends, chains that choose, and a map
/// of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From an address.
    Address,
    /// From a NodePort.
    NodePort,
    /// From an address under an external policy Local, for those from outside.
    LocalAddress,
    /// From a NodePort under an external policy Local, for those from outside.
    LocalNodePort,
}

impl Path {
    /// All of them.
    pub const ALL: [Path; 4] = [Path::Address, Path::NodePort, Path::LocalAddress, Path::LocalNodePort];

    /// The way of a frontend's connections.
    pub fn of(frontend: &Frontend, audience: Audience) -> Path {
        match (frontend, audience) {
            (Frontend::Address(..), Audience::Everyone) => Path::Address,
            (Frontend::NodePort(..), Audience::Everyone) => Path::NodePort,
            (Frontend::Address(..), Audience::Outside) => Path::LocalAddress,
            (Frontend::NodePort(..), Audience::Outside) => Path::LocalNodePort,
        }
    }

    /// Who goes that way.
    pub fn audience(self) -> Audience {
        match self {
            Path::Address | Path::NodePort => Audience::Everyone,
            Path::LocalAddress | Path::LocalNodePort => Audience::Outside,
        }
    }

    /// The map that it begins with.
    pub fn frontends(self) -> SetName {
        match self {
            Path::Address => SetName::Frontends,
            Path::NodePort => SetName::NodePorts,
            Path::LocalAddress => SetName::LocalFrontends,
            Path::LocalNodePort => SetName::LocalNodePorts,
        }
    }

    /// The map that it ends with.
    pub fn endpoints(self) -> SetName {
        match self {
            Path::Address => SetName::Endpoints,
            Path::NodePort => SetName::NodePortEndpoints,
            Path::LocalAddress => SetName::LocalEndpoints,
            Path::LocalNodePort => SetName::LocalNodePortEndpoints,
        }
    }

    /// The chain that spreads its connections over that many endpoints.
    pub(crate) fn chain(self, count: usize) -> Name {
        format!("{}{count}", self.prefix()).into()
    }

    fn prefix(self) -> &'static str {
        match self {
            Path::Address => "pick-",
            Path::NodePort => "nodeport-",
            Path::LocalAddress => "local-pick-",
            Path::LocalNodePort => "local-nodeport-",
        }
    }

    fn key(self, family: Family) -> Vec<Selector> {
        match self {
            Path::Address | Path::LocalAddress => frontend_key(family),
            Path::NodePort | Path::LocalNodePort => nodeport_key(),
        }
    }
}

/// The way that a chain is on which spreads connections, and over how many endpoints; `None` for the fixed chains.
pub(crate) fn picks(chain: &str) -> Option<(Path, u32)> {
    let count = |path: Path| chain.strip_prefix(path.prefix())?.parse().ok();
    Path::ALL.into_iter().find_map(|path| Some((path, count(path)?)))
}

/// The rule of a chain that exists only while elements lead to it; `None` for the fixed chains.
pub(crate) fn pick_rule(family: Family, chain: &str) -> Option<Rule> {
    let (path, count) = picks(chain)?;
    let mut key = path.key(family);
    key.push(Selector::Random(count));
    Some(Rule::new([Statement::Dnat(family, key, path.endpoints().name().into())]))
}
