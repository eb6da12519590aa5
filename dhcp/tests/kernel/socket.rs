//! The socket itself: whose it is, and what comes to it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::{fs, io};

use serde_json::Value;
use weft_dhcp::daemon::Daemon;

use crate::network::Network;

/// What the daemon answers to that, until it hangs up.
fn answer(network: &Network, said: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(network.path("dhcp.sock")).unwrap();
    // It may hang up in between.
    let _ = stream.write_all(said);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => answer,
    }
}

#[test]
fn what_is_no_call_is_hung_up_on_and_disturbs_nobody() {
    let network = Network::new();
    let server = network.dnsmasq("10.7.0.1", &[]);
    assert!(answer(&network, b"GET / HTTP/1.1\r\n\r\n").starts_with(b"HTTP/1.0 404"));
    assert_eq!(answer(&network, b""), b"");
    assert!(answer(&network, &vec![b'x'; 100_000]).len() < 200);
    let greeting = b"CONNECT /_goRPC_ HTTP/1.0\n\n";
    for garbage in
        [&b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x03abc", b"\x80", b"\xfd\xff\xff\xff", b"\0"]
    {
        let said = [greeting, garbage].concat();
        assert_eq!(answer(&network, &said), b"HTTP/1.0 200 Connected to Go RPC\n\n", "{garbage:?}");
    }
    let pod = network.pod("c1");
    network.add(&pod);
    network.del(&pod);
    assert_eq!(server.said("DHCPRELEASE"), 1);
}

#[test]
fn the_socket_is_roots_alone_and_one_daemons() {
    let mut network = Network::new();
    let mode = fs::metadata(network.path("dhcp.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let second = runtime.block_on(async { Daemon::start(network.settings(), || {}).map(drop) });
    let error = second.unwrap_err().to_string();
    assert!(error.starts_with("another daemon answers at") && error.contains("stop it"), "{error}");
    // What a daemon that was killed leaves is in nobody's way.
    network.kill();
    assert!(network.path("dhcp.sock").exists());
    network.start();
}

#[test]
fn a_configuration_that_makes_no_sense_is_named() {
    let network = Network::new();
    let pod = network.pod("c1");
    let mut config = network.config();
    config["ipam"]["request"] = serde_json::json!([{"option": "ntp"}]);
    let error = network.call("ADD", &pod, &config).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("ipam.request: option \"ntp\" is neither"), "{error}");
    let (pod, mut absent) = (network.pod("c2"), network.config());
    absent["type"] = "dhcp".into();
    let error = network.call("ADD", &pod, &absent).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("has no interface eth0"), "{error}");
    assert_eq!(network.call("DEL", &pod, &absent), Ok(Value::Null));
}
