//! What holds for any Services and pools, whatever happens to them.

use proptest::prelude::*;
use proptest::sample::select;
use weft_types::TrafficPolicy;

use super::*;

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Step {
    /// A Service comes, or asks for something else.
    Put(Box<Service>),
    /// A Service goes.
    Delete(usize),
    /// There are other pools.
    Pools(Vec<IpAddressPool>),
    /// The status of Services is written.
    Settle,
    /// Who decides is another one, who knows only what the cluster says.
    Restart,
}

fn families() -> impl Strategy<Value = (Vec<Family>, FamilyPolicy)> {
    let (v4, v6) = (Family::V4, Family::V6);
    select(vec![
        (vec![v4], FamilyPolicy::SingleStack),
        (vec![v6], FamilyPolicy::SingleStack),
        (vec![v4, v6], FamilyPolicy::PreferDualStack),
        (vec![v6, v4], FamilyPolicy::RequireDualStack),
        (vec![v4], FamilyPolicy::PreferDualStack),
    ])
}

fn any_service() -> impl Strategy<Value = Service> {
    let request = prop::option::weighted(0.2, (0u8..12).prop_map(|last| IpAddr::from([192, 0, 2, last])));
    let pool = prop::option::weighted(0.2, select(vec!["a", "b", "c"]));
    let key = prop::option::weighted(0.4, select(vec!["k", "l"]));
    let ports = prop::collection::vec(select(vec![53u16, 80, 443]), 1..3);
    let other = prop::bool::weighted(0.1);
    (0usize..10, 0i64..5, families(), request, pool, key, ports, any::<bool>(), other).prop_map(
        |(name, created, (families, policy), request, pool, key, ports, local, other)| {
            let mut service = super::service(&format!("s{name}"), created, &families);
            service.ports = ports.into_iter().map(port).collect();
            service.external_policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            let asks = service.load_balancer.as_mut().unwrap();
            asks.families = policy;
            asks.requested_ips = request.into_iter().collect();
            asks.requested_pool = pool.map(Into::into);
            asks.sharing_key = key.map(Into::into);
            asks.class = other.then(|| "example.com/other".into());
            service
        },
    )
}

