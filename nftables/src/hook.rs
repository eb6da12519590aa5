//! The places in the kernel at which packets come by.

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Every packet that came in.
    Prerouting,
    /// Those for this machine.
    Input,
    /// Those for others.
    Forward,
    /// Those made by this machine.
    Output,
    /// All that leave.
    Postrouting,
    /// All that enter a device, before anything else is done with them.
    Ingress,
    /// All that leave by a device, after anything else was done with them.
    Egress,
}

impl Hook {
    /// Those of the IP layer.
    pub const ALL: [Hook; 5] =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// nft's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        }
    }
}
