//! Why there is no answer, in words for people: the extended errors of RFC 8914, which clients show and programs pass
//! over. Pure.

use std::borrow::Cow;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsOption;

use crate::answer::pod_address;
use crate::message::EXTENDED_ERROR;
use crate::name::QueryName;
use crate::zone::{PodNames, Zone};

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

/// What is missing where a name of the cluster does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The namespace.
    NoNamespace,
    /// The Service; the namespace is there.
    NoService,
    /// A headless Service is there, but nothing behind it.
    NoEndpoints,
    /// A headless Service is there, but nothing behind it is ready.
    NotReady,
    /// The Service's external name is no domain name.
    BadTarget,
    /// The Service is there, but has no such endpoint, hostname or port.
    NotUnderService,
    /// A pod's name does not spell an address.
    NoAddress,
    /// No pod of the namespace has the address of the name.
    NoPod,
    /// Pods have no names here.
    NoPodNames,
    /// No such name is made of anything in a cluster.
    NoMeaning,
}

/// An extended error, as a reply carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// The number (RFC 8914 section 5.2).
    pub code: u16,
    /// For people.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// As people read it.
    pub fn text(self) -> &'static str {
        match self {
            Reason::NoNamespace => "no such namespace",
            Reason::NoService => "no such service in the namespace",
            Reason::NoEndpoints => "the headless service has no endpoints: its selector matches no pod",
            Reason::NotReady => "the headless service has no ready endpoint",
            Reason::BadTarget => "the service's external name is no domain name",
            Reason::NotUnderService => "the service has no such endpoint, hostname or port",
            Reason::NoAddress => "the pod's name spells no address",
            Reason::NoPod => "no pod of the namespace has this address",
            Reason::NoPodNames => "pods have no names here: the server runs with --pods disabled",
            Reason::NoMeaning => "no such name in a cluster: services are under svc, pods under pod",
        }
    }
}

impl From<Reason> for ExtendedError {
    fn from(reason: Reason) -> ExtendedError {
        ExtendedError::new(OTHER, reason.text())
    }
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
        ExtendedError::new(code, "the upstreams do not answer: this is what they said before")
    }

    /// What was asked for is known to fail.
    pub fn cached() -> ExtendedError {
        ExtendedError::new(CACHED_ERROR, "no upstream had an answer a moment ago")
    }

    /// No upstream has an answer, and this is why.
    pub fn unreachable(problem: String) -> ExtendedError {
        ExtendedError::new(NO_REACHABLE_AUTHORITY, problem)
    }

    /// The cluster has not been listed yet.
    pub fn unready() -> ExtendedError {
        ExtendedError::new(NOT_READY, "the cluster has not been listed yet")
    }
}

/// What is missing, where `name` is of the zone but does not exist.
pub fn why(zone: &Zone, name: &QueryName) -> Reason {
    let Some(inner) = name.len().checked_sub(zone.config().zone.label_count()) else {
        return Reason::NoMeaning;
    };
    match inner.checked_sub(1).map(|last| (name.label(last), last)) {
        Some((b"pod", _)) if zone.config().pods == PodNames::Disabled => Reason::NoPodNames,
        Some((b"svc" | b"pod", kind @ 1..)) if !zone.has_namespace(name.wire(kind - 1, kind)) => {
            Reason::NoNamespace
        }
        Some((b"svc", svc @ 2..)) => zone.missing(name.wire(svc - 2, svc)),
        Some((b"pod", 2)) if pod_address(name.label(0)).is_some() => Reason::NoPod,
        Some((b"pod", 2..)) => Reason::NoAddress,
        _ => Reason::NoMeaning,
    }
}
