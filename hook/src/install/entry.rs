//! The hook as runtimes write it: an entry of the `hooks` object (OCI runtime specification 1.0.2, config.md
//! "POSIX-platform Hooks").

use super::{
    Error, HookOptions,
    object::{Node, Object},
};
use crate::cli::HookArgs;
use oci_spec::runtime::Hook;
use pilotfish_workload::annotations;
use std::path::Path;

/// Stages at which the hook runs, in the runtime's namespaces both.
pub(crate) const STAGES: [&str; 2] = ["createRuntime", "poststop"];

/// Annotation that asks for observation, for a pod or for one container of it. Anchored; RE2 and PCRE alike.
pub(crate) const ANNOTATION_PATTERN: &str = r"^([^/]+\.)?pilotfish\.dev/instrument$";

/// Values that may ask for it. What they mean, `false` included, the hook decides.
pub(crate) const VALUE_PATTERN: &str = "^.+$";

/// Whether an annotation has the key and a value of the patterns above.
pub(crate) fn asks(key: &str, value: &str) -> bool {
    annotations::asks(key) && !value.is_empty()
}

/// The hook's command line without its stage.
#[derive(Clone, Debug)]
pub(crate) struct HookCommand {
    /// Absolute path on the host.
    pub(crate) path: String,
    /// Options, in the order in which they are written.
    pub(crate) options: Vec<String>,
    /// Seconds until the runtime kills it.
    pub(crate) kill_after: u32,
}

impl HookCommand {
    pub(crate) fn new(options: &HookOptions) -> Result<Self, Error> {
        let path = match (&options.hook, &options.copy_to) {
            (Some(path), _) => plain_path("--hook", path)?,
            (None, Some(copy)) => plain_path("--copy-to", copy)?,
            (None, None) => {
                plain_path("--hook", &std::env::current_exe().map_err(Error::OwnPath)?)?
            }
        };
        let mut written = Vec::new();
        for (option, path) in [("--socket", &options.socket), ("--agent", &options.agent)] {
            if let Some(path) = path {
                written.extend([option.to_owned(), plain_path(option, path)?]);
            }
        }
        if let Some(timeout) = options.timeout {
            let text = format!("{}ms", timeout.as_millis());
            written.extend(["--timeout".to_owned(), text]);
        }
        if options.fail_closed {
            written.push("--fail-closed".to_owned());
        }
        Ok(Self {
            path,
            options: written,
            kill_after: kill_after(options)?,
        })
    }

    /// `args` of the entry: the program's name, its stage, its options.
    pub(crate) fn arguments(&self, stage: &str) -> Vec<String> {
        let mut arguments = vec![
            "pilotfish-hook".to_owned(),
            "--stage".to_owned(),
            stage.to_owned(),
        ];
        arguments.extend(self.options.iter().cloned());
        arguments
    }

    /// The entry for one stage.
    pub(crate) fn entry(&self, stage: &str) -> Node {
        let mut entry = Hook::default();
        entry
            .set_path(self.path.clone().into())
            .set_args(Some(self.arguments(stage)))
            .set_env(None)
            .set_timeout(Some(i64::from(self.kill_after)));
        Node::Hook(entry)
    }

    /// Adds the entries to the `hooks` of a spec, after those that are there. False: they were there already.
    pub(crate) fn add_to(&self, spec: &mut Object) -> Result<bool, NotASpec> {
        let mut hooks = members(spec, "hooks")?;
        let mut changed = false;
        for stage in STAGES {
            let mut entries = match hooks.get(stage) {
                Some(node) if !node.is_null() => node.list().ok_or(NotASpec(stage))?,
                _ => Vec::new(),
            };
            let entry = self.entry(stage);
            if !entries.iter().any(|there| there.same(&entry)) {
                entries.push(entry);
                hooks.insert(stage.to_owned(), Node::List(entries));
                changed = true;
            }
        }
        if changed {
            spec.insert("hooks".to_owned(), Node::Object(hooks));
        }
        Ok(changed)
    }
}

/// A spec in which this member has another type than the specification says.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("`{0}` has another type than the OCI runtime specification gives it")]
pub(crate) struct NotASpec(pub(crate) &'static str);

fn members(spec: &Object, name: &'static str) -> Result<Object, NotASpec> {
    match spec.get(name) {
        Some(node) if !node.is_null() => node.object().ok_or(NotASpec(name)),
        _ => Ok(Object::new()),
    }
}

/// Seconds until the runtime kills the hook: later than the hook's own deadline and alarm, or the hook could not fail
/// open.
fn kill_after(options: &HookOptions) -> Result<u32, Error> {
    let limit = HookArgs::limit_of(options.timeout, options.agent.is_some());
    let least = limit.as_secs_f64().ceil() as u32 + 1;
    match options.kill_after {
        None => Ok(least + 4),
        Some(given) if given >= least => Ok(given),
        Some(given) => Err(Error::Argument {
            option: "--kill-after",
            value: given.to_string(),
            expected: "it has to be longer than the hook's own deadline (--timeout)",
        }),
    }
}

/// An absolute path that means the same in JSON, in TOML and in the shell script that docker makes of it.
fn plain_path(option: &'static str, path: &Path) -> Result<String, Error> {
    let text = plain(option, &path.to_string_lossy())?;
    if path.is_absolute() {
        Ok(text)
    } else {
        Err(Error::Argument {
            option,
            value: text,
            expected: "an absolute path is needed: a hook runs in the directory of the bundle",
        })
    }
}

/// docker (seen up to 26.1) writes arguments into a shell script without quotes.
pub(super) fn plain(option: &'static str, text: &str) -> Result<String, Error> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:=@%".contains(letter);
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(Error::Argument {
            option,
            value: text.to_owned(),
            expected: "only letters, digits and any of / . _ - + : = @ % are possible",
        })
    }
}