fn any_pools() -> impl Strategy<Value = Vec<IpAddressPool>> {
    let ranges = vec![
        vec!["192.0.2.0-192.0.2.3"],
        vec!["192.0.2.2-192.0.2.6", "2001:db8::1-2001:db8::3"],
        vec!["2001:db8::2-2001:db8::5"],
        vec!["192.0.2.9"],
    ];
    let pool = (select(vec!["a", "b", "c"]), select(ranges), any::<bool>(), prop::bool::weighted(0.8))
        .prop_map(|(name, ranges, avoid_buggy_ips, auto_assign)| IpAddressPool {
            avoid_buggy_ips,
            auto_assign,
            ..pool(name, &ranges)
        });
    prop::collection::vec(pool, 0..4)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any_service().prop_map(|service| Step::Put(Box::new(service))),
        2 => (0usize..10).prop_map(Step::Delete),
        1 => any_pools().prop_map(Step::Pools),
        6 => Just(Step::Settle),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// The addresses that a Service has by decision or by its status.
fn held(world: &World) -> BTreeMap<NamespacedName, Vec<IpAddr>> {
    let given = world.allocator.given.iter().map(|(key, given)| (key.clone(), given.addresses.clone()));
    given.collect()
}

/// Whether a request of a Service is another one.
fn asks_alike(one: &Service, other: &Service) -> bool {
    let (one_asks, other_asks) = (one.load_balancer.as_ref().unwrap(), other.load_balancer.as_ref().unwrap());
    one.kind == other.kind
        && one_asks.class == other_asks.class
        && one_asks.requested_ips == other_asks.requested_ips
        && one_asks.requested_pool == other_asks.requested_pool
}

fn user(service: &Service) -> User<'_> {
    User::of(service, service.load_balancer.as_ref().unwrap())
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Put(service) => {
                let place = self.services.iter().position(|known| known.key == service.key);
                match place {
                    Some(place) => {
                        let known = &mut self.services[place];
                        let ips = std::mem::take(&mut known.load_balancer_ips);
                        *known = Service { load_balancer_ips: ips, created: known.created, ..*service };
                    }
                    None => self.services.push(*service),
                }
            }
            Step::Delete(name) => {
                self.services.retain(|service| service.key.name != format!("s{name}"));
            }
            Step::Pools(pools) => self.pools = Pools::new(&[], pools.iter()),
            Step::Settle => drop(self.settle()),
            // What was decided and not written is lost.
            Step::Restart => self.allocator = Allocator::default(),
        }
    }

    /// Pairs of Services that have one address and may not share it.
    fn clashes(&self) -> BTreeSet<(NamespacedName, NamespacedName)> {
        let mut clashes = BTreeSet::new();
        for (place, one) in self.services.iter().enumerate() {
            for other in &self.services[place + 1..] {
                let has = |address: &&IpAddr| other.load_balancer_ips.contains(address);
                let alike =
                    one.load_balancer.as_ref().unwrap().class == other.load_balancer.as_ref().unwrap().class;
                let may = alike && user(one).may_share(&user(other)).is_ok();
                if one.load_balancer_ips.iter().any(|it| has(&it)) && !may {
                    clashes.insert((one.key.clone(), other.key.clone()));
                }
            }
        }
        clashes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_address_stays_while_its_service_asks_for_the_same(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            let before = world.services.clone();
            let changes_pools = matches!(step, Step::Pools(_));
            world.take(step);
            world.decide();
            let given = held(&world);
            for service in &before {
                let Some(now) = world.services.iter().find(|now| now.key == service.key) else { continue };
                let is_ours = now.load_balancer.as_ref().unwrap().class.is_none();
                // A pool that comes may hold what a Service asks for, and did not get so far.
                if !is_ours || !asks_alike(service, now) || changes_pools {
                    continue;
                }
                let asks = now.load_balancer.as_ref().unwrap();
                let takes_any = asks.requested_ips.is_empty() && asks.requested_pool.is_none();
                let families: Vec<Family> = now.cluster_ips().iter().map(|ip| Family::of(*ip)).collect();
                for address in service.load_balancer_ips.iter().filter(|ip| families.contains(&Family::of(**ip))) {
                    let kept = given.get(&now.key).is_some_and(|given| given.contains(address));
                    prop_assert!(kept || !takes_any, "{address} of {} moved", now.key);
                }
            }
        }
    }

    #[test]
    fn pools_that_change_move_nothing(steps in steps(), pools in any_pools()) {
        let mut world = World::default();
        steps.into_iter().for_each(|step| world.take(step));
        world.settle();
        let before = held(&world);
        world.pools = Pools::new(&[], pools.iter());
        world.settle();
        let after = held(&world);
        for service in &world.services {
            let asks = service.load_balancer.as_ref().unwrap();
            if asks.requested_ips.is_empty() && asks.requested_pool.is_none() {
                let kept = before.get(&service.key).into_iter().flatten();
                for address in kept {
                    prop_assert!(after[&service.key].contains(address), "{address} of {} moved", service.key);
                }
            }
        }
    }

    #[test]
    fn no_address_is_given_twice_unless_it_is_shared(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            // What Services agreed upon may be undone by themselves, but never by a decision.
            let before = world.clashes();
            world.settle();
            let after = world.clashes();
            prop_assert!(after.is_subset(&before), "{after:?}");
        }
    }

    #[test]
    fn nobody_waits_who_can_be_served(steps in steps()) {
        let mut world = World::default();
        steps.into_iter().for_each(|step| world.take(step));
        world.settle();
        // What somebody gave back in exchange is for the next.
        world.settle();
        let decisions = world.settle();
        prop_assert_eq!(&decisions.statuses, &[]);
        let waiting = decisions.problems.iter().filter(|problem| problem.kind == ProblemKind::AllocationFailed);
        for problem in waiting {
            let service = world.services.iter().find(|service| service.key == problem.service).unwrap();
            let asks = service.load_balancer.as_deref().unwrap();
            let pools = world.pools.candidates("shop", asks, &world.namespaces);
            let mut taken: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
            for other in world.services.iter().filter(|other| other.key != service.key) {
                other.load_balancer_ips.iter().for_each(|ip| taken.entry(*ip).or_default().push(other));
            }
            let may_have = |address: IpAddr| {
                let others = taken.get(&address).into_iter().flatten();
                let is_foreign =
                    |other: &Service| other.load_balancer.as_ref().unwrap().class.is_some();
                let mut others = others.map(|other| !is_foreign(other) && user(service).may_share(&user(other)).is_ok());
                others.all(|may| may)
            };
            let families: Vec<Family> = service.cluster_ips().iter().map(|ip| Family::of(*ip)).collect();
            let has_one = |family: Family| {
                let mut addresses = pools.iter().flat_map(|pool| {
                    let ranges = pool.ranges().iter().filter(move |range| range.family() == family);
                    ranges.flat_map(|range| (0..range.count()).filter_map(|place| range.nth(place)))
                        .filter(|address| pool.has(*address))
                });
                addresses.any(may_have)
            };
            if asks.requested_ips.is_empty() {
                let can = families.iter().filter(|family| has_one(**family)).count();
                let enough = if asks.families == FamilyPolicy::RequireDualStack { 2 } else { 1 };
                prop_assert!(can < enough, "{problem:?}");
            } else {
                let can_all = asks.requested_ips.iter().all(|address| {
                    let of_pool = world.pools.offers(*address, service, asks, &world.namespaces).is_ok();
                    families.contains(&Family::of(*address)) && of_pool && may_have(*address)
                });
                prop_assert!(!can_all || families.len() > 1, "{problem:?}");
            }
        }
    }

    #[test]
    fn the_same_cluster_gets_the_same_decisions_in_whatever_order_it_is_told(steps in steps()) {
        let mut world = World::default();
        steps.into_iter().for_each(|step| world.take(step));
        let mut other = World { services: world.services.clone(), pools: world.pools.clone(), ..World::default() };
        other.services.reverse();
        world.allocator = Allocator::default();
        let (one, another) = (world.decide(), other.decide());
        prop_assert_eq!(held(&world), held(&other));
        prop_assert_eq!((one.problems, one.usage), (another.problems, another.usage));
    }
}
