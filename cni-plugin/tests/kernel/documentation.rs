//! The examples of docs/cni.md, given to the plugin: each option is one that it knows under that name, and
//! each example one that it takes.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::node::Node;

fn documentation() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cni.md")).unwrap()
}

/// The text between that heading and the next.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) =
        text.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap()
}

/// The names and examples of a section's table. A row may name several options, and show one or more of them
/// together.
fn examples(text: &str, heading: &str) -> Vec<(Vec<String>, Map<String, Value>)> {
    let rows = section(text, heading).lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ']));
        let (names, example) = (cells.next().unwrap(), cells.next().unwrap());
        let names: Vec<String> = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let example = example.trim_matches('`');
        let members = if example.starts_with('"') && example.contains("\": ") {
            example.to_owned()
        } else {
            format!("\"{}\": {example}", names[0])
        };
        let members = serde_json::from_str(&format!("{{{members}}}"));
        (names, members.unwrap_or_else(|error| panic!("{example}: {error}")))
    })
    .collect()
}

/// The blocks of JSON outside of tables.
fn blocks(text: &str) -> Vec<Value> {
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{block}: {error}")))
        .collect()
}

/// A pod is connected, looked at and disconnected.
fn serves(node: &Node, config: &Value) -> Result<(), Value> {
    let pod = node.pod("c1");
    let outcome = node.call("ADD", &pod, config).and_then(|result| {
        let mut config = config.clone();
        config["prevResult"] = result;
        node.call("CHECK", &pod, &config).map(drop)
    });
    node.del(&pod, config);
    outcome
}

/// What an option needs beside it, and whether this kernel may lack it.
fn fitted(mut config: Value, option: &str) -> (Value, bool) {
    match option {
        // Without addresses, since its interface stays down.
        "disableContainerInterface" => drop(config.as_object_mut().unwrap().remove("ipam")),
        "preserveDefaultVlan" => config["vlan"] = 100.into(),
        _ => {}
    }
    (config, matches!(option, "vlan" | "vlanTrunk" | "preserveDefaultVlan"))
}

#[test]
fn every_example_of_a_bridge_option_is_taken_and_every_name_known() {
    let (text, node) = (documentation(), Node::new());
    let rows = examples(&text, "Options of the bridge");
    assert!(rows.len() > 15, "{rows:?}");
    for (names, members) in rows {
        let option = names[0].as_str();
        let mut config = node.config(&["10.244.1.0/24"]);
        config["portIsolation"] = false.into();
        config.as_object_mut().unwrap().extend(members.clone());
        let (config, may_lack) = fitted(config, option);
        match serves(&node, &config) {
            Err(error) if may_lack && error["code"] == 2 => {}
            outcome => assert_eq!(outcome, Ok(()), "{members:?}"),
        }
        is_known(&node, &config, option, |config| config);
    }
}

#[test]
fn every_example_of_an_ipam_option_is_taken_and_every_name_known() {
    let (text, node) = (documentation(), Node::new());
    let rows = examples(&text, "Options of IPAM");
    assert!(rows.len() > 5, "{rows:?}");
    for (names, members) in rows {
        let mut config = node.config(&["10.244.1.0/24"]);
        config["portIsolation"] = false.into();
        let data_dir = config["ipam"]["dataDir"].clone();
        // Those of a range stand in it; the old form stands alone.
        if names[0] == "rangeStart" {
            config["ipam"]["ranges"][0][0].as_object_mut().unwrap().extend(members.clone());
        } else {
            if names[0] == "subnet" {
                config["ipam"].as_object_mut().unwrap().remove("ranges");
            }
            config["ipam"].as_object_mut().unwrap().extend(members.clone());
        }
        config["ipam"]["dataDir"] = data_dir;
        assert_eq!(serves(&node, &config), Ok(()), "{members:?}");
        for name in names {
            is_known(&node, &config, &name, |config| &mut config["ipam"]);
        }
    }
}

/// A value of a type that no option has is an error that names the option.
fn is_known(node: &Node, config: &Value, option: &str, place: fn(&mut Value) -> &mut Value) {
    let mut config = config.clone();
    place(&mut config)[option] = json!([[[{"none": 1}]]]);
    let error = node.call("ADD", &node.pod("c2"), &config).unwrap_err();
    assert_eq!(error["code"], 6, "{option}: {error}");
    assert!(error["msg"].as_str().unwrap().contains(option), "{option}: {error}");
}

#[test]
fn every_configuration_in_the_documentation_is_taken() {
    let (text, node) = (documentation(), Node::new());
    for block in blocks(&text) {
        let mut config = node.config(&["10.244.1.0/24"]);
        let data_dir = config["ipam"]["dataDir"].clone();
        match block["plugins"].as_array() {
            Some(plugins) => {
                for plugin in plugins {
                    let mut config = plugin.clone();
                    config["cniVersion"] = block["cniVersion"].clone();
                    config["name"] = block["name"].clone();
                    config["ipam"]["dataDir"] = data_dir.clone();
                    assert_eq!(serves(&node, &config), Ok(()), "{config}");
                }
            }
            None => {
                config.as_object_mut().unwrap().extend(block.as_object().unwrap().clone());
                assert_eq!(serves(&node, &config), Ok(()), "{config}");
            }
        }
    }
}

#[test]
fn what_the_runtime_may_ask_for_is_given_as_the_documentation_shows_it() {
    let (text, node) = (documentation(), Node::new());
    let rows: Vec<&str> = section(&text, "What the runtime may ask for")
        .lines()
        .filter_map(|line| line.strip_prefix("| `\"")?.split('`').next())
        .collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    for row in rows {
        let asked: Value =
            serde_json::from_str(&format!("{{\"{row}}}")).unwrap_or_else(|e| panic!("{row}: {e}"));
        let mut config = node.config(&["10.244.1.0/24"]);
        config["runtimeConfig"] = asked;
        assert_eq!(serves(&node, &config), Ok(()), "{row}");
    }
}
