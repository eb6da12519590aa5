//! What goes on around pods that start: friends who answer and call back, strangers who watch for what
//! reaches them, and strangers who try every address that a pod may get next.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use weft_lab::netns;

use super::starter::ANSWER;
use super::{NODES, PORT, Watch, lock};
use crate::case::Peer;
use crate::lab::{Lab, Outcome};
use crate::probe::any;

/// Between two rounds over all addresses, and between two looks whether all is over.
const PAUSE: Duration = Duration::from_millis(25);
/// How long one connection is tried.
const ATTEMPT: Duration = Duration::from_millis(300);
/// How many addresses before the last one that was given are tried, and how many after it.
const BEFORE: u32 = 4;
const AFTER: u32 = 6;

/// Runs a future in the namespace of a peer until all is over.
fn run<F>(peer: &Peer, watch: &Arc<Watch>, work: impl FnOnce() -> F + Send + 'static) -> Outcome
where
    F: Future<Output = io::Result<()>>,
{
    let (name, watch) = (peer.name.clone(), watch.clone());
    let until_over = move || async move {
        let over = async {
            let mut ticks = interval(PAUSE);
            while watch.goes_on() {
                ticks.tick().await;
            }
        };
        Ok(tokio::select! {
            done = work() => done.map_err(|error| format!("{name}: {error}")),
            () = over => Ok(()),
        })
    };
    netns::run_async(&peer.netns, until_over).map_err(|error| error.to_string())?
}

/// Both sockets of a peer.
async fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let everywhere = SocketAddr::from(([0u16; 8], PORT));
    Ok((UdpSocket::bind(everywhere).await?, TcpListener::bind(everywhere).await?))
}

/// A stranger: whatever reaches it should not have.
pub(super) fn record(stranger: &Peer, watch: &Arc<Watch>) -> Outcome {
    let (name, seen) = (stranger.name.clone(), watch.clone());
    run(stranger, watch, || async move {
        let (datagrams, connections) = sockets().await?;
        let mut buffer = [0; 64];
        loop {
            let (client, what) = tokio::select! {
                came = datagrams.recv_from(&mut buffer) => (came?.1, "a datagram"),
                came = connections.accept() => (came?.1, "a connection"),
            };
            let client = client.ip().to_canonical();
            if !seen.others.contains(&client) {
                seen.violation(format!("{what} of {client} reached {name}"));
            }
        }
    })
}

/// A friend: it answers datagrams, and connects to those who sent one.
pub(super) fn befriend(friend: &Peer, watch: &Arc<Watch>) -> Outcome {
    let (name, seen) = (friend.name.clone(), watch.clone());
    run(friend, watch, || async move {
        let (datagrams, connections) = sockets().await?;
        let mut visits = JoinSet::new();
        let mut buffer = [0; 64];
        loop {
            tokio::select! {
                came = datagrams.recv_from(&mut buffer) => {
                    let (_, client) = came?;
                    datagrams.send_to(b"friend", client).await?;
                    visits.spawn(visit(SocketAddr::new(client.ip().to_canonical(), PORT)));
                }
                came = connections.accept() => drop(came?),
                Some(Ok(Some(wrong))) = visits.join_next() => seen.violation(format!("{name}: {wrong}")),
            }
        }
    })
}

/// Sends a datagram to a pod that has just started, from another port, and connects to it.
async fn visit(starter: SocketAddr) -> Option<String> {
    let datagram = async { UdpSocket::bind(any(starter)).await?.send_to(b"friend", starter).await };
    if let Err(error) = datagram.await {
        return Some(format!("sending to {starter}: {error}"));
    }
    match timeout(ANSWER, TcpStream::connect(starter)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("connecting to {starter}: {error}")),
        // It may have ended: then it tells itself what it missed.
        Err(_) => None,
    }
}

/// A stranger tries all addresses that may be a pod's soon, or are since a moment.
pub(super) fn attack(lab: &Lab, stranger: &Peer, watch: &Arc<Watch>) -> Outcome {
    let folders = NODES.map(|node| lab.dir.node(node).cni_data().join("weft"));
    let (name, seen) = (stranger.name.clone(), watch.clone());
    run(stranger, watch, || async move {
        let all = [([0, 0, 0, 0], 0).into(), SocketAddr::from(([0u16; 8], 0))];
        let sockets = [UdpSocket::bind(all[0]).await?, UdpSocket::bind(all[1]).await?];
        let mut ticks = interval(PAUSE);
        let mut connections = JoinSet::new();
        loop {
            ticks.tick().await;
            let mut targets: Vec<IpAddr> =
                folders.iter().flat_map(|folder| around_the_last(folder)).collect();
            targets.retain(|target| !seen.others.contains(target));
            lock(&seen.tried).extend(&targets);
            for &target in &targets {
                let target = SocketAddr::new(target, PORT);
                let socket = &sockets[usize::from(target.is_ipv6())];
                // Nobody has most of them yet.
                let _ = socket.try_send_to(b"stranger", target);
            }
            if connections.is_empty() {
                connections.extend(targets.into_iter().map(|target| connects(SocketAddr::new(target, PORT))));
            }
            while let Some(done) = connections.try_join_next() {
                if let Ok(Some(reached)) = done {
                    seen.violation(format!("{name} reached {reached}"));
                }
            }
        }
    })
}

/// The address that was reached, if it was.
async fn connects(target: SocketAddr) -> Option<SocketAddr> {
    timeout(ATTEMPT, TcpStream::connect(target)).await.ok()?.ok().map(|_| target)
}

/// The addresses around the one that a node gave last, by the plugin's own record, of both families.
fn around_the_last(folder: &Path) -> Vec<IpAddr> {
    let last =
        ["last_reserved_ip.0", "last_reserved_ip.1"].map(|file| std::fs::read_to_string(folder.join(file)));
    let last = last.into_iter().filter_map(|text| text.ok()?.trim().parse().ok());
    last.flat_map(|last: IpAddr| (0..BEFORE + AFTER).map(move |step| offset(last, step))).collect()
}

fn offset(address: IpAddr, step: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) + step - BEFORE).into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from(u128::from(address) + u128::from(step) - u128::from(BEFORE)).into()
        }
    }
}
