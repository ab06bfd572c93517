//! Containers from the definitions in `images/demo`, with the host's `/usr` for an image.
//!
//! There is no registry to pull from and none is needed: a Debian host's `/usr` holds every program of the demo. It
//! is mounted read-only into each container, whose root is otherwise its own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::footprint::Footprint;
use crate::command;

/// A running container; the footprint removes it.
pub(super) struct Container {
    /// 64 hexadecimal digits, as docker and containerd make them.
    pub(super) id: String,
    /// Its first process, as the host sees it.
    pub(super) pid: u32,
    log: PathBuf,
}

impl Container {
    /// Fills the definition's `{{placeholders}}` in, makes the root directory and starts the container.
    pub(super) fn start(
        footprint: &Footprint,
        name: &str,
        definition: &Path,
        placeholders: &[(&str, &str)],
    ) -> Result<Self> {
        let bundle = footprint.directory().join(name);
        let rootfs = bundle.join("rootfs");
        let id = format!("{}{}", random_hex()?, random_hex()?);
        let text = fs::read_to_string(definition)
            .with_context(|| format!("cannot read {}", definition.display()))?;
        let own = [
            ("rootfs", path_text(&rootfs)?),
            ("id", &id),
            ("cgroup", &footprint.cgroup()),
        ];
        let config = fill(&text, own.iter().chain(placeholders))
            .with_context(|| format!("in {}", definition.display()))?;
        make_root(&rootfs)?;
        fs::write(
            bundle.join("config.json"),
            serde_json::to_string_pretty(&config)?,
        )?;

        let log = bundle.join("log");
        let output = File::create(&log)?;
        let pid_file = bundle.join("pid");
        let mut run = footprint.runc();
        run.args(["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(&id)
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let status = run
            .status()
            .with_context(|| format!("cannot start `{}`", command::line(&run)))?;
        if !status.success() {
            bail!("container {name} did not start ({status}): {}", tail(&log));
        }
        let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
        Ok(Self { id, pid, log })
    }

    /// An error, with the end of its log, when the container's first process is gone.
    pub(super) fn check_alive(&self) -> Result<()> {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let gone = state.is_empty() || state.contains(") Z ");
        if gone {
            bail!("the container's first process ended");
        }
        Ok(())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Asks it to end and waits until it has, for at most five seconds.
    pub(super) fn stop(&self, footprint: &Footprint) -> Result<()> {
        let mut kill = footprint.runc();
        kill.args(["kill", &self.id, "TERM"]);
        command::output(&mut kill)?;
        for _ in 0..100 {
            if self.check_alive().is_err() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "container {} ignores SIGTERM: {}",
            self.id,
            self.last_words()
        )
    }
}

/// Replaces `{{name}}` by its value, JSON-escaped, and refuses what is left over.
fn fill<'a>(text: &str, values: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Result<Value> {
    let mut text = text.to_owned();
    for (name, value) in values {
        let quoted = Value::from(*value).to_string();
        text = text.replace(&format!("{{{{{name}}}}}"), &quoted[1..quoted.len() - 1]);
    }
    if let Some((_, rest)) = text.split_once("{{") {
        let name = rest.split("}}").next().unwrap_or_default();
        bail!("no value for {{{{{name}}}}}");
    }
    serde_json::from_str(&text).context("not JSON")
}

/// A root directory with the links of a merged `/usr` and an `/etc` of its own; the runtime makes the mount points.
fn make_root(rootfs: &Path) -> Result<()> {
    fs::create_dir_all(rootfs)?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        if Path::new("/usr").join(name).exists() {
            symlink(format!("usr/{name}"), rootfs.join(name))?;
        }
    }
    let etc = rootfs.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(
        etc.join("passwd"),
        "root:x:0:0::/:/usr/sbin/nologin\nshop:x:1000:1000::/tmp:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    )?;
    fs::write(
        etc.join("group"),
        "root:x:0:\nshop:x:1000:\nnogroup:x:65534:\n",
    )?;
    fs::write(etc.join("hosts"), "127.0.0.1 localhost\n")?;
    Ok(())
}

/// 32 random hexadecimal digits.
pub(super) fn random_hex() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("cannot read the kernel's random uuid")?;
    Ok(uuid.trim().replace('-', ""))
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
    if last.is_empty() {
        "it printed nothing".to_owned()
    } else {
        format!("its last lines were:\n  {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_escaped() {
        let config = fill(
            r#"{"a": "{{x}}/{{y}}"}"#,
            [("x", "1"), ("y", "say \"hi\"")].iter(),
        )
        .unwrap();
        assert_eq!(config["a"], "1/say \"hi\"");
    }

    #[test]
    fn a_placeholder_without_a_value_is_named() {
        let error = fill(r#"{"a": "{{who}}"}"#, [].iter()).unwrap_err();
        assert_eq!(error.to_string(), "no value for {{who}}");
    }
}
