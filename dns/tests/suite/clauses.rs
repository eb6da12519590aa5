//! What the Kubernetes DNS specification 1.1.0 demands, clause by clause (`S`), what CoreDNS adds to it
//! (`C`), and what the RFCs demand of any server, as queries and what they get in the cluster of
//! `cluster.yaml`. No test lives here.

/// What a query gets. In texts `~` stands for `cluster.local.`, and `@` for the name asked, as it was
/// spelled.
pub(crate) enum Gets {
    /// These records, with authority.
    Records(&'static [&'static str]),
    /// The records in the answer, and those in the additional section.
    With(&'static [&'static str], &'static [&'static str]),
    /// The name exists, without such a record (RFC 2308 section 2.2).
    NoData,
    /// The name does not exist (RFC 2308 section 2.1).
    NxDomain,
    /// A chain that leads to a name that does not exist (RFC 6604 section 3), or that has no such record.
    Broken(&'static str, &'static [&'static str]),
    /// An answer that is not this server's own.
    Foreign(&'static str, &'static [&'static str]),
}

use Gets::{Broken, Foreign, NoData, NxDomain, Records, With};

/// Which clause, what it says, the query, and what that gets.
pub(crate) type Clause = (&'static str, &'static str, &'static str, Gets);

/// S2.1 and S2.2: definitions, and the version of the schema.
const DEFINITIONS: &[Clause] = &[
    (
        "S2.1",
        "comparisons are case-insensitive",
        "BackEnd.SHOP.svc.Cluster.LOCAL. A",
        Records(&["@ A 10.96.0.20"]),
    ),
    (
        "S2.1",
        "for every type",
        "_PG._TCP.Db.shop.SVC.~ SRV",
        With(
            &[
                "@ SRV 0 33 15432 10-244-2-8.db.shop.svc.~",
                "@ SRV 0 33 15432 db-0.db.shop.svc.~",
                "@ SRV 0 33 15432 db-1.db.shop.svc.~",
            ],
            &[
                "10-244-2-8.db.shop.svc.~ A 10.244.2.8",
                "db-0.db.shop.svc.~ A 10.244.1.7",
                "db-0.db.shop.svc.~ AAAA fd00:10:244:1::7",
                "db-1.db.shop.svc.~ A 10.244.2.7",
            ],
        ),
    ),
    (
        "S2.1",
        "and in the reverse zones",
        "20.0.96.10.IN-Addr.ARPA. PTR",
        Records(&["@ PTR backend.shop.svc.~"]),
    ),
    ("S2.1", "for names that do not exist", "NoThing.SHOP.svc.~ A", NxDomain),
    ("S2.1", "an endpoint's hostname comes first", "db-0.db.shop.svc.~ A", Records(&["@ A 10.244.1.7"])),
    ("S2.1", "and is its only one", "10-244-1-7.db.shop.svc.~ A", NxDomain),
    (
        "S2.1",
        "without it, its dashed address is its hostname",
        "10-244-2-8.db.shop.svc.~ A",
        Records(&["@ A 10.244.2.8"]),
    ),
    ("S2.1", "also of IPv6", "5678-abcd--1.twins.shop.svc.~ AAAA", Records(&["@ AAAA 5678:abcd::1"])),
    ("S2.1", "only ready endpoints count", "db-3.db.shop.svc.~ A", NxDomain),
    ("S2.2", "the version of the schema", "dns-version.~ TXT", Records(&["@ TXT \"1.1.0\""])),
    ("S2.2", "is text and nothing else", "dns-version.~ A", NoData),
];

/// S2.3: Services with a ClusterIP.
const CLUSTER_IP: &[Clause] = &[
    (
        "S2.3.1",
        "an A record of a ClusterIP of IPv4",
        "kubernetes.default.svc.~ A",
        Records(&["@ A 10.96.0.1"]),
    ),
    ("S2.3.1", "which has no AAAA record", "kubernetes.default.svc.~ AAAA", NoData),
    (
        "S2.3.1",
        "an AAAA record of a ClusterIP of IPv6",
        "six.shop.svc.~ AAAA",
        Records(&["@ AAAA fd00:10:96::6"]),
    ),
    ("S2.3.1", "which has no A record", "six.shop.svc.~ A", NoData),
    ("S2.3.1", "of both families, an A record", "backend.shop.svc.~ A", Records(&["@ A 10.96.0.20"])),
    (
        "S2.3.1",
        "of both families, an AAAA record",
        "backend.shop.svc.~ AAAA",
        Records(&["@ AAAA fd00:10:96::20"]),
    ),
    (
        "S2.3.2",
        "an SRV record of each named port, with its target's addresses",
        "_http._tcp.backend.shop.svc.~ SRV",
        With(
            &["@ SRV 0 100 80 backend.shop.svc.~"],
            &["backend.shop.svc.~ A 10.96.0.20", "backend.shop.svc.~ AAAA fd00:10:96::20"],
        ),
    ),
    (
        "S2.3.2",
        "under its protocol: UDP",
        "_echo._udp.backend.shop.svc.~ SRV",
        With(
            &["@ SRV 0 100 7 backend.shop.svc.~"],
            &["backend.shop.svc.~ A 10.96.0.20", "backend.shop.svc.~ AAAA fd00:10:96::20"],
        ),
    ),
    (
        "S2.3.2",
        "under its protocol: SCTP",
        "_link._sctp.six.shop.svc.~ SRV",
        With(&["@ SRV 0 100 9 six.shop.svc.~"], &["six.shop.svc.~ AAAA fd00:10:96::6"]),
    ),
    ("S2.3.2", "and under no other", "_echo._tcp.backend.shop.svc.~ SRV", NxDomain),
    ("S2.3.2", "no record of an unnamed port", "_99._tcp.backend.shop.svc.~ SRV", NxDomain),
    (
        "S2.3.3",
        "a PTR record of a ClusterIP of IPv4",
        "20.0.96.10.in-addr.arpa. PTR",
        Records(&["@ PTR backend.shop.svc.~"]),
    ),
    (
        "S2.3.3",
        "a PTR record of a ClusterIP of IPv6",
        "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa. PTR",
        Records(&["@ PTR backend.shop.svc.~"]),
    ),
];

/// S2.4: headless Services.
const HEADLESS: &[Clause] = &[
    (
        "S2.4.1",
        "an A record of each ready endpoint",
        "db.shop.svc.~ A",
        Records(&["@ A 10.244.1.7", "@ A 10.244.2.7", "@ A 10.244.2.8"]),
    ),
    (
        "S2.4.1",
        "an AAAA record of each ready endpoint",
        "db.shop.svc.~ AAAA",
        Records(&["@ AAAA fd00:10:244:1::7"]),
    ),
    ("S2.4.1", "none ready: NXDOMAIN", "down.shop.svc.~ A", NxDomain),
    ("S2.4.1", "none ready: NXDOMAIN, for AAAA too", "down.shop.svc.~ AAAA", NxDomain),
    ("S2.4.1", "nor is there anything below", "_http._tcp.down.shop.svc.~ SRV", NxDomain),
    ("S2.4.1", "an A record of a hostname", "db-1.db.shop.svc.~ A", Records(&["@ A 10.244.2.7"])),
    (
        "S2.4.1",
        "an AAAA record of a hostname",
        "db-0.db.shop.svc.~ AAAA",
        Records(&["@ AAAA fd00:10:244:1::7"]),
    ),
    ("S2.4.1", "a hostname without IPv6 exists", "db-1.db.shop.svc.~ AAAA", NoData),
    (
        "S2.4.1",
        "all addresses of a hostname",
        "twin.twins.shop.svc.~ A",
        Records(&["@ A 10.244.4.1", "@ A 10.244.4.2"]),
    ),
    (
        "S2.4.2",
        "an SRV record of each endpoint and named port",
        "_a._tcp.grid.shop.svc.~ SRV",
        With(
            &["@ SRV 0 50 1 one.grid.shop.svc.~", "@ SRV 0 50 1 two.grid.shop.svc.~"],
            &["one.grid.shop.svc.~ A 10.244.3.1", "two.grid.shop.svc.~ A 10.244.3.2"],
        ),
    ),
    (
        "S2.4.2",
        "N endpoints and M named ports",
        "_b._udp.grid.shop.svc.~ SRV",
        With(
            &["@ SRV 0 50 2 one.grid.shop.svc.~", "@ SRV 0 50 2 two.grid.shop.svc.~"],
            &["one.grid.shop.svc.~ A 10.244.3.1", "two.grid.shop.svc.~ A 10.244.3.2"],
        ),
    ),
    ("S2.4.2", "no record of an unnamed port", "_3._tcp.grid.shop.svc.~ SRV", NxDomain),
    (
        "S2.4.3",
        "a PTR record of an endpoint of IPv4",
        "7.1.244.10.in-addr.arpa. PTR",
        Records(&["@ PTR db-0.db.shop.svc.~"]),
    ),
    (
        "S2.4.3",
        "by its dashed address, where it has no hostname",
        "8.2.244.10.in-addr.arpa. PTR",
        Records(&["@ PTR 10-244-2-8.db.shop.svc.~"]),
    ),
    (
        "S2.4.3",
        "a PTR record of an endpoint of IPv6",
        "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa. PTR",
        Records(&["@ PTR db-0.db.shop.svc.~"]),
    ),
    (
        "S2.4.3",
        "none of one that is not ready: its zone is somebody else's",
        "9.2.244.10.in-addr.arpa. PTR",
        Foreign("NXDOMAIN", &[]),
    ),
];

/// S2.5: Services of type ExternalName.
const EXTERNAL_NAME: &[Clause] = &[
    (
        "S2.5",
        "an alias, followed for A",
        "ext.shop.svc.~ A",
        Records(&["@ CNAME www.example.com.", "www.example.com. A 192.0.2.80"]),
    ),
    (
        "S2.5",
        "an alias, followed for AAAA",
        "ext6.shop.svc.~ AAAA",
        Records(&["@ CNAME www6.example.com.", "www6.example.com. AAAA 2001:db8::80"]),
    ),
    (
        "S2.5",
        "into the zone",
        "alias.shop.svc.~ A",
        Records(&["@ CNAME backend.shop.svc.~", "backend.shop.svc.~ A 10.96.0.20"]),
    ),
    (
        "S2.5",
        "into the zone, for AAAA",
        "alias.shop.svc.~ AAAA",
        Records(&["@ CNAME backend.shop.svc.~", "backend.shop.svc.~ AAAA fd00:10:96::20"]),
    ),
    ("S2.5", "asked for itself: alone", "alias.shop.svc.~ CNAME", Records(&["@ CNAME backend.shop.svc.~"])),
    (
        "RFC 1034 s3.6.2",
        "it holds for every type",
        "alias.shop.svc.~ SRV",
        With(
            &[
                "@ CNAME backend.shop.svc.~",
                "backend.shop.svc.~ SRV 0 33 7 backend.shop.svc.~",
                "backend.shop.svc.~ SRV 0 33 80 backend.shop.svc.~",
                "backend.shop.svc.~ SRV 0 33 99 backend.shop.svc.~",
            ],
            &["backend.shop.svc.~ A 10.96.0.20", "backend.shop.svc.~ AAAA fd00:10:96::20"],
        ),
    ),
    (
        "RFC 1034 s3.6.2",
        "also where the target has no such record",
        "alias.shop.svc.~ TXT",
        Broken("NOERROR", &["@ CNAME backend.shop.svc.~"]),
    ),
    (
        "RFC 8482 s4.2",
        "for ANY, it stands for itself",
        "alias.shop.svc.~ ANY",
        Records(&["@ CNAME backend.shop.svc.~"]),
    ),
    (
        "RFC 6604 s3",
        "the code is that of the last name",
        "gone.shop.svc.~ A",
        Broken("NXDOMAIN", &["@ CNAME nothing.shop.svc.~"]),
    ),
    ("C", "a circle ends", "circle.shop.svc.~ CNAME", Records(&["@ CNAME circle.shop.svc.~"])),
    ("C", "an address is no name", "literal.shop.svc.~ A", NxDomain),
    ("C", "an address is no name, whatever the type", "literal.shop.svc.~ CNAME", NxDomain),
];

/// What CoreDNS adds to Services.
const ADDITIONS: &[Clause] = &[
    (
        "C",
        "endpoints of a ClusterIP have names",
        "10-244-1-5.backend.shop.svc.~ A",
        Records(&["@ A 10.244.1.5"]),
    ),
    ("C", "by hostname too", "named.backend.shop.svc.~ A", Records(&["@ A 10.244.2.5"])),
    (
        "C",
        "which have pointers",
        "5.2.244.10.in-addr.arpa. PTR",
        Records(&["@ PTR named.backend.shop.svc.~"]),
    ),
    ("C", "but not by address", "5.1.244.10.in-addr.arpa. PTR", Foreign("NXDOMAIN", &[])),
    ("C", "not while they are not ready", "10-244-2-6.backend.shop.svc.~ A", NxDomain),
    ("C", "without a selector, by the slice's label", "manual.shop.svc.~ A", Records(&["@ A 10.96.0.40"])),
    (
        "C",
        "ready where nothing is said of it",
        "192-0-2-44.manual.shop.svc.~ A",
        Records(&["@ A 192.0.2.44"]),
    ),
    ("C", "without ports, an address", "bare.shop.svc.~ A", Records(&["@ A 10.96.0.30"])),
    ("C", "without ports, no SRV record", "bare.shop.svc.~ SRV", NoData),
    ("C", "without ports, no protocol", "_tcp.bare.shop.svc.~ SRV", NxDomain),
    (
        "C",
        "at the Service's own name, all its ports",
        "backend.shop.svc.~ SRV",
        With(
            &["@ SRV 0 33 7 @", "@ SRV 0 33 80 @", "@ SRV 0 33 99 @"],
            &["@ A 10.96.0.20", "@ AAAA fd00:10:96::20"],
        ),
    ),
    ("C", "SRV records of endpoints", "_pg._tcp.db.shop.svc.~ A", NoData),
];

/// `A-B-C-D.namespace.pod`, as kubeadm has it: the address is believed.
const PODS: &[Clause] = &[
    ("C", "a pod's name spells its address", "10-244-9-9.shop.pod.~ A", Records(&["@ A 10.244.9.9"])),
    ("C", "of one family", "10-244-9-9.shop.pod.~ AAAA", NoData),
    ("C", "or of the other", "fd00-10--5.shop.pod.~ AAAA", Records(&["@ AAAA fd00:10::5"])),
    ("C", "only that one", "fd00-10--5.shop.pod.~ A", NoData),
    ("C", "in an existing namespace", "10-244-9-9.nowhere.pod.~ A", NxDomain),
    ("C", "four numbers below 256", "10-244-9-256.shop.pod.~ A", NxDomain),
    ("C", "four of them", "1-2-3.shop.pod.~ A", NxDomain),
    ("C", "with dashes", "10.244.9.9.shop.pod.~ A", NxDomain),
    ("C", "one gap at most", "a--b--c.shop.pod.~ A", NxDomain),
    ("C", "and nothing below", "x.10-244-9-9.shop.pod.~ A", NxDomain),
];

/// Names between and around the records.
const TREE: &[Clause] = &[
    ("RFC 8020", "the apex", "~ A", NoData),
    ("RFC 8020", "svc", "svc.~ A", NoData),
    ("RFC 8020", "pod", "pod.~ AAAA", NoData),
    ("RFC 8020", "a namespace of Services", "shop.svc.~ A", NoData),
    ("RFC 8020", "a namespace of Services, for AAAA", "shop.svc.~ AAAA", NoData),
    ("RFC 8020", "a namespace without Services", "empty.svc.~ A", NoData),
    ("RFC 8020", "a namespace of pods", "shop.pod.~ A", NoData),
    ("RFC 8020", "a protocol", "_tcp.backend.shop.svc.~ SRV", NoData),
    ("RFC 8020", "a protocol, for A", "_tcp.db.shop.svc.~ A", NoData),
    ("RFC 8020", "dns", "dns.~ A", NoData),
    ("RFC 2308 s2.2", "another type", "db-0.db.shop.svc.~ MX", NoData),
    ("RFC 2308 s2.2", "another type in the reverse zones", "20.0.96.10.in-addr.arpa. A", NoData),
    ("RFC 2308 s2.1", "an unknown namespace", "backend.nowhere.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "an unknown namespace, for AAAA", "backend.nowhere.svc.~ AAAA", NxDomain),
    ("RFC 2308 s2.1", "an unknown namespace itself", "nowhere.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "an unknown namespace of pods", "nowhere.pod.~ A", NxDomain),
    ("RFC 2308 s2.1", "an unknown Service", "nothing.shop.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "an unknown Service, for AAAA", "nothing.shop.svc.~ AAAA", NxDomain),
    ("RFC 2308 s2.1", "a Service of another namespace", "backend.empty.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "an unknown endpoint", "x.backend.shop.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "an unknown endpoint, for AAAA", "x.backend.shop.svc.~ AAAA", NxDomain),
    ("RFC 2308 s2.1", "an unknown protocol", "_sctp.backend.shop.svc.~ SRV", NxDomain),
    ("RFC 2308 s2.1", "too many labels", "a.b.c.backend.shop.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "too many labels, for ANY", "a.b.c.backend.shop.svc.~ ANY", NxDomain),
    ("RFC 2308 s2.1", "no part of a cluster", "other.~ TXT", NxDomain),
    ("RFC 2308 s2.1", "below the version", "x.dns-version.~ TXT", NxDomain),
    ("RFC 2308 s2.1", "below the name server", "a.ns.dns.~ A", NxDomain),
    ("RFC 2308 s2.1", "beside the name server", "x.dns.~ A", NxDomain),
    ("RFC 2308 s2.1", "a step of the search list", "www.google.com.shop.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "the next step", "www.google.com.svc.~ A", NxDomain),
    ("RFC 2308 s2.1", "the last step in the zone", "www.google.com.~ AAAA", NxDomain),
    (
        "RFC 1035 s3.3.13",
        "the zone's SOA, of the last change",
        "~ SOA",
        Records(&["@ SOA ns.dns.~ hostmaster.~ 1700000000 7200 1800 86400 30"]),
    ),
    (
        "RFC 1035 s3.3.11",
        "the zone's name server, with glue",
        "~ NS",
        With(&["@ NS ns.dns.~"], &["ns.dns.~ A 10.96.0.10"]),
    ),
    ("RFC 1035 s3.3.11", "which is the Service in front", "ns.dns.~ A", Records(&["@ A 10.96.0.10"])),
    (
        "RFC 8482 s4.2",
        "ANY gets one small record",
        "backend.shop.svc.~ ANY",
        Records(&["@ HINFO \"RFC8482\" \"\""]),
    ),
    (
        "RFC 1034 s3.6.2",
        "names outside are the upstream's",
        "www.example.com. A",
        Foreign("NOERROR", &["@ A 192.0.2.80"]),
    ),
];

/// All clauses.
pub(crate) const CLAUSES: &[&[Clause]] =
    &[DEFINITIONS, CLUSTER_IP, HEADLESS, EXTERNAL_NAME, ADDITIONS, PODS, TREE];
