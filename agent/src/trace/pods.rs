//! The network namespaces of pods, where this process may enter them: their routes, and their sockets.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RouteQuery, RtnetlinkClient};
use weft_netlink::sock_diag::SocketDiag;
use weft_trace::{Cause, End, Question, Socket, Step};

use crate::trace::listeners;

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

/// Whether somebody waits in a pod that cannot be entered: for that any process of it will do, which its
/// container's cgroup tells. No right is needed but to see the machine's processes.
pub(super) fn socket_of(
    proc: &Path,
    container: &str,
    to: IpAddr,
    question: &Question,
    port: Option<u16>,
) -> Socket {
    let Some(port) = port.filter(|_| question.answers.is_none()) else { return Socket::Listens };
    let Some((names, state)) = listeners::tables(question.protocol) else { return Socket::Unseen };
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let processes = fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut numbered = processes.filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    });
    let Some(process) = numbered.find(|path| listeners::is_of(&read(path.join("cgroup")), container)) else {
        return Socket::Unseen;
    };
    let tables = names.map(|name| read(process.join("net").join(name)));
    // Each has a head, though nobody listens; without one it has not been read.
    if tables.iter().all(String::is_empty) {
        return Socket::Unseen;
    }
    let mut waiting = tables.iter().flat_map(|table| listeners::parse(table, state));
    if waiting.any(|one| one.takes(SocketAddr::new(to, port))) { Socket::Listens } else { Socket::Nothing }
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

#[cfg(test)]
mod tests {
    use weft_trace::{Entry, Tuple};

    use super::*;

    #[test]
    fn a_pod_s_sockets_are_seen_by_any_of_its_processes() {
        let proc = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let write = |path: &str, text: &str| {
            let path = proc.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("1/cgroup", "0::/init.scope\n");
        write("self/cgroup", &format!("0::/{id}\n"));
        let to: IpAddr = "10.244.1.2".parse().unwrap();
        let packet = Tuple { source: to, source_port: Some(1), destination: to, port: Some(80) };
        let seen = |port, protocol| {
            let question = Question::new(Entry::Link, packet, protocol);
            socket_of(proc.path(), id, to, &question, Some(port))
        };
        assert_eq!(seen(80, 6), Socket::Unseen, "no process of it");
        write("77/cgroup", &format!("0::/kubepods.slice/cri-containerd-{id}.scope\n"));
        assert_eq!(seen(80, 6), Socket::Unseen, "it ended meanwhile");
        write("77/net/tcp6", "head\n 0: 00000000000000000000000000000000:0050 00:0000 0A 0\n");
        assert_eq!([seen(80, 6), seen(81, 6)], [Socket::Listens, Socket::Nothing]);
        assert_eq!([seen(80, 17), seen(80, 132)], [Socket::Unseen, Socket::Unseen]);
    }
}
