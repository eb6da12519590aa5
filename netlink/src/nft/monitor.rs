//! Word from the kernel that somebody changed certain tables. What to do about it is decided elsewhere.

use std::os::fd::{AsFd, BorrowedFd};

use super::attribute::Attributes;
use super::client::GENERIC_HEADER;
use super::encode::{SUBSYSTEM, message};
use super::value::Name;
use crate::{Frame, Protocol, Result, Socket};

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// Room for the notifications of a transaction of tens of thousands of elements.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A subscription to the changes of the tables of one name, in all families.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    table: Name,
    /// A change of the table was announced, and its transaction's number is still to come.
    touched: bool,
}

/// One notification.
enum Notice {
    /// Something of that table changed.
    Touched,
    /// All notifications of that transaction have come.
    Generation(u32),
    /// Something else.
    Other,
}

impl Monitor {
    /// Subscribes, in the calling thread's network namespace.
    pub fn open(table: impl Into<Name>) -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        socket.join(GROUP)?;
        Ok(Monitor { socket, table: table.into(), touched: false })
    }

    /// The numbers of the transactions that changed the table, of those that were announced since the last call. Does not
    /// wait: wait on the descriptor before.
    ///
    /// # Errors
    /// [`crate::Error::Overrun`] where notifications were lost: anything may have changed.
    pub fn read(&mut self) -> Result<Vec<u32>> {
        let table = &self.table;
        let notices = self.socket.notifications(|frame| Ok(notice(frame, table)))?;
        let mut generations = Vec::new();
        for notice in notices {
            match notice {
                Notice::Touched => self.touched = true,
                Notice::Generation(number) if std::mem::take(&mut self.touched) => generations.push(number),
                Notice::Generation(_) | Notice::Other => {}
            }
        }
        Ok(generations)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Every object's notification has its table's name in attribute 1, and that of a generation its number.
fn notice(frame: Frame<'_>, table: &str) -> Notice {
    let attributes = Attributes(frame.payload.get(GENERIC_HEADER..).unwrap_or_default());
    let is_generation = frame.kind == SUBSYSTEM << 8 | message::NEW_GENERATION;
    match (is_generation, attributes.u32(1), attributes.string(1)) {
        (true, Some(number), _) => Notice::Generation(number),
        (false, _, Some(name)) if name == table => Notice::Touched,
        _ => Notice::Other,
    }
}
