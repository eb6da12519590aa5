//! Testing the tunnel beside everything else, on a thread of its own: trying a connection takes seconds where
//! nobody answers. What follows from it is decided in [`crate::routing::vxlan::checksum`].

use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{info, warn};
use weft_netlink::Result;
use weft_netlink::ethtool::{set_tx_checksum, tx_checksum};

use crate::routing::probe::plan::PORT;
use crate::routing::vxlan::checksum::{Finding, test};
use crate::routing::vxlan::plan::{DEVICE, Overlay};

/// How long an answer may take: the first packet, and one sent again after a second.
const PATIENCE: Duration = Duration::from_millis(2500);
/// When to try again where nobody answered.
const AGAIN: Duration = Duration::from_secs(60);
/// To how many nodes the way is tried at most, each time.
const MOST: usize = 3;

/// Which tunnel device was tested, and what is going on.
#[derive(Debug, Default)]
pub(crate) struct OffloadTest {
    /// The device that is known to work, by its index: one that is made anew is tested anew.
    passed: Option<u32>,
    running: Option<(u32, JoinHandle<Result<Finding>>)>,
    again: Option<Instant>,
}

impl OffloadTest {
    /// Looks whether there is something to test or to tell; returns at once.
    pub(crate) fn look(&mut self, link: Option<u32>, overlay: Option<&Overlay>) {
        if let Some((tested, running)) = self.running.take_if(|(_, running)| running.is_finished()) {
            self.note(tested, running.join().unwrap_or(Ok(Finding::Unknown)));
        }
        let (Some(link), Some(overlay)) = (link, overlay) else { return };
        let is_early = self.again.is_some_and(|again| Instant::now() < again);
        if self.running.is_some() || self.passed == Some(link) || overlay.neighbours.is_empty() || is_early {
            return;
        }
        let gateways: Vec<IpAddr> = overlay.neighbours.keys().copied().take(MOST).collect();
        let started = thread::Builder::new().name("offload".to_owned()).spawn(move || test_tunnel(&gateways));
        self.running = started.ok().map(|running| (link, running));
    }

    fn note(&mut self, link: u32, found: Result<Finding>) {
        self.again = Some(Instant::now() + AGAIN);
        match found {
            Ok(Finding::Fine) => info!("connections get through the tunnel"),
            Ok(Finding::Spoiled) => warn!(
                "connections get through the tunnel only since the kernel makes their checksums: the network card's \
                 offload for VXLAN is faulty, and stays off on {DEVICE}"
            ),
            Ok(Finding::Unknown) => {
                info!(
                    "no other node answers through the tunnel yet; whether checksums are right is not known"
                );
                return;
            }
            Err(error) => warn!(%error, "the tunnel's checksums cannot be tested"),
        }
        (self.passed, self.again) = (Some(link), None);
    }
}

/// Tests the device as it is, in the calling thread's network namespace; takes seconds where nobody answers.
/// A device whose offload is off already, by an earlier test or by somebody, needs no test.
pub fn test_tunnel(gateways: &[IpAddr]) -> Result<Finding> {
    match tx_checksum(DEVICE)? {
        true => test(gateways, answers, |on| set_tx_checksum(DEVICE, on)),
        false => Ok(Finding::Fine),
    }
}

/// Whether somebody takes or refuses a connection to the address.
fn answers(gateway: IpAddr) -> bool {
    match TcpStream::connect_timeout(&(gateway, PORT).into(), PATIENCE) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}
