//! The families of tables: which packets a table sees, where, and in which order.

use std::fmt;

use weft_netlink::Family;

use super::hook::Hook;

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// Packets of IPv4: `ip`
    Ip,
    /// Packets of IPv6: `ip6`
    Ip6,
    /// Packets of both: `inet`
    Inet,
    /// Frames that pass a bridge: `bridge`
    Bridge,
    /// Whatever enters or leaves a device: `netdev`
    Netdev,
}

/// nft's names of priorities, each with the one hook where nft takes it, if it is one. nft prints them at
/// other hooks too, and then does not take its own text.
const PRIORITIES: [(i32, &str, Option<Hook>); 6] = [
    (-300, "raw", None),
    (-150, "mangle", None),
    (-100, "dstnat", Some(Hook::Prerouting)),
    (0, "filter", None),
    (50, "security", None),
    (100, "srcnat", Some(Hook::Postrouting)),
];
const BRIDGE_PRIORITIES: [(i32, &str, Option<Hook>); 4] = [
    (-300, "dstnat", Some(Hook::Prerouting)),
    (-200, "filter", None),
    (100, "out", Some(Hook::Output)),
    (300, "srcnat", Some(Hook::Postrouting)),
];
const NETDEV_PRIORITIES: [(i32, &str, Option<Hook>); 1] = [(0, "filter", None)];
/// How far from a named priority nft still counts from it.
const NEAR: u32 = 10;

/// The hooks of each family by the kernel's numbers (`NF_INET_*`, `NF_BR_*`, `NF_NETDEV_*`).
const INET_HOOKS: [(u32, Hook); 6] = [
    (0, Hook::Prerouting),
    (1, Hook::Input),
    (2, Hook::Forward),
    (3, Hook::Output),
    (4, Hook::Postrouting),
    (5, Hook::Ingress),
];
const NETDEV_HOOKS: [(u32, Hook); 2] = [(0, Hook::Ingress), (1, Hook::Egress)];

impl TableFamily {
    /// All of them.
    pub const ALL: [TableFamily; 5] =
        [TableFamily::Ip, TableFamily::Ip6, TableFamily::Inet, TableFamily::Bridge, TableFamily::Netdev];

    /// The number by which the kernel knows it (`NFPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            TableFamily::Ip => Family::Ip.number(),
            TableFamily::Ip6 => Family::Ip6.number(),
            TableFamily::Inet => 1,
            TableFamily::Bridge => 7,
            TableFamily::Netdev => 5,
        }
    }

    /// The family of all its packets; `None` where it sees those of both.
    pub fn ip(self) -> Option<Family> {
        match self {
            TableFamily::Ip => Some(Family::Ip),
            TableFamily::Ip6 => Some(Family::Ip6),
            TableFamily::Inet | TableFamily::Bridge | TableFamily::Netdev => None,
        }
    }

    /// Whether packets of a family come by at the hooks of the IP layer.
    pub fn sees(self, family: Family) -> bool {
        self == TableFamily::Inet || self.ip() == Some(family)
    }

    fn hooks(self) -> &'static [(u32, Hook)] {
        match self {
            TableFamily::Netdev => &NETDEV_HOOKS,
            TableFamily::Inet => &INET_HOOKS,
            TableFamily::Ip | TableFamily::Ip6 | TableFamily::Bridge => &INET_HOOKS[..5],
        }
    }

    /// The kernel's number for a hook; `None` where the family has no such hook.
    pub fn hook_number(self, hook: Hook) -> Option<u32> {
        self.hooks().iter().find(|(_, known)| *known == hook).map(|(number, _)| *number)
    }

    /// The hook of that number.
    pub fn hook(self, number: u32) -> Option<Hook> {
        self.hooks().iter().find(|(known, _)| *known == number).map(|(_, hook)| *hook)
    }

    /// A priority as nft prints it: `filter + 1`
    pub(super) fn priority(self, hook: Hook, number: i32) -> String {
        let names: &[(i32, &str, Option<Hook>)] = match self {
            TableFamily::Ip | TableFamily::Ip6 | TableFamily::Inet => &PRIORITIES,
            TableFamily::Bridge => &BRIDGE_PRIORITIES,
            TableFamily::Netdev => &NETDEV_PRIORITIES,
        };
        let near = names.iter().find(|(known, ..)| known.abs_diff(number) <= NEAR);
        let Some((known, name, _)) = near.filter(|(.., only)| only.is_none_or(|only| only == hook)) else {
            return number.to_string();
        };
        match number - known {
            0 => (*name).to_owned(),
            more @ 1.. => format!("{name} + {more}"),
            less => format!("{name} - {}", -less),
        }
    }
}

impl From<Family> for TableFamily {
    fn from(family: Family) -> TableFamily {
        match family {
            Family::Ip => TableFamily::Ip,
            Family::Ip6 => TableFamily::Ip6,
        }
    }
}

impl PartialEq<Family> for TableFamily {
    fn eq(&self, family: &Family) -> bool {
        self.ip() == Some(*family)
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
            TableFamily::Bridge => "bridge",
            TableFamily::Netdev => "netdev",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_print_by_the_name_that_nft_has_for_what_is_near() {
        let of = |family: TableFamily, numbers: &[i32]| -> Vec<String> {
            numbers.iter().map(|number| family.priority(Hook::Postrouting, *number)).collect()
        };
        assert_eq!(
            of(TableFamily::Inet, &[-300, -290, -289, -10, 45, 100, i32::MIN]),
            ["raw", "raw + 10", "-289", "filter - 10", "security - 5", "srcnat", "-2147483648"]
        );
        assert_eq!(of(TableFamily::Bridge, &[-300, -199, 0, 300]), ["-300", "filter + 1", "0", "srcnat"]);
    }
}
