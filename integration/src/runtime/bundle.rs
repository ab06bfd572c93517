//! OCI bundles, for runc and crun without anything above them.

use super::image;
use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

/// A bundle in a machine, with the trials' image as its root file system.
#[derive(Debug)]
pub struct Bundle<'machine> {
    machine: &'machine Machine,
    folder: String,
}

impl<'machine> Bundle<'machine> {
    /// Makes a bundle at `folder` that runs `words` in the machine's network; `edit` changes what `runc spec` made.
    pub fn make(
        machine: &'machine Machine,
        folder: &str,
        words: &[&str],
        edit: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let layer = format!("{folder}/layer.tar");
        let root = format!("{folder}/rootfs");
        machine.write(&layer, image::layer()?, 0o644)?;
        machine.output("mkdir", [&root])?;
        machine.output("tar", ["-x", "-f", &layer, "-C", &root])?;
        machine.output("runc", ["spec", "--bundle", folder])?;

        let file = machine.path(folder).join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(words);
        config["linux"]["namespaces"]
            .as_array_mut()
            .context("the specification has namespaces")?
            .retain(|namespace| namespace["type"] != "network");
        edit(&mut config);
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        Ok(Self {
            machine,
            folder: folder.to_owned(),
        })
    }

    /// The bundle's directory in the machine.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Starts a container of it in the background.
    pub fn run(&self, runtime: &str, id: &str) -> Result<()> {
        self.start(self.machine.command(runtime, self.run_words(id)), id)
    }

    /// The arguments of [`Self::run`], for trials that start the runtime in a way of their own.
    pub fn run_words<'a>(&'a self, id: &'a str) -> [&'a str; 5] {
        ["run", "--detach", "--bundle", &self.folder, id]
    }

    /// Runs a command that starts a container in the background. Its output is nowhere.
    pub fn start(&self, mut command: Command, id: &str) -> Result<()> {
        // A pipe would be inherited by the container and never end.
        let log = self.machine.path("/run").join(format!("{id}.log"));
        let output = fs::File::create(&log)?;
        let status = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()
            .with_context(|| format!("cannot start {command:?}"))?;
        ensure!(
            status.success(),
            "the start of {id} ended with {status}: {}",
            fs::read_to_string(&log).unwrap_or_default().trim()
        );
        Ok(())
    }

    /// Kills and removes a container.
    pub fn delete(&self, runtime: &str, id: &str) -> Result<()> {
        self.machine
            .output(runtime, ["delete", "--force", id])
            .map(drop)
    }
}
