//! The CNI protocol (SPEC 1.1.0), for whoever speaks it: versions, calls, network configurations, results and
//! errors as plain values, JSON as Go reads it, and what every plugin's program has in common: from
//! environment and standard input to a [`Handler`] and back ([`program`]), and running another plugin
//! ([`Delegate`]).
//!
//! What a plugin does for a call is the plugin's business. Nothing here touches the network.

mod args;
mod boot;
mod call;
mod config;
mod delegate;
mod dispatch;
mod failure;
mod json;
mod name;
pub mod program;
mod success;
mod version;

pub use args::{Args, InvalidArgs, KubernetesPod};
pub use boot::Boot;
pub use call::{Attachment, Call, InvalidEnvironment};
pub use config::{
    Bandwidth, BridgeOptions, CniArgs, DelegateArgs, DhcpIpam, Ipam, Network, NetworkList, Plugin,
    PortMapping, ProvidedOption, Range, RequestedOption, RuntimeConfig, ValidAttachment, VlanTrunk,
};
pub use delegate::Delegate;
pub use dispatch::{Handler, Invocation, Outcome, decode, dispatch, read_config};
pub use failure::{Code, Failure};
pub use json::parse;
pub use name::{ContainerId, InterfaceName, InvalidCniName, NetworkName};
pub use success::{Dns, Interface, IpConfig, NoAddress, Route, Success};
pub use version::{UnknownVersion, Version};
