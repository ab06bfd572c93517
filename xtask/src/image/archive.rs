//! From an OCI layout to one archive that podman, containerd, skopeo and docker all load.
//!
//! OCI image-layout 1.0, with two additions that are ignored where they are not known: `manifest.json` at its top, which
//! `docker load` looks for, and `Healthcheck` in the image's configuration, which is docker's field and honoured by docker
//! whatever the format. (podman takes a health check from the command line only, unless the image has docker's format.)

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Image;
use super::origin::Origin;
use crate::command;

/// Completes a layout with exactly one image.
pub(super) fn complete(layout: &Path, image: &Image, health_check: Value) -> Result<()> {
    let index_file = layout.join("index.json");
    let mut index = read(&index_file)?;
    let entry = index
        .pointer_mut("/manifests/0")
        .context("the layout's index names no image")?;
    let mut manifest = read_blob(layout, entry)?;
    let mut configuration = read_blob(layout, &manifest["config"])?;

    configuration["config"]["Healthcheck"] = health_check;
    replace_blob(layout, &mut manifest["config"], &configuration)?;
    replace_blob(layout, entry, &manifest)?;
    // containerd takes the name from here, and so does podman.
    entry["annotations"]["io.containerd.image.name"] = image.full_reference().into();

    write(&index_file, &index)?;
    write(
        &layout.join("manifest.json"),
        &docker_manifest(&manifest, &image.reference())?,
    )
}

/// The list of images in the format of `docker save`, whose paths may lead anywhere in the archive.
fn docker_manifest(manifest: &Value, reference: &str) -> Result<Value> {
    let layers = manifest["layers"]
        .as_array()
        .context("the manifest has no layers")?
        .iter()
        .map(blob_path)
        .collect::<Result<Vec<_>>>()?;
    Ok(json!([{
        "Config": blob_path(&manifest["config"])?,
        "RepoTags": [reference],
        "Layers": layers,
    }]))
}

/// Where the layout keeps what a descriptor names.
fn blob_path(descriptor: &Value) -> Result<String> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let hash = digest
        .strip_prefix("sha256:")
        .with_context(|| format!("a descriptor without a SHA-256 digest: {descriptor}"))?;
    Ok(format!("blobs/sha256/{hash}"))
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", file.display()))
}

fn read_blob(layout: &Path, descriptor: &Value) -> Result<Value> {
    read(&layout.join(blob_path(descriptor)?))
}

fn write(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, serde_json::to_vec(value)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Puts another document in the place of the one that a descriptor names, and names that one.
fn replace_blob(layout: &Path, descriptor: &mut Value, value: &Value) -> Result<()> {
    let former = layout.join(blob_path(descriptor)?);
    let blob = former.with_extension("new");
    write(&blob, value)?;
    let sum = command::output(Command::new("sha256sum").arg(&blob))?;
    let hash = sum
        .split_whitespace()
        .next()
        .context("sha256sum said nothing")?;
    descriptor["digest"] = format!("sha256:{hash}").into();
    descriptor["size"] = fs::metadata(&blob)?.len().into();
    fs::remove_file(&former)?;
    fs::rename(&blob, layout.join(blob_path(descriptor)?)).context("cannot rename a blob")
}

/// Packs a layout; the same one gives the same bytes.
pub(super) fn pack(layout: &Path, origin: &Origin, archive: &Path) -> Result<()> {
    let partial = archive.with_extension("partial");
    command::run(
        Command::new("tar")
            .args(["--create", "--format=ustar", "--sort=name"])
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mode=u=rwX,go=rX"])
            .arg(format!("--mtime=@{}", origin.epoch))
            .arg(format!("--file={}", partial.display()))
            .arg(format!("--directory={}", layout.display()))
            .args(["blobs", "index.json", "manifest.json", "oci-layout"]),
    )?;
    // Whoever loads it meanwhile has the former one, whole.
    fs::rename(&partial, archive).with_context(|| format!("cannot write {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::IMAGES;

    /// A layout as buildah writes it, with a layer of a few bytes.
    fn layout(name: &str) -> std::path::PathBuf {
        let layout = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let add = |value: &Value| {
            let mut descriptor = json!({ "digest": "sha256:new", "size": 0 });
            fs::write(layout.join("blobs/sha256/new"), "").unwrap();
            replace_blob(&layout, &mut descriptor, value).unwrap();
            descriptor
        };
        let layer = add(&json!("layer"));
        let config = add(&json!({ "architecture": "amd64", "config": { "User": "65532:65532" } }));
        let manifest = add(&json!({ "schemaVersion": 2, "config": config, "layers": [layer] }));
        let add_file = |name: &str, value: Value| write(&layout.join(name), &value).unwrap();
        add_file("index.json", json!({ "manifests": [manifest] }));
        add_file("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }));
        layout
    }

    #[test]
    fn a_completed_layout_is_consistent() {
        let layout = layout("complete");
        let check = json!({ "Test": ["CMD", "/pilotfish", "health"] });
        complete(&layout, &IMAGES[0], check.clone()).unwrap();

        let index = read(&layout.join("index.json")).unwrap();
        let entry = &index["manifests"][0];
        let name = &entry["annotations"]["io.containerd.image.name"];
        assert!(
            name.as_str()
                .is_some_and(|name| name.starts_with("docker.io/library/pilotfish:"))
        );
        let manifest = read_blob(&layout, entry).unwrap();
        let configuration = read_blob(&layout, &manifest["config"]).unwrap();
        assert_eq!(configuration["config"]["Healthcheck"], check);
        assert_eq!(configuration["config"]["User"], "65532:65532");

        let docker = read(&layout.join("manifest.json")).unwrap();
        let config = blob_path(&manifest["config"]).unwrap();
        assert_eq!(docker[0]["Config"], config.as_str());
        assert_eq!(
            manifest["config"]["size"],
            fs::metadata(layout.join(config)).unwrap().len()
        );
        // The layer, the new configuration and the new manifest: nothing is left of what they replace.
        assert_eq!(
            fs::read_dir(layout.join("blobs/sha256")).unwrap().count(),
            3
        );
        fs::remove_dir_all(layout).unwrap();
    }

    #[test]
    fn the_same_layout_gives_the_same_archive() {
        let layout = layout("pack");
        complete(&layout, &IMAGES[0], Value::Null).unwrap();
        let origin = Origin {
            revision: String::new(),
            epoch: 1_700_000_000,
        };
        let archives = ["a.tar", "b.tar"].map(|name| layout.join(name));
        for archive in &archives {
            pack(&layout, &origin, archive).unwrap();
            // Another time of change, which must not show.
            fs::File::open(layout.join("index.json"))
                .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))
                .unwrap();
        }
        let [first, second] = archives.map(|archive| fs::read(archive).unwrap());
        assert!(!first.is_empty());
        assert!(first == second);
        fs::remove_dir_all(layout).unwrap();
    }

    #[test]
    fn a_descriptor_leads_to_its_blob() {
        let path = blob_path(&json!({ "digest": "sha256:ab" })).unwrap();
        assert_eq!(path, "blobs/sha256/ab");
        assert!(blob_path(&json!({ "digest": "sha512:ab" })).is_err());
        assert!(blob_path(&json!({})).is_err());
    }
}
