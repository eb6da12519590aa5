//! The numbers that a network namespace has for others, by which it says where a veth's other end is.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::RtnetlinkClient;
use crate::Result;
use crate::netns::Namespace;

impl RtnetlinkClient {
    /// The number that the client's namespace has for another one; none where it has none yet.
    pub fn namespace_number(&mut self, namespace: &Namespace) -> Result<Option<i32>> {
        let mut message = NsidMessage::default();
        let descriptor = namespace.as_fd().as_raw_fd().unsigned_abs();
        message.attributes.push(NsidAttribute::Fd(descriptor));
        let answers = self.get(&RouteNetlinkMessage::GetNsId(message)).map_err(|error| {
            error.during(format!("find the number of the namespace {}", namespace.path().display()))
        })?;
        let number = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => {
                message.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(number) => Some(*number),
                    _ => None,
                })
            }
            _ => None,
        });
        Ok(number.filter(|number| *number >= 0))
    }

    /// The number of the namespace in which the other end of a link is; none where it is the client's own.
    pub fn peer_namespace(&mut self, link: u32) -> Result<Option<i32>> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        let answers = self
            .get(&RouteNetlinkMessage::GetLink(message))
            .map_err(|error| error.during(format!("find where the other end of link #{link} is")))?;
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => {
                message.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::LinkNetNsId(number) => Some(*number),
                    _ => None,
                })
            }
            _ => None,
        }))
    }
}
