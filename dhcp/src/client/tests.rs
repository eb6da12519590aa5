//! A client and servers of all kinds.

use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: [u8; 4] = [192, 0, 2, 1];
const OTHER: [u8; 4] = [192, 0, 2, 2];
const ADDRESS: [u8; 4] = [192, 0, 2, 50];
const PATIENCE: Duration = Duration::from_secs(60);

fn chance() -> Chance {
    let mut last = 1000;
    Box::new(move || {
        last += 1;
        last
    })
}

fn identity() -> Identity {
    Identity {
        mac: MAC,
        id: b"\0c1/lan/eth0".to_vec(),
        provided: [(option::HOST_NAME, b"web".to_vec())].into(),
        requested: [option::SUBNET_MASK, option::ROUTERS].into(),
        broadcast: false,
    }
}

/// An answer of the server with that address, for 80 seconds.
fn answer(to: &Transmit, kind: Kind, server: [u8; 4]) -> Message {
    let options: [(u8, &[u8]); 4] = [
        (option::MESSAGE_TYPE, &[kind as u8]),
        (option::SERVER, &server),
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 0, 80]),
    ];
    Message {
        is_reply: true,
        xid: to.message.xid,
        chaddr: MAC,
        yiaddr: ADDRESS.into(),
        options: options.map(|(number, value)| (number, value.to_vec())).into(),
        ..Message::default()
    }
}

/// A client under test, and what time it is for it.
struct Bench {
    client: Client,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::now();
        Bench { client: Client::new(identity(), chance(), now, now + PATIENCE), now }
    }

    /// Has an address, as of now.
    fn bound() -> Bench {
        let mut bench = Bench::new();
        let discover = bench.next().unwrap();
        let request = bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.unwrap();
        let change = bench.hear(&answer(&request, Kind::Ack, SERVER)).1;
        assert_eq!(change, Some(Change::Leased));
        bench
    }

    /// Lets time pass until something is sent.
    fn next(&mut self) -> Option<Transmit> {
        self.now = self.now.max(self.client.due()?);
        self.client.tick(self.now).0
    }

    fn hear(&mut self, message: &Message) -> (Option<Transmit>, Option<Change>) {
        self.client.receive(message, SERVER_MAC, self.now)
    }

    fn passed(&self, since: Instant) -> u64 {
        self.now.duration_since(since).as_secs()
    }

    fn is_over(&mut self) -> Loss {
        loop {
            self.now = self.client.due().expect("it goes on");
            if let (_, Some(Change::Over(loss))) = self.client.tick(self.now) {
                assert!(self.client.due().is_none() && self.client.lease().is_none());
                return loss;
            }
        }
    }
}

fn kind(transmit: &Transmit) -> Kind {
    transmit.message.kind().unwrap()
}

#[test]
fn an_address_is_asked_of_all_and_taken_from_one() {
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    assert_eq!((kind(&discover), discover.to, discover.from), (Kind::Discover, None, Ipv4Addr::UNSPECIFIED));
    assert_eq!(discover.message.options[&option::HOST_NAME], b"web");
    assert_eq!(discover.message.options[&option::PARAMETERS], [1, 3]);
    assert_eq!(discover.message.options[&option::CLIENT_ID], b"\0c1/lan/eth0");
    let request = bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.unwrap();
    assert_eq!((kind(&request), request.to), (Kind::Request, None));
    assert_eq!(request.message.address(option::SERVER), Some(SERVER.into()));
    assert_eq!(request.message.address(option::REQUESTED_ADDRESS), Some(ADDRESS.into()));
    assert!(request.message.ciaddr.is_unspecified());
    let (_, change) = bench.hear(&answer(&request, Kind::Ack, SERVER));
    assert_eq!(change, Some(Change::Leased));
    let lease = bench.client.lease().unwrap();
    assert_eq!(lease.address.to_string(), "192.0.2.50/24");
    assert_eq!(lease.server, Station { address: SERVER.into(), mac: SERVER_MAC });
}

#[test]
fn silence_is_asked_again_less_and_less_often_and_ends() {
    let mut bench = Bench::new();
    let began = bench.now;
    let mut sent = Vec::new();
    while let Some(discover) = bench.next() {
        assert_eq!(u64::from(discover.message.secs), bench.passed(began));
        sent.push(bench.passed(began));
    }
    assert_eq!(sent.len(), 4, "{sent:?}");
    for (at, about) in sent.iter().zip([0u64, 4, 12, 28]) {
        assert!(at.abs_diff(about) <= 4, "{sent:?}");
    }
    assert!(bench.client.due().is_none());
    let loss = Bench::new().is_over();
    assert_eq!(loss.to_string(), "no DHCP server answered within 60 s");
}

#[test]
fn an_offer_that_its_server_forgets_is_asked_for_three_times() {
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.unwrap();
    let kinds: Vec<Kind> = (0..3).map(|_| kind(&bench.next().unwrap())).collect();
    assert_eq!(kinds, [Kind::Request, Kind::Request, Kind::Discover]);
}

