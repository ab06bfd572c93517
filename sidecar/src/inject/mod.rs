//! `pilotfish inject`: adds the sidecar to Kubernetes manifests, text in, text out.

mod add;
mod anchors;
mod arguments;
mod definition;
mod edits;
mod filter;
mod input;
mod output;
mod place;
mod remove;
mod render;
mod rules;
mod tree;
mod workload;

pub use arguments::{InjectArgs, RunAs, SidecarOptions};
pub use definition::DefinitionError;
pub use filter::{Done, FilterError, Filtered, Outcome};
pub use input::InputError;
pub use output::OutputError;
pub use rules::Refusal;
pub use tree::TreeError;

use anyhow::{Context, Result};
use definition::Definition;

/// Exit code when something is refused.
const REFUSED: u8 = 1;

/// Exit code when options contradict each other, as clap has it.
const USAGE: u8 = 2;

/// What text cannot show: the namespace's own rules.
const POD_SECURITY: &str = "a namespace that enforces the Pod Security level baseline or restricted refuses these pods, \
                            whose sidecar adds capabilities: `kubectl label namespace NAMESPACE \
                            pod-security.kubernetes.io/enforce=privileged --overwrite`";

/// Adds the sidecar to every pod in these manifests.
pub fn inject(text: &str, options: &SidecarOptions) -> Result<Filtered, InjectError> {
    let definition = Definition::new(options)?;
    Ok(filter::filter(text, Some(&definition))?)
}

/// Takes the sidecar out of every pod in these manifests.
pub fn uninject(text: &str) -> Result<Filtered, InjectError> {
    Ok(filter::filter(text, None)?)
}

/// Why manifests are not changed.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The options.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The manifests.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Runs the command; the result is the exit code: 0 done, 1 refused (nothing is written), 2 wrong options.
pub fn run(args: &InjectArgs) -> Result<u8> {
    let definition = match Definition::new(&args.sidecar) {
        Ok(definition) => (!args.uninject).then_some(definition),
        Err(error) => {
            eprintln!("pilotfish: {error}");
            return Ok(USAGE);
        }
    };
    let mut written = String::new();
    let (mut injected, mut refused) = (0_usize, 0_usize);
    for source in input::read(&args.files)? {
        let filtered = filter::filter(&source.text, definition.as_ref())
            .with_context(|| format!("cannot change {}", source.name))?;
        if filtered.objects.is_empty() {
            eprintln!("pilotfish: there is no object in {}", source.name);
        }
        for done in &filtered.objects {
            eprintln!("{done}");
            injected += usize::from(matches!(done.outcome, Outcome::Injected));
            refused += usize::from(matches!(done.outcome, Outcome::Refused(_)));
        }
        join(&mut written, &filtered.text);
    }
    if refused > 0 && !args.skip_refused {
        eprintln!(
            "pilotfish: nothing is written, since {refused} refused; --skip-refused leaves such objects as they are"
        );
        return Ok(REFUSED);
    }
    output::write(args.output.as_deref(), &written)?;
    if injected > 0 {
        eprintln!("pilotfish: {POD_SECURITY}");
    }
    Ok(0)
}

/// Texts of several files are documents of one stream.
fn join(stream: &mut String, text: &str) {
    if stream.is_empty() {
        stream.push_str(text);
        return;
    }
    if !stream.ends_with('\n') {
        stream.push('\n');
    }
    // Not at its beginning, the byte order mark would belong to a key.
    let text = text.trim_start_matches('\u{feff}');
    if !text.starts_with("---") {
        stream.push_str("---\n");
    }
    stream.push_str(text);
}

#[cfg(test)]
mod tests;
