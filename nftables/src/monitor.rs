//! Word from the kernel that somebody changed certain tables. What to do about it is decided elsewhere.

use std::fmt;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use super::client::GENERIC_HEADER;
use super::encode::{SUBSYSTEM, message};
use super::value::Name;
use weft_netlink::attribute::Attributes;
use weft_netlink::notifications::Source;
use weft_netlink::{Frame, Protocol, Result, Socket};

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// Room for the notifications of a transaction of tens of thousands of elements.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The notifications of what decides about packets.
const RULES: [u16; 6] = [
    message::NEW_TABLE,
    message::DEL_TABLE,
    message::NEW_CHAIN,
    message::DEL_CHAIN,
    message::NEW_RULE,
    message::DEL_RULE,
];

/// Those of them that tell of something that has gone.
const DELETIONS: [u16; 3] = [message::DEL_TABLE, message::DEL_CHAIN, message::DEL_RULE];

/// The notifications of elements.
const ELEMENTS: [u16; 2] = [message::NEW_ELEMENTS, message::DEL_ELEMENTS];

/// Whether a change of a chain or of its rules is one of the table, or one of what others have there. It is
/// asked with the chain's name and whether something was deleted.
pub type IsOurs = fn(&str, bool) -> bool;

/// A subscription to the changes of the tables of some names, in all families.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    tables: Vec<Name>,
    /// Which changes of chains and rules count.
    is_ours: IsOurs,
    /// What a change was announced of, whose transaction's number is still to come.
    touched: Vec<Place>,
    /// The same of chains or rules of other tables.
    others: bool,
}

/// A transaction that changed some of the tables, or other programs' rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its number.
    pub number: u32,
    /// The names of the tables that it changed, each once; none where it changed only those of others.
    pub tables: Vec<Name>,
    /// What it changed of them, each once.
    pub places: Vec<Place>,
    /// Whether it changed chains or rules of other tables.
    pub others: bool,
    /// Who committed it.
    pub author: Author,
}

/// A part of a table that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The table's name.
    pub table: Name,
    /// The set or map whose elements changed; none for anything else of the table.
    pub set: Option<Name>,
}

/// Who committed a transaction. Prints as `nft (process 1234)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Author {
    /// The name of the thread that did, which of a process of one thread is its program's: 15 bytes of it at
    /// most.
    pub program: String,
    /// The thread's number as the machine counts, in whatever container it is; 0 where the kernel does not
    /// tell.
    pub process: u32,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            0 => f.write_str("an unknown program"),
            process => write!(f, "{} (process {process})", self.program),
        }
    }
}

/// One notification.
enum Notice {
    /// Something of a table changed.
    Touched(Place),
    /// A chain or a rule of another table changed.
    Others,
    /// All notifications of that transaction have come.
    Generation(u32, Author),
    /// Something else.
    Other,
}

impl Monitor {
    /// Subscribes to the changes of these tables, in the calling thread's network namespace.
    pub fn open<N: Into<Name>>(tables: impl IntoIterator<Item = N>) -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        socket.join(GROUP)?;
        let tables = tables.into_iter().map(Into::into).collect();
        Ok(Monitor { socket, tables, is_ours: |_, _| true, touched: Vec::new(), others: false })
    }

    /// The same for tables that are shared with other programs.
    pub fn of_shared(self, is_ours: IsOurs) -> Monitor {
        Monitor { is_ours, ..self }
    }
}

/// Tells the transactions that changed one of the tables, or other programs' rules.
impl Source for Monitor {
    type Event = Announcement;

    fn read(&mut self) -> Result<Vec<Announcement>> {
        let (tables, is_ours) = (&self.tables, self.is_ours);
        let notices = self.socket.notifications(|frame| Ok(notice(frame, tables, is_ours)))?;
        let mut announcements = Vec::new();
        for notice in notices {
            match notice {
                Notice::Touched(place) if self.touched.contains(&place) => {}
                Notice::Touched(place) => self.touched.push(place),
                Notice::Others => self.others = true,
                Notice::Generation(number, author) => {
                    let (places, others) = (mem::take(&mut self.touched), mem::take(&mut self.others));
                    let mut tables: Vec<Name> = Vec::new();
                    for place in &places {
                        if !tables.contains(&place.table) {
                            tables.push(place.table.clone());
                        }
                    }
                    if others || !tables.is_empty() {
                        announcements.push(Announcement { number, tables, places, others, author });
                    }
                }
                Notice::Other => {}
            }
        }
        Ok(announcements)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Every object's notification has its table's name in attribute 1, and that of elements their set's in
/// attribute 2; that of a generation has its number there, and then NFTA_GEN_PROC_PID and NFTA_GEN_PROC_NAME
/// (linux/netfilter/nf_tables.h).
fn notice(frame: Frame<'_>, tables: &[Name], is_ours: IsOurs) -> Notice {
    let attributes = Attributes(frame.payload.get(GENERIC_HEADER..).unwrap_or_default());
    let kind = frame.kind & 0xff;
    let is_generation = frame.kind == SUBSYSTEM << 8 | message::NEW_GENERATION;
    match (is_generation, attributes.u32(1), attributes.string(1)) {
        (true, Some(number), _) => {
            let program = attributes.string(3).unwrap_or_default().to_owned();
            let author = Author { program, process: attributes.u32(2).unwrap_or_default() };
            Notice::Generation(number, author)
        }
        (false, _, Some(name)) => match tables.iter().find(|table| ***table == *name) {
            Some(_)
                if chain(kind, &attributes)
                    .is_some_and(|chain| !is_ours(chain, DELETIONS.contains(&kind))) =>
            {
                Notice::Others
            }
            Some(table) => {
                let set = attributes.string(2).filter(|_| ELEMENTS.contains(&kind)).map(Name::from);
                Notice::Touched(Place { table: table.clone(), set })
            }
            None if RULES.contains(&kind) => Notice::Others,
            None => Notice::Other,
        },
        _ => Notice::Other,
    }
}

/// The chain that a notification is about (`NFTA_RULE_CHAIN`, `NFTA_CHAIN_NAME`).
fn chain<'a>(kind: u16, attributes: &Attributes<'a>) -> Option<&'a str> {
    match kind {
        message::NEW_RULE | message::DEL_RULE => attributes.string(2),
        message::NEW_CHAIN | message::DEL_CHAIN => attributes.string(3),
        _ => None,
    }
}
