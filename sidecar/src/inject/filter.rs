//! The text filter: manifests in, manifests out, and what was done with each object.
//!
//! The text is edited in place and never written anew, so that whatever is not the sidecar's stays byte for byte.
//! Then it is read again and compared with what was meant.

use super::{
    add::add,
    anchors::Anchors,
    definition::Definition,
    edits::{self, Edit},
    place::Place,
    remove::remove,
    rules::{self, Refusal, Verdict},
    tree::{self, Node, TreeError},
    workload::{self, Object, Pod},
};
use serde::de::IgnoredAny;
use std::fmt;

/// A text with what was done.
#[derive(Debug)]
pub struct Filtered {
    /// The manifests.
    pub text: String,
    /// Every object, in order.
    pub objects: Vec<Done>,
}

/// What was done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// `deployment "web"`.
    pub title: String,
    /// What.
    pub outcome: Outcome,
}

/// What was done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has the sidecar now.
    Injected,
    /// It had another one.
    Updated,
    /// It had this one, or had none to take out.
    Unchanged,
    /// It has no sidecar any more.
    Uninjected,
    /// It is of no kind whose pods are known: it has none, or a controller of its own makes them.
    NoPods,
    /// It says a kind, but not of which version.
    NoVersion,
    /// Its annotation says that it is not to be observed.
    LeftAlone,
    /// It cannot have it.
    Refused(Refusal),
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.title)?;
        match &self.outcome {
            Outcome::Injected => formatter.write_str("injected"),
            Outcome::Updated => formatter.write_str("updated"),
            Outcome::Unchanged => formatter.write_str("unchanged"),
            Outcome::Uninjected => formatter.write_str("uninjected"),
            Outcome::NoPods => formatter.write_str("skipped: no kind with pods that inject knows"),
            Outcome::NoVersion => formatter.write_str("skipped: it has no apiVersion"),
            Outcome::LeftAlone => {
                formatter.write_str("skipped: its annotation pilotfish.dev/instrument says false")
            }
            Outcome::Refused(refusal) => write!(formatter, "refused: {refusal}"),
        }
    }
}

/// Why a text is not filtered.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A notation that the edits do not understand.
    #[error(
        "the changed text would not be the one meant, so it was dropped; write the pods in plain block notation, or report this as a bug"
    )]
    Unfaithful,
}

/// Adds the sidecar of this definition, or takes it out if there is none.
pub(super) fn filter(text: &str, wanted: Option<&Definition>) -> Result<Filtered, FilterError> {
    let mut whole = Filtered {
        text: String::with_capacity(text.len()),
        objects: Vec::new(),
    };
    for part in parts(text) {
        let filtered = document_stream(part, wanted)?;
        whole.text.push_str(&filtered.text);
        whole.objects.extend(filtered.objects);
    }
    Ok(whole)
}

/// JSON values that follow one another are no YAML, although each of them is.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut done = 0;
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    while let Some(value) = values.next() {
        let end = values.byte_offset();
        match (value, text.get(done..end)) {
            (Ok(IgnoredAny), Some(part)) => parts.push(part),
            _ => return vec![text],
        }
        done = end;
    }
    match (parts.pop(), text.get(done..)) {
        (Some(last), Some(rest)) if !rest.is_empty() => {
            let start = done - last.len();
            parts.extend(text.get(start..));
        }
        (Some(last), _) => parts.push(last),
        (None, _) => return vec![text],
    }
    parts
}

fn document_stream(text: &str, wanted: Option<&Definition>) -> Result<Filtered, FilterError> {
    let first = Pass::over(text, wanted)?;
    if wanted.is_none() || !first.removes {
        return Ok(first.filtered);
    }
    // Another sidecar is there. It goes, and the pod is again what it was before the wanted one comes.
    let mut second = Pass::over(&first.filtered.text, wanted)?.filtered;
    for (done, before) in second.objects.iter_mut().zip(&first.filtered.objects) {
        if before.outcome == Outcome::Uninjected && done.outcome == Outcome::Injected {
            done.outcome = Outcome::Updated;
        }
    }
    Ok(second)
}

/// One reading and one change of a text.
struct Pass {
    filtered: Filtered,
    removes: bool,
}

