//! Limits of what a container may receive and send (the `bandwidth` capability, or the same keys in the
//! configuration), checked as the reference `bandwidth` plugin does and turned into token buckets. Pure.

use crate::interface::TokenBucket;
use weft_cni_spec::Bandwidth;

/// How long a packet may wait, in milliseconds: the reference plugin's figure.
const LATENCY: u64 = 25;
/// A packet's Ethernet header with a VLAN tag, in bytes.
const HEADER: u32 = 18;
/// The kernel's MTU of a veth pair, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// The limits of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of what it receives.
    pub ingress: Option<TokenBucket>,
    /// Of what it sends.
    pub egress: Option<TokenBucket>,
}

/// Checks what is asked for. The configuration's own limits go before the runtime's, all of them together.
///
/// # Errors
/// The option and what is wrong with it.
pub(crate) fn read(
    configured: Bandwidth,
    asked: Option<&Bandwidth>,
    mtu: Option<u32>,
) -> Result<Limits, (&'static str, String)> {
    let given = if configured == Bandwidth::default() { asked.unwrap_or(&configured) } else { &configured };
    let mtu = mtu.unwrap_or(DEFAULT_MTU);
    let bucket = |option, rate: Option<u64>, burst: Option<u64>| {
        bucket(rate.unwrap_or(0), burst.unwrap_or(0), mtu).map_err(|reason| (option, reason.to_owned()))
    };
    Ok(Limits {
        ingress: bucket("ingressRate", given.ingress_rate, given.ingress_burst)?,
        egress: bucket("egressRate", given.egress_rate, given.egress_burst)?,
    })
}

/// A rate in bits per second and a burst in bits.
fn bucket(rate: u64, burst: u64, mtu: u32) -> Result<Option<TokenBucket>, &'static str> {
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (_, 0) => return Err("if rate is set, burst must also be set"),
        (0, _) => return Err("if burst is set, rate must also be set"),
        _ => {}
    }
    let burst = u32::try_from(burst / 8).map_err(|_| "burst cannot be more than 4GB")?;
    // What is larger than the burst is never sent: a packet must fit.
    let burst = burst.max(mtu.saturating_add(HEADER));
    let rate = (rate / 8).max(1);
    let waiting = rate.saturating_mul(LATENCY) / 1000;
    let limit = u32::try_from(waiting.saturating_add(burst.into())).unwrap_or(u32::MAX);
    Ok(Some(TokenBucket { rate, burst, limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(rate: u64, burst: u64) -> Bandwidth {
        Bandwidth { ingress_rate: Some(rate), ingress_burst: Some(burst), ..Bandwidth::default() }
    }

    fn of_runtime(rate: u64, burst: u64) -> Result<Limits, (&'static str, String)> {
        read(Bandwidth::default(), Some(&ingress(rate, burst)), None)
    }

    #[test]
    fn bits_become_bytes_and_packets_wait_for_so_long() {
        let limits = of_runtime(8_000_000, 160_000).unwrap();
        let bucket = TokenBucket { rate: 1_000_000, burst: 20_000, limit: 45_000 };
        assert_eq!(limits, Limits { ingress: Some(bucket), egress: None });
    }

    #[test]
    fn no_limit_at_all() {
        assert_eq!(of_runtime(0, 0), Ok(Limits::default()));
        assert_eq!(read(Bandwidth::default(), None, None), Ok(Limits::default()));
    }

    #[test]
    fn half_a_limit_and_a_burst_that_the_kernel_cannot_hold_are_refused() {
        for (rate, burst, words) in
            [(1, 0, "burst must also"), (0, 1, "rate must also"), (1, 8 << 32, "more than 4GB")]
        {
            let (option, reason) = of_runtime(rate, burst).unwrap_err();
            assert!(option == "ingressRate" && reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn the_burst_that_runtimes_ask_for_fits() {
        let bucket = of_runtime(u64::MAX, u32::MAX.into()).unwrap().ingress.unwrap();
        assert_eq!((bucket.burst, bucket.limit), (u32::MAX / 8, u32::MAX));
    }

    #[test]
    fn a_packet_fits_into_every_burst() {
        let with = |mtu| read(ingress(8, 8), None, mtu).unwrap().ingress.unwrap().burst;
        assert_eq!((with(None), with(Some(9000))), (1518, 9018));
    }

    #[test]
    fn the_configuration_goes_before_the_runtime() {
        let asked = ingress(8, 80_000);
        let configured =
            Bandwidth { egress_rate: Some(16), egress_burst: Some(80_000), ..Bandwidth::default() };
        let limits = read(configured, Some(&asked), None).unwrap();
        assert_eq!((limits.ingress, limits.egress.map(|bucket| bucket.rate)), (None, Some(2)));
        let none = Bandwidth { ingress_rate: Some(0), ..Bandwidth::default() };
        assert_eq!(read(none, Some(&asked), None), Ok(Limits::default()), "a 0 is an answer too");
    }
}
