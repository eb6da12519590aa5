//! A network card or driver may spoil the checksums that it makes for packets inside of a VXLAN tunnel; then
//! pings get through, and connections do not. It shows: a connection to another node's end of the tunnel is
//! neither taken nor refused, and is once the kernel makes the checksums itself. How that is found out and
//! worked around is decided here; asking the network and the kernel is in `kernel::offload`.

use std::net::IpAddr;

/// What a test of the tunnel came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Connections get through as it is.
    Fine,
    /// They get through only since the kernel makes the checksums, which it goes on to do.
    Spoiled,
    /// Nobody answers, whoever makes them: the other nodes may be down, or a firewall in between.
    Unknown,
}

/// Tests the ways to these gateways, until one of them answers. `answers` tries one; `set_offload` has the
/// device make checksums, or the kernel. Begin with offload on.
///
/// # Errors
/// Those of `set_offload`.
pub fn test<E>(
    gateways: &[IpAddr],
    answers: impl Fn(IpAddr) -> bool,
    mut set_offload: impl FnMut(bool) -> Result<(), E>,
) -> Result<Finding, E> {
    for &gateway in gateways {
        if answers(gateway) {
            return Ok(Finding::Fine);
        }
        set_offload(false)?;
        if answers(gateway) {
            return Ok(Finding::Spoiled);
        }
        set_offload(true)?;
    }
    Ok(Finding::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Tests with the offload that `answers` is told of. The finding, and the offload at the end.
    fn found(answers: impl Fn(IpAddr, bool) -> bool) -> (Finding, bool) {
        let gateways = ["10.244.2.0", "10.244.3.0"].map(|text| text.parse().unwrap());
        let offload = Cell::new(true);
        let set = |on| {
            offload.set(on);
            Ok::<(), ()>(())
        };
        (test(&gateways, |gateway| answers(gateway, offload.get()), set).unwrap(), offload.get())
    }

    #[test]
    fn checksums_are_left_to_the_kernel_only_where_that_helps() {
        let third: IpAddr = "10.244.3.0".parse().unwrap();
        assert_eq!(found(|_, _| true), (Finding::Fine, true));
        assert_eq!(found(|_, offload| !offload), (Finding::Spoiled, false));
        assert_eq!(found(|_, _| false), (Finding::Unknown, true));
        assert_eq!(found(|gateway, _| gateway == third), (Finding::Fine, true), "the second node is down");
        assert_eq!(found(|gateway, offload| gateway == third && !offload), (Finding::Spoiled, false));
    }
}
