//! Network configuration lists (CNI SPEC section 1) as a runtime loads them. Pure: which file, is decided
//! here; reading it is not.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A network configuration list, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkList {
    /// The network's name.
    pub name: String,
    /// The version in which plugins are spoken to.
    pub cni_version: String,
    /// The plugins' own configurations, in the order of ADD. Never empty.
    pub plugins: Vec<Map<String, Value>>,
}

/// The versions of CNI, in their order.
const KNOWN_VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The file that containerd loads of a folder: the first by name that ends as a configuration does.
pub fn first_file(names: impl IntoIterator<Item = String>) -> Option<String> {
    let is_configuration =
        |name: &String| [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending));
    names.into_iter().filter(is_configuration).min()
}

/// Reads a list, or a single plugin's configuration, which counts as a list of one.
pub fn parse(text: &str) -> Result<NetworkList, String> {
    let Value::Object(config) = serde_json::from_str(text).map_err(|error| error.to_string())? else {
        return Err("is no JSON object".to_owned());
    };
    let name = string(&config, "name").ok_or("has no network name")?;
    let cni_version = version(&config);
    let plugins = match config.get("plugins") {
        None => vec![config],
        Some(Value::Array(plugins)) => plugins.iter().map(plugin).collect::<Result<_, _>>()?,
        Some(_) => return Err("\"plugins\" is no array".to_owned()),
    };
    if plugins.is_empty() {
        return Err("has no plugin".to_owned());
    }
    match plugins.iter().all(|plugin| plugin_type(plugin).is_some()) {
        true => Ok(NetworkList { name, cni_version, plugins }),
        false => Err("has a plugin without a type".to_owned()),
    }
}

/// The program that a plugin's configuration names.
pub fn plugin_type(plugin: &Map<String, Value>) -> Option<&str> {
    // A plugin is looked up in a folder: a name with a slash would lead out of it.
    plugin.get("type")?.as_str().filter(|name| !name.is_empty() && !name.contains('/'))
}

/// The highest of the versions offered by `cniVersion` and `cniVersions` that this runtime knows (SPEC
/// section 1). No version at all means 0.1.0.
fn version(config: &Map<String, Value>) -> String {
    let listed = config.get("cniVersions").and_then(Value::as_array).into_iter().flatten();
    let offered = listed.chain(config.get("cniVersion")).filter_map(Value::as_str);
    let known = offered.filter_map(|offered| KNOWN_VERSIONS.iter().position(|known| *known == offered));
    match known.max() {
        Some(position) => KNOWN_VERSIONS[position].to_owned(),
        // Plugins refuse a version that nobody knows, with better words than a runtime has.
        None => string(config, "cniVersion").unwrap_or_else(|| KNOWN_VERSIONS[0].to_owned()),
    }
}

fn plugin(value: &Value) -> Result<Map<String, Value>, String> {
    value.as_object().cloned().ok_or_else(|| "has a plugin that is no JSON object".to_owned())
}

fn string(config: &Map<String, Value>, key: &str) -> Option<String> {
    config.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_by_name_counts() {
        let names = ["99-z.conf", "00-a.tmp", "10-weft.conflist", "20-b.json"].map(str::to_owned);
        assert_eq!(first_file(names).as_deref(), Some("10-weft.conflist"));
        assert_eq!(first_file(["readme".to_owned()]), None);
    }

    #[test]
    fn a_single_configuration_is_a_list_of_one() {
        let list = parse(r#"{"cniVersion":"1.0.0","name":"n","type":"bridge"}"#).unwrap();
        assert_eq!((list.name.as_str(), list.plugins.len()), ("n", 1));
        assert_eq!(plugin_type(&list.plugins[0]), Some("bridge"));
    }

    #[test]
    fn the_highest_known_version_is_spoken() {
        for (versions, expected) in [
            (r#""cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0","9.0.0"]"#, "1.1.0"),
            (r#""cniVersion":"0.4.0""#, "0.4.0"),
            (r#""cniVersion":"9.0.0""#, "9.0.0"),
            (r#""x":1"#, "0.1.0"),
        ] {
            let list = parse(&format!(r#"{{{versions},"name":"n","type":"bridge"}}"#)).unwrap();
            assert_eq!(list.cni_version, expected, "{versions}");
        }
    }

    #[test]
    fn a_malformed_list_is_refused_with_a_reason() {
        for (text, reason) in [
            ("{", "EOF"),
            ("[]", "no JSON object"),
            (r#"{"plugins":[{"type":"a"}]}"#, "no network name"),
            (r#"{"name":"n","plugins":[]}"#, "no plugin"),
            (r#"{"name":"n","plugins":[{}]}"#, "without a type"),
            (r#"{"name":"n","plugins":[{"type":"../sh"}]}"#, "without a type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
