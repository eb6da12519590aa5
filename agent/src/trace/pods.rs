//! The network namespaces of pods, where this process may enter them: their routes, and their sockets.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RouteQuery, RtnetlinkClient};
use weft_netlink::sock_diag::SocketDiag;
use weft_trace::{Cause, End, Question, Socket, Step};

/// Where container runtimes keep the namespaces of pods.
const NAMESPACES: &str = "/run/netns";

/// The namespace of the pod at that end of a link, where it can be found.
pub(super) fn namespace(client: &mut RtnetlinkClient, link: &Link) -> Option<Namespace> {
    let number = client.peer_namespace(link.index).ok()??;
    let files = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let mut opened = files.filter_map(|file| Namespace::open(file.path()).ok());
    let found = opened.find(|namespace| client.namespace_number(namespace).ok().flatten() == Some(number))?;
    // Without the right to enter it, it is of no use.
    found.run(|| ()).is_ok().then_some(found)
}

/// The way of a packet out of its pod.
///
/// # Errors
/// Why it does not leave, as an end.
pub(super) fn leave(pod: &Namespace, question: &Question) -> Result<Step, End> {
    let ask = || {
        let mut client = RtnetlinkClient::open()?;
        let (destination, source) = (question.destination, Some(question.source));
        let query = RouteQuery { destination, source, input: None, mark: 0 };
        let found = client.look_up(&query)?;
        let link = client.links()?.into_iter().find(|link| Some(link.index) == found.link);
        Ok::<_, weft_netlink::Error>((found, link))
    };
    let unknown = |reason: String| End::Unknown { reason };
    match pod.run(ask).and_then(|asked| asked) {
        Ok((found, Some(link))) => {
            let mtu = found.mtu.unwrap_or(link.mtu);
            Ok(Step::Pod { device: link.name, gateway: found.gateway, mtu })
        }
        Ok((_, None)) => Err(unknown("the pod's route names no interface".to_owned())),
        Err(error) => Err(match error.errno() {
            Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
                Cause::NoRoute { place: "in the pod".to_owned(), to: question.destination }.into()
            }
            _ => unknown(format!("in the pod: {error}")),
        }),
    }
}

/// Whether somebody waits there, in the calling thread's network namespace, for what goes to that address.
pub(super) fn socket(to: IpAddr, question: &Question, port: Option<u16>) -> Socket {
    let Some(port) = port.filter(|_| question.answers.is_none()) else { return Socket::Listens };
    let listeners = SocketDiag::open().and_then(|mut sockets| sockets.listeners(question.protocol));
    match listeners {
        Ok(Some(all)) if all.iter().any(|listener| listener.takes(SocketAddr::new(to, port))) => {
            Socket::Listens
        }
        Ok(Some(_)) => Socket::Nothing,
        Ok(None) | Err(_) => Socket::Unseen,
    }
}
