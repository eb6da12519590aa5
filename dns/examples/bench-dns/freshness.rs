//! From the API server's event to the first answer that has the change.

use std::net::UdpSocket;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use weft_bench::cluster::{Size, new_pod};
use weft_bench::table::{Table, ms, quantile, thousands};

use crate::bare::question;
use crate::names::endpoint;
use crate::servers::{Contender, Running};

/// Between two changes, so that each is compiled alone.
const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn measure(program: &Path, size: Size, changes: usize, table: &mut Table) {
    let server = Running::start_on("0,1", Contender::Weft, program, size);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", Contender::Weft.port())).unwrap();
    let once = |number: usize| {
        let (service, pod) = (number * 7 % size.services, new_pod(number));
        let (question, mut pods) = (question(&endpoint(service, pod)), size.endpoints_of(service));
        pods[1] = pod;
        sleep(PAUSE);
        let start = Instant::now();
        server.api().set_endpoints(service, &pods);
        while !exists(&socket, &question) {
            assert!(start.elapsed() < PATIENCE, "the change is never answered");
        }
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..changes).map(once).collect();
    let what = format!("{} x 2: an endpoint is replaced: event sent to answered", thousands(size.services));
    table.note(format!("{what}, p50"), format!("{:.2} ms", ms(quantile(&mut times, 0.5))));
    table.at_most(format!("{what}, p99"), ms(quantile(&mut times, 0.99)), 10.0, "ms");
}

fn exists(socket: &UdpSocket, question: &[u8]) -> bool {
    let mut reply = [0; 512];
    socket.send(question).unwrap();
    socket.recv(&mut reply).unwrap();
    reply[3] & 0x0f == 0
}
