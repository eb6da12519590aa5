//! Ports of this node that lead to containers (`hostPort`), as Weft's CNI plugin keeps them: in the map
//! `hostports` of the table `weft-cni-hostports`. A NodePort of the same number goes before one, which nobody
//! would see otherwise. What other plugins map is not seen.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_nftables::{Client, Data, DataType, Declaration, Family, Owned, SetKind, Value};
use weft_types::{Family as AddressFamily, Protocol};

use crate::error::Error;
use crate::services::host_ports::HostPort;
use crate::services::plan::Frontend;

/// What reads them.
#[derive(Debug)]
pub struct HostPorts(Client);

impl HostPorts {
    /// Opens the kernel's nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn open() -> Result<HostPorts, Error> {
        Ok(HostPorts(Client::open()?))
    }

    /// All that there are; none where the plugin made no such table.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn read(&mut self) -> Result<Vec<HostPort>, Error> {
        let mut found = Vec::new();
        for family in Family::BOTH {
            let map = declaration(family);
            found.extend(self.0.owned(&map)?.iter().filter_map(|element| host_port(element, &map)));
        }
        Ok(found)
    }
}

fn declaration(family: Family) -> Arc<Declaration> {
    let (table, name) = (weft_types::well_known::table::HOST_PORTS.into(), "hostports".into());
    let key = vec![DataType::address(family), DataType::InetProto, DataType::InetService];
    let kind = SetKind::RangeMap(vec![DataType::address(family), DataType::InetService]);
    let family = family.into();
    Arc::new(Declaration { family, table, name, key, kind, comment: None })
}

fn host_port(element: &Owned, map: &Declaration) -> Option<HostPort> {
    let family = map.family.ip()?;
    let first = element.key.values(&map.key)?;
    let last = element.end.as_ref().unwrap_or(&element.key).values(&map.key)?;
    let Data::Tuple(container) = &element.data else { return None };
    let container = container.values(&[DataType::address(family), DataType::InetService])?;
    let (&[Value::Address(from), Value::Protocol(number), Value::Port(port)], &[Value::Address(to), ..]) =
        (&first[..], &last[..])
    else {
        return None;
    };
    let &[Value::Address(address), Value::Port(at)] = &container[..] else { return None };
    let protocol = Protocol::from_number(number)?;
    Some(HostPort {
        number: Frontend::NodePort(AddressFamily::of(from), protocol, port),
        at: from..=to,
        container: SocketAddr::new(address, at),
    })
}
