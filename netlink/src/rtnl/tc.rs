//! Queueing disciplines: the token bucket filter (tc-tbf(8)), which limits what an interface sends.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE};
use nix::errno::Errno;

use super::RtnetlinkClient;
use crate::attribute::{Attributes, Writer};
use crate::{Error, Frame, Request, Result};

/// `RTM_NEWQDISC` and `RTM_GETQDISC` (linux/rtnetlink.h).
const NEW: u16 = 36;
const GET: u16 = 38;
/// `TC_H_ROOT`: the discipline of the interface itself, and not of a class of another one
/// (linux/pkt_sched.h).
const ROOT: u32 = 0xffff_ffff;
/// The handle `1:`.
const HANDLE: u32 = 1 << 16;
/// `TCA_KIND` and `TCA_OPTIONS`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `TCA_TBF_PARMS`, `TCA_TBF_RATE64` and `TCA_TBF_BURST`.
const PARAMETERS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
/// Of `struct tcmsg`.
const HEADER: usize = 20;
/// `TC_LINKLAYER_ETHERNET`: with it the kernel needs no table of rates.
const ETHERNET: u8 = 1;

/// A limit of what an interface sends: at any time `burst`, and `rate` in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// In bytes per second.
    pub rate: u64,
    /// In bytes. A packet that is larger is never sent.
    pub burst: u32,
    /// How many bytes may wait; what comes then is dropped.
    pub limit: u32,
}

/// As tc-tbf(8) takes it.
impl fmt::Display for TokenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tbf rate {}bps burst {} limit {}", self.rate, self.burst, self.limit)
    }
}

impl RtnetlinkClient {
    /// Limits what an interface sends, in the place of what its root discipline was.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is no such interface, and where the kernel has no `sch_tbf`.
    pub fn set_token_bucket(&mut self, link: u32, bucket: &TokenBucket) -> Result<()> {
        let mut payload = header(link, HANDLE);
        let mut writer = Writer(&mut payload);
        writer.string(KIND, "tbf");
        writer.nest(OPTIONS, |options| {
            options.bytes(PARAMETERS, &parameters(bucket));
            options.bytes(RATE64, &bucket.rate.to_ne_bytes());
            // In bytes: as a time, which the parameters have room for, it ends at four seconds.
            options.bytes(BURST, &bucket.burst.to_ne_bytes());
        });
        let request = Request { kind: NEW, flags: NLM_F_CREATE | NLM_F_REPLACE, payload };
        self.socket
            .request(request)
            .map_err(|error| error.during(format!("set qdisc {bucket} of link #{link}")))
    }

    /// The rate in bytes per second and the limit in bytes of an interface's token bucket; `None` where its
    /// root discipline is another.
    pub fn token_bucket(&mut self, link: u32) -> Result<Option<(u64, u32)>> {
        // Without the echo only those hear the answer who listen to all changes.
        let request = Request { kind: GET, flags: NLM_F_ECHO, payload: header(link, 0) };
        match self.socket.query(request, parse) {
            Ok(found) => Ok(found.into_iter().flatten().next()),
            // So says the kernel of an interface with no discipline but the built-in one.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::ENOENT)) => Ok(None),
            Err(error) => Err(error.during(format!("read qdisc of link #{link}"))),
        }
    }
}

/// `struct tcmsg`.
fn header(link: u32, handle: u32) -> Vec<u8> {
    [0, link, handle, ROOT, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// `struct tc_tbf_qopt`: two rates of twelve bytes each, the limit, the burst as a time, and the peak's
/// burst.
fn parameters(bucket: &TokenBucket) -> Vec<u8> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(rate.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(bucket.limit.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn parse(frame: Frame<'_>) -> Result<Option<(u64, u32)>> {
    let attributes = frame.payload.get(HEADER..).map(Attributes);
    let attributes = attributes.ok_or_else(|| Error::Malformed("a qdisc without a header".into()))?;
    if attributes.string(KIND) != Some("tbf") {
        return Ok(None);
    }
    let options = attributes.nested(OPTIONS);
    let parameters = options.get(PARAMETERS).unwrap_or_default();
    let word = |at: usize| parameters.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let large = options.get(RATE64).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    Ok(large.or_else(|| word(8).map(u64::from)).zip(word(24)))
}
