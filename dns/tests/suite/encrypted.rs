//! DNS over TLS and over HTTPS, asked by the real `kdig` and by `curl`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use weft_testkit::wait::eventually;

use crate::daemon::{Daemon, NOBODY, failure};
use crate::fixture::*;
use crate::peers::{Upstream, answer_section};

const DEADLINE: Duration = Duration::from_secs(20);

fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Puts a new certificate for `dns.test`, signed by itself, and its key into a folder.
pub(crate) fn certify(folder: &Path) -> [PathBuf; 2] {
    let files = ["tls.crt", "tls.key"].map(|name| folder.join(name));
    let new = ["new.crt", "new.key"].map(|name| folder.join(name));
    let flags = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=dns.test \
                 -addext subjectAltName=DNS:dns.test -addext basicConstraints=critical,CA:FALSE";
    let mut openssl = Command::new("openssl");
    succeed(openssl.args(flags.split_whitespace()).arg("-out").arg(&new[0]).arg("-keyout").arg(&new[1]));
    new.iter().zip(&files).for_each(|(new, file)| std::fs::rename(new, file).unwrap());
    files
}

/// What `kdig` prints, if it takes the certificate.
pub(crate) fn kdig(server: SocketAddr, certificate: &Path, arguments: &str) -> String {
    let mut command = Command::new("kdig");
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+retry=0", "+time=6"]);
    // Before what they are asked by: these two alone would make it TLS.
    command.arg(format!("+tls-ca={}", certificate.display())).arg("+tls-hostname=dns.test");
    command.args(arguments.split_whitespace());
    let output = command.output().expect("kdig, of the Debian package knot-dnsutils, must be installed");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// The program over the small cluster, and where it answers over TLS and over HTTPS.
struct Secured {
    daemon: Daemon,
    certificate: PathBuf,
    dot: SocketAddr,
    doh: SocketAddr,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start(upstream: &str) -> Secured {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.yaml");
        std::fs::copy(CLUSTER, &file).unwrap();
        let [certificate, key] = certify(folder.path());
        let texts = [&file, &certificate, &key].map(|path| path.to_str().unwrap());
        let daemon = Daemon::start_with(
            NOBODY,
            &[
                ["--snapshot", texts[0], "--tls-certificate", texts[1], "--tls-key", texts[2]],
                ["--dot", "127.0.0.1:0", "--doh", "127.0.0.1:0", "--upstream", upstream],
            ]
            .concat(),
        );
        let (dot, doh) = (daemon.also[0], daemon.also[1]);
        Secured { daemon, certificate, dot, doh, folder }
    }

    /// The status, head and body that `curl` gets.
    fn curl(&self, path: &str, arguments: &[&str]) -> (String, Vec<u8>) {
        let (port, body) = (self.doh.port(), self.folder.path().join("body"));
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "-D", "-", "-o"]).arg(&body);
        command.arg("--cacert").arg(&self.certificate);
        command.args(["--resolve", &format!("dns.test:{port}:127.0.0.1")]).args(arguments);
        let head = succeed(command.arg(format!("https://dns.test:{port}{path}")));
        (String::from_utf8(head).unwrap().to_lowercase(), std::fs::read(body).unwrap_or_default())
    }
}

#[test]
fn kdig_is_answered_over_tls_and_over_https() {
    let upstream = Upstream::start();
    let server = Secured::start(&upstream.address.to_string());
    for (address, flags) in [
        (server.dot, "+tls"),
        (server.doh, "+https"),
        (server.doh, "+https +https-get"),
        (server.dot, "+tls +keepopen"),
    ] {
        let ask = |question: &str| kdig(address, &server.certificate, &format!("{flags} {question}"));
        let text = ask("backend.shop.svc.cluster.local A");
        assert_eq!(
            answer_section(&text),
            ["backend.shop.svc.cluster.local. A 10.96.0.20"],
            "{flags}: {text}"
        );
        let text = ask("_pg._tcp.db.shop.svc.cluster.local SRV");
        assert_eq!(answer_section(&text).len(), 3, "{flags}: {text}");
        assert!(ask("nothing.shop.svc.cluster.local AAAA").contains("status: NXDOMAIN"), "{flags}");
        let text = ask("big.example.com A");
        assert_eq!(answer_section(&text).len(), 200, "{flags}: {text}");
        let several = ask("backend.shop.svc.cluster.local A www.example.com A bare.shop.svc.cluster.local A");
        assert_eq!(several.matches("status: NOERROR").count(), 3, "{flags}: {several}");
    }
}

