//! What is known of the packet that is followed, as rules ask for it.

use weft_nftables::Name;
use weft_nftables::evaluator::Facts;

use super::Origin;
use super::walk::Walk;

/// The bit of a new connection in `ct state`, and that of a rewritten destination in `ct status` (`NF_CT_STATE_BIT`,
/// `IPS_DST_NAT`).
const STATE_NEW: u32 = 8;
const STATUS_DNAT: u32 = 32;

impl Walk<'_> {
    /// What the proxy's own rules find.
    pub(super) fn own_facts(&self) -> Facts {
        let input = match &self.packet.origin {
            Origin::Machine if self.looped => Some("lo".to_owned()),
            Origin::Machine => Some(String::new()),
            Origin::Interface(name) => name.as_ref().map(ToString::to_string),
        };
        Facts {
            input,
            // A client's port may be any; no Service has this one.
            source_port: Some(0),
            priority: Some(self.priority),
            routed_back: match self.way() {
                (Some(came), Some(leaves)) => Some(came == leaves),
                _ => None,
            },
            draw: Some(self.draw),
            ..self.facts()
        }
    }

    /// What the rules of other programs find. They may ask for what no rule of the proxy asks for.
    pub(super) fn foreign_facts(&self) -> Facts {
        let way = |address| self.tracer.interface_to(address).map(ToString::to_string);
        let destination = self.packet.destination.ip();
        Facts {
            input: match &self.packet.origin {
                Origin::Machine if self.looped => Some("lo".to_owned()),
                Origin::Machine => Some(String::new()),
                Origin::Interface(Some(name)) => Some(name.to_string()),
                Origin::Interface(None) => way(self.packet.source),
            },
            output: if self.tracer.is_local(destination) { None } else { way(destination) },
            ..self.facts()
        }
    }

    fn facts(&self) -> Facts {
        let (source, destination) = (self.packet.source, self.packet.destination);
        Facts {
            source: Some(source),
            destination: Some(destination.ip()),
            protocol: Some(self.packet.protocol.number()),
            destination_port: Some(destination.port()),
            original_destination: Some(self.original.destination),
            state: Some(STATE_NEW),
            status: Some(if destination == self.original.destination { 0 } else { STATUS_DNAT }),
            source_is_local: Some(self.tracer.is_local(source)),
            destination_is_local: Some(self.tracer.is_local(destination.ip())),
            ..Facts::default()
        }
    }

    /// The interfaces that the packet came and leaves by, as far as they are known.
    pub(super) fn way(&self) -> (Option<Name>, Option<Name>) {
        let came = match &self.packet.origin {
            Origin::Interface(Some(name)) => Some(name),
            // What comes from there comes by the interface that leads there.
            _ => self.tracer.interface_to(self.packet.source),
        };
        (came.cloned(), self.tracer.interface_to(self.packet.destination.ip()).cloned())
    }
}
