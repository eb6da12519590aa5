//! Flowtables: what nft calls the fast way of connections that rules let through (`NFTA_FLOWTABLE_*`). Rules
//! put connections in by `flow add @name`.

use std::collections::BTreeSet;
use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use super::family::TableFamily;
use super::hook::Hook;
use super::value::Name;

/// `NFTA_FLOWTABLE_*`
const NAME: u16 = 2;
const HOOK: u16 = 3;
const FLAGS: u16 = 7;
/// `NFTA_FLOWTABLE_HOOK_*`
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICES: u16 = 3;
/// `NFTA_DEVICE_NAME`
const DEVICE_NAME: u16 = 1;
/// `NF_NETDEV_INGRESS`, the one hook of flowtables.
const INGRESS: u32 = 0;
/// `NFT_FLOWTABLE_HW_OFFLOAD`, `NFT_FLOWTABLE_COUNTER`
const OFFLOAD: u32 = 1;
const COUNTER: u32 = 2;

/// A flowtable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flowtable {
    /// Its place at the ingress of its devices: lower ones come first.
    pub priority: i32,
    /// The devices between which packets go the fast way.
    pub devices: BTreeSet<Name>,
    /// Connections in it are counted.
    pub counts: bool,
    /// The devices may carry the packets themselves.
    pub offloads: bool,
}

impl Flowtable {
    /// Writes the attributes that create it, its name first.
    pub(super) fn encode(&self, name: &str, writer: &mut Writer<'_>) {
        writer.string(NAME, name);
        writer.nest(HOOK, |hook| {
            hook.u32(HOOK_NUMBER, INGRESS);
            hook.u32(HOOK_PRIORITY, self.priority as u32);
            hook.nest(HOOK_DEVICES, |devices| {
                self.devices.iter().for_each(|device| devices.string(DEVICE_NAME, device));
            });
        });
        let flags = if self.offloads { OFFLOAD } else { 0 } | if self.counts { COUNTER } else { 0 };
        writer.u32(FLAGS, flags);
    }

    /// Reads one that the kernel dumped: its table, its name, and what it is.
    pub(super) fn read(attributes: &Attributes<'_>) -> Option<(Name, Name, Flowtable)> {
        let hook = attributes.nested(HOOK);
        let device = |(_, name): (u16, &[u8])| {
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            std::str::from_utf8(name).ok().map(Name::from)
        };
        let flags = attributes.u32(FLAGS).unwrap_or_default();
        let flowtable = Flowtable {
            priority: hook.u32(HOOK_PRIORITY).unwrap_or_default() as i32,
            devices: hook.nested(HOOK_DEVICES).filter_map(device).collect(),
            counts: flags & COUNTER != 0,
            offloads: flags & OFFLOAD != 0,
        };
        Some((attributes.string(1)?.into(), attributes.string(NAME)?.into(), flowtable))
    }

    /// Its clauses as between the braces of a declaration.
    pub(super) fn write_clauses(&self, f: &mut fmt::Formatter<'_>, begin: &str, end: &str) -> fmt::Result {
        write!(
            f,
            "{begin}hook ingress priority {}{end}",
            TableFamily::Netdev.priority(Hook::Ingress, self.priority)
        )?;
        let devices: Vec<&str> = self.devices.iter().map(|device| &**device).collect();
        if !devices.is_empty() {
            write!(f, "{begin}devices = {{ {} }}{end}", devices.join(", "))?;
        }
        if self.offloads {
            write!(f, "{begin}flags offload{end}")?;
        }
        if self.counts {
            write!(f, "{begin}counter{end}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Flowtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_clauses(f, "\t\t", "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flowtable_reads_back_as_it_was_written_and_prints_as_nft_prints_it() {
        let devices = ["eth0", "cni0"].map(Name::from).into();
        let flowtable = Flowtable { priority: 1, devices, counts: true, offloads: false };
        let mut bytes = Vec::new();
        let mut writer = Writer(&mut bytes);
        writer.string(1, "weft");
        flowtable.encode("fast", &mut writer);
        let read = Flowtable::read(&Attributes(&bytes));
        assert_eq!(read, Some(("weft".into(), "fast".into(), flowtable.clone())));
        assert_eq!(
            flowtable.to_string(),
            "\t\thook ingress priority filter + 1\n\t\tdevices = { cni0, eth0 }\n\t\tcounter\n"
        );
    }
}
