//! kube-proxy's flags (1.36) that are not our own, so that the command line of its DaemonSet serves ours too.
//! Pure; each means what a field of its configuration file means, which is told in `config_file.rs`.

use std::ffi::OsString;

use serde_json::Value;

use crate::kube_proxy::config_file::{self, ConfigFile};

/// The flags with the fields that they stand for. Those of [`SWITCHES`] need no value.
const FIELDS: [(&str, &str); 24] = [
    ("bind-address", "bindAddress"),
    ("bind-address-hard-fail", "bindAddressHardFail"),
    ("config-sync-period", "configSyncPeriod"),
    ("feature-gates", "featureGates.*"),
    ("iptables-localhost-nodeports", "iptables.localhostNodePorts"),
    ("iptables-masquerade-bit", "iptables.masqueradeBit"),
    ("iptables-min-sync-period", "iptables.minSyncPeriod"),
    ("iptables-sync-period", "iptables.syncPeriod"),
    ("ipvs-min-sync-period", "ipvs.minSyncPeriod"),
    ("kube-api-burst", "clientConnection.burst"),
    ("kube-api-content-type", "clientConnection.contentType"),
    ("kube-api-qps", "clientConnection.qps"),
    ("log-flush-frequency", "logging.flushFrequency"),
    ("log-json-info-buffer-size", "logging.options.json.infoBufferSize"),
    ("log-json-split-stream", "logging.options.json.splitStream"),
    ("log-text-info-buffer-size", "logging.options.text.infoBufferSize"),
    ("log-text-split-stream", "logging.options.text.splitStream"),
    ("logging-format", "logging.format"),
    ("oom-score-adj", "oomScoreAdj"),
    ("profiling", "enableProfiling"),
    ("proxy-mode", "mode"),
    ("show-hidden-metrics-for-version", "showHiddenMetricsForVersion"),
    ("v", "logging.verbosity"),
    ("vmodule", "logging.vmodule"),
];
const SWITCHES: [&str; 5] = [
    "bind-address-hard-fail",
    "iptables-localhost-nodeports",
    "log-json-split-stream",
    "log-text-split-stream",
    "profiling",
];
/// Flags that nothing of ours stands for, and what to do instead.
const REMEDIES: [(&str, &str); 4] = [
    ("healthz-port", "set --healthz-bind-address"),
    ("master", "name the API server in the file of --kubeconfig"),
    ("metrics-port", "set --metrics-bind-address"),
    ("write-config-to", "ask a running weft-proxy at :10249/configz"),
];

/// Puts our own flags in the place of those, and takes out what has no effect. Returns what is to be said
/// about that, too. Flags that kube-proxy does not know either stay.
///
/// # Errors
/// What cannot be done as it is asked, and what to do.
pub fn translate(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Vec<OsString>, Vec<String>), String> {
    let (mut ours, mut notes) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some((flag, value)) = argument.to_str().and_then(flag) else {
            ours.push(argument);
            continue;
        };
        if let Some((_, remedy)) = REMEDIES.iter().find(|(name, _)| *name == flag) {
            return Err(format!("--{flag} is not supported: {remedy}"));
        }
        let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == flag) else {
            // An empty value is none, as for kube-proxy.
            if value != Some("") {
                ours.push(argument);
            }
            continue;
        };
        let value = match value {
            Some(value) => value.to_owned(),
            None if SWITCHES.contains(&flag) => "true".to_owned(),
            None => arguments.next().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let mut means = ConfigFile::default();
        config_file::take((*field).to_owned(), &Value::from(value), &mut means)
            .map_err(|problem| problem.replacen(field, &format!("--{flag}"), 1))?;
        ours.extend(means.flags.into_iter().map(|(flag, value)| format!("--{flag}={value}").into()));
        notes.extend(
            means.ignored.iter().map(|(_, why)| format!("--{flag} has no effect on weft-proxy: {why}")),
        );
    }
    Ok((ours, notes))
}