/// What is done with one pod.
struct Step<'a> {
    document: usize,
    path: Vec<usize>,
    edits: Vec<Edit>,
    expected: Node<'a>,
}

impl Pass {
    /// Takes out what is there and not wanted; only where there is no such thing, it adds.
    fn over(text: &str, wanted: Option<&Definition>) -> Result<Self, FilterError> {
        let mut documents = tree::parse(text)?;
        let mut objects = Vec::new();
        let mut steps: Vec<(Verdict, Step<'_>)> = Vec::new();
        for (number, document) in documents.iter().enumerate() {
            let anchors = Anchors::of(document);
            for object in workload::objects(document, &anchors) {
                let Object { title, pod, .. } = object;
                let mut outcome = if object.lacks_version {
                    Outcome::NoVersion
                } else {
                    Outcome::NoPods
                };
                if let Some(pod) = pod {
                    outcome = match decide(text, &pod, &anchors, wanted) {
                        Ok((verdict, Some((edits, expected)))) => {
                            let step = Step {
                                document: number,
                                path: pod.path,
                                edits,
                                expected,
                            };
                            steps.push((verdict, step));
                            outcome_of(verdict)
                        }
                        Ok((verdict, None)) => outcome_of(verdict),
                        Err(refusal) => Outcome::Refused(refusal),
                    };
                }
                objects.push(Done { title, outcome });
            }
        }
        let removes = steps.iter().any(|(verdict, _)| *verdict == Verdict::Remove);
        if removes {
            steps.retain(|(verdict, _)| *verdict == Verdict::Remove);
        }
        let mut edits = Vec::new();
        for (_, step) in steps {
            edits.extend(step.edits);
            let document = documents.get_mut(step.document);
            let spec = document.and_then(|document| document.at_mut(&step.path));
            *spec.ok_or(FilterError::Unfaithful)? = step.expected;
        }
        let text = changed(text, edits, &documents)?;
        Ok(Self {
            filtered: Filtered { text, objects },
            removes,
        })
    }
}

fn outcome_of(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Add => Outcome::Injected,
        Verdict::Remove => Outcome::Uninjected,
        Verdict::Keep => Outcome::Unchanged,
        Verdict::LeaveAlone => Outcome::LeftAlone,
    }
}

type Change<'a> = (Vec<Edit>, Node<'a>);

fn decide<'t, 'a>(
    text: &'t str,
    pod: &Pod<'t, 'a>,
    anchors: &Anchors<'t, 'a>,
    wanted: Option<&Definition>,
) -> Result<(Verdict, Option<Change<'a>>), Refusal> {
    let verdict = rules::judge(pod, anchors, wanted)?;
    let Some(spec) = pod.spec else {
        return Ok((verdict, None));
    };
    let place = Place { text, spec };
    let change = match (verdict, wanted) {
        (Verdict::Add, Some(definition)) => Some(add(&place, above(text, pod), definition)?),
        (Verdict::Remove, _) => Some(remove(&place)?),
        _ => None,
    };
    Ok((verdict, change))
}

/// The column of the key `spec`.
fn above(text: &str, pod: &Pod<'_, '_>) -> usize {
    let entries = pod.template.entries();
    let key = pod.path.last().and_then(|&at| entries.get(at));
    key.map_or(0, |entry| {
        let start = entry.key.range.start;
        start - edits::line_start(text, start)
    })
}

/// The text with the edits, if it means what it is to mean.
fn changed(text: &str, edits: Vec<Edit>, wanted: &[Node<'_>]) -> Result<String, FilterError> {
    if edits.is_empty() {
        return Ok(text.to_owned());
    }
    let text = edits::apply(text, edits).ok_or(FilterError::Unfaithful)?;
    let documents = tree::parse(&text).map_err(|error| match error {
        TreeError::TooManyNodes => FilterError::Tree(error),
        TreeError::Syntax { .. } => FilterError::Unfaithful,
    })?;
    let is_faithful = documents.len() == wanted.len()
        && documents
            .iter()
            .zip(wanted)
            .all(|(document, wanted)| document.means(wanted));
    drop(documents);
    if is_faithful {
        Ok(text)
    } else {
        Err(FilterError::Unfaithful)
    }
}
