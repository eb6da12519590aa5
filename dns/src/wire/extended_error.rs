//! Extended DNS errors (RFC 8914): why there is no better answer, in words that clients show to people. Pure.

use std::borrow::Cow;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsOption;

use crate::wire::format::EXTENDED_ERROR;

/// RFC 8914 section 4.1: none of the numbered reasons.
pub(crate) const OTHER: u16 = 0;
/// RFC 8914 section 4.4.
const STALE: u16 = 3;
/// RFC 8914 section 4.14.
const CACHED_ERROR: u16 = 13;
/// RFC 8914 section 4.15.
const NOT_READY: u16 = 14;
/// RFC 8914 section 4.20.
const STALE_DENIAL: u16 = 19;
/// RFC 8914 section 4.23.
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// An extended error, as a reply carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// The number (RFC 8914 section 5.2).
    pub code: u16,
    /// For people.
    pub text: Cow<'static, str>,
}

impl ExtendedError {
    fn new(code: u16, text: impl Into<Cow<'static, str>>) -> ExtendedError {
        ExtendedError { code, text: text.into() }
    }

    /// The first one that a message carries (RFC 8914 section 2).
    pub fn of(message: &Message) -> Option<ExtendedError> {
        let options = message.edns.iter().flat_map(|edns| edns.options().as_ref());
        let data = options.filter_map(|(_, option)| match option {
            EdnsOption::Unknown(EXTENDED_ERROR, data) => data.split_first_chunk(),
            _ => None,
        });
        data.map(|(code, text)| {
            // Some end the text as C does.
            let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
            ExtendedError::new(u16::from_be_bytes(*code), text)
        })
        .next()
    }

    /// As it stands in OPT.
    pub fn option(&self) -> EdnsOption {
        EdnsOption::Unknown(EXTENDED_ERROR, [&self.code.to_be_bytes(), self.text.as_bytes()].concat())
    }

    /// A reason that has no number of its own.
    pub fn other(text: impl Into<Cow<'static, str>>) -> ExtendedError {
        ExtendedError::new(OTHER, text)
    }

    /// An answer past its time, because no upstream has a better one.
    pub fn stale(denial: bool) -> ExtendedError {
        let code = if denial { STALE_DENIAL } else { STALE };
        ExtendedError::new(code, "the upstreams do not answer: stale answer")
    }

    /// What was asked for is known to fail.
    pub fn cached() -> ExtendedError {
        ExtendedError::new(CACHED_ERROR, "cached failure: no upstream had an answer")
    }

    /// No upstream has an answer, and this is why.
    pub fn unreachable(problem: String) -> ExtendedError {
        ExtendedError::new(NO_REACHABLE_AUTHORITY, problem)
    }

    /// The cluster has not been listed yet.
    pub fn not_ready() -> ExtendedError {
        ExtendedError::new(NOT_READY, "the cluster has not been listed yet")
    }
}
