//! What the CNI plugin `dhcp` says to its daemon, and what it is answered: Go's net/rpc over a socket, begun
//! as HTTP's CONNECT, its messages in [`crate::gob`].
//!
//! A call is two values, who is called and with what; an answer too.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::gob::{self, BYTES, INT, Malformed, Reader, STRING, UINT, Value, Writer};
use crate::lease::Lease;

/// What a caller begins with, up to an empty line.
pub const GREETING: &[u8] = b"CONNECT /_goRPC_ HTTP/1.0\n";
/// What it is answered.
pub const WELCOME: &[u8] = b"HTTP/1.0 200 Connected to Go RPC\n\n";
/// What it is answered where it asks for something else.
pub const REFUSAL: &[u8] =
    b"HTTP/1.0 404 Not Found\r\nConnection: close\r\n\r\nthis is the socket of the CNI plugin dhcp\n";

/// The scope of routes to what is on the link (`RT_SCOPE_LINK`, linux/rtnetlink.h).
const LINK_SCOPE: i64 = 253;

/// Numbers of the types of answers. Those below 64 are Go's own.
const RESPONSE: i64 = 65;
const RESULT: i64 = 66;
const IPS: i64 = 67;
const IP: i64 = 68;
const NETWORK: i64 = 69;
const ROUTES: i64 = 70;
const ROUTE: i64 = 71;
const NOTHING: i64 = 72;

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `DHCP.Allocate`, of ADD and CHECK.
    Allocate,
    /// `DHCP.Release`, of DEL.
    Release,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is called; an unknown one's name where it is another.
    pub method: Result<Method, String>,
    /// Its number, which the answer has too.
    pub number: u64,
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_NETNS, made absolute.
    pub netns: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: String,
    /// The network's configuration.
    pub config: Vec<u8>,
}

/// Puts calls together from what comes.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    reader: Reader,
    request: Option<Value>,
}

impl Calls {
    /// Takes in a message's bytes, without its length. A call, where it is complete with it.
    ///
    /// # Errors
    /// Where it is none: nothing that comes after it can be read.
    pub fn take(&mut self, message: &[u8]) -> Result<Option<Call>, Malformed> {
        let Some(value) = self.reader.message(message)? else { return Ok(None) };
        let Some(request) = self.request.take() else {
            self.request = Some(value);
            return Ok(None);
        };
        let name = request.text("ServiceMethod")?;
        let number = match request.field("Seq") {
            None => 0,
            Some(Value::Number(number)) => *number,
            Some(_) => return Err(Malformed("a call without a number")),
        };
        Ok(Some(Call {
            method: match name.as_str() {
                "DHCP.Allocate" => Ok(Method::Allocate),
                "DHCP.Release" => Ok(Method::Release),
                _ => Err(name),
            },
            number,
            container: value.text("ContainerID")?,
            netns: value.text("Netns")?,
            ifname: value.text("IfName")?,
            args: value.text("Args")?,
            config: value.bytes("StdinData")?,
        }))
    }
}

/// Writes answers. A type is described the first time that it is used.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    has_response: bool,
    has_result: bool,
    has_nothing: bool,
}

impl Answers {
    /// The lease that a call got; its routes have that metric.
    pub fn lease(&mut self, call: &Call, lease: &Lease, metric: u32) -> Vec<u8> {
        let mut bytes = self.response(call, "");
        if !std::mem::replace(&mut self.has_result, true) {
            for description in [
                gob::structure(RESULT, "Result", &[("IPs", IPS), ("Routes", ROUTES)]),
                gob::slice(IPS, "", IP),
                gob::structure(IP, "", &[("Address", NETWORK), ("Gateway", BYTES)]),
                gob::structure(NETWORK, "IPNet", &[("IP", BYTES), ("Mask", BYTES)]),
                gob::slice(ROUTES, "", ROUTE),
                gob::structure(
                    ROUTE,
                    "",
                    &[("Dst", NETWORK), ("GW", BYTES), ("Priority", INT), ("Scope", INT)],
                ),
            ] {
                bytes.extend(description);
            }
        }
        let mut ip = Writer::default().uint(1).part(&network(lease.address));
        if let Some(gateway) = lease.gateway {
            ip = ip.uint(1).part(&address(gateway));
        }
        let mut result = Writer::default().int(RESULT).uint(1).uint(1).part(&ip.uint(0));
        if !lease.routes.is_empty() {
            result = result.uint(1).uint(lease.routes.len() as u64);
            for route in &lease.routes {
                let metric = i64::from(metric);
                let scope = if route.router.is_unspecified() { LINK_SCOPE } else { 0 };
                result =
                    result.uint(1).part(&network(route.destination)).uint(1).part(&address(route.router));
                result = match (metric, scope) {
                    (0, 0) => result,
                    (0, scope) => result.uint(2).int(scope),
                    (metric, 0) => result.uint(1).int(metric),
                    (metric, scope) => result.uint(1).int(metric).uint(1).int(scope),
                };
                result = result.uint(0);
            }
        }
        bytes.extend(result.uint(0).message());
        bytes
    }

    /// A call that has nothing to tell is done.
    pub fn done(&mut self, call: &Call) -> Vec<u8> {
        self.bare(call, "")
    }

    /// A call failed.
    pub fn error(&mut self, call: &Call, error: &str) -> Vec<u8> {
        self.bare(call, error)
    }

    fn bare(&mut self, call: &Call, error: &str) -> Vec<u8> {
        let mut bytes = self.response(call, error);
        if !std::mem::replace(&mut self.has_nothing, true) {
            bytes.extend(gob::structure(NOTHING, "", &[]));
        }
        bytes.extend(Writer::default().int(NOTHING).uint(0).message());
        bytes
    }

    fn response(&mut self, call: &Call, error: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut self.has_response, true) {
            let members = [("ServiceMethod", STRING), ("Seq", UINT), ("Error", STRING)];
            bytes.extend(gob::structure(RESPONSE, "Response", &members));
        }
        let method = match &call.method {
            Ok(Method::Allocate) => "DHCP.Allocate",
            Ok(Method::Release) => "DHCP.Release",
            Err(name) => name,
        };
        let mut response = Writer::default().int(RESPONSE);
        let mut last = 0;
        for (place, part) in [
            (1, (!method.is_empty()).then(|| Writer::default().bytes(method.as_bytes()))),
            (2, (call.number != 0).then(|| Writer::default().uint(call.number))),
            (3, (!error.is_empty()).then(|| Writer::default().bytes(error.as_bytes()))),
        ] {
            if let Some(part) = part {
                response = response.uint(place - last).part(&part);
                last = place;
            }
        }
        bytes.extend(response.uint(0).message());
        bytes
    }
}

/// Go's `net.IPNet`.
fn network(network: Ipv4Network) -> Writer {
    Writer::default().uint(1).part(&address(network.ip())).uint(1).part(&address(network.mask())).uint(0)
}

/// Go's `net.IP` and `net.IPMask`.
fn address(address: Ipv4Addr) -> Writer {
    Writer::default().bytes(&address.octets())
}

#[cfg(test)]
mod tests;
