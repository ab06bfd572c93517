//! docker: a runtime of the name `pilotfish` in daemon.json that wraps the real one (dockerd(8), "Runtimes").

use super::{
    Error, InstallArgs,
    edited::{Edited, Format},
    entry::{self, HookCommand},
    object::{NEW, Node, Object, parse, write_like},
    plan::Plan,
    root::Root,
};
use std::path::Path;

const CONFIG: &str = "/etc/docker/daemon.json";

/// Name of the runtime in `docker run --runtime`.
const NAME: &str = "pilotfish";

pub(super) fn install(
    root: &Root,
    args: &InstallArgs,
    command: &HookCommand,
    plan: &mut Plan,
) -> Result<(), Error> {
    let config = Path::new(CONFIG);
    let edited = Edited::open(root, config, DaemonJson)?;
    let place = root.locate(config)?;
    let mut daemon = read(&place, &edited.base)?;
    let mut runtimes = runtimes(&place, &daemon)?;
    let real = match &args.real_runtime {
        Some(path) => entry::plain("--real-runtime", path)?,
        None if args.default => replaced(&daemon, &runtimes)?,
        None => "runc".to_owned(),
    };
    runtimes.insert(NAME.to_owned(), wrapper(command, &real));
    daemon.insert("runtimes".to_owned(), Node::Object(runtimes));
    if args.default {
        daemon.insert("default-runtime".to_owned(), Node::from(NAME));
    } else {
        plan.note(format!(
            "a container asks for it with `docker run --runtime {NAME} --annotation pilotfish.dev/instrument=true`"
        ));
    }
    let manner = if edited.base.trim().is_empty() {
        NEW
    } else {
        &edited.base
    };
    let after = write_like(manner, &daemon);
    edited.install(plan, after);
    Ok(())
}

pub(super) fn uninstall(root: &Root, plan: &mut Plan) -> Result<(), Error> {
    Edited::open(root, Path::new(CONFIG), DaemonJson)?.uninstall(plan);
    plan.note(format!(
        "containers that were created with the runtime `{NAME}` start again only after they are created anew"
    ));
    Ok(())
}

/// docker makes a shell script of a path with arguments; the runtime's own arguments follow `--`.
fn wrapper(command: &HookCommand, real: &str) -> Node {
    let mut arguments: Vec<String> = ["runtime", "--real-runtime", real]
        .map(ToOwned::to_owned)
        .into();
    arguments.extend(["--kill-after".to_owned(), command.kill_after.to_string()]);
    arguments.extend(command.options.iter().cloned());
    arguments.push("--".to_owned());
    Node::Object(Object::from([
        ("path".to_owned(), Node::Text(command.path.clone())),
        (
            "runtimeArgs".to_owned(),
            Node::List(arguments.into_iter().map(Node::Text).collect()),
        ),
    ]))
}

/// The default runtime that we take the place of.
fn replaced(daemon: &Object, runtimes: &Object) -> Result<String, Error> {
    let Some(name) = daemon.get("default-runtime").and_then(Node::text) else {
        return Ok("runc".to_owned());
    };
    let Some(definition) = runtimes.get(&name).and_then(Node::object) else {
        // docker also takes the name or the path of a shim; this one is what runs runc.
        return match name.as_str() {
            "io.containerd.runc.v2" => Ok("runc".to_owned()),
            shim if shim.starts_with("io.containerd.") || shim.starts_with('/') => {
                Err(Error::RealRuntime(name))
            }
            _ => Ok(name),
        };
    };
    let path = definition.get("path").and_then(Node::text);
    let arguments = definition
        .get("runtimeArgs")
        .is_some_and(|node| node.list().is_none_or(|list| !list.is_empty()));
    match path {
        Some(path) if !arguments => entry::plain("--real-runtime", &path),
        _ => Err(Error::RealRuntime(name)),
    }
}

fn read(place: &Path, text: &str) -> Result<Object, Error> {
    // dockerd takes an empty file for an empty configuration.
    let text = if text.trim().is_empty() { NEW } else { text };
    parse(text).map_err(|source| Error::Json {
        path: place.to_owned(),
        source,
    })
}

fn runtimes(place: &Path, daemon: &Object) -> Result<Object, Error> {
    match daemon.get("runtimes") {
        Some(node) if !node.is_null() => node.object().ok_or_else(|| Error::Shape {
            path: place.to_owned(),
            key: "runtimes".to_owned(),
            expected: "an object",
        }),
        _ => Ok(Object::new()),
    }
}

struct DaemonJson;

impl Format for DaemonJson {
    fn without_ours(
        &self,
        place: &Path,
        text: &str,
        backup: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let mut daemon = read(place, text)?;
        let before = backup.and_then(|text| parse(text).ok()).unwrap_or_default();
        let mut runtimes = runtimes(place, &daemon)?;
        let mut ours = runtimes.shift_remove(NAME).is_some();
        if ours {
            match before.get("runtimes") {
                None if runtimes.is_empty() => daemon.shift_remove("runtimes"),
                Some(null) if runtimes.is_empty() && null.is_null() => {
                    daemon.insert("runtimes".to_owned(), null.clone())
                }
                _ => daemon.insert("runtimes".to_owned(), Node::Object(runtimes)),
            };
        }
        if daemon
            .get("default-runtime")
            .and_then(Node::text)
            .as_deref()
            == Some(NAME)
        {
            ours = true;
            match before.get("default-runtime") {
                Some(previous) => daemon.insert("default-runtime".to_owned(), previous.clone()),
                None => daemon.shift_remove("default-runtime"),
            };
        }
        Ok(ours.then(|| write_like(text, &daemon)))
    }

    fn same(&self, one: &str, other: &str) -> bool {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        value(one).is_some_and(|one| Some(one) == value(other))
    }

    fn is_blank(&self, text: &str) -> bool {
        text.trim().is_empty() || parse(text).is_ok_and(|daemon| daemon.is_empty())
    }
}
