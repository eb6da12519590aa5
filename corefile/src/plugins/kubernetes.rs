//! `kubernetes`.

use std::collections::BTreeSet;

use super::Reading;
use crate::blocks::{Directive, Setting};
use crate::domain::Domain;
use crate::lines::Word;
use crate::model::{Access, Fall, Kubernetes, Pods, Server};

pub(super) fn read(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    if server.kubernetes.is_some() {
        return reading.refuse(&plugin.name, "kubernetes stands in this server block already");
    }
    let zones: BTreeSet<Domain> = reading.zones(&plugin.words).into_iter().collect();
    let (reverse, own): (Vec<Domain>, Vec<Domain>) = zones.into_iter().partition(Domain::is_reverse);
    let zone = match &own[..] {
        [zone] if *zone != Domain::root() => zone.clone(),
        [] => {
            return reading.refuse(
                &plugin.name,
                "kubernetes: the cluster's own zone is missing, such as cluster.local",
            );
        }
        [_] => {
            return reading.refuse(
                &plugin.name,
                "kubernetes: the root cannot be the cluster's zone; name it, such as cluster.local",
            );
        }
        [_, other, ..] => {
            return reading.refuse(
                &plugin.name,
                format!("kubernetes: a second zone for the cluster ({other}) is not supported"),
            );
        }
    };
    let mut kubernetes = Kubernetes {
        place: plugin.name.place.clone(),
        zone,
        reverse,
        access: Access::InCluster,
        namespaces: BTreeSet::new(),
        namespace_labels: None,
        labels: None,
        pods: Pods::Disabled,
        endpoint_pod_names: false,
        ttl: 5,
        noendpoints: false,
        fall: Fall::default(),
        ignore_empty_service: false,
    };
    let mut tls = None;
    for option in &plugin.body {
        setting(plugin, option, &mut kubernetes, &mut tls, reading);
    }
    match (&mut kubernetes.access, tls) {
        (Access::Endpoint { tls, .. }, given) => *tls = given.map(|(_, files)| files),
        (_, Some((word, _))) => reading.note(&word, "tls has no effect without endpoint"),
        _ => {}
    }
    if !kubernetes.namespaces.is_empty() && kubernetes.namespace_labels.is_some() {
        reading.refuse(&plugin.name, "kubernetes: namespaces and namespace_labels cannot both be set");
    }
    server.kubernetes = Some(kubernetes);
}

fn setting(
    plugin: &Directive,
    option: &Setting,
    kubernetes: &mut Kubernetes,
    tls: &mut Option<(Word, [String; 3])>,
    reading: &mut Reading,
) {
    let (name, words) = (&option.name, &option.words[..]);
    let text = |word: &Word| word.text.clone();
    match name.text.as_str() {
        "endpoint_pod_names" => {
            reading.none(name, words);
            kubernetes.endpoint_pod_names = true;
        }
        "noendpoints" => {
            reading.none(name, words);
            kubernetes.noendpoints = true;
        }
        "pods" => match words {
            [mode] if mode.text == "disabled" => kubernetes.pods = Pods::Disabled,
            [mode] if mode.text == "insecure" => kubernetes.pods = Pods::Insecure,
            [mode] if mode.text == "verified" => kubernetes.pods = Pods::Verified,
            _ => reading.refuse(name, "pods takes disabled, insecure or verified"),
        },
        "namespaces" if !words.is_empty() => kubernetes.namespaces.extend(words.iter().map(text)),
        "labels" if !words.is_empty() => kubernetes.labels = selector(words, reading),
        "namespace_labels" if !words.is_empty() => kubernetes.namespace_labels = selector(words, reading),
        "ttl" => {
            if let Some(ttl) =
                reading.one(name, words, "seconds").and_then(|word| reading.number(word, 0..=3600))
            {
                kubernetes.ttl = ttl;
            }
        }
        "fallthrough" => kubernetes.fall = reading.fall(words),
        "ignore" => match words {
            [what] if what.text == "empty_service" => kubernetes.ignore_empty_service = true,
            _ => reading.refuse(name, "ignore takes empty_service"),
        },
        "endpoint" | "tls" | "kubeconfig" if !words.is_empty() => {
            access(name, words, kubernetes, tls, reading)
        }
        "startup_timeout" => {
            if reading.one(name, words, "a duration").and_then(|word| reading.duration(word)).is_some() {
                reading.note(name, "startup_timeout has no effect: names are SERVFAIL, and /ready says no, until the cluster is listed");
            }
        }
        "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" => {
            reading.note(
                name,
                format!("{} has no effect: there is one watch for each kind of object", name.text),
            );
        }
        "multicluster" | "zonal" => {
            reading.refuse(name, format!("kubernetes: the option {} is not supported", name.text))
        }
        _ => reading.unknown(plugin, option),
    }
}

