//! Names and groups of the host's ends of veth pairs. A name follows from the attachment, so that DEL finds
//! an interface by the container's id alone when the namespace is gone; a group from the network, so that GC
//! finds one of which a call that died noted nothing more.

use weft_cni_spec::{Attachment, NetworkName};
use weft_types::fnv1a;

/// The name of the host's end: `veth` and 11 hexadecimal digits, a hash of the container's id and the
/// interface's name.
pub fn host_name(attachment: &Attachment) -> String {
    // 44 of the 64 bits: interface names have 15 bytes. The upper ones of FNV-1a are mixed best.
    format!("veth{:011x}", hash(attachment) >> 20)
}

/// The longest note that the kernel takes, in bytes (IFALIASZ, less the byte that ends it and its own).
const LONGEST: usize = 254;

/// The note on the host's end: `network/container/interface`, as much of it as fits.
pub(crate) fn alias(network: &NetworkName, attachment: &Attachment) -> String {
    shortened(format!("{network}/{}/{}", attachment.container, attachment.ifname))
}

/// The note on a bridge that was made for a network: its name, as much of it as fits.
pub(crate) fn bridge_alias(network: &NetworkName) -> String {
    shortened(network.to_string())
}

/// What the notes of a network's pairs begin with.
pub(crate) fn alias_prefix(network: &NetworkName) -> String {
    shortened(format!("{network}/"))
}

fn shortened(mut text: String) -> String {
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    text
}

/// The group of pairs that a garbage collection is about to delete: of whichever network, they are nobody's
/// any more.
pub(crate) const DOOMED: u32 = 0x7765_6467;

/// The group of the ports by which gateways of VLANs are tied to their bridges: they are nobody's containers.
pub(crate) const GATEWAYS: u32 = 0x7765_6674;

/// The name of such a port: `vlan` and 11 hexadecimal digits, a hash of the gateway's name.
pub(crate) fn gateway_port(gateway: &str) -> String {
    format!("vlan{:011x}", fnv1a(gateway.as_bytes()) >> 20)
}

pub(crate) fn hash(attachment: &Attachment) -> u64 {
    fnv1a(format!("{}/{}", attachment.container, attachment.ifname).as_bytes())
}

/// The number of the link group of a network's pairs, never 0, and positive where it is taken for a signed
/// one.
pub(crate) fn group(network: &NetworkName) -> u32 {
    ((fnv1a(network.as_str().as_bytes()) >> 33) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn attachment(container: &str, ifname: &str) -> Attachment {
        Attachment { container: container.parse().unwrap(), ifname: ifname.parse().unwrap() }
    }

    #[test]
    fn groups_differ_and_are_positive_numbers() {
        let groups: BTreeSet<u32> =
            (0..1000).map(|number| group(&format!("n{number}").parse().unwrap())).collect();
        assert_eq!(groups.len(), 1000);
        assert!(groups.iter().all(|group| i32::try_from(*group).is_ok_and(|number| number > 0)));
    }

    #[test]
    fn notes_fit_and_tell_their_network() {
        let short = alias(&"blue".parse().unwrap(), &attachment("c1", "eth0"));
        assert_eq!(short, "blue/c1/eth0");
        for (network, container) in [("n".repeat(253), "c".repeat(64)), ("blue".into(), "c".repeat(300))] {
            let network: NetworkName = network.parse().unwrap();
            let note = alias(&network, &attachment(&container, "ethé"));
            assert!(note.len() <= 254 && note.starts_with(&alias_prefix(&network)), "{note}");
        }
    }

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(host_name(&attachment("c1", "eth0")), host_name(&attachment("c1", "eth0")));
        let names: BTreeSet<String> =
            (0..10_000).map(|number| host_name(&attachment(&format!("c{number}"), "eth0"))).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 15));
        assert_ne!(host_name(&attachment("c1", "eth0")), host_name(&attachment("c1", "eth1")));
    }
}
