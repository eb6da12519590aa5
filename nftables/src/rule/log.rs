//! `log`: a line in the kernel's log, or a message to a group of nflog (`NFTA_LOG_*`).

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use crate::value::Name;

/// The level of a line that names none, which nft does not print (`NFT_LOGLEVEL_WARNING`).
const USUAL_LEVEL: u32 = 4;
/// nft's words for the levels.
const LEVELS: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];

/// What is logged of a packet, and to where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    /// What the line begins with; at most 127 bytes.
    pub prefix: Option<Name>,
    /// The group of nflog that gets the packet; without one it is a line in the kernel's log.
    pub group: Option<u16>,
    /// How many bytes of the packet the group gets; 0 for all.
    pub snaplen: u32,
    /// How many packets are sent to the group at once; 0 for one.
    pub queue_threshold: u16,
    /// The level of the line (`LOG_*`), where it is not a warning.
    pub level: Option<u32>,
}

impl Log {
    pub(super) fn encode(&self, data: &mut Writer<'_>) {
        self.prefix.iter().for_each(|prefix| data.string(2, prefix));
        if let Some(group) = self.group {
            data.bytes(1, &group.to_be_bytes());
        }
        // nft prints what is there, a 0 too.
        if self.snaplen != 0 {
            data.u32(3, self.snaplen);
        }
        if self.queue_threshold != 0 {
            data.bytes(4, &self.queue_threshold.to_be_bytes());
        }
        self.level.iter().for_each(|level| data.u32(5, *level));
    }

    /// `None` where it logs more than is known here (`NFTA_LOG_FLAGS`).
    pub(super) fn decode(data: &Attributes<'_>) -> Option<Log> {
        let half = |kind| Some(u16::from_be_bytes(data.get(kind)?.try_into().ok()?));
        if data.u32(6).unwrap_or_default() != 0 {
            return None;
        }
        Some(Log {
            prefix: data.string(2).filter(|prefix| !prefix.is_empty()).map(Name::from),
            group: half(1),
            snaplen: data.u32(3).unwrap_or_default(),
            queue_threshold: half(4).unwrap_or_default(),
            level: data.u32(5).filter(|level| *level != USUAL_LEVEL),
        })
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("log")?;
        if let Some(prefix) = &self.prefix {
            write!(f, " prefix \"{prefix}\"")?;
        }
        if let Some(group) = self.group {
            write!(f, " group {group}")?;
        }
        if self.snaplen != 0 {
            write!(f, " snaplen {}", self.snaplen)?;
        }
        if self.queue_threshold != 0 {
            write!(f, " queue-threshold {}", self.queue_threshold)?;
        }
        match self.level.and_then(|level| LEVELS.get(level as usize)) {
            Some(level) => write!(f, " level {level}"),
            None => Ok(()),
        }
    }
}
