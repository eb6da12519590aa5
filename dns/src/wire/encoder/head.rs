//! What a reply repeats of its query, and what its header says.

use hickory_proto::op::ResponseCode;

use crate::wire::format::{HEADER, OPT};

/// What a client's OPT record says (RFC 6891 section 6.1.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientEdns {
    /// The largest datagram that it takes.
    pub(crate) payload: u16,
    /// Whether it wants DNSSEC's records.
    pub(crate) dnssec_ok: bool,
    /// Whether its replies are to be padded.
    pub(crate) pads: bool,
}

/// All that a reply repeats of a query, and how long it may get.
#[derive(Clone, Copy)]
pub(crate) struct Head<'q> {
    /// The query's header.
    pub(crate) header: &'q [u8; HEADER],
    /// Its question section: one name as the client wrote it, type and class.
    pub(crate) section: &'q [u8],
    /// Its OPT record.
    pub(crate) edns: Option<ClientEdns>,
    /// The most bytes of the whole reply.
    pub(crate) limit: usize,
}

impl Head<'_> {
    /// The most bytes of the reply without its OPT record.
    pub(crate) fn room(&self) -> usize {
        self.limit - if self.edns.is_some() { OPT } else { 0 }
    }

    /// The query's identifier.
    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }
}

/// What a reply's header says besides.
#[derive(Clone, Copy)]
pub(crate) struct Flags {
    /// Whether the zone itself says so.
    pub(crate) authoritative: bool,
    /// Whether the upstream vouches for it (RFC 6840 section 5.8).
    pub(crate) authentic: bool,
    /// Whether names outside of the cluster are answered too.
    pub(crate) recursion_available: bool,
    /// The response code.
    pub(crate) code: ResponseCode,
}
