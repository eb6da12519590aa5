//! Marks: a second name (a hard link) of a record's file, which says in the folder's listing whose the record
//! is and of which boot of the machine. So a call need not read the records of other containers. Files are
//! not touched here.
//!
//! `.<address>@<boot>-<key>`. The reference plugin takes no notice of a name that is no address, and deletes
//! it together with the record, for it deletes every file with the content that it looks for. A mark and a
//! record are one file as long as their inode numbers are the same: what another program made in a record's
//! place is not marked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use weft_cni_spec::Boot;
use weft_types::fnv1a;

/// Stands for a container's interface in names: a hash of both names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// The key of a container's id and an interface's name.
    pub fn of(container: &str, ifname: &str) -> Key {
        // A container's id has no slash.
        Key(fnv1a(container.bytes().chain([b'/']).chain(ifname.bytes())))
    }
}

/// The mark of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The record's address.
    pub(crate) address: IpAddr,
    /// The boot in which the record was made, or first seen where another program made it.
    pub(crate) boot: Boot,
    /// Whose it is.
    pub(crate) key: Key,
}

/// The file's name.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}@{}-{:016x}", self.address, self.boot, self.key.0)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(name: &str) -> Result<Mark, ()> {
        let (address, rest) = name.strip_prefix('.').and_then(|name| name.split_once('@')).ok_or(())?;
        let (boot, key) = rest.split_once('-').ok_or(())?;
        let mark = Mark {
            address: address.parse().map_err(drop)?,
            boot: Boot::of_text(boot),
            key: Key(u64::from_str_radix(key, 16).map_err(drop)?),
        };
        // Written in another way it would not be found again by its name.
        if mark.to_string() == name { Ok(mark) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_is_no_address_and_has_room_in_a_file_name() {
        let mark = Mark {
            address: "fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap(),
            boot: Boot::of_text("0123456789abcdef"),
            key: Key::of(&"f".repeat(300), "eth0"),
        };
        let name = mark.to_string();
        assert!(name.len() < 255 && name.parse::<IpAddr>().is_err());
        assert!(name.starts_with(".fd00:1111:2222:3333:4444:5555:6666:7777@0123456789abcdef-"), "{name}");
    }

    #[test]
    fn a_key_stands_for_both_names() {
        // Of records that are on disks already: never to change.
        assert_eq!(Key::of("c1", "eth0"), Key(0x9e27_a0ab_dbb0_7ad3));
        assert_ne!(Key::of("c1", "eth0"), Key::of("c1", "eth1"));
        assert_ne!(Key::of("c1", "eth0"), Key::of("c", "1eth0"));
    }

    proptest! {
        #[test]
        fn a_mark_reads_back(address: IpAddr, boot in "[0-9a-f]{1,16}", container in "[a-z0-9]{1,64}") {
            let mark = Mark { address, boot: Boot::of_text(&boot), key: Key::of(&container, "eth0") };
            prop_assert_eq!(mark.to_string().parse(), Ok(mark));
        }

        #[test]
        fn any_other_name_is_none(name in "[.]?[0-9a-f:.]{0,12}[@]?[0-9a-z/ ]{0,8}[-]?[0-9A-F+]{0,18}") {
            if let Ok(mark) = name.parse::<Mark>() {
                prop_assert_eq!(mark.to_string(), name);
            }
        }
    }
}