#[test]
fn replies_are_padded_for_who_pads() {
    let upstream = Upstream::start();
    let server = Secured::start(&upstream.address.to_string());
    // As kdig has it: ";; Received 468 B".
    let length = |address, arguments: &str| -> usize {
        let text = kdig(address, &server.certificate, arguments);
        let length = text.split("Received ").nth(1).and_then(|rest| rest.split(' ').next());
        length.and_then(|length| length.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    for (address, way) in [(server.dot, "+tls"), (server.doh, "+https"), (server.doh, "+https +https-get")] {
        for question in [
            "backend.shop.svc.cluster.local A",
            "nothing.shop.svc.cluster.local A",
            "cluster.local SOA",
            "www.example.com A",
        ] {
            assert_eq!(length(address, &format!("{way} +padding {question}")), 468, "{way} {question}");
            let plain = length(address, &format!("{way} +edns +nopadding {question}"));
            assert!(plain < 300, "{way} {question}: {plain}");
        }
        let large = length(address, &format!("{way} +padding big.example.com A"));
        assert!(large > 468 && large.is_multiple_of(468), "{way}: {large}");
    }
}

#[test]
fn https_is_as_rfc_8484_has_it() {
    let server = Secured::start(NOBODY);
    let question = query("backend.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let file = server.folder.path().join("question");
    std::fs::write(&file, &question).unwrap();
    let get = format!("/dns-query?dns={}", BASE64URL_NOPAD.encode(&question));
    let data = format!("@{}", file.display());
    let message = "Content-Type: application/dns-message";
    let post = ["--data-binary", &data, "-H", message];
    for version in ["--http1.1", "--http2"] {
        for (path, arguments) in [(get.as_str(), &[][..]), ("/dns-query", &post)] {
            let (head, body) = server.curl(path, &[&[version], arguments].concat());
            assert!(
                head.starts_with(if version == "--http2" { "http/2 200" } else { "http/1.1 200" }),
                "{head}"
            );
            assert!(head.contains("content-type: application/dns-message"), "{head}");
            assert!(head.contains("cache-control: max-age=30"), "section 5.1: {head}");
            assert_eq!(Message::from_vec(&body).unwrap().answers.len(), 1);
        }
    }
    let large = server.folder.path().join("large");
    std::fs::write(&large, vec![0; 70_000]).unwrap();
    let large = format!("@{}", large.display());
    for (status, path, arguments) in [
        ("404", "/other?dns=AAAA", &[][..]),
        ("400", "/dns-query", &[]),
        ("400", "/dns-query?dns=!", &[]),
        ("400", "/dns-query?dns=AAAA", &[]),
        ("405", "/dns-query", &["-X", "PUT"]),
        ("415", "/dns-query", &["--data-binary", &data]),
        ("413", "/dns-query", &["--http1.1", "--data-binary", &large, "-H", message]),
    ] {
        let (head, _) = server.curl(path, arguments);
        assert!(head.lines().any(|line| line.split(' ').nth(1) == Some(status)), "{status}: {head}");
    }
}

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let mut server = Secured::start(NOBODY);
    let trusts = |server: &Secured, certificate: &Path| {
        kdig(server.dot, certificate, "+tls cluster.local SOA").contains("status: NOERROR")
    };
    let [old, new] = ["old.crt", "good.crt"].map(|name| server.folder.path().join(name));
    std::fs::copy(&server.certificate, &old).unwrap();
    assert!(trusts(&server, &old));
    certify(server.folder.path());
    eventually("the new certificate is taken", || trusts(&server, &server.certificate));
    assert!(!trusts(&server, &old), "the old one is gone");
    std::fs::rename(&server.certificate, &new).unwrap();
    std::fs::write(&server.certificate, "broken").unwrap();
    server.daemon.await_log("keeping the certificate");
    assert!(trusts(&server, &new), "what was there before stays");
}

#[test]
fn who_speaks_no_tls_is_left() {
    let server = Secured::start(NOBODY);
    let connect = |address| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let silent = [server.dot, server.doh].map(connect);
    for address in [server.dot, server.doh] {
        let mut stream = connect(address);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // An alert at most.
        assert!(stream.read_to_end(&mut Vec::new()).is_ok_and(|read| read < 20));
    }
    let text = kdig(server.dot, &server.certificate, "+tls cluster.local SOA");
    assert!(text.contains("status: NOERROR"), "{text}");
    for mut stream in silent {
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "a handshake that never begins ends");
    }
}

#[test]
fn flags_that_do_not_go_together_are_refused() {
    assert!(failure(&["--dot", "127.0.0.1:0"]).contains("--tls-certificate"));
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = certify(folder.path());
    std::fs::copy(&certificate, &key).unwrap();
    let files = [certificate.to_str().unwrap(), key.to_str().unwrap()];
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--doh",
        "127.0.0.1:0",
        "--tls-certificate",
        files[0],
        "--tls-key",
        files[1],
    ];
    assert!(failure(&flags).contains(files[0]), "a certificate is no key");
}
