//! The images of the trials, made without a registry: a static server, busybox, nothing else.

use crate::place;
use crate::program;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;

/// The image that serves: `prompt PORT` answers HTTP on 127.0.0.1 from its first milliseconds.
pub const PROMPT: &str = "localhost/prompt:latest";

/// The image of pod sandboxes: sleeps.
pub const PAUSE: &str = "localhost/pause:latest";

/// Commands of busybox that are there as links to it.
const LINKS: &[&str] = &["cat", "env", "ls", "ps", "sh", "sleep", "true", "wget"];

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image<'image> {
    /// Name and tag.
    pub name: &'image str,
    /// `config` of the OCI image specification: what is started, and how.
    pub process: Value,
    /// The root file system, as a tar archive.
    pub layer: &'image [u8],
}

/// Both images as one archive that `ctr images import`, `podman load` and `docker load` take.
pub fn archive() -> Result<Vec<u8>> {
    let layer = &layer()?;
    let environment = json!(["PATH=/bin"]);
    archive_of(&[
        Image {
            name: PROMPT,
            process: json!({ "Cmd": ["prompt", "8080"], "Env": environment }),
            layer,
        },
        Image {
            name: PAUSE,
            process: json!({ "Entrypoint": ["sleep", "infinity"], "Env": environment }),
            layer,
        },
    ])
}

/// Images as such an archive; a layer that they share is in it once.
pub fn archive_of(images: &[Image<'_>]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut manifest = Vec::new();
    let mut layers = BTreeMap::new();
    for image in images {
        let configuration = configuration(image).to_string();
        let file = format!("{}.json", hexadecimal(configuration.as_bytes()));
        let layer = format!("{}.tar", hexadecimal(image.layer));
        add(&mut archive, &file, configuration.as_bytes(), 0o644)?;
        manifest.push(json!({ "Config": file, "RepoTags": [image.name], "Layers": [&layer] }));
        layers.insert(layer, image.layer);
    }
    for (name, layer) in layers {
        add(&mut archive, &name, layer, 0o644)?;
    }
    let manifest = Value::from(manifest).to_string();
    add(&mut archive, "manifest.json", manifest.as_bytes(), 0o644)?;
    archive.into_inner().context("cannot write an archive")
}

/// The layer of both: their root file system, as a tar archive.
pub fn layer() -> Result<Vec<u8>> {
    let busybox = place::tool("busybox").context("busybox is not installed")?;
    let mut layer = tar::Builder::new(Vec::new());
    for (name, program) in [
        ("bin/prompt", program::static_c("prompt.c")?),
        ("bin/busybox", busybox),
    ] {
        let bytes =
            fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        add(&mut layer, name, &bytes, 0o755)?;
    }
    for link in LINKS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{link}"), "busybox")?;
    }
    let passwd = b"root:x:0:0::/:/bin/sh\n";
    add(&mut layer, "etc/passwd", passwd, 0o644)?;
    add(&mut layer, "etc/group", b"root:x:0:\n", 0o644)?;
    layer.into_inner().context("cannot write a layer")
}

/// As the OCI image specification 1.0 has it.
fn configuration(image: &Image<'_>) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layer = format!("sha256:{}", hexadecimal(image.layer));
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": image.process,
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    })
}

fn add(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive
        .append_data(&mut header, name, bytes)
        .with_context(|| format!("cannot add {name} to an archive"))
}

fn hexadecimal(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
