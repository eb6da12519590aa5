//! The network between the nodes: a bridge in a namespace of its own, and a veth pair from it to every node.
//! Nothing of it is on the host. rtnetlink only; the addresses come from [`crate::addressing`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::addressing::{IpFamily, on_underlay};
use crate::error::{Error, Result};
use crate::names::{LabName, node_number};
use crate::netns;

/// The bridge's name inside the underlay's namespace.
const BRIDGE: &str = "underlay";
/// A node's link to the underlay.
pub const NODE_LINK: &str = "eth0";

/// Makes the underlay's namespace with its bridge.
pub fn create(lab: &LabName, families: IpFamily) -> Result<()> {
    let namespace = lab.underlay();
    netns::create(&namespace)?;
    netns::run_async(&namespace, move || async move {
        let links = connect()?;
        set_up(&links, "lo").await?;
        let bridge = LinkBridge::new(BRIDGE).build();
        links.link().add(bridge).execute().await.map_err(Error::netlink("create bridge", BRIDGE))?;
        set_up(&links, BRIDGE).await?;
        add_addresses(&links, BRIDGE, &families.gateways()).await
    })
}

/// Makes a node's namespace and connects it with the underlay.
pub fn add_node(lab: &LabName, node: &str, addresses: &[IpAddr], families: IpFamily) -> Result<()> {
    let (node, underlay, addresses) = (node.to_owned(), lab.underlay(), addresses.to_vec());
    let namespace = lab.node(&node);
    netns::create(&namespace)?;
    let target = netns::path(&namespace);
    netns::run_async(&underlay, move || async move {
        let file = std::fs::File::open(&target).map_err(Error::io("open", &target))?;
        plug_in(&connect()?, &node, file.as_raw_fd()).await
    })?;
    netns::run_async(&namespace, move || async move {
        let links = connect()?;
        set_up(&links, "lo").await?;
        set_up(&links, NODE_LINK).await?;
        add_addresses(&links, NODE_LINK, &addresses).await?;
        for gateway in families.gateways() {
            add_default_route(&links, gateway).await?;
        }
        Ok(())
    })
}

/// Pulls a node's cable: both ends of it are gone afterwards.
pub fn remove_node(lab: &LabName, node: &str) -> Result<()> {
    let node = node.to_owned();
    netns::run_async(&lab.underlay(), move || async move {
        let links = connect()?;
        let removed = links.link().del(index(&links, &node).await?).execute().await;
        removed.map_err(Error::netlink("remove veth", node))
    })
}

/// Brings up the loopback link of a namespace, as a runtime does for a pod.
pub fn loopback_up(namespace: &str) -> Result<()> {
    netns::run_async(namespace, || async { set_up(&connect()?, "lo").await })
}

/// Tries out, in a namespace that is gone afterwards, whether this kernel has bridges and veth pairs.
pub fn try_kernel() -> Result<()> {
    netns::run_in_new(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Spawn { program: "an asynchronous runtime".to_owned(), source })?
            .block_on(async {
                let links = connect()?;
                let bridge = links.link().add(LinkBridge::new("bridge").build()).execute().await;
                bridge.map_err(missing("a bridge", "bridge (CONFIG_BRIDGE)"))?;
                let veth = links.link().add(LinkVeth::new("veth0", "veth1").build()).execute().await;
                veth.map_err(missing("a veth pair", "veth (CONFIG_VETH)"))
            })
    })
}

fn missing(feature: &'static str, module: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |error| Error::MissingKernelFeature { feature, module, reason: error.to_string() }
}

/// Opens rtnetlink in the calling thread's namespace. Its task ends with the runtime.
fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| Error::Socket {
        operation: "open",
        address: "rtnetlink".to_owned(),
        source,
    })?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Makes a veth pair: one end, named as the node, on the bridge; the other, `eth0`, in the node's namespace.
async fn plug_in(links: &Handle, node: &str, namespace: i32) -> Result<()> {
    let bridge = index(links, BRIDGE).await?;
    let pair = LinkVeth::new(node, NODE_LINK).controller(bridge).up().build();
    links.link().add(pair).execute().await.map_err(Error::netlink("create veth", node))?;
    let end = LinkUnspec::new_with_index(index(links, NODE_LINK).await?);
    let moved = end.address(hardware_address(node).to_vec()).setns_by_fd(namespace).build();
    links.link().set(moved).execute().await.map_err(Error::netlink("move eth0 into", node))
}

/// The Ethernet address of a node's network card, which a node keeps as long as it lives: else its neighbours
/// would send to the former one for a while after each boot.
fn hardware_address(node: &str) -> [u8; 6] {
    // The bit 2 of the first byte says that nobody assigned it (IEEE 802).
    [0x02, b'w', b'e', b'f', b't', node_number(node)]
}

async fn index(links: &Handle, name: &str) -> Result<u32> {
    let mut found = links.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await.map_err(Error::netlink("find link", name))? {
        Some(link) => Ok(link.header.index),
        None => Err(Error::netlink("find link", name)(rtnetlink::Error::RequestFailed)),
    }
}

async fn set_up(links: &Handle, name: &str) -> Result<()> {
    let up = LinkUnspec::new_with_index(index(links, name).await?).up().build();
    links.link().set(up).execute().await.map_err(Error::netlink("bring up link", name))
}

async fn add_addresses(links: &Handle, link: &str, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        add_address(links, link, on_underlay(*address)).await?;
    }
    Ok(())
}

async fn add_address(links: &Handle, link: &str, address: IpNetwork) -> Result<()> {
    let mut request = links.address().add(index(links, link).await?, address.ip(), address.prefix());
    // Each address is given once. Even where the kernel does not look for duplicates, it first marks an
    // address as one that nobody can listen on yet, and takes that back a little later.
    if address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(Error::netlink("add to the link an address", address.to_string()))
}

async fn add_default_route(links: &Handle, gateway: IpAddr) -> Result<()> {
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
    };
    let added = links.route().add(route).execute().await;
    added.map_err(Error::netlink("add default route via", gateway.to_string()))
}
