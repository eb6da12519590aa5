//! What plans are made of: values of interfaces, addresses, routes and limits, with the names and meanings of
//! ip(8), bridge(8) and tc(8). No client is among them: plans name nothing of netlink but what is listed
//! here.

pub(crate) use weft_netlink::Family;
pub(crate) use weft_netlink::rtnl::{
    Bridge, BridgePort, BridgeVlan, InvalidMac, Link, Mac, Route, TokenBucket, Veth, VethEnd,
};
