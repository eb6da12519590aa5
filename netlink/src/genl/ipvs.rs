//! IPVS, the kernel's load balancer of connections: virtual servers, their destinations and its timeouts.
//!
//! ```text
//! IpvsClient::services() -> Vec<Service>      destinations(&VirtualServer) -> Vec<Destination>
//! IpvsClient::apply(&[Change])                in one go, each with its own result
//! ```

mod message;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use netlink_packet_core::NLM_F_ACK;

use super::{Family, attributes, open};
use crate::{Batch, Refusal, Request, Result, Socket};

/// How many changes one system call carries.
const CHUNK: usize = 256;
/// Room for the answers to [`CHUNK`] changes that are all refused.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What clients know: a protocol, an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServer {
    /// The number of the transport protocol: 6, 17 or 132.
    pub protocol: u8,
    /// Where clients connect to.
    pub address: SocketAddr,
}

/// How a virtual server chooses among its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// The name of the scheduler: `rr`.
    pub scheduler: String,
    /// The scheduler's own settings, any of [`SCHEDULER_FLAG_1`] to [`SCHEDULER_FLAG_3`]; and [`MARK`].
    pub flags: u32,
    /// For how many seconds after its last connection a client goes to the same destination.
    pub persistence: Option<NonZeroU32>,
}

/// `IP_VS_SVC_F_SCHED1`: of `sh` and `mh`, to go on to another destination where the chosen one takes no
/// connections.
pub const SCHEDULER_FLAG_1: u32 = 0x8;
/// `IP_VS_SVC_F_SCHED2`: of `sh` and `mh`, to look at the client's port too.
pub const SCHEDULER_FLAG_2: u32 = 0x10;
/// `IP_VS_SVC_F_SCHED3`
pub const SCHEDULER_FLAG_3: u32 = 0x20;
/// A flag that no kernel knows, which it keeps with a virtual server all the same, and `ipvsadm` does not
/// print: by it, who made a virtual server knows it again.
pub const MARK: u32 = 0x4000_0000;

/// A virtual server as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which one.
    pub server: VirtualServer,
    /// How it chooses.
    pub scheduling: Scheduling,
    /// What it has counted.
    pub statistics: Statistics,
}

/// Where a virtual server leads, with the destination's address rewritten (NAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of new connections; at 0 it gets none, and keeps those that it has.
    pub weight: u32,
    /// Whether packets are led there by rewriting, as ours are, and not by tunnels or routes.
    pub is_nat: bool,
    /// How many connections lead there, ending ones among them.
    pub connections: u32,
}

/// What is counted of a virtual server, since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections.
    pub connections: u64,
    /// Packets and bytes from clients.
    pub received: (u64, u64),
    /// Packets and bytes to clients.
    pub sent: (u64, u64),
}

/// For how long connections are kept without a packet, in seconds; 0 leaves a timeout as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Of established TCP connections.
    pub tcp: u32,
    /// Of TCP connections that one end has closed.
    pub tcp_fin: u32,
    /// Of UDP.
    pub udp: u32,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A virtual server that is new.
    AddService(VirtualServer, Scheduling),
    /// One that is there chooses otherwise from now on.
    SetService(VirtualServer, Scheduling),
    /// One that is gone, with its destinations.
    DeleteService(VirtualServer),
    /// A destination that is new, with its weight.
    AddDestination(VirtualServer, SocketAddr, u32),
    /// One that is there has another weight from now on.
    SetWeight(VirtualServer, SocketAddr, u32),
    /// One that is gone.
    DeleteDestination(VirtualServer, SocketAddr),
}

impl fmt::Display for VirtualServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            other => return write!(f, "{} (protocol {other})", self.address),
        };
        write!(f, "{} ({protocol})", self.address)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddService(server, Scheduling { scheduler, .. }) => {
                write!(f, "add virtual server {server} with scheduler {scheduler}")
            }
            Change::SetService(server, Scheduling { scheduler, .. }) => {
                write!(f, "change virtual server {server} to scheduler {scheduler}")
            }
            Change::DeleteService(server) => write!(f, "delete virtual server {server}"),
            Change::AddDestination(server, destination, _) => {
                write!(f, "add destination {destination} to virtual server {server}")
            }
            Change::SetWeight(server, destination, weight) => {
                write!(
                    f,
                    "set the weight of destination {destination} of virtual server {server} to {weight}"
                )
            }
            Change::DeleteDestination(server, destination) => {
                write!(f, "delete destination {destination} of virtual server {server}")
            }
        }
    }
}

/// A connection to IPVS.
#[derive(Debug)]
pub struct IpvsClient {
    socket: Socket,
    family: Family,
}

impl IpvsClient {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`crate::Error::is_missing`] where the kernel has no IPVS.
    pub fn open() -> Result<IpvsClient> {
        let mut socket = open()?;
        let family = Family::find(&mut socket, message::NAME, message::VERSION)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        Ok(IpvsClient { socket, family })
    }

    /// All virtual servers but those that are told by a firewall mark.
    pub fn services(&mut self) -> Result<Vec<Service>> {
        let answers = self
            .socket
            .dump(message::get_services(&self.family), |frame| message::service(&attributes(frame)?));
        Ok(answers.map_err(|error| error.during("list virtual servers"))?.into_iter().flatten().collect())
    }

    /// The destinations of a virtual server.
    ///
    /// # Errors
    /// [`crate::Error::is_missing`] where there is no such virtual server.
    pub fn destinations(&mut self, server: &VirtualServer) -> Result<Vec<Destination>> {
        let request = message::get_destinations(&self.family, server);
        let answers = self.socket.dump(request, |frame| message::destination(&attributes(frame)?, server));
        answers.map_err(|error| error.during(format!("list the destinations of virtual server {server}")))
    }

    /// Makes these changes one after the other, however many fail. Returns what was refused, each with its
    /// change.
    ///
    /// # Errors
    /// Where the kernel cannot be spoken to.
    pub fn apply<'a>(&mut self, changes: &'a [Change]) -> Result<Vec<(&'a Change, Refusal)>> {
        let mut refused = Vec::new();
        for chunk in changes.chunks(CHUNK) {
            let first = self.socket.reserve_sequences(chunk.len() as u32);
            let mut batch = Batch::default();
            for (change, sequence) in chunk.iter().zip(first..) {
                batch.push(&message::change(&self.family, change), sequence);
            }
            match self.socket.batch(&batch, |_| Ok(())) {
                Ok(_) => {}
                Err(crate::Error::Batch(refusals)) => {
                    let named =
                        |refusal: Refusal| Some((chunk.get((refusal.sequence - first) as usize)?, refusal));
                    refused.extend(refusals.into_iter().filter_map(named));
                }
                Err(error) => return Err(error.during("change virtual servers")),
            }
        }
        Ok(refused)
    }

    /// The timeouts of the network namespace.
    pub fn timeouts(&mut self) -> Result<Timeouts> {
        let request = Request { flags: NLM_F_ACK, ..self.request(message::GET_CONFIG) };
        let answers = self.socket.query(request, |frame| Ok(message::timeouts(&attributes(frame)?)));
        Ok(answers
            .map_err(|error| error.during("read the timeouts of IPVS"))?
            .first()
            .copied()
            .unwrap_or_default())
    }

    /// Sets those of the timeouts that are not 0.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<()> {
        let request = message::set_timeouts(&self.family, timeouts);
        self.socket.request(request).map_err(|error| error.during("set the timeouts of IPVS"))
    }

    fn request(&self, command: u8) -> Request {
        self.family.request(command, |_| {})
    }
}
