//! Pods that wait for their policies: what the plugin and the agent have to agree on.
//!
//! A pod whose namespace has policies starts closed. The plugin puts its addresses into the set [`PENDING`]
//! before its link is up, each with a comment that names the pod ([`WaitingPod`]). The agent answers by the
//! rows of the pod's policies, and takes the addresses out in the same transaction. Which namespaces have
//! policies, the agent keeps in a file ([`GuardedNamespaces`]), which outlives it and the machine's boot.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_nftables::{
    Base, DataType, Declaration, Expression, Family, Hook, Operator, PRIORITY_FILTER, Rule, Set, SetKind,
    Statement, Table, Verdict,
};

/// The name of the tables, one a family.
pub const TABLE: &str = "weft-policy";
/// The set of the addresses of pods that nothing may reach, and that may reach nothing, until they have their
/// policies.
pub const PENDING: &str = "pending";
/// The chain that looks into it. The agent puts more rules into it.
pub const CHAIN: &str = "forward";
/// The same for what IPVS forwards, which passes the hook `output` where all else passes `forward`.
pub const IPVS_CHAIN: &str = "ipvs-forward";

/// The longest comment of an element that nft prints, in bytes.
const LONGEST_COMMENT: usize = 127;
/// The file, which lies in the plugin's data folder. No network's own folder can have that name.
const FILE: &str = ".policy-namespaces";
/// The line that stands for every namespace.
const EVERY: &str = "*";

/// The declaration of [`PENDING`].
pub fn declaration(family: Family) -> Arc<Declaration> {
    Arc::new(Declaration {
        family: family.into(),
        table: TABLE.into(),
        name: PENDING.into(),
        key: vec![DataType::address(family)],
        kind: SetKind::Set,
        comment: None,
    })
}

/// Where [`CHAIN`] is hooked in.
pub fn base() -> Base {
    Base::filter(Hook::Forward, PRIORITY_FILTER)
}

/// Where [`IPVS_CHAIN`] is hooked in.
pub fn ipvs_base() -> Base {
    Base::filter(Hook::Output, PRIORITY_FILTER)
}

/// The rule that lets pass what the node itself sends: at the hook `output`, all but what IPVS forwards.
pub fn from_the_node() -> Rule {
    Rule::new([Statement::fib_saddr_local(), Statement::Verdict(Verdict::Accept)])
}

/// The rules that close the pods that wait.
pub fn refusals(family: Family) -> [Rule; 2] {
    [Expression::saddr(family), Expression::daddr(family)].map(|address| {
        let waits = Statement::lookup(vec![address], Operator::Equal, PENDING.into());
        Rule::new([waits, Statement::Verdict(Verdict::Drop)])
    })
}

/// As much of a table as closes pods that wait: what the plugin adds where the agent's is not there. The
/// agent adds the rest.
pub fn minimal_table(family: Family) -> Table {
    let mut table = Table::new(family, TABLE);
    table.set(Set::new(declaration(family)));
    table.chain(CHAIN, Some(base()), refusals(family).into());
    let ipvs = [from_the_node()].into_iter().chain(refusals(family)).collect();
    table.chain(IPVS_CHAIN, Some(ipvs_base()), ipvs);
    table
}

/// The pod that an address in [`PENDING`] belongs to. As the element's comment it is `namespace/name/uid`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitingPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name; empty where there was no room for it: then the uid tells it.
    pub name: String,
    /// Its uid; empty where the runtime did not say it.
    pub uid: String,
}

impl WaitingPod {
    /// What a comment says; nothing where it is not the plugin's.
    pub fn parse(comment: &str) -> Option<WaitingPod> {
        let mut parts = comment.split('/').map(str::to_owned);
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let is_whole = !namespace.is_empty() && (!name.is_empty() || !uid.is_empty());
        (is_whole && parts.next().is_none()).then_some(WaitingPod { namespace, name, uid })
    }

    /// The comment, without the name where it would be too long; cut where that does not do.
    pub fn comment(&self) -> String {
        let mut comment = self.to_string();
        if comment.len() > LONGEST_COMMENT && !self.uid.is_empty() {
            comment = format!("{}//{}", self.namespace, self.uid);
        }
        let is_end = |end: &usize| comment.is_char_boundary(*end);
        comment.truncate((0..=LONGEST_COMMENT).rev().find(is_end).unwrap_or_default());
        comment
    }
}

impl fmt::Display for WaitingPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.uid)
    }
}

/// The namespaces whose pods a policy may select: these start closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardedNamespaces {
    /// Every namespace, as a policy of the whole cluster may select pods of namespaces that are yet to come.
    pub every: bool,
    /// The namespaces.
    pub names: BTreeSet<String>,
}

