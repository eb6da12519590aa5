//! Generic netlink (`linux/genetlink.h`): families that the kernel numbers when they come, found by their
//! names.
//!
//! A message is a header of four bytes and attributes, so that this crate's own reading and writing of
//! attributes does. The crate netlink-packet-generic has a type and several traits for each message instead,
//! and knows no family that is spoken here.

pub mod ipvs;
pub mod wireguard;

use netlink_packet_core::NLM_F_ACK;

use crate::attribute::{Attributes, Writer};
use crate::{Error, Frame, Protocol, Request, Result, Socket};

/// The family that knows the others (`GENL_ID_CTRL`).
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// The length of `struct genlmsghdr`: command, version, two bytes that are reserved.
const HEADER: usize = 4;

/// A family, as the kernel has numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    number: u16,
    version: u8,
}

impl Family {
    /// Asks the kernel for the family of that name. It loads the module that has it, where it can.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn find(socket: &mut Socket, name: &str, version: u8) -> Result<Family> {
        let mut payload = header(CTRL_CMD_GETFAMILY, 1);
        Writer(&mut payload).string(CTRL_ATTR_FAMILY_NAME, name);
        let request = Request { kind: CONTROL, flags: NLM_F_ACK, payload };
        let numbers = socket.query(request, number).map_err(|error| error.during(find(name)))?;
        let missing = || Error::Missing(format!("the generic netlink family {name}"));
        numbers.first().map(|&number| Family { number, version }).ok_or_else(missing)
    }

    /// A request with these attributes.
    pub fn request(&self, command: u8, fill: impl FnOnce(&mut Writer<'_>)) -> Request {
        let mut payload = header(command, self.version);
        fill(&mut Writer(&mut payload));
        Request { kind: self.number, flags: 0, payload }
    }
}

/// Opens a socket for all families, in the calling thread's network namespace.
pub fn open() -> Result<Socket> {
    Socket::open(Protocol::Generic)
}

/// The attributes of an answer.
///
/// # Errors
/// [`Error::Malformed`] where it is shorter than its header.
pub fn attributes(frame: Frame<'_>) -> Result<Attributes<'_>> {
    let malformed =
        || Error::Malformed(format!("a generic netlink message of {} bytes", frame.payload.len()));
    Ok(Attributes(frame.payload.get(HEADER..).ok_or_else(malformed)?))
}

fn find(name: &str) -> String {
    format!("find the generic netlink family {name}")
}

fn header(command: u8, version: u8) -> Vec<u8> {
    vec![command, version, 0, 0]
}

fn number(frame: Frame<'_>) -> Result<u16> {
    let number = attributes(frame)?.u16_native(CTRL_ATTR_FAMILY_ID);
    number.ok_or_else(|| Error::Malformed("a generic netlink family without a number".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_familys_number_its_version_and_the_command_before_attributes() {
        let family = Family { number: 33, version: 1 };
        let request = family.request(4, |writer| writer.u8(6, 9));
        assert_eq!((request.kind, request.flags), (33, 0));
        assert_eq!(request.payload, [4, 1, 0, 0, 5, 0, 6, 0, 9, 0, 0, 0]);
    }

    #[test]
    fn the_number_of_a_family_is_read_and_an_answer_without_one_is_an_error() {
        let mut payload = header(1, 2);
        let mut writer = Writer(&mut payload);
        writer.string(CTRL_ATTR_FAMILY_NAME, "IPVS");
        writer.bytes(CTRL_ATTR_FAMILY_ID, &33u16.to_ne_bytes());
        let frame = |payload| Frame { kind: CONTROL, flags: 0, sequence: 1, payload };
        assert_eq!(number(frame(&payload)).unwrap(), 33);
        assert!(matches!(number(frame(&payload[..8])), Err(Error::Malformed(_))));
        assert!(matches!(number(frame(&[1])), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_family_that_the_kernel_lacks_is_missing_by_name() {
        let error = Family::find(&mut open().unwrap(), "no-such-family", 1).unwrap_err();
        assert!(error.is_missing(), "{error}");
        assert!(error.to_string().contains("no-such-family"), "{error}");
        let control = Family::find(&mut open().unwrap(), "nlctrl", 1).unwrap();
        assert_eq!(control.number, CONTROL);
    }
}
