//! What the kernel of a namespace holds, asked from outside of the daemon: whether a frontend is there, when
//! somebody committed, whether all is as it should be.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_netlink::notifications::Source;
use weft_netlink::{Protocol, Request, Socket};
use weft_nftables::{Change, Client, Monitor, Transaction};
use weft_proxy::dataplane::nftables::ruleset::{SetName, TABLE, table_keys};
use weft_proxy::sync::Sync;
use weft_types::{ChangeSet, Snapshot};

use crate::loads::config;
use weft_bench::cluster::PORT;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM`
const GET_ELEMENTS: u16 = 10 << 8 | 13;
/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;
/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for single elements.
pub(crate) struct Probe(Socket);

impl Probe {
    /// Asks the calling thread's namespace.
    pub(crate) fn open() -> Probe {
        Probe(Socket::open(Protocol::Netfilter).unwrap())
    }

    /// Waits until connections to that ClusterIP lead somewhere.
    pub(crate) fn until_frontend(&mut self, ip: Ipv4Addr) {
        let start = Instant::now();
        while !self.has_frontend(ip) {
            assert!(start.elapsed() < PATIENCE, "{ip} leads nowhere");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn has_frontend(&mut self, ip: Ipv4Addr) -> bool {
        let [high, low] = PORT.to_be_bytes();
        let key = [&ip.octets()[..], &[6, 0, 0, 0], &[high, low, 0, 0]].concat();
        // From within: NFTA_DATA_VALUE, NFTA_SET_ELEM_KEY, NFTA_LIST_ELEM, NFTA_SET_ELEM_LIST_ELEMENTS
        let element = attribute(1 | NESTED, &attribute(1, &key));
        let elements = attribute(3 | NESTED, &attribute(1 | NESTED, &element));
        let name = |kind, name: &str| attribute(kind, &[name.as_bytes(), &[0]].concat());
        let family = vec![2, 0, 0, 0];
        let payload = [family, name(1, TABLE), name(2, SetName::Frontends.name()), elements].concat();
        let request = Request { kind: GET_ELEMENTS, flags: 0, payload };
        self.0.query(request, |_| Ok(())).is_ok_and(|answers| !answers.is_empty())
    }
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = 4 + payload.len() as u16;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Hears of commits.
pub(crate) struct Commits(Monitor);

impl Commits {
    /// Listens in the calling thread's namespace.
    pub(crate) fn listen() -> Commits {
        Commits(Monitor::open([TABLE]).unwrap())
    }

    /// Waits for the next commit.
    pub(crate) fn next(&mut self) {
        let start = Instant::now();
        while self.is_quiet() {
            assert!(start.elapsed() < PATIENCE, "nothing was committed");
            let mut descriptors = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            poll(&mut descriptors, PollTimeout::from(1000u16)).unwrap();
        }
    }

    fn is_quiet(&mut self) -> bool {
        self.0.read().is_ok_and(|all| all.iter().all(|announcement| announcement.tables.is_empty()))
    }

    /// Waits until nothing was committed for a while. Returns when the last commit was, or that of the call.
    pub(crate) fn until_quiet(&mut self) -> Instant {
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(300) {
            // Where notifications were lost, there were commits.
            if !self.is_quiet() {
                last = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        last
    }
}

/// Fails unless the calling thread's namespace holds all that follows from that snapshot: a second proxy
/// would find nothing to do.
pub(crate) fn assert_in_step(snapshot: &Snapshot) {
    let mut commits = Commits::listen();
    Sync::open(config()).unwrap().apply(snapshot, &ChangeSet::default()).unwrap();
    assert!(
        commits.0.read().is_ok_and(|numbers| numbers.is_empty()),
        "the kernel did not hold what it should"
    );
}

/// What `nft flush ruleset` does to the proxy's tables, in one transaction and without starting a program.
pub(crate) fn flush() {
    let changes = table_keys().map(Change::DeleteTable).into();
    Client::open().unwrap().commit(&Transaction { changes }).unwrap();
}
