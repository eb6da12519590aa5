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
    /// The container that holds it; none where a crash of another program left the record empty.
    pub container: Option<String>,
    /// The interface; none in records of old versions, which stand for every interface of the container.
    pub ifname: Option<String>,
}

impl Record {
    /// Whether the record is that owner's.
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.container.as_deref() == Some(&owner.container)
            && self.ifname.as_deref().is_none_or(|ifname| ifname == owner.ifname)
    }
}

/// A store of reservations, locked for the one who holds it.
pub trait Store {
    /// All reservations, in no order.
    fn records(&self) -> Result<Vec<Record>>;

    /// The address that was given last out of the range set of that index.
    fn last(&self, set: usize) -> Result<Option<IpAddr>>;

    /// Reserves an address and remembers it as the last of its set; false where it is taken.
    fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<bool>;

    /// Frees an address. One that is free is no error.
    fn free(&mut self, address: IpAddr) -> Result<()>;
}
