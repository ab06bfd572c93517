//! Bills of materials (`CycloneDX` 1.5) of the programs in an image.
//!
//! cargo-cyclonedx describes each package of a workspace from `cargo metadata`, with names, versions, licences and checksums.
//! That is more than is linked: features that only other packages ask for, build scripts, procedural macros. What cargo
//! resolves for one program and target (`cargo tree`) decides what stays. (cargo-auditable would record the same metadata inside
//! the program, without licences and checksums.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Image;
use super::architecture::Architecture;
use super::origin::Origin;
use crate::command;
use crate::workspace::Workspace;

/// The name under which cargo-cyclonedx leaves its files, one beside each manifest; git ignores it.
const DRAFT: &str = "image.cdx";

/// A program in an image.
struct Linked {
    /// Directory of its package, which is also that of the workspace where cargo is called.
    directory: &'static str,
    package: &'static str,
    /// Compiled for the kernel, whatever the machine.
    for_the_kernel: bool,
}

const AGENT: Linked = Linked {
    directory: "sidecar",
    package: "pilotfish",
    for_the_kernel: false,
};

const PROGRAMS: Linked = Linked {
    directory: "ebpf",
    package: "pilotfish-ebpf",
    for_the_kernel: true,
};

const HOOK: Linked = Linked {
    directory: "hook",
    package: "pilotfish-hook",
    for_the_kernel: false,
};

/// Name and version of a package.
type Package = (String, String);

/// Writes the bill of materials of an image.
pub(super) fn write(
    workspace: &Workspace,
    image: &Image,
    architecture: Architecture,
    origin: &Origin,
    file: &Path,
) -> Result<()> {
    let mut bill = describe(workspace, &AGENT, architecture, origin)?;
    let mut parts = vec![&PROGRAMS];
    if image.has_hook {
        parts.push(&HOOK);
    }
    for part in parts {
        let described = describe(workspace, part, architecture, origin)?;
        merge(&mut bill, &described)?;
    }
    name_the_image(&mut bill, image, architecture)?;
    let text = serde_json::to_string_pretty(&bill)?;
    fs::write(file, without_local_path(workspace, &text)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The place of the checkout is part of the references to our own packages; it is called as in the programs.
fn without_local_path(workspace: &Workspace, bill: &str) -> Result<String> {
    let root = workspace.path("").canonicalize()?;
    let root = format!("file://{}/", root.display());
    Ok(bill.replace(&root, "file:///pilotfish/"))
}

/// What is linked into one program.
fn describe(
    workspace: &Workspace,
    program: &Linked,
    architecture: Architecture,
    origin: &Origin,
) -> Result<Value> {
    let triple = if program.for_the_kernel {
        "bpfel-unknown-none".to_owned()
    } else {
        architecture.triple()
    };
    let linked = linked(workspace, program, &triple)?;
    let mut bill = draft(workspace, program, &triple, origin)?;
    keep(&mut bill, &linked)?;
    Ok(bill)
}

/// The packages that cargo links into a program.
fn linked(workspace: &Workspace, program: &Linked, triple: &str) -> Result<BTreeSet<Package>> {
    let tree = command::output(
        workspace
            .cargo_in(program.directory, ["tree", "--locked", "--edges"])
            .args(["normal,no-proc-macro", "--prefix", "none"])
            .args(["--format", "{p}", "--package", program.package])
            .args(["--target", triple]),
    )?;
    Ok(parse_tree(&tree))
}

/// Lines such as `serde v1.0.228` and `pilotfish v0.1.0 (/place)`.
fn parse_tree(tree: &str) -> BTreeSet<Package> {
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let version = words.next()?.strip_prefix('v')?;
            Some((name.to_owned(), version.to_owned()))
        })
        .collect()
}