#[test]
fn refusals_do_not_keep_anybody_busy() {
    let mut bench = Bench::new();
    let began = bench.now;
    let mut discovers = 0;
    while let Some(discover) = bench.next() {
        discovers += 1;
        let request = bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.unwrap();
        let mut nak = answer(&request, Kind::Nak, SERVER);
        nak.options.insert(option::MESSAGE, b"not\x07 today".to_vec());
        assert_eq!(bench.hear(&nak), (None, None));
    }
    assert!(discovers <= 5 && bench.passed(began) == 60, "{discovers}");
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    let request = bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.unwrap();
    let mut nak = answer(&request, Kind::Nak, SERVER);
    nak.options.insert(option::MESSAGE, b"not\x07 today".to_vec());
    bench.hear(&nak);
    assert_eq!(bench.is_over().to_string(), "no address within 60 s: server 192.0.2.1 refuses (not today)");
}

#[test]
fn what_is_not_meant_for_this_client_is_not_heard() {
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    let good = answer(&discover, Kind::Offer, SERVER);
    for wrong in [
        Message { xid: good.xid + 1, ..good.clone() },
        Message { chaddr: [2, 0, 0, 0, 0, 8], ..good.clone() },
        Message { is_reply: false, ..good.clone() },
        answer(&discover, Kind::Ack, SERVER),
        answer(&discover, Kind::Nak, SERVER),
    ] {
        assert_eq!(bench.hear(&wrong), (None, None), "{wrong:?}");
    }
    let request = bench.hear(&good).0.unwrap();
    let other = Message { yiaddr: [192, 0, 2, 51].into(), ..answer(&request, Kind::Ack, SERVER) };
    assert_eq!(bench.hear(&other), (None, None), "another address than it asked for");
    assert_eq!(bench.hear(&answer(&request, Kind::Nak, OTHER)), (None, None), "another server's business");
    assert_eq!(bench.hear(&answer(&request, Kind::Ack, SERVER)).1, Some(Change::Leased));
}

#[test]
fn a_server_with_nothing_usable_is_named_and_another_is_taken() {
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    let mut bad = answer(&discover, Kind::Offer, OTHER);
    bad.options.remove(&option::SUBNET_MASK);
    assert_eq!(bench.hear(&bad), (None, None));
    assert!(bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.is_some());
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    bad.xid = discover.message.xid;
    bench.hear(&bad);
    let told = bench.is_over().to_string();
    assert_eq!(told, "no address within 60 s: server 192.0.2.2 tells no subnet mask (option 1)");
}

#[test]
fn a_lease_is_renewed_with_its_server_at_half_of_its_time() {
    let mut bench = Bench::bound();
    let since = bench.now;
    let renewal = bench.next().unwrap();
    assert_eq!((kind(&renewal), bench.passed(since)), (Kind::Request, 40));
    assert_eq!(renewal.to, Some(Station { address: SERVER.into(), mac: SERVER_MAC }));
    assert_eq!((renewal.from, renewal.message.ciaddr), (ADDRESS.into(), ADDRESS.into()));
    for absent in [option::SERVER, option::REQUESTED_ADDRESS] {
        assert!(!renewal.message.options.contains_key(&absent));
    }
    let again = bench.next().unwrap();
    assert_eq!((kind(&again), bench.passed(since)), (Kind::Request, 55), "half of what is left until 70");
    assert_eq!(bench.hear(&answer(&again, Kind::Ack, SERVER)).1, Some(Change::Leased));
    bench.next().unwrap();
    assert_eq!(bench.passed(since), 80, "counted from the first of the two questions");
}

#[test]
fn any_server_may_prolong_a_lease_after_seven_eighths() {
    let mut bench = Bench::bound();
    let since = bench.now;
    let rebinding = loop {
        let sent = bench.next().unwrap();
        if sent.to.is_none() {
            break sent;
        }
    };
    assert_eq!((bench.passed(since), rebinding.from), (70, ADDRESS.into()));
    assert_eq!(bench.hear(&answer(&rebinding, Kind::Ack, OTHER)).1, Some(Change::Leased));
    assert_eq!(bench.client.lease().unwrap().server.address, Ipv4Addr::from(OTHER));
    assert_eq!(bench.next().unwrap().to.unwrap().address, Ipv4Addr::from(OTHER));
}

#[test]
fn a_refused_lease_is_asked_for_again_and_no_other_address_is_taken() {
    let mut bench = Bench::bound();
    let renewal = bench.next().unwrap();
    assert_eq!(bench.hear(&answer(&renewal, Kind::Nak, OTHER)), (None, None), "not its server");
    let discover = bench.hear(&answer(&renewal, Kind::Nak, SERVER)).0.unwrap();
    assert_eq!(kind(&discover), Kind::Discover);
    assert_eq!(discover.message.address(option::REQUESTED_ADDRESS), Some(ADDRESS.into()));
    let other = Message { yiaddr: [192, 0, 2, 77].into(), ..answer(&discover, Kind::Offer, OTHER) };
    assert_eq!(bench.hear(&other), (None, None));
    let request = bench.hear(&answer(&discover, Kind::Offer, OTHER)).0.unwrap();
    assert_eq!(bench.hear(&answer(&request, Kind::Ack, OTHER)).1, Some(Change::Leased));
    assert_eq!(bench.client.lease().unwrap().address.ip(), Ipv4Addr::from(ADDRESS));
    let mut bench = Bench::bound();
    let renewal = bench.next().unwrap();
    let discover = bench.hear(&answer(&renewal, Kind::Nak, SERVER)).0.unwrap();
    bench.hear(&Message { xid: discover.message.xid, ..other });
    let told = bench.is_over().to_string();
    assert_eq!(told, "no address within 30 s: server 192.0.2.1 refuses; server 192.0.2.2 offers 192.0.2.77");
}