impl GuardedNamespaces {
    /// Where the file is, by the folder that holds the reservations of all networks (`dataDir` of `ipam`).
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE)
    }

    /// Whether pods of that namespace start closed.
    pub fn contains(&self, namespace: &str) -> bool {
        self.every || self.names.contains(namespace)
    }

    /// Whether there is no policy anywhere.
    pub fn is_empty(&self) -> bool {
        !self.every && self.names.is_empty()
    }

    /// What the file says. Without a file, there is no policy.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn read(path: &Path) -> io::Result<GuardedNamespaces> {
        match fs::read_to_string(path) {
            Ok(text) => {
                let names: BTreeSet<String> =
                    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
                let every = names.contains(EVERY);
                Ok(GuardedNamespaces { every, names: names.into_iter().filter(|it| it != EVERY).collect() })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(GuardedNamespaces::default()),
            Err(error) => Err(error),
        }
    }

    /// Whether there is no file, and so no policy anywhere.
    pub fn are_none(path: &Path) -> bool {
        matches!(path.try_exists(), Ok(false))
    }

    /// Writes the file, or takes it away where there is no policy. Nobody finds half a file.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let lines = self.every.then_some(EVERY).into_iter().chain(self.names.iter().map(String::as_str));
        write_state(path, &lines.map(|line| format!("{line}\n")).collect::<String>())
    }
}

/// Writes a file of the data folder, or takes it away where there is nothing to say. Nobody finds half a file.
///
/// # Errors
/// What the operating system refused.
pub fn write_state(path: &Path, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text)?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimal_table_closes_pods_that_wait() {
        let expected = "table ip weft-policy {\n  set pending {\n    type ipv4_addr\n  }\n  chain forward {\n    type filter \
                        hook forward priority 0; policy accept;\n    ip saddr @pending drop\n    ip daddr @pending drop\n  \
                        }\n  chain ipvs-forward {\n    type filter hook output priority 0; policy accept;\n    fib saddr \
                        type local accept\n    ip saddr @pending drop\n    ip daddr @pending drop\n  }\n}\n";
        let squeezed =
            |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace("filter;", "0;");
        assert_eq!(squeezed(&minimal_table(Family::Ip).to_string()), squeezed(expected));
        assert!(minimal_table(Family::Ip6).to_string().contains("ip6 saddr @pending drop"));
    }

    #[test]
    fn a_comment_names_the_pod_and_one_that_is_too_long_goes_by_the_uid() {
        let uid = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let pod = |name: &str| WaitingPod { namespace: "shop".into(), name: name.into(), uid: uid.into() };
        assert_eq!(pod("web").comment(), format!("shop/web/{uid}"));
        assert_eq!(WaitingPod::parse(&pod("web").comment()), Some(pod("web")));
        assert_eq!(WaitingPod::parse(&pod(&"x".repeat(253)).comment()), Some(pod("")));
        // Kubernetes has no such names. Other runtimes may.
        for (name, uid) in
            [("ü".repeat(126), ""), ("日本".repeat(50), ""), ("x".to_owned(), &*"é".repeat(99))]
        {
            let pod = WaitingPod { namespace: "größe".into(), name, uid: uid.into() };
            let comment = pod.comment();
            assert!((LONGEST_COMMENT - 3..=LONGEST_COMMENT).contains(&comment.len()), "{comment}");
            assert!(comment.starts_with("größe/"), "{comment}");
        }
        for foreign in ["", "shop", "shop/web", "shop//", "/web/1", "a/b/c/d"] {
            assert_eq!(WaitingPod::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn namespaces_are_read_as_they_were_written_and_no_policy_leaves_no_file() {
        let folder = std::env::temp_dir().join(format!("weft-pending-{}", std::process::id()));
        let path = GuardedNamespaces::path(&folder.join("networks"));
        assert_eq!(GuardedNamespaces::read(&path).unwrap(), GuardedNamespaces::default());
        let some = GuardedNamespaces { every: false, names: ["a".to_owned(), "b".to_owned()].into() };
        let every = GuardedNamespaces { every: true, ..some.clone() };
        for guarded in [&some, &every] {
            guarded.write(&path).unwrap();
            assert_eq!(GuardedNamespaces::read(&path).unwrap(), *guarded);
        }
        assert!(some.contains("a") && !some.contains("c") && every.contains("c"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "*\na\nb\n");
        GuardedNamespaces::default().write(&path).unwrap();
        GuardedNamespaces::default().write(&path).unwrap();
        assert!(GuardedNamespaces::are_none(&path) && !GuardedNamespaces::are_none(&folder));
        fs::remove_dir_all(folder).unwrap();
    }
}
