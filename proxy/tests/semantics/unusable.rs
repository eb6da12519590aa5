//! Objects of which not everything can be used.

use super::*;

#[test]
fn an_element_that_cannot_be_used_costs_neither_its_object_nor_the_others_of_its_list() {
    let spec = "type: NodePort, clusterIPs: [10.96.0.1, nowhere], externalIPs: [203.000.113.020, '1.2.3'], \
                ports: [{name: http, port: 80, nodePort: 30080}, {port: 0}]";
    let endpoints = slice("a", HTTP, "{addresses: [nowhere]}, {addresses: ['::ffff:10.244.1.2']}");
    let plan = Plan::of(&[service(spec), endpoints]);
    for key in [AT, "203.0.113.20 . tcp . 80"] {
        assert_eq!(plan.at(key), ["10.244.1.2 . 8080"], "{key}");
    }
    assert_eq!(plan.node_port("tcp . 30080"), ["10.244.1.2 . 8080"]);
}

#[test]
fn a_source_range_that_cannot_be_read_keeps_everybody_out_and_the_service_serves() {
    let spec = "type: LoadBalancer, clusterIP: 10.96.0.1, ports: [{name: http, port: 80}], \
                loadBalancerSourceRanges: [everybody]";
    let status = ", status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}\n";
    let restricted = service(spec).replace("}}\n", &format!("}}{status}"));
    let plan = Plan::of(&[restricted, slice("a", HTTP, "{addresses: [10.244.1.2]}")]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080"]);
    assert_eq!(plan.set("ip restricted"), ["192.0.2.1 . tcp . 80"]);
    assert_eq!(plan.set("ip allowed"), ["192.0.2.1 . tcp . 80 . 0.0.0.0"], "no packet comes from there");
}
