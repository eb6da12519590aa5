//! What a record's file says, in the reference plugin's words: the container's id, CR LF and the interface's
//! name.

use weft_cni_spec::ContainerId;

use crate::{Holder, Owner};

/// The text of an owner's record.
pub(crate) fn text(owner: &Owner) -> String {
    format!("{}\r\n{}", owner.container, owner.ifname)
}

/// Surrounding white space does not count, nor do the zeroes that a power failure leaves; and old versions
/// wrote the container id alone.
pub(crate) fn parse(content: &[u8]) -> Holder {
    let text = String::from_utf8_lossy(content);
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    let (id, ifname) = match text.split_once('\n') {
        Some((id, ifname)) => (id.trim_end(), Some(ifname.trim().to_owned())),
        None => (text, None),
    };
    match id {
        "" => Holder::Nobody,
        id => Holder::Container { id: id.to_owned(), ifname },
    }
}

/// Why a record should be looked at.
pub(crate) fn doubt(holder: &Holder) -> Option<&'static str> {
    match holder {
        Holder::Unknown => Some("cannot be read; its address is not given to anybody"),
        Holder::Container { id, .. } if id.parse::<ContainerId>().is_err() => Some(
            "names no container; its address stays taken until garbage collection or until it is deleted",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn old_and_damaged_records() {
        let of = |id: &str, ifname: Option<&str>| Holder::Container {
            id: id.into(),
            ifname: ifname.map(str::to_owned),
        };
        for (content, expected) in [
            ("c1\r\neth0", of("c1", Some("eth0"))),
            (" c1\n eth0\r\n", of("c1", Some("eth0"))),
            ("c1", of("c1", None)),
            ("", Holder::Nobody),
            (" \r\n", Holder::Nobody),
            ("\0\0\0\0", Holder::Nobody),
        ] {
            let holder = parse(content.as_bytes());
            assert_eq!((&holder, doubt(&holder)), (&expected, None), "{content:?}");
        }
        let damaged = parse(b"\x01?!\neth0");
        assert!(doubt(&damaged).is_some_and(|why| why.starts_with("names no container")));
        assert!(doubt(&Holder::Unknown).is_some_and(|why| why.starts_with("cannot be read")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_somebodys_or_nobodys(content in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(parse(&content) != Holder::Unknown);
        }

        #[test]
        fn what_is_written_reads_back(container in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,70}", ifname in "[!-~]{1,15}") {
            let owner = Owner { container: container.clone(), ifname: ifname.clone() };
            let holder = Holder::Container { id: container, ifname: Some(ifname) };
            prop_assert_eq!(parse(text(&owner).as_bytes()), holder);
        }
    }
}