#[test]
fn a_lease_that_nobody_prolongs_ends_half_a_minute_after_its_time() {
    let mut bench = Bench::bound();
    let since = bench.now;
    let loss = bench.is_over();
    assert_eq!((bench.passed(since), loss.complaints.len()), (110, 0));
    assert_eq!(bench.client.release(), None);
}

#[test]
fn a_lease_for_ever_is_let_be() {
    let mut bench = Bench::new();
    let discover = bench.next().unwrap();
    let request = bench.hear(&answer(&discover, Kind::Offer, SERVER)).0.unwrap();
    let mut ack = answer(&request, Kind::Ack, SERVER);
    ack.options.insert(option::LEASE_TIME, vec![255; 4]);
    assert_eq!(bench.hear(&ack).1, Some(Change::Leased));
    assert_eq!(bench.client.due(), None);
    assert!(bench.client.release().is_some());
}

#[test]
fn a_lease_that_is_given_back_is_told_to_its_server_once() {
    let mut bench = Bench::bound();
    let release = bench.client.release().unwrap();
    assert_eq!((kind(&release), release.message.ciaddr), (Kind::Release, ADDRESS.into()));
    assert_eq!(release.to.unwrap().address, Ipv4Addr::from(SERVER));
    let options: Vec<u8> = release.message.options.keys().copied().collect();
    assert_eq!(options, [option::MESSAGE_TYPE, option::SERVER, option::CLIENT_ID]);
    assert_eq!((bench.client.release(), bench.client.due()), (None, None));
    assert_eq!(Bench::new().client.release(), None, "nothing to give back");
}

#[test]
fn a_lease_of_an_agent_before_is_renewed_at_once() {
    let lease = Bench::bound().client.lease().unwrap().clone();
    let resumed = |age| {
        let now = Instant::now();
        let client = Client::resume(identity(), chance(), lease.clone(), Duration::from_secs(age), now);
        Bench { client, now }
    };
    let mut bench = resumed(10);
    let renewal = bench.next().unwrap();
    assert_eq!((kind(&renewal), renewal.to.is_some()), (Kind::Request, true));
    assert_eq!(bench.hear(&answer(&renewal, Kind::Ack, SERVER)).1, Some(Change::Leased));
    let rebinding = resumed(75).next().unwrap();
    assert_eq!((kind(&rebinding), rebinding.to), (Kind::Request, None));
    let mut bench = resumed(1000);
    let discover = bench.next().unwrap();
    assert_eq!(kind(&discover), Kind::Discover);
    assert_eq!(discover.message.address(option::REQUESTED_ADDRESS), Some(ADDRESS.into()));
    assert_eq!(bench.is_over().after, RECLAIM);
}

#[test]
fn what_is_provided_goes_before_what_the_client_says_itself() {
    let mut identity = identity();
    identity.provided.insert(option::CLIENT_ID, b"mine".to_vec());
    identity.broadcast = true;
    let now = Instant::now();
    let discover = Client::new(identity, chance(), now, now + PATIENCE).tick(now).0.unwrap();
    assert_eq!(discover.message.options[&option::CLIENT_ID], b"mine");
    assert!(discover.message.broadcast);
}

proptest! {
    /// Servers that say anything at any time.
    #[test]
    fn nothing_that_servers_say_makes_it_busy_or_gives_it_another_address(
        steps in prop::collection::vec((0..8u8, any::<bool>(), 0..4u8, 0..120u64), 1..60)
    ) {
        let mut bench = Bench::bound();
        let mut last = bench.next();
        for (kind, is_wrong, place, seconds) in steps {
            let Some(sent) = last.clone() else { break };
            let mut message = answer(&sent, Kind::Ack, if place == 0 { OTHER } else { SERVER });
            message.options.insert(option::MESSAGE_TYPE, vec![kind]);
            if is_wrong {
                message.yiaddr = [192, 0, 2, 60 + place].into();
                message.options.insert(option::LEASE_TIME, vec![0; usize::from(place) + 1]);
            }
            bench.hear(&message);
            bench.now += Duration::from_secs(seconds);
            let mut ticks = 0;
            while bench.client.due().is_some_and(|due| due <= bench.now) {
                let (sent, _) = bench.client.tick(bench.now);
                last = sent.or(last);
                ticks += 1;
                prop_assert!(ticks < 4, "it never rests: {:?}", bench.client);
            }
            if let Some(lease) = bench.client.lease() {
                prop_assert_eq!(lease.address.ip(), Ipv4Addr::from(ADDRESS));
            }
        }
    }
}
