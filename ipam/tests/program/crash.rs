//! The program is killed as it enters its first, second, third ... system call of every kind that it makes.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use crate::network::{Network, OURS, address, strace, traced};

/// All names but those of a network without reservations.
fn names(network: &Network) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(network.folder()) else { return BTreeSet::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock" && name != "freed" && !name.starts_with("last_reserved_ip.")).collect()
}

/// No record is empty or half: a reader that knows nothing of marks would take it for what it is not.
fn assert_whole(network: &Network, killed: &str) {
    for name in names(network).into_iter().filter(|name| !name.starts_with('.')) {
        let content = fs::read_to_string(network.folder().join(&name)).unwrap();
        assert!(["c1\r\neth0", "c2\r\neth0"].contains(&&*content), "{killed}: {name} holds {content:?}");
    }
}

fn dual_stack() -> Network {
    let mut network = Network::new(json!([[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00:1::/64"}]]));
    network.config["cniVersion"] = "1.1.0".into();
    network
}

/// Kills the command at each of its system calls. `before` comes before each time, `after` behind it with
/// what was killed where.
fn kill_everywhere(network: &Network, command: &str, before: impl Fn(), after: impl Fn(&str, usize)) {
    before();
    let kinds = traced(network, command);
    after("none", 0);
    let total: usize = kinds.values().sum();
    assert!(total > 50 && kinds["openat"] > 5 && kinds["unlink"] > 0, "not all calls are counted: {kinds:?}");
    for (kind, times) in kinds.into_iter().filter(|(kind, _)| kind != "execve") {
        for place in 1..=times {
            before();
            let inject = format!("inject={kind}:signal=SIGKILL:when={place}");
            // The last ones may be made by nobody: how much memory is asked for, say, differs.
            strace(network, command, &["-o", "/dev/null", "-e", &inject]);
            after(&inject, place);
        }
    }
}

#[test]
fn an_add_killed_at_any_system_call_leaves_no_half_record_and_nothing_that_del_or_gc_would_not_find() {
    let network = dual_stack();
    // A mark of a crash, so that there is something to delete.
    fs::create_dir_all(network.folder()).unwrap();
    let leave = || fs::write(network.folder().join(".10.1.0.6@ab12-00000000000000ff"), "").unwrap();
    kill_everywhere(&network, "ADD", leave, |inject, place| {
        assert_whole(&network, inject);
        // A runtime undoes an ADD that failed; one that was killed itself has only garbage collection.
        let (command, container) = if place % 2 == 0 { ("DEL", "c1") } else { ("GC", "") };
        network.call(OURS, command, container).unwrap();
        assert_eq!(names(&network), BTreeSet::new(), "{inject}, then {command}");
    });
    let result = network.call(OURS, "ADD", "c1").unwrap();
    assert!(address(&result).starts_with("10.1.0."));
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_another_and_keeps_what_is_others() {
    let network = dual_stack();
    network.call(OURS, "ADD", "c2").unwrap();
    let others = names(&network);
    assert_eq!(others.len(), 4, "two records and their marks");
    let add = || drop(network.call(OURS, "ADD", "c1").unwrap());
    kill_everywhere(&network, "DEL", add, |inject, _| {
        assert_whole(&network, inject);
        network.call(OURS, "DEL", "c1").unwrap();
        assert_eq!(names(&network), others, "{inject}");
    });
}
