//! Why a name of the cluster does not exist: the texts of the extended errors in NXDOMAIN replies. Pure.

use crate::wire::extended_error::ExtendedError;

/// What is missing where a name of the cluster does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The namespace.
    NoNamespace,
    /// The Service; the namespace is there.
    NoService,
    /// A headless Service is there, but nothing behind it.
    NoEndpoints,
    /// A headless Service is there, but nothing behind it is ready.
    NotReady,
    /// A Service is there, but nothing behind it is ready, and such have no names.
    Empty,
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

impl Absence {
    /// As people read it.
    pub fn text(self) -> &'static str {
        match self {
            Absence::NoNamespace => "no such namespace",
            Absence::NoService => "no such service in the namespace",
            Absence::NoEndpoints => "the headless service has no endpoints: its selector matches no pod",
            Absence::NotReady => "the headless service has no ready endpoint",
            Absence::Empty => {
                "the service has no ready endpoint: such have no name here (ignore empty_service)"
            }
            Absence::BadTarget => "the service's external name is not a domain name",
            Absence::NotUnderService => "the service has no such endpoint, hostname or port",
            Absence::NoAddress => "the pod's name is not an address",
            Absence::NoPod => "no pod of the namespace has this address",
            Absence::NoPodNames => "pods have no names here: the server runs with --pods disabled",
            Absence::NoMeaning => "no such name in a cluster: services are under svc, pods under pod",
        }
    }
}

impl From<Absence> for ExtendedError {
    fn from(reason: Absence) -> ExtendedError {
        ExtendedError::other(reason.text())
    }
}
