//! Where reservations are kept, as the allocator sees it.

use std::fmt;
use std::net::IpAddr;

use weft_types::cni::Attachment;

use crate::Result;

/// Who holds an address: a container's interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The container's id.
    pub container: String,
    /// The interface's name inside the container.
    pub ifname: String,
}

impl From<&Attachment> for Owner {
    fn from(attachment: &Attachment) -> Owner {
        let (container, ifname) = (attachment.container.to_string(), attachment.ifname.to_string());
        Owner { container, ifname }
    }
}

/// `container:ifname`
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container, self.ifname)
    }
}

/// A reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub holder: Holder,
}

/// Whose a reservation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A container's.
    Container {
        /// The container's id.
        id: String,
        /// The interface; none in records of old versions, which stand for every interface of the container.
        ifname: Option<String>,
        /// Whether the machine was started anew since: no container lives through that, whatever became of its DEL.
        earlier_boot: bool,
    },
    /// Nobody's: a crash of another program left the record empty.
    Nobody,
    /// Not to be known, for the record cannot be read. It is not given to anybody.
    Unknown,
}

impl Record {
    /// Whether the record is that owner's, of this boot or an earlier one.
    pub fn is_of(&self, owner: &Owner) -> bool {
        let Holder::Container { id, ifname, .. } = &self.holder else { return false };
        *id == owner.container && ifname.as_ref().is_none_or(|ifname| *ifname == owner.ifname)
    }

    /// Whether the address is taken.
    pub fn is_held(&self) -> bool {
        matches!(self.holder, Holder::Container { earlier_boot: false, .. } | Holder::Unknown)
    }
}

/// Everything that a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All reservations, in no order.
    pub records: Vec<Record>,
    /// Addresses that were freed, the one that rests longest first; none of them twice. What is not here was never
    /// given, or so long ago that nobody counts.
    pub freed: Vec<IpAddr>,
    /// What should not be where it is, for people to know: a line for each, with the file's name.
    pub strays: Vec<String>,
}

/// A store of reservations, locked for the one who holds it.
pub trait Store {
    /// The address that was given last out of the range set of that index.
    fn last(&self, set: usize) -> Result<Option<IpAddr>>;

    /// Reserves an address and remembers it as the last of its set; false where it is taken.
    fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<bool>;

    /// Frees an address and remembers that it was freed last. One that is free is no error.
    fn free(&mut self, address: IpAddr) -> Result<()>;
}