/// How the API server is reached.
fn access(
    name: &Word,
    words: &[Word],
    kubernetes: &mut Kubernetes,
    tls: &mut Option<(Word, [String; 3])>,
    reading: &mut Reading,
) {
    let text = |word: &Word| word.text.clone();
    match name.text.as_str() {
        "endpoint" => {
            if !matches!(kubernetes.access, Access::Kubeconfig { .. }) {
                kubernetes.access = Access::Endpoint { url: text(&words[0]), tls: None };
            }
            if let Some(second) = words.get(1) {
                reading.note(second, "of several endpoints only the first is used");
            }
        }
        "tls" => match words {
            [certificate, key, authority] => {
                *tls = Some((name.clone(), [text(certificate), text(key), text(authority)]))
            }
            _ => reading.refuse(name, "tls takes three files: certificate, key and authority"),
        },
        "kubeconfig" => match words {
            [file] => kubernetes.access = Access::Kubeconfig { file: text(file), context: None },
            [file, context] => {
                kubernetes.access = Access::Kubeconfig { file: text(file), context: Some(text(context)) }
            }
            _ => reading
                .refuse(name, "kubeconfig takes a file, and a context where not the current one is meant"),
        },
        _ => {}
    }
}

/// A label selector as the API server takes it. One that it would refuse is refused here.
fn selector(words: &[Word], reading: &mut Reading) -> Option<String> {
    let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    match is_selector(&text) {
        true => Some(text),
        false => {
            reading.refuse(
                &words[0],
                format!("{text:?} is no label selector, such as `environment in (staging, qa),app=web`"),
            );
            None
        }
    }
}

/// `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, with commas
/// between (k8s.io/apimachinery, labels.Parse).
fn is_selector(text: &str) -> bool {
    let mut depth = 0_u32;
    let parts = text.split(|character| {
        depth = match character {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        character == ',' && depth == 0
    });
    let is_part = |part: &str| {
        let part = part.trim();
        let is_key = |key: &str| {
            let name = key.trim().rsplit('/').next().unwrap_or_default();
            !name.is_empty()
                && key.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        };
        let is_value = |value: &str| {
            value.trim().len() <= 63
                && value.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if let Some(list) = part.strip_suffix(')') {
            let Some((head, values)) = list.split_once('(') else { return false };
            let mut head = head.split_whitespace();
            let (key, operator, rest) = (head.next(), head.next(), head.next());
            return rest.is_none()
                && key.is_some_and(is_key)
                && matches!(operator, Some("in" | "notin"))
                && values.split(',').all(is_value);
        }
        let pair = ["!=", "==", "="].iter().find_map(|operator| part.split_once(operator));
        match pair {
            Some((key, value)) => is_key(key) && is_value(value),
            None => is_key(part.strip_prefix('!').unwrap_or(part)),
        }
    };
    parts.into_iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_of_the_api() {
        for text in [
            "environment in (staging, qa),application=nginx",
            "a",
            "!a",
            "a!=b",
            "a==b",
            "example.com/a notin (x)",
            "a=,b",
        ] {
            assert!(is_selector(text), "{text}");
        }
        for text in ["", "a in b", "a in (b", "a b", "a=b c", "=b", "a in (b) c", "a=b,,c", "a/=b"] {
            assert!(!is_selector(text), "{text}");
        }
    }
}
