//! The rules of the workspace's layout that a compiler does not hold: who may depend on whom, where `unsafe`
//! may stand, how files open and how long they may grow. Reads the sources and `cargo metadata`; builds and
//! runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "house/modules.rs"]
mod modules;

/// Which crates of ours each crate may depend on (ARCHITECTURE.md).
const MAY_USE: &[(&str, &[&str])] = &[
    ("weft-types", &[]),
    ("weft-netlink", &[]),
    ("weft-nftables", &["weft-types", "weft-netlink"]),
    ("weft-cni-spec", &["weft-types"]),
    ("weft-ipam", &["weft-types", "weft-cni-spec"]),
    ("weft-cluster", &["weft-types"]),
    ("weft-daemon", &[]),
    ("weft-policy", &["weft-types", "weft-netlink", "weft-nftables"]),
    ("weft-trace", &["weft-types", "weft-nftables"]),
    ("weft-announce", &["weft-types", "weft-netlink"]),
    ("weft-dhcp", &["weft-types", "weft-cni-spec", "weft-netlink"]),
    (
        "weft-cni",
        &["weft-types", "weft-cni-spec", "weft-ipam", "weft-netlink", "weft-nftables", "weft-policy"],
    ),
    ("weft-proxy", &["weft-types", "weft-cluster", "weft-daemon", "weft-netlink", "weft-nftables"]),
    ("weft-corefile", &[]),
    (
        "weft-dns",
        &["weft-types", "weft-cluster", "weft-corefile", "weft-daemon", "weft-netlink", "weft-nftables"],
    ),
    (
        "weft-agent",
        &[
            "weft-types",
            "weft-cluster",
            "weft-daemon",
            "weft-netlink",
            "weft-nftables",
            "weft-policy",
            "weft-trace",
            "weft-announce",
            "weft-dhcp",
            "weft-cni-spec",
            "weft-ipam",
        ],
    ),
    (
        "weft",
        &[
            "weft-types",
            "weft-corefile",
            "weft-netlink",
            "weft-nftables",
            "weft-policy",
            "weft-trace",
            "weft-announce",
        ],
    ),
    (
        "weft-image",
        &["weft", "weft-agent", "weft-cluster", "weft-daemon", "weft-dns", "weft-proxy", "weft-types"],
    ),
    // It drives the programs of the others, and links none of them.
    ("weft-lab", &["weft-types"]),
    ("weft-e2e", &["weft-types"]),
    ("weft-bench", &["weft-testkit", "weft-types"]),
    ("weft-testkit", &["weft-netlink", "weft-proxy", "weft-types"]),
];

/// What every crate may use for its tests and examples, and none for anything else.
const FOR_TESTS: [&str; 3] = ["weft-bench", "weft-lab", "weft-testkit"];

/// Where the image's one program includes the daemons' own.
const INCLUDES_OTHERS: &str = "deploy/src/main.rs";

/// Names that must not stand anywhere below these crates: a plugin starts once per pod and stays small.
const NEVER_BELOW: [(&str, &[&str]); 10] = [
    ("weft-types", &["kube", "tokio", "nix", "netlink", "serde_json"]),
    (
        "weft-cni-spec",
        &["kube", "hickory", "tokio", "k8s-openapi", "nix", "netlink", "weft-netlink", "weft-nftables"],
    ),
    ("weft-cni", &["kube", "hickory", "tokio", "k8s-openapi"]),
    ("weft-ipam", &["kube", "hickory", "tokio", "k8s-openapi"]),
    ("weft-policy", &["kube", "hickory", "tokio", "k8s-openapi"]),
    ("weft-trace", &["kube", "hickory", "tokio", "k8s-openapi"]),
    ("weft-announce", &["kube", "hickory", "k8s-openapi"]),
    ("weft-dhcp", &["kube", "hickory", "k8s-openapi"]),
    ("weft-proxy", &["hickory"]),
    ("weft-agent", &["hickory"]),
];

/// Pure code besides the folders that are called `plan`: what takes values and returns values.
const PURE: [&str; 11] = [
    "agent/src/flows/dns",
    "agent/src/flows/interest",
    "agent/src/flows/memory",
    "announce/src/allocation",
    "dhcp/src/client",
    "dhcp/src/lease",
    "installer/src/doctor/checks",
    "installer/src/flows/names",
    "installer/src/flows/view",
    "dhcp/src/message",
    "proxy/src/services/",
];

/// The one file outside of `netlink/` with `unsafe`: datagrams by the batch, which no safe wrapper offers.
const BATCHED_SOCKET: &str = "dns/src/server/batch.rs";

/// The only code of the daemons that writes to the API server: so their roles are known from one place.
const WRITES: &str = "cluster/src/write/";

/// The longest a source file may be. A file that grows past it asks to be split.
const MOST_LINES: usize = 500;

fn workspace() -> PathBuf {
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    e2e.parent().expect("e2e stands in the workspace").canonicalize().expect("the workspace is there")
}

fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Path from the workspace's root, and text, of every source file.
fn all_sources() -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    sources(&workspace(), &mut paths);
    let named = paths.into_iter().map(|path| {
        let name = path.strip_prefix(workspace()).expect("below the root").display().to_string();
        (name, fs::read_to_string(path).expect("a source is UTF-8"))
    });
    named.collect()
}