/// What cargo-cyclonedx says of a package. It writes beside every manifest of the workspace; nothing stays there.
fn draft(workspace: &Workspace, program: &Linked, triple: &str, origin: &Origin) -> Result<Value> {
    let outcome = command::output(
        workspace
            .cargo_in(program.directory, ["cyclonedx", "--quiet"])
            .args(["--format", "json", "--spec-version", "1.5"])
            .args(["--target", triple, "--override-filename", DRAFT])
            .env("SOURCE_DATE_EPOCH", origin.epoch.to_string())
            .env("PATH", path_with_tools(workspace)?),
    );
    let file = format!("{DRAFT}.json");
    let bill = outcome.and_then(|_| {
        let file = workspace.path(program.directory).join(&file);
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).context("cargo cyclonedx wrote no JSON")
    });
    for member in members(workspace, program)? {
        let _ = fs::remove_file(Path::new(&member).with_file_name(&file));
    }
    bill
}

fn path_with_tools(workspace: &Workspace) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = workspace.tools().join("bin");
    std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))
        .context("a directory of PATH has a colon in its name")
}

/// The manifests of a workspace's members.
fn members(workspace: &Workspace, program: &Linked) -> Result<Vec<String>> {
    let metadata = command::output(&mut workspace.cargo_in(
        program.directory,
        ["metadata", "--no-deps", "--locked", "--format-version", "1"],
    ))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    Ok(array(&metadata, "packages")
        .iter()
        .filter_map(|package| Some(package["manifest_path"].as_str()?.to_owned()))
        .collect())
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn package(component: &Value) -> Option<Package> {
    let text = |key: &str| Some(component[key].as_str()?.to_owned());
    Some((text("name")?, text("version")?))
}

/// Leaves the components that are linked, and the dependencies between them. A linked package that is not described is an
/// error: the bill would not be whole.
fn keep(bill: &mut Value, linked: &BTreeSet<Package>) -> Result<()> {
    let mut missing = linked.clone();
    let root = &bill["metadata"]["component"];
    missing.remove(&package(root).context("the bill of materials describes nothing")?);
    let mut references: BTreeSet<String> = reference(root).into_iter().collect();
    if let Some(components) = bill["components"].as_array_mut() {
        components.retain(|component| package(component).is_some_and(|it| missing.remove(&it)));
        references.extend(components.iter().filter_map(reference));
    }
    if let Some((name, version)) = missing.first() {
        bail!("the bill of materials lacks {name} {version}, which is linked");
    }
    if let Some(dependencies) = bill["dependencies"].as_array_mut() {
        let is_kept = |reference: Option<&str>| reference.is_some_and(|it| references.contains(it));
        dependencies.retain(|dependency| is_kept(dependency["ref"].as_str()));
        for dependency in dependencies {
            if let Some(others) = dependency["dependsOn"].as_array_mut() {
                others.retain(|other| is_kept(other.as_str()));
            }
        }
    }
    Ok(())
}

fn reference(component: &Value) -> Option<String> {
    Some(component["bom-ref"].as_str()?.to_owned())
}

/// Adds another program and its components to a bill; what both have is there once.
fn merge(bill: &mut Value, other: &Value) -> Result<()> {
    let root = other["metadata"]["component"].clone();
    let mut components: BTreeMap<String, Value> = BTreeMap::new();
    let parts = array(bill, "components").iter().chain([&root]);
    for component in parts.chain(array(other, "components")) {
        let (name, version) = package(component).context("a component without a name")?;
        components
            .entry(format!("{name} {version}"))
            .or_insert_with(|| component.clone());
    }
    let mut dependencies: BTreeMap<String, Value> = BTreeMap::new();
    for dependency in array(bill, "dependencies")
        .iter()
        .chain(array(other, "dependencies"))
    {
        let reference = dependency["ref"].as_str().unwrap_or_default();
        dependencies
            .entry(reference.to_owned())
            .or_insert_with(|| dependency.clone());
    }
    bill["components"] = components.into_values().collect();
    bill["dependencies"] = dependencies.into_values().collect();
    Ok(())
}

/// Makes the image what the bill is about, with what it holds beside our programs.
fn name_the_image(bill: &mut Value, image: &Image, architecture: Architecture) -> Result<()> {
    let agent = bill["metadata"]["component"].take();
    let components = bill["components"]
        .as_array_mut()
        .context("a bill of materials without components")?;
    components.push(agent);
    let rust = rust_version()?;
    components.push(json!({
        "type": "library", "bom-ref": "rust-std", "name": "std", "version": rust,
        "description": "Rust's standard library, with musl libc", "scope": "required",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    }));
    let authorities = command::output(std::process::Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Version}",
        "ca-certificates",
    ]))?;
    components.push(json!({
        "type": "data", "bom-ref": "ca-certificates", "name": "ca-certificates", "version": authorities,
        "description": "Mozilla's certificate authorities, from Debian", "scope": "required",
        "purl": format!("pkg:deb/debian/ca-certificates@{authorities}"),
    }));
    bill["metadata"]["component"] = json!({
        "type": "container", "bom-ref": image.reference(), "name": image.name, "version": super::VERSION,
        "properties": [{ "name": "architecture", "value": architecture.name }],
    });
    Ok(())
}

