//! Whose policies hold for an address that changes hands: those of the pod that has it now.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use weft_lab::netns;

use super::{Shop, all_dropped, all_served};
use crate::case::{Echo, Peer, echo};
use crate::lab::{Lab, Outcome, equal, poll};
use crate::probe::{BOTH, any, served};

/// The port that clients keep.
const OWN_PORT: u16 = 7117;
/// How long an answer may take, and how long silence must last.
const SILENCE: Duration = Duration::from_millis(500);

fn clients() -> Value {
    json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}])
}

/// In the place of a pod starts another one, with its addresses.
fn replace(shop: &Shop<'_>, gone: &Peer, node: &str, new: Echo) -> Result<Peer, String> {
    shop.case.delete("pods", &gone.name)?;
    poll(&format!("the end of {}", gone.name), || match shop.case.get("pods", &gone.name) {
        Ok(pod) => Err(pod["metadata"].to_string()),
        Err(_) => Ok(()),
    })?;
    give_next(shop.case.lab, node, &gone.ips).map_err(|error| error.to_string())?;
    let [new] = shop.case.run([new.on(node)])?;
    equal("the addresses", &new.ips, &gone.ips)?;
    Ok(new)
}

/// Makes free addresses the next ones that a node gives, though they have not rested. Nobody else may start
/// pods meanwhile.
fn give_next(lab: &Lab, node: &str, ips: &[IpAddr]) -> std::io::Result<()> {
    let folder = lab.dir.node(node).cni_data().join("weft");
    match fs::remove_file(folder.join("freed")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from(u32::from(*ip) - 1)),
        IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from(u128::from(*ip) - 1)),
    };
    ips.iter().enumerate().try_for_each(|(set, ip)| {
        fs::write(folder.join(format!("last_reserved_ip.{set}")), before(ip).to_string())
    })
}

/// Whether a server answers a datagram of that port, as the last client's flow may still be known.
fn answers(from: &Peer, server: SocketAddr) -> Result<bool, String> {
    let ask = move || {
        let socket = UdpSocket::bind(SocketAddr::new(any(server).ip(), OWN_PORT))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send_to(b"hostname", server)?;
        Ok(socket.recv_from(&mut [0; 64]).is_ok())
    };
    let asked: std::io::Result<bool> =
        netns::run(&from.netns, move || Ok(ask())).map_err(|error| error.to_string())?;
    asked.map_err(|error| error.to_string())
}

/// Nobody else may start pods meanwhile.
pub(crate) fn an_address_that_is_used_again(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-reuse")?;
    let direct = shop.direct();
    shop.ingress(clients())?;
    all_dropped(&shop.stranger.netns, &direct)?;
    all_served(&shop.client.netns, &direct)?;
    for &server in &direct {
        equal("an answer to the client", answers(&shop.client, server)?, true)?;
    }

    // As a peer.
    let job = replace(&shop, &shop.client, "node2", echo("job").app("job"))?;
    for &server in &direct {
        equal("an answer to whoever has the client's address and port", answers(&job, server)?, false)?;
    }
    all_dropped(&job.netns, &direct)?;
    let client = replace(&shop, &job, "node2", echo("client-again").app("client"))?;
    all_served(&client.netns, &direct)?;

    // As the one that is isolated.
    let open = replace(&shop, &shop.server, "node1", echo("open").app("open"))?;
    let serves = |name: &str| {
        let ways = direct.iter().flat_map(|&server| BOTH.map(|via| (via, server)));
        ways.into_iter().try_for_each(|(via, server)| served(&shop.stranger.netns, via, server, &[name]))
    };
    serves("open")?;
    let again = replace(&shop, &open, "node1", echo("server"))?;
    all_dropped(&shop.stranger.netns, &direct)?;
    all_served(&client.netns, &direct)?;
    replace(&shop, &again, "node1", echo("open-again").app("open"))?;
    serves("open-again")
}

/// Their status still has the addresses that they had.
pub(crate) fn pods_that_ended_have_no_say(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-ended")?;
    let main = json!({"name": "main", "image": "host", "command": ["false"]});
    for (name, app, node, now) in [
        ("ended-client", "client", "node2", &shop.stranger),
        ("ended-server", "server", "node2", &shop.client),
    ] {
        let spec = json!({"restartPolicy": "Never", "containers": [main]});
        shop.case.start(echo(name).app(app).on(node).spec(spec))?;
        poll(&format!("{name} has failed"), || {
            equal("its phase", shop.case.get("pods", name)?["status"]["phase"].as_str(), Some("Failed"))
        })?;
        let ips: Vec<Value> = now.ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let status = json!({"status": {"podIP": now.ips[0].to_string(), "podIPs": ips}});
        shop.case.patch("pods", &format!("{name}/status"), &status)?;
    }
    shop.ingress(clients())?;
    all_dropped(&shop.stranger.netns, &shop.direct())?;
    all_served(&shop.client.netns, &shop.direct())?;
    for &ip in &shop.client.ips {
        let client = SocketAddr::new(ip, 8080);
        BOTH.into_iter().try_for_each(|via| served(&shop.stranger.netns, via, client, &["client"]))?;
    }
    Ok(())
}
