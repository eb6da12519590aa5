//! The subresource `log` of pods: what a container has printed so far, as `kubectl logs` asks for it.
//! Following is not offered.

use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Door;
use super::parameters::Parameters;
use super::path::Place;
use crate::apiserver::error::{ApiError, Result};

/// Answers one request with the text of a log.
pub(super) fn serve(door: &Door, parts: &Parts, place: &Place) -> Result<Response> {
    let dir = door.pods.as_ref().ok_or(ApiError::NoSuchPath)?;
    let parameters = Parameters::of(&parts.uri)?;
    if parts.method != Method::GET || place.target.resource.plural != "pods" {
        return Err(ApiError::MethodNotAllowed);
    }
    if parameters.flag("follow") {
        return Err(ApiError::BadRequest("the lab does not follow logs: leave -f out".to_owned()));
    }
    let pod = door.cluster.read(|registry| registry.get(&place.target).cloned())?;
    let container = container(&pod, parameters.text("container"))?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    // A container that has not started has no file yet.
    let text = std::fs::read(dir.pod(uid).log(container)).unwrap_or_default();
    let lines = parameters.number("tailLines")?.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    Ok(tail(&String::from_utf8_lossy(&text), lines).to_owned().into_response())
}

/// The container that is meant: the one that is named, or the only one.
fn container<'a>(pod: &'a Value, wanted: &str) -> Result<&'a str> {
    let all = pod["spec"]["containers"].as_array().into_iter().flatten();
    let names: Vec<&str> = all.filter_map(|container| container["name"].as_str()).collect();
    match names.as_slice() {
        [only] if wanted.is_empty() => Ok(*only),
        _ => names.iter().find(|name| **name == wanted).copied().ok_or_else(|| {
            ApiError::BadRequest(format!(
                "{wanted:?} is no container of the pod; it has {}",
                names.join(", ")
            ))
        }),
    }
}

/// The last lines of a text; all where no number is given.
fn tail(text: &str, lines: Option<usize>) -> &str {
    let Some(lines) = lines else { return text };
    let starts = text.split_inclusive('\n').rev().take(lines).map(str::len).sum::<usize>();
    &text[text.len() - starts..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_the_one_named_or_the_only_one() {
        let pod = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"spec": {"containers": containers}})
        };
        assert_eq!(container(&pod(&["a"]), "").unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"]), "b").unwrap(), "b");
        assert!(container(&pod(&["a", "b"]), "").unwrap_err().to_string().contains("a, b"));
        assert!(container(&pod(&["a"]), "c").is_err());
    }

    #[test]
    fn the_last_lines_are_whole() {
        for (lines, expected) in
            [(None, "one\ntwo\nthree"), (Some(2), "two\nthree"), (Some(0), ""), (Some(9), "one\ntwo\nthree")]
        {
            assert_eq!(tail("one\ntwo\nthree", lines), expected);
        }
    }
}
