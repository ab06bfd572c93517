//! Where a document has pods.

use super::anchors::Anchors;
use super::tree::{Node, Value};

/// Most lists within lists.
const MAX_LISTS: usize = 4;

/// An object of a document: what `kubectl` would make of it.
#[derive(Debug)]
pub(super) struct Object<'t, 'a> {
    /// `deployment "web"`.
    pub(super) title: String,
    /// It says its kind and not its version, without which no kind means anything.
    pub(super) lacks_version: bool,
    /// Where its pod is described; none for a kind without pods.
    pub(super) pod: Option<Pod<'t, 'a>>,
}

/// The description of a pod.
#[derive(Debug)]
pub(super) struct Pod<'t, 'a> {
    /// Positions from the document's root to the specification.
    pub(super) path: Vec<usize>,
    /// Every node on the way there, the document first, the specification last.
    pub(super) way: Vec<&'t Node<'a>>,
    /// The object that it belongs to.
    pub(super) object: &'t Node<'a>,
    /// What has the pod's `metadata` and `spec`.
    pub(super) template: &'t Node<'a>,
    /// The specification, unless the way to it ends early.
    pub(super) spec: Option<&'t Node<'a>>,
}

/// The path from an object to the description of its pod, if it is of a kind that has one.
fn path_of(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController")
        | ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet")
        | ("apps", "StatefulSet")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// All objects of a document, those of lists one by one.
pub(super) fn objects<'t, 'a>(
    document: &'t Node<'a>,
    anchors: &Anchors<'t, 'a>,
) -> Vec<Object<'t, 'a>> {
    let mut visit = Visit {
        anchors,
        path: Vec::new(),
        way: vec![document],
        found: Vec::new(),
    };
    visit.object(document, ("", ""), MAX_LISTS);
    visit.found
}

struct Visit<'v, 't, 'a> {
    anchors: &'v Anchors<'t, 'a>,
    path: Vec<usize>,
    way: Vec<&'t Node<'a>>,
    found: Vec<Object<'t, 'a>>,
}

impl<'t, 'a> Visit<'_, 't, 'a> {
    /// `inherited` are version and kind of what does not say them: an item of a list as the API sends it.
    fn object(&mut self, object: &'t Node<'a>, inherited: (&'t str, &'t str), lists: usize) {
        if object.is_null() {
            return;
        }
        let text = |key| self.anchors.text(object, key);
        let version = text("apiVersion").unwrap_or(inherited.0);
        let kind = text("kind").unwrap_or(inherited.1);
        if lists > 0
            && let Some(of) = kind.strip_suffix("List")
            && let Some(at) = object.position("items")
        {
            let list = &object.entries()[at].value;
            if matches!(list.value, Value::Sequence { .. }) {
                self.list(at, list, (version, of), lists - 1);
                return;
            }
        }
        let path = path_of(version, kind);
        let pod = path.map(|path| self.follow(object, path));
        self.found.push(Object {
            title: title(object, kind, self.anchors),
            lacks_version: version.is_empty() && !kind.is_empty(),
            pod,
        });
    }

    fn list(&mut self, at: usize, list: &'t Node<'a>, of: (&'t str, &'t str), lists: usize) {
        let depth = (self.path.len(), self.way.len());
        for (index, item) in list.items().iter().enumerate() {
            self.path.extend([at, index]);
            self.way.extend([list, item]);
            self.object(item, of, lists);
            self.path.truncate(depth.0);
            self.way.truncate(depth.1);
        }
    }

    fn follow(&self, object: &'t Node<'a>, path: &[&str]) -> Pod<'t, 'a> {
        let mut pod = Pod {
            path: self.path.clone(),
            way: self.way.clone(),
            object,
            template: object,
            spec: None,
        };
        let mut node = object;
        for key in path.iter().chain(&["spec"]) {
            pod.template = node;
            let Some(at) = node.position(key) else {
                return pod;
            };
            node = &node.entries()[at].value;
            pod.path.push(at);
            pod.way.push(node);
        }
        pod.spec = Some(node);
        pod
    }
}

fn title<'t, 'a>(object: &'t Node<'a>, kind: &str, anchors: &Anchors<'t, 'a>) -> String {
    let kind = if kind.is_empty() {
        "object without a kind".to_owned()
    } else {
        shown(&kind.to_lowercase())
    };
    let metadata = anchors.get(object, "metadata");
    let name = metadata.and_then(|metadata| {
        let text = |key| anchors.text(metadata, key);
        text("name").or_else(|| text("generateName"))
    });
    match name {
        Some(name) => format!("{kind} \"{}\"", shown(name)),
        None => kind,
    }
}

/// A name of the input for a terminal.
pub(super) fn shown(name: &str) -> String {
    const MOST: usize = 253;
    name.chars()
        .take(MOST)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}