#[test]
fn crates_depend_only_on_those_they_may() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"])).unwrap();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let ours: BTreeSet<&str> = allowed.keys().copied().collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), ours.len(), "a new crate must be given its fence here");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            // A crate depends on itself to have its features in its tests.
            let for_tests = dependency["kind"] == "dev" && (FOR_TESTS.contains(&other) || other == name);
            let fine = !ours.contains(other) || allowed[name].contains(other) || for_tests;
            assert!(fine, "{name} must not depend on {other}, or only for its tests");
        }
    }
}

#[test]
fn no_crate_includes_the_files_of_another() {
    for (path, text) in all_sources() {
        let crate_folder = path.split('/').next().expect("a path has a first part");
        let folder = workspace().join(&path).parent().expect("a file is in a folder").to_owned();
        for included in text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")) {
            let included = folder.join(included.trim_end_matches("\"]")).canonicalize();
            let inside = included.is_ok_and(|it| it.starts_with(workspace().join(crate_folder)));
            assert!(inside || path == INCLUDES_OTHERS, "{path}: what tests share belongs into testkit/");
        }
    }
}

#[test]
fn plugins_and_daemons_stay_free_of_what_they_do_not_need() {
    for (name, forbidden) in NEVER_BELOW {
        let tree = cargo(&["tree", "-p", name, "-e", "normal", "--prefix", "none", "--locked"]);
        for line in tree.lines() {
            let found = forbidden.iter().find(|other| line.starts_with(*other));
            assert_eq!(found, None, "{name} must not pull in {line}");
        }
    }
}

#[test]
fn planners_take_values_and_return_values() {
    for (path, text) in all_sources() {
        let is_pure = PURE.iter().any(|folder| path.starts_with(folder));
        if path.ends_with("/plan.rs") || path.contains("/plan/") || is_pure {
            let io = ["netlink", "nftables::", "weft_cluster", "kube::", "tokio", "std::fs", "std::net::Tcp"];
            let carriers = ["crate::dataplane", "crate::sync", "crate::kernel", "crate::nft"];
            let found = io.into_iter().chain(carriers).find(|name| text.contains(name));
            assert_eq!(found, None, "{path} plans: what it names does I/O, which belongs beside it");
        }
    }
}

#[test]
fn unsafe_code_is_in_netlink_alone() {
    for (path, text) in all_sources() {
        if path.starts_with("netlink/") || path == BATCHED_SOCKET || path.ends_with("tests/house.rs") {
            continue;
        }
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let found = code.filter(|line| line.split_whitespace().any(|word| word == "unsafe")).count();
        assert_eq!(found, 0, "{path} has unsafe code; it belongs into netlink/");
    }
}

#[test]
fn daemons_write_to_the_api_server_in_one_place() {
    let of_daemons = ["agent/src/", "cluster/src/", "daemon/src/", "dns/src/", "proxy/src/"];
    for (path, text) in all_sources() {
        if of_daemons.iter().any(|folder| path.starts_with(folder)) && !path.starts_with(WRITES) {
            let found = [
                "PostParams",
                "PatchParams",
                "DeleteParams",
                "Request::patch",
                "Request::post",
                "Request::put",
            ]
            .into_iter()
            .find(|it| text.contains(it));
            assert_eq!(found, None, "{path} writes to the API server; that belongs into {WRITES}");
        }
    }
}

#[test]
fn what_the_agent_can_be_told_about_network_policies_weft_install_tells_it_and_the_documentation_knows() {
    let sources = all_sources();
    let flags = |file: &str| -> BTreeSet<String> {
        let fields =
            sources[file].lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
        let names = fields.map(|(name, _)| name.replace('_', "-"));
        names.filter(|name| name.starts_with("policy-") || name == "network-policy").collect()
    };
    let of_agent = flags("agent/src/options.rs");
    assert!(of_agent.len() > 5, "{of_agent:?}");
    assert_eq!(of_agent, flags("installer/src/policy_values.rs"));
    for page in ["docs/network-policy.md", "docs/node.md", "docs/operations.md"] {
        let text = fs::read_to_string(workspace().join(page)).expect("a page is UTF-8");
        let is_missing = |flag: &&String| !text.contains(&format!("`--{flag}"));
        assert_eq!(of_agent.iter().find(is_missing), None, "{page}");
    }
}

#[test]
fn every_file_says_what_lives_in_it() {
    for (path, text) in all_sources() {
        let opening = text.lines().find(|line| !line.starts_with("#!"));
        assert!(opening.is_some_and(|line| line.starts_with("//! ")), "{path} must open with a //! line");
    }
}

#[test]
fn files_stay_short_enough_to_read_in_one_sitting() {
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{path} has {lines} lines, more than {MOST_LINES}: split it");
    }
}

#[test]
fn no_file_is_for_odds_and_ends() {
    for path in all_sources().keys() {
        let name = Path::new(path).file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(
            !["mod", "utils", "util", "common", "helpers", "misc"].contains(&name),
            "{path}: name it for what it holds"
        );
    }
}

#[test]
fn no_file_needs_one_that_needs_it() {
    let sources = all_sources();
    let folders: BTreeSet<&str> =
        sources.keys().filter_map(|path| Some(path.split_once("/src/")?.0)).collect();
    for folder in folders {
        let below = format!("{folder}/src/");
        let files = sources.iter().filter_map(|(path, text)| Some((path.strip_prefix(&below)?, &**text)));
        let circle = modules::circle(files);
        assert!(circle.is_empty(), "in {folder}/src, these files need each other: {circle:?}");
    }
}
