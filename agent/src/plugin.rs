//! Calling the CNI plugin: to delete what is kept for a container that is gone, and to put back what it made
//! for those that run. When that is to be done is decided elsewhere.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;

use crate::cni_config::plan::PLUGIN;
use crate::garbage_collection::plan::Attachment;

/// How long a call may take. It waits for other calls, which take milliseconds each.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the plugin says of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Report {
    /// What it put back.
    pub(crate) done: Vec<String>,
    /// What it could not.
    pub(crate) problems: Vec<String>,
}

/// What a runtime passes to the first plugin of a list (CNI SPEC section 3, "Deriving execution
/// configuration").
pub(crate) fn config(conflist: &[u8]) -> Option<Value> {
    let list: Value = serde_json::from_slice(conflist).ok()?;
    let mut plugin = list["plugins"].get(0)?.clone();
    for key in ["cniVersion", "name"] {
        plugin.as_object_mut()?.insert(key.to_owned(), list[key].clone());
    }
    Some(plugin)
}

/// Has an attachment deleted, as a runtime would: the address, the link and the ports of the host (CNI SPEC
/// section 4, DEL; without a namespace, for that is gone).
///
/// # Errors
/// What the system or the plugin said.
pub(crate) fn del(bin_dir: &Path, config: &Value, attachment: &Attachment) -> Result<(), String> {
    let variables = [
        ("CNI_COMMAND", OsStr::new("DEL")),
        ("CNI_CONTAINERID", attachment.container.as_ref()),
        ("CNI_IFNAME", attachment.ifname.as_ref()),
        ("CNI_PATH", bin_dir.as_os_str()),
    ];
    let mut command = Command::new(bin_dir.join(PLUGIN));
    let output = call(command.env_clear().envs(variables), config).map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
    }
}

/// Asks whether an ADD could succeed now (CNI SPEC 1.1.0, section 4, STATUS).
///
/// # Errors
/// Why not, in the plugin's own words. A plugin that cannot be called is not asked for its opinion: that is
/// told elsewhere.
pub(crate) fn status(bin_dir: &Path, config: &Value) -> Result<(), String> {
    let variables = [("CNI_COMMAND", OsStr::new("STATUS")), ("CNI_PATH", bin_dir.as_os_str())];
    let mut command = Command::new(bin_dir.join(PLUGIN));
    // Older versions have no such question; runtimes are given the version that all of them know.
    let mut config = config.clone();
    config["cniVersion"] = "1.1.0".into();
    match call(command.env_clear().envs(variables), &config) {
        Ok(output) if !output.status.success() => {
            let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let words = ["msg", "details"].map(|key| error[key].as_str().unwrap_or_default());
            Err(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": "))
        }
        _ => Ok(()),
    }
}

/// Has everything of the network put back that is missing.
///
/// # Errors
/// Where the plugin cannot be started, or is of a version that knows of no such thing.
pub(crate) fn repair(bin_dir: &Path, config: &Value) -> Result<Report, String> {
    let mut command = Command::new(bin_dir.join(PLUGIN));
    let output = call(command.arg("repair").env_clear(), config).map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        "it does not know the command repair: install the plugin of the agent's version".to_owned()
    })
}

fn call(command: &mut Command, config: &Value) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let config = config.to_string();
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(config.as_bytes()));
    let output = patiently(child)?;
    written.map(|()| output)
}

/// Nobody waits for ever for a plugin that hangs.
fn patiently(child: Child) -> io::Result<Output> {
    let id = child.id();
    let (done, output) = channel();
    thread::Builder::new().name("plugin".to_owned()).spawn(move || done.send(child.wait_with_output()))?;
    output.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        // It is waited for by the thread, so that the number is no other process's yet.
        let _ = i32::try_from(id).map(|id| kill(Pid::from_raw(id), Signal::SIGKILL));
        Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs())))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_plugin_gets_its_part_of_the_list() {
        let list =
            json!({"cniVersion": "1.1.0", "name": "weft", "plugins": [{"type": "weft-cni", "mtu": 1450}]});
        let expected = json!({"cniVersion": "1.1.0", "name": "weft", "type": "weft-cni", "mtu": 1450});
        assert_eq!(config(list.to_string().as_bytes()), Some(expected));
        assert_eq!(config(b"{\"plugins\": []}"), None);
        assert_eq!(config(b"half a fi"), None);
    }
}