/// The name of a flag, and its value where it stands in one word with it: `--v=2`, `-v2`, `-v`.
fn flag(word: &str) -> Option<(&str, Option<&str>)> {
    if let Some(long) = word.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        });
    }
    let value = word.strip_prefix("-v")?;
    Some(("v", Some(value.trim_start_matches('=')).filter(|value| !value.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let (ours, notes) = translate(line.split(' ').map(OsString::from))?;
        Ok((ours.into_iter().map(|word| word.into_string().unwrap()).collect(), notes))
    }

    #[test]
    fn the_command_lines_of_common_distributions_are_taken() {
        for (line, ours, notes) in [
            // kubeadm's DaemonSet
            ("--config=/var/lib/kube-proxy/config.conf --hostname-override=node1", "", 0),
            // k3s
            (
                "--cluster-cidr=10.42.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-close-wait=0s \
                 --conntrack-tcp-timeout-established=0s --healthz-bind-address=127.0.0.1 --hostname-override=node1 \
                 --kubeconfig=/k --proxy-mode=iptables",
                "",
                0,
            ),
            // GKE's static pod
            (
                "--kubeconfig=/k --cluster-cidr=10.0.0.0/14 --oom-score-adj=-998 --v=2 --feature-gates=A=true,B=false \
                 --iptables-sync-period=1m --iptables-min-sync-period=10s --ipvs-sync-period=1m \
                 --ipvs-min-sync-period=10s --detect-local-mode=NodeCIDR",
                "--oom-score-adj=-998 --v=2 --feature-gates=A=true,B=false --iptables-sync-period=1m \
                 --iptables-min-sync-period=10s --ipvs-min-sync-period=10s",
                6,
            ),
            // EKS' DaemonSet
            ("kube-proxy --v=2 --config=/c/config --hostname-override=node1", "--v=2", 1),
            // in two words, and switches
            ("--profiling -v 4 --kube-api-qps 5 --masquerade-all", "--profiling -v 4 --kube-api-qps 5", 3),
        ] {
            let gone: Vec<&str> = ours.split(' ').collect();
            let (left, said) = translated(line).unwrap();
            let expected: Vec<&str> = line.split(' ').filter(|word| !gone.contains(word)).collect();
            assert_eq!(
                (left, said.len()),
                (expected.iter().map(ToString::to_string).collect(), notes),
                "{line}"
            );
        }
    }

    #[test]
    fn each_flag_without_effect_is_named_with_the_reason() {
        let (ours, notes) = translated("--iptables-masquerade-bit=14 -v2 --ipvs-min-sync-period=1s").unwrap();
        assert_eq!(ours, [""; 0]);
        assert_eq!(notes.len(), 3);
        for (note, words) in notes.iter().zip([
            ["--iptables-masquerade-bit", "bit 14"],
            ["--v ", "RUST_LOG"],
            ["--ipvs-min-sync-period", "when it comes"],
        ]) {
            assert!(words.iter().all(|word| note.contains(word)), "{note}");
        }
    }

    #[test]
    fn flags_that_have_a_meaning_here_become_ours() {
        let (ours, notes) =
            translated("--logging-format json --proxy-mode iptables --bind-address=0.0.0.0 --cluster-cidr=")
                .unwrap();
        let expected = ["--log-format=json", "--proxy-mode=iptables"].map(str::to_owned).to_vec();
        assert_eq!((ours, notes), (expected, Vec::new()));
    }

    #[test]
    fn what_cannot_be_done_as_it_is_asked_is_an_error_with_a_remedy() {
        for (line, words) in [
            ("--proxy-mode userspace", ["--proxy-mode is \"userspace\"", "set nftables"]),
            ("--bind-address=192.0.2.1", ["--bind-address is \"192.0.2.1\"", "NodePorts"]),
            ("--master=https://192.0.2.1", ["--master", "--kubeconfig"]),
            ("--write-config-to=/f", ["--write-config-to", "/configz"]),
        ] {
            let error = translated(line).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn flags_that_kube_proxy_does_not_know_either_stay() {
        let line = "--enable-everything --iptables-sink-period=1s -x --vx=2";
        assert_eq!(translated(line).unwrap().0.join(" "), line);
    }
}
