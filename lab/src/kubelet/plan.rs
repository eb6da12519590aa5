//! From a container's spec to the process that stands for it. Pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::{PodFacts, environment, expand};
use super::probe::Probe;

/// The image that is the lab's own echo server, with any tag.
const ECHO_IMAGE: &str = "weft/echo";

/// A container, ready to be started as a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerPlan {
    /// The container's name.
    pub(super) name: String,
    /// Its image, as the status repeats it.
    pub(super) image: String,
    /// What is executed.
    pub(super) program: Program,
    /// The program's arguments.
    pub(super) arguments: Vec<String>,
    /// The environment, beside the host's PATH.
    pub(super) environment: Vec<(String, String)>,
    /// The working folder, if not `/`.
    pub(super) folder: Option<PathBuf>,
    /// How to find out whether it is ready. Without one it is, once it runs.
    pub(super) readiness: Option<Probe>,
}

/// What a container executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The lab's own echo server.
    Echo,
    /// A program of the host, by name or path.
    Host(String),
}

/// The plan of one container.
pub(super) fn container(pod: &Pod, container: &Container, facts: &PodFacts) -> Result<ContainerPlan, String> {
    let environment = environment(pod, container, facts)?;
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand(word, &environment)).collect()
    };
    let image = container.image.clone().unwrap_or_default();
    let mut line = words(&container.command);
    let program = match (line.is_empty(), is_echo(&image)) {
        (true, true) => Program::Echo,
        (false, _) => Program::Host(line.remove(0)),
        (true, false) => {
            return Err(format!(
                "the lab has no image {image:?}: use {ECHO_IMAGE}, or give the command of a program of this host"
            ));
        }
    };
    line.extend(words(&container.args));
    Ok(ContainerPlan {
        name: container.name.clone(),
        program,
        arguments: line,
        environment,
        folder: container.working_dir.as_ref().map(PathBuf::from),
        readiness: container
            .readiness_probe
            .as_ref()
            .map(|probe| Probe::parse(probe, container))
            .transpose()?,
        image,
    })
}

fn is_echo(image: &str) -> bool {
    image.strip_prefix(ECHO_IMAGE).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(spec: Value) -> Result<ContainerPlan, String> {
        let container: Container = serde_json::from_value(spec).unwrap();
        let facts = PodFacts {
            addresses: vec!["10.244.1.2".parse().unwrap()],
            node: "node1".to_owned(),
            node_addresses: vec!["172.30.0.11".parse().unwrap()],
        };
        super::container(&Pod::default(), &container, &facts)
    }

    #[test]
    fn the_echo_image_takes_any_tag_and_its_arguments() {
        for image in ["weft/echo", "weft/echo:1.0", "weft/echo@sha256:0"] {
            let plan = plan(json!({"name": "c", "image": image, "args": ["--port", "80"]})).unwrap();
            assert_eq!((plan.program, plan.arguments.len()), (Program::Echo, 2), "{image}");
        }
    }

    #[test]
    fn a_command_is_a_program_of_the_host() {
        let plan = plan(json!({
            "name": "c", "image": "busybox", "command": ["sh", "-c"], "args": ["echo $(A)"],
            "env": [{"name": "A", "value": "b"}], "workingDir": "/tmp"
        }))
        .unwrap();
        assert_eq!(plan.program, Program::Host("sh".to_owned()));
        assert_eq!(plan.arguments, ["-c", "echo b"]);
        assert_eq!(plan.folder, Some(PathBuf::from("/tmp")));
    }

    #[test]
    fn an_image_without_a_command_says_what_to_do() {
        for image in ["nginx", "weft/echoes"] {
            let error = plan(json!({"name": "c", "image": image})).unwrap_err();
            assert!(error.contains(image) && error.contains("weft/echo"), "{error}");
        }
    }
}
