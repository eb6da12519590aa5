//! Runs CNI plugins in a node's namespace and keeps their results on disk, as libcni does. What a plugin is
//! given is decided in [`super::invocation`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;

use super::conflist::{self, NetworkList};
use super::invocation::{self, Attachment, Command};
use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use crate::state::{NodeDir, read_json, write_file};

/// The CNI side of one node's container runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The lab's own program, which starts the plugins in their place.
    pub lab_program: PathBuf,
    /// Where plugins run: in the node's namespace.
    pub place: Sandbox,
    /// The node's folders.
    pub dir: NodeDir,
}

/// What is kept of an ADD until the DEL.
#[derive(Serialize, Deserialize)]
struct CachedResult {
    list: NetworkList,
    attachment: Attachment,
    result: Value,
}

impl Runtime {
    /// The configuration that is in force: the first of the node's folder.
    pub fn load(&self) -> Result<NetworkList> {
        let folder = self.dir.cni_conf();
        let entries = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let file = conflist::first_file(names).ok_or_else(|| Error::NoConflist(folder.clone()))?;
        let path = folder.join(file);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        conflist::parse(&text).map_err(|reason| Error::Conflist { path, reason })
    }

    /// Connects a pod: every plugin in turn, each with the result of the one before it. Gives the last
    /// result.
    pub async fn add(&self, attachment: &Attachment) -> Result<Value> {
        let list = self.load()?;
        let mut result = None;
        for plugin in &list.plugins {
            let output = self.invoke(&list, plugin, Command::Add, attachment, result.as_ref()).await?;
            let parsed = serde_json::from_slice(&output).map_err(|error| Error::Cni {
                plugin: conflist::plugin_type(plugin).unwrap_or_default().to_owned(),
                command: Command::Add.name(),
                message: format!("its result is no JSON: {error}"),
            })?;
            result = Some(parsed);
        }
        let result = result.unwrap_or_default();
        let cached = CachedResult { list, attachment: attachment.clone(), result: result.clone() };
        self.store(&cached)?;
        Ok(result)
    }

    /// Disconnects a pod: every plugin in the opposite order, each with the result of the ADD, if there was
    /// one.
    pub async fn del(&self, attachment: &Attachment) -> Result<()> {
        // The list of the ADD, not of today: the agent may have changed its mind since.
        let (list, result) = match self.cached(attachment)? {
            Some(cached) => (cached.list, Some(cached.result)),
            None => (self.load()?, None),
        };
        for plugin in list.plugins.iter().rev() {
            self.invoke(&list, plugin, Command::Del, attachment, result.as_ref()).await?;
        }
        match fs::remove_file(self.cache_file(attachment)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", self.cache_file(attachment))(error))
            }
            _ => Ok(()),
        }
    }

    /// What is connected, as far as the cache tells.
    pub fn attachments(&self) -> Vec<Attachment> {
        let entries = fs::read_dir(self.dir.cni_results()).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(read_json::<CachedResult>(&entry.path()).ok()??.attachment)).collect()
    }

    async fn invoke(
        &self,
        list: &NetworkList,
        plugin: &Map<String, Value>,
        command: Command,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>> {
        let name = conflist::plugin_type(plugin).unwrap_or_default();
        let input = invocation::input(list, plugin, attachment, previous).to_string();
        let environment = attachment.environment(command, &self.dir.cni_bin());
        let program = self.dir.cni_bin().join(name);
        let place = self.place.clone().dying_with_me();
        let mut start = place.command(&self.lab_program, &program);
        start.envs(environment);
        let output = run(start, &program, &input).await?;
        if output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            said.lines().for_each(|line| tracing::warn!(plugin = name, "{line}"));
            return Ok(output.stdout);
        }
        let message = invocation::error_text(&output.stdout, &output.stderr);
        Err(Error::Cni { plugin: name.to_owned(), command: command.name(), message })
    }

    fn store(&self, cached: &CachedResult) -> Result<()> {
        let path = self.cache_file(&cached.attachment);
        let text = serde_json::to_string(cached)
            .map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
        write_file(&path, &text)
    }

    fn cached(&self, attachment: &Attachment) -> Result<Option<CachedResult>> {
        read_json(&self.cache_file(attachment))
    }

    fn cache_file(&self, attachment: &Attachment) -> PathBuf {
        self.dir.cni_results().join(format!("{}-{}", attachment.container_id, attachment.ifname))
    }
}

async fn run(start: std::process::Command, program: &Path, input: &str) -> Result<std::process::Output> {
    let failed = |source| Error::Spawn { program: program.display().to_string(), source };
    let mut child = tokio::process::Command::from(start)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin may end without reading its input: what it says then matters more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await.map_err(failed)
}
