//! containerd's CRI: a `base_runtime_spec` with the hook for each runtime handler, and the annotations to pass on.
//!
//! Configuration version 3 (containerd 2.x) gets a drop-in, which containerd merges key by key. With version 2 under
//! containerd 1.6 and 1.7 an imported file *replaces* the whole section of a plugin, so that a drop-in would silently
//! take away the sandbox image, the CNI directories and `SystemdCgroup`: there the handlers are edited where they
//! are defined, which containerd 2.x reads the same way.

mod ask;
mod config;
mod files;

use super::{
    Error, InstallArgs,
    entry::HookCommand,
    object::{self, NEW},
    plan::Plan,
    root::Root,
};
use config::{Handler, Version};
use files::Files;
use std::path::{Path, PathBuf};

const CONFIG: &str = "/etc/containerd/config.toml";

/// Imported after other drop-ins of the customary directory, in the order of names.
const DROP_IN: &str = "/etc/containerd/conf.d/99-pilotfish.toml";

/// Annotations that reach the OCI spec, and so the hook (Go `path.Match` patterns).
const ANNOTATIONS: [&str; 3] = [
    "pilotfish.dev/*",
    "*.pilotfish.dev/*",
    "resource.opentelemetry.io/*",
];

pub(super) fn install(
    root: &Root,
    args: &InstallArgs,
    command: &HookCommand,
    plan: &mut Plan,
) -> Result<(), Error> {
    let mut files = Files::open(root)?;
    let version = match files.version()? {
        Some(version) => version,
        None => ask::version(root, args.containerd_version.as_deref())?,
    };
    let handlers = choose(files.handlers(), &args.handlers)?;
    for handler in &handlers {
        let spec = with_hook(root, args, command, handler)?;
        plan.write_own(root, &base_spec(&handler.name), spec)?;
    }
    if files.cri_is_disabled() {
        plan.note(format!(
            "the CRI plugin is in `disabled_plugins` of {CONFIG}: until it is enabled, nothing reads these settings"
        ));
    }
    if version == Version::Three {
        plan.write_own(root, Path::new(DROP_IN), config::drop_in(&handlers)?)?;
        files.import_drop_in();
    } else {
        files.edit_handlers(&handlers)?;
    }
    files.install(plan);
    Ok(())
}

pub(super) fn uninstall(root: &Root, plan: &mut Plan) -> Result<(), Error> {
    Files::open(root)?.uninstall(plan);
    plan.remove_own(root, Path::new(DROP_IN))?;
    for path in ours(root)? {
        plan.remove_own(root, &path)?;
    }
    plan.note("pods that run keep the hook in their spec, where it does no harm: leave the program in place until they are gone".to_owned());
    Ok(())
}

/// The spec from which a handler's containers are made: its own, or the runtime's default.
fn with_hook(
    root: &Root,
    args: &InstallArgs,
    command: &HookCommand,
    handler: &Handler,
) -> Result<String, Error> {
    let named = match (&handler.base_spec, &args.default_spec) {
        (Some(path), _) => {
            let place = root.locate(path)?;
            let spec = root.read(path)?.ok_or_else(|| Error::Read {
                path: place.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            })?;
            (place, spec.text)
        }
        (None, Some(path)) => (path.clone(), ask::given_spec(path)?),
        (None, None) => (
            PathBuf::from("the output of `ctr oci spec`"),
            ask::default_spec(root)?,
        ),
    };
    let (path, text) = named;
    let mut spec = object::parse(&text).map_err(|source| Error::Json {
        path: path.clone(),
        source,
    })?;
    command.add_to(&mut spec).map_err(|error| Error::Shape {
        path,
        key: error.0.to_owned(),
        expected: "what the OCI runtime specification says",
    })?;
    let manner = if text.trim().contains('\n') {
        &text
    } else {
        NEW
    };
    Ok(object::write_like(manner, &spec))
}

/// The handlers to change: those asked for, or those that run containers on this kernel (a virtual machine's
/// processes are out of sight).
fn choose(found: Vec<Handler>, asked: &[String]) -> Result<Vec<Handler>, Error> {
    if found.is_empty() && asked.iter().all(|name| name == "runc") {
        return Ok(vec![Handler::runc()]);
    }
    if asked.is_empty() {
        let known: Vec<String> = found.iter().map(|handler| handler.name.clone()).collect();
        let chosen: Vec<Handler> = found.into_iter().filter(Handler::is_runc).collect();
        if chosen.is_empty() {
            return Err(Error::Handler {
                handler: "of type io.containerd.runc.v2".to_owned(),
                known: known.join(", "),
            });
        }
        return Ok(chosen);
    }
    asked
        .iter()
        .map(|name| {
            let handler = found.iter().find(|handler| handler.name == *name);
            handler.cloned().ok_or_else(|| Error::Handler {
                handler: name.clone(),
                known: found
                    .iter()
                    .map(|handler| handler.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        })
        .collect()
}

/// Where the base spec of a handler goes.
fn base_spec(handler: &str) -> PathBuf {
    PathBuf::from(format!("{BASE_SPEC}{handler}.json"))
}

const BASE_SPEC: &str = "/etc/containerd/pilotfish-base-spec-";

/// Base specs that were written for any handler.
fn ours(root: &Root) -> Result<Vec<PathBuf>, Error> {
    files::expand(root, &format!("{BASE_SPEC}*.json"))
}