fn rust_version() -> Result<String> {
    let answer = command::output(std::process::Command::new("rustc").arg("--version"))?;
    let version = answer.split(' ').nth(1).context("rustc has no version")?;
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str) -> Value {
        json!({ "name": name, "version": "1.0.0", "bom-ref": format!("ref {name}") })
    }

    fn bill(root: &str, components: &[&str]) -> Value {
        let dependencies: Vec<Value> = std::iter::once(&root)
            .chain(components)
            .map(|name| {
                let all: Vec<String> = components.iter().map(|it| format!("ref {it}")).collect();
                json!({ "ref": format!("ref {name}"), "dependsOn": all })
            })
            .collect();
        json!({
            "metadata": { "component": component(root) },
            "components": components.iter().map(|name| component(name)).collect::<Vec<_>>(),
            "dependencies": dependencies,
        })
    }

    fn names(bill: &Value) -> Vec<&str> {
        array(bill, "components")
            .iter()
            .filter_map(|component| component["name"].as_str())
            .collect()
    }

    fn packages(names: &[&str]) -> BTreeSet<Package> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), "1.0.0".to_owned()))
            .collect()
    }

    #[test]
    fn what_is_not_linked_is_left_out() {
        let mut bill = bill("agent", &["bytes", "cc", "libc"]);
        keep(&mut bill, &packages(&["agent", "bytes", "libc"])).unwrap();
        assert_eq!(names(&bill), ["bytes", "libc"]);
        let dependencies = array(&bill, "dependencies");
        assert_eq!(dependencies.len(), 3);
        for dependency in dependencies {
            assert_eq!(dependency["dependsOn"], json!(["ref bytes", "ref libc"]));
        }
    }

    #[test]
    fn what_is_linked_must_be_described() {
        let mut bill = bill("agent", &["bytes"]);
        let error = keep(&mut bill, &packages(&["agent", "bytes", "libc"])).unwrap_err();
        assert!(error.to_string().contains("libc 1.0.0"), "{error}");
    }

    #[test]
    fn two_programs_make_one_bill() {
        let mut one = bill("agent", &["bytes", "libc"]);
        merge(&mut one, &bill("hook", &["libc", "glob"])).unwrap();
        assert_eq!(names(&one), ["bytes", "glob", "hook", "libc"]);
        assert_eq!(one["metadata"]["component"]["name"], "agent");
    }

    #[test]
    fn a_bill_does_not_say_where_the_checkout_was() {
        let workspace = Workspace::locate();
        let manifest = workspace.path("hook").canonicalize().unwrap();
        let reference = format!("path+file://{}#0.1.0", manifest.display());
        assert_eq!(
            without_local_path(&workspace, &reference).unwrap(),
            "path+file:///pilotfish/hook#0.1.0"
        );
    }

    #[test]
    fn a_tree_of_cargo_is_read() {
        let tree = "pilotfish v0.1.0 (/a/place)\nserde v1.0.228\nserde v1.0.228 (*)\n\nserde_derive v1.0.228 (proc-macro)\n";
        let names: Vec<String> = parse_tree(tree).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["pilotfish", "serde", "serde_derive"]);
    }
}
