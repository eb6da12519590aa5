//! What was counted for each Service, as text for scrapers. Read by the data plane.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as ByLabel;
use prometheus_client::registry::Registry;

use super::FamilyName;
use crate::counters::{Meter, Reading};
use crate::services::plan::Frontend;

/// One frontend of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    namespace: String,
    service: String,
    /// Empty for a NodePort, which has none of its own.
    address: String,
    port: u16,
    protocol: &'static str,
    ip_family: FamilyName,
}

impl Label {
    fn of(reading: &Reading) -> Label {
        let (address, protocol, port) = match reading.frontend {
            Frontend::Address(address, protocol, port) => (address.to_string(), protocol, port),
            Frontend::NodePort(_, protocol, port) => (String::new(), protocol, port),
        };
        Label {
            namespace: reading.service.namespace.to_string(),
            service: reading.service.name.to_string(),
            address,
            port,
            protocol: protocol.lower_case(),
            ip_family: reading.frontend.family().into(),
        }
    }
}

/// OpenMetrics text, without an end; empty where nothing is counted.
pub(super) fn text(readings: &[Reading]) -> String {
    let counters: [ByLabel<Label, Counter>; 5] = Default::default();
    let [connections, received, received_bytes, sent, sent_bytes] = &counters;
    for reading in readings {
        let label = Label::of(reading);
        let put = |counter: &ByLabel<Label, Counter>, value| {
            counter.get_or_create(&label).inc_by(value);
        };
        match reading.meter {
            Meter::Connections => put(connections, reading.packets),
            Meter::Received => {
                put(received, reading.packets);
                put(received_bytes, reading.bytes);
            }
            Meter::Sent => {
                put(sent, reading.packets);
                put(sent_bytes, reading.bytes);
            }
        }
    }
    let mut registry = Registry::with_prefix("weft_service");
    for (name, help, counter) in [
        ("connections", "Connections that clients of a Service began", connections),
        ("received_packets", "Packets from clients of a Service", received),
        ("received_bytes", "Their bytes, with the IP header", received_bytes),
        ("sent_packets", "Packets to clients of a Service", sent),
        ("sent_bytes", "Their bytes, with the IP header", sent_bytes),
    ] {
        if !readings.is_empty() {
            registry.register(name, help, counter.clone());
        }
    }
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode_registry(&mut text, &registry);
    text
}
