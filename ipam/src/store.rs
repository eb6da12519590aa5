//! Where reservations are kept, as the allocator sees it.

use std::fmt;
use std::net::IpAddr;

use weft_cni_spec::Attachment;

use crate::Result;
use crate::mark::{Key, Mark};

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

impl Owner {
    /// What stands for it in marks.
    pub(crate) fn key(&self) -> Key {
        Key::of(&self.container, &self.ifname)
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
    /// Whether the machine was started anew since: no container lives through that, whatever became of its
    /// DEL.
    pub earlier_boot: bool,
    /// Its mark, where it has one.
    pub(crate) mark: Option<Mark>,
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
    },
    /// The container's interface that the key stands for: the record was not read.
    Marked(Key),
    /// Nobody's: a crash of another program left the record empty.
    Nobody,
    /// Not to be known, for the record cannot be read. It is not given to anybody.
    Unknown,
}

impl Record {
    /// Whether the record is that owner's, of this boot or an earlier one.
    pub fn is_of(&self, owner: &Owner) -> bool {
        match &self.holder {
            Holder::Container { id, ifname } => {
                *id == owner.container && ifname.as_ref().is_none_or(|ifname| *ifname == owner.ifname)
            }
            Holder::Marked(key) => *key == owner.key(),
            Holder::Nobody | Holder::Unknown => false,
        }
    }

    /// Whether the address is taken.
    pub fn is_held(&self) -> bool {
        match self.holder {
            Holder::Container { .. } | Holder::Marked(_) => !self.earlier_boot,
            Holder::Nobody => false,
            Holder::Unknown => true,
        }
    }
}

/// All reservations of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The reservations, in no order.
    pub records: Vec<Record>,
    /// What should not be where it is, for people to know: a line for each, with the file's name.
    pub strays: Vec<String>,
    /// Marks of records that are gone, by their files' names.
    pub(crate) widows: Vec<String>,
}

/// A store of reservations, locked for the one who holds it.
pub trait Store {
    /// The address that was given last out of the range set of that index.
    fn last(&self, set: usize) -> Result<Option<IpAddr>>;

    /// Addresses that were freed, the one that rests longest first; none of them twice. What is not here was
    /// never given, or so long ago that nobody counts.
    fn freed(&self) -> Vec<IpAddr>;

    /// Reserves an address and remembers it as the last of its set; `None` where a record is in the way.
    fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<Option<Record>>;

    /// Frees the addresses of these records and remembers the order. Goes on after an error and reports the
    /// first. One that is free is no error.
    fn free(&mut self, records: &[&Record]) -> Result<()>;
}
