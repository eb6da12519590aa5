//! `limit`: goes on as long as a rate is not exceeded, or once it is (`NFTA_LIMIT_*`).

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

/// `NFT_LIMIT_F_INV`
const OVER: u32 = 1;
/// `NFT_LIMIT_PKTS`, `NFT_LIMIT_PKT_BYTES`
const PACKETS: u32 = 0;
const BYTES: u32 = 1;
/// What nft takes for a burst that is not given, and so does not print.
const USUAL_BURST: u32 = 5;
/// nft's words for how many seconds a rate is counted over.
const UNITS: [(u64, &str); 5] =
    [(1, "second"), (60, "minute"), (3_600, "hour"), (86_400, "day"), (604_800, "week")];

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// So many packets or bytes.
    pub rate: u64,
    /// In so many seconds.
    pub seconds: u64,
    /// So many more at once.
    pub burst: u32,
    /// Bytes are counted, not packets.
    pub counts_bytes: bool,
    /// It holds once the rate is exceeded (`over`), not until then.
    pub is_over: bool,
}

impl Limit {
    /// Up to so many packets in so many seconds, with nft's usual burst.
    pub fn packets(rate: u64, seconds: u64) -> Limit {
        Limit { rate, seconds, burst: USUAL_BURST, counts_bytes: false, is_over: false }
    }

    pub(super) fn encode(self, data: &mut Writer<'_>) {
        data.bytes(1, &self.rate.to_be_bytes());
        data.bytes(2, &self.seconds.to_be_bytes());
        data.u32(3, self.burst);
        data.u32(4, if self.counts_bytes { BYTES } else { PACKETS });
        data.u32(5, if self.is_over { OVER } else { 0 });
    }

    pub(super) fn decode(data: &Attributes<'_>) -> Option<Limit> {
        let long = |kind| Some(u64::from_be_bytes(data.get(kind)?.try_into().ok()?));
        Some(Limit {
            rate: long(1)?,
            seconds: long(2)?,
            burst: data.u32(3).unwrap_or_default(),
            counts_bytes: data.u32(4) == Some(BYTES),
            is_over: data.u32(5).unwrap_or_default() & OVER != 0,
        })
    }
}

/// A number of bytes in the largest unit of nft that it is a multiple of.
fn in_units(bytes: u64) -> (u64, &'static str) {
    match bytes {
        0 => (0, "bytes"),
        _ if bytes.is_multiple_of(1 << 20) => (bytes >> 20, "mbytes"),
        _ if bytes.is_multiple_of(1 << 10) => (bytes >> 10, "kbytes"),
        _ => (bytes, "bytes"),
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = if self.is_over { "over " } else { "" };
        let unit =
            UNITS.iter().find(|(seconds, _)| *seconds == self.seconds).map_or("second", |(_, unit)| unit);
        if self.counts_bytes {
            let (rate, word) = in_units(self.rate);
            write!(f, "limit rate {over}{rate} {word}/{unit}")?;
            let (burst, word) = in_units(self.burst.into());
            return if burst == 0 { Ok(()) } else { write!(f, " burst {burst} {word}") };
        }
        write!(f, "limit rate {over}{}/{unit}", self.rate)?;
        if self.burst == USUAL_BURST { Ok(()) } else { write!(f, " burst {} packets", self.burst) }
    }
}
