//! Word from the kernel that somebody changed certain tables. What to do about it is decided elsewhere.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use super::client::GENERIC_HEADER;
use super::encode::{SUBSYSTEM, message};
use super::value::Name;
use weft_netlink::attribute::Attributes;
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

/// A subscription to the changes of the tables of one name, in all families.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    table: Name,
    /// Chains or rules of other tables changed.
    others: bool,
    /// A change of the table was announced, and its transaction's number is still to come.
    touched: bool,
}

/// A transaction that changed the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its number.
    pub number: u32,
    /// Who committed it.
    pub author: Author,
}

/// Who committed a transaction. Prints as `nft (process 1234)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Author {
    /// The name of the thread that did, which of a process of one thread is its program's: 15 bytes of it at most.
    pub program: String,
    /// The thread's number as the machine counts, in whatever container it is; 0 where the kernel does not tell.
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
    /// Something of that table changed.
    Touched,
    /// A chain or a rule of another table changed.
    Others,
    /// All notifications of that transaction have come.
    Generation(Announcement),
    /// Something else.
    Other,
}

impl Monitor {
    /// Subscribes, in the calling thread's network namespace.
    pub fn open(table: impl Into<Name>) -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        socket.join(GROUP)?;
        Ok(Monitor { socket, table: table.into(), others: false, touched: false })
    }

    /// The transactions that changed the table, of those that were announced since the last call. Does not wait: wait on the
    /// descriptor before.
    ///
    /// # Errors
    /// [`weft_netlink::Error::Overrun`] where notifications were lost: anything may have changed.
    pub fn read(&mut self) -> Result<Vec<Announcement>> {
        let table = &self.table;
        let notices = self.socket.notifications(|frame| Ok(notice(frame, table)))?;
        let mut generations = Vec::new();
        for notice in notices {
            match notice {
                Notice::Touched => self.touched = true,
                Notice::Others => self.others = true,
                Notice::Generation(transaction) if std::mem::take(&mut self.touched) => {
                    generations.push(transaction);
                }
                Notice::Generation(_) | Notice::Other => {}
            }
        }
        Ok(generations)
    }

    /// Whether chains or rules of other tables changed, as far as was announced since this was asked the last time.
    pub fn others_changed(&mut self) -> bool {
        std::mem::take(&mut self.others)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Every object's notification has its table's name in attribute 1; that of a generation has its number there, and then
/// NFTA_GEN_PROC_PID and NFTA_GEN_PROC_NAME (linux/netfilter/nf_tables.h).
fn notice(frame: Frame<'_>, table: &str) -> Notice {
    let attributes = Attributes(frame.payload.get(GENERIC_HEADER..).unwrap_or_default());
    let is_generation = frame.kind == SUBSYSTEM << 8 | message::NEW_GENERATION;
    match (is_generation, attributes.u32(1), attributes.string(1)) {
        (true, Some(number), _) => {
            let program = attributes.string(3).unwrap_or_default().to_owned();
            let author = Author { program, process: attributes.u32(2).unwrap_or_default() };
            Notice::Generation(Announcement { number, author })
        }
        (false, _, Some(name)) if name == table => Notice::Touched,
        (false, _, Some(_)) if RULES.contains(&(frame.kind & 0xff)) => Notice::Others,
        _ => Notice::Other,
    }
}
