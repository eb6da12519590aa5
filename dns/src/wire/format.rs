//! Lengths and numbers of the message format, and how messages travel. Pure.

use std::fmt;

use hickory_proto::op::ResponseCode;

/// The length of a message's header (RFC 1035 section 4.1.1).
pub(crate) const HEADER: usize = 12;
/// Flags of a message (RFC 1035 section 4.1.1, RFC 4035 section 3.2), those of its third byte and of its
/// fourth.
pub(crate) const AUTHORITATIVE: u8 = 0x04;
pub(crate) const TRUNCATED: u8 = 0x02;
pub(crate) const AUTHENTIC: u8 = 0x20;
pub(crate) const CHECKING_DISABLED: u8 = 0x10;
/// The length of an OPT record without options (RFC 6891 section 6.1.2).
pub(crate) const OPT: usize = 11;
/// What comes before an option's data (RFC 6891 section 6.1.2): code and length.
pub(crate) const OPTION: usize = 4;
/// The option that says why (RFC 8914 section 2).
pub const EXTENDED_ERROR: u16 = 15;
/// What every UDP client takes (RFC 1035 section 2.3.4).
pub(crate) const SMALLEST_UDP: u16 = 512;
/// What crosses any network without fragments; more is never sent over UDP, whatever the client offers.
pub const LARGEST_UDP: u16 = 1232;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// Length-prefixed messages on a connection.
    Tcp,
    /// A connection that nobody else can read, be it DNS over TLS or over HTTPS: replies are padded for those
    /// who pad.
    Tls,
    /// The same on QUIC, be it DNS over QUIC or over HTTP/3.
    Quic,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Quic => "QUIC",
        })
    }
}

/// A response code as the standards and CoreDNS write it; rare ones by number.
pub fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => u16::from(other).to_string(),
    }
}
