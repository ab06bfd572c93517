//! One TOML file of containerd: its runtime handlers, and our settings in it.

use super::{
    super::{Error, edited::Format},
    ANNOTATIONS, BASE_SPEC, DROP_IN, base_spec,
};
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, Item, Key, Table, TableLike, Value, value};

/// The shim that runs an OCI runtime on this kernel.
const RUNC_SHIM: &str = "io.containerd.runc.v2";

/// Our list settings of a handler.
const LISTS: [&str; 2] = ["pod_annotations", "container_annotations"];

/// Configuration versions that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// containerd 1.x, and 2.x by conversion at each start.
    Two,
    /// containerd 2.x.
    Three,
}

impl Version {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// Name of the plugin that holds the runtime handlers.
    fn plugin(self) -> &'static str {
        match self {
            Self::Two => "io.containerd.grpc.v1.cri",
            Self::Three => "io.containerd.cri.v1.runtime",
        }
    }

    fn path(self) -> [&'static str; 4] {
        ["plugins", self.plugin(), "containerd", "runtimes"]
    }
}

/// A runtime handler, as far as it concerns the hook.
#[derive(Clone, Debug, Default)]
pub(super) struct Handler {
    pub(super) name: String,
    pub(super) shim: Option<String>,
    pub(super) base_spec: Option<PathBuf>,
    /// Values of [`LISTS`].
    pub(super) annotations: [Vec<String>; 2],
}

impl Handler {
    /// The handler that containerd has when none is configured.
    pub(super) fn runc() -> Self {
        Self {
            name: "runc".to_owned(),
            shim: Some(RUNC_SHIM.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn is_runc(&self) -> bool {
        self.shim.as_deref().is_none_or(|shim| shim == RUNC_SHIM)
    }

    /// What a later file says wins, setting by setting.
    pub(super) fn overlay(&mut self, later: Self) {
        self.shim = later.shim.or(self.shim.take());
        self.base_spec = later.base_spec.or(self.base_spec.take());
        for (mine, theirs) in self.annotations.iter_mut().zip(later.annotations) {
            if !theirs.is_empty() {
                *mine = theirs;
            }
        }
    }
}

pub(super) fn parse(place: &Path, text: &str) -> Result<DocumentMut, Error> {
    text.parse().map_err(|source| Error::Toml {
        path: place.to_owned(),
        source: Box::new(source),
    })
}

/// Whether the file says anything about the plugin that holds the handlers.
pub(super) fn has_plugin(document: &DocumentMut, version: Version) -> bool {
    descend(document.as_table(), &version.path()[..2]).is_some()
}

/// Handlers of a file, of both configuration versions.
pub(super) fn handlers(document: &DocumentMut) -> Vec<Handler> {
    let text = |table: &dyn TableLike, key| {
        let found = table.get(key).and_then(Item::as_str);
        found.filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    [Version::Two, Version::Three]
        .iter()
        .filter_map(|version| descend(document.as_table(), &version.path()))
        .flat_map(|runtimes| runtimes.iter())
        .filter_map(|(name, item)| Some((name, item.as_table_like()?)))
        .map(|(name, table)| Handler {
            name: name.to_owned(),
            shim: text(table, "runtime_type"),
            base_spec: text(table, "base_runtime_spec").map(PathBuf::from),
            annotations: LISTS.map(|list| strings(table.get(list))),
        })
        .collect()
}

/// Adds our settings to a handler, which is made if it is not there.
pub(super) fn add(
    place: &Path,
    document: &mut DocumentMut,
    version: Version,
    handler: &Handler,
) -> Result<(), Error> {
    let runtimes = descend_or_make(place, document, &version.path())?;
    let is_new = !runtimes.contains_key(&handler.name);
    let table = child(place, runtimes, &handler.name)?;
    if is_new && let Some(shim) = handler.shim.as_ref().filter(|_| version == Version::Two) {
        // containerd 1.x forgets its own definition of `runc` for one that is in a file.
        set(table, "runtime_type", value(shim));
    }
    let spec = base_spec(&handler.name).to_string_lossy().into_owned();
    set(table, "base_runtime_spec", value(spec));
    for (list, there) in LISTS.into_iter().zip(&handler.annotations) {
        let ours = ANNOTATIONS.into_iter().map(ToOwned::to_owned);
        let ours = ours.filter(|pattern| !there.contains(pattern));
        let all: Array = there.iter().cloned().chain(ours).collect();
        set(table, list, value(all));
    }
    Ok(())
}

/// The drop-in for configuration version 3.
pub(super) fn drop_in(handlers: &[Handler]) -> Result<String, Error> {
    let mut document = DocumentMut::new();
    document.insert("version", value(Version::Three.number()));
    for handler in handlers {
        add(Path::new(DROP_IN), &mut document, Version::Three, handler)?;
    }
    Ok(format!(
        "# Written by `pilotfish-hook install --runtime containerd`, removed by `uninstall`.\n{document}"
    ))
}

/// How containerd's files are taken apart.
pub(super) struct ContainerdToml;

impl Format for ContainerdToml {
    fn without_ours(
        &self,
        place: &Path,
        text: &str,
        backup: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let mut document = parse(place, text)?;
        let before: DocumentMut = backup
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let mut ours = false;
        for version in [Version::Two, Version::Three] {
            let names: Vec<String> = handlers(&document)
                .into_iter()
                .map(|handler| handler.name)
                .collect();
            for name in names {
                let [plugins, plugin, containerd, runtimes] = version.path();
                let path = [plugins, plugin, containerd, runtimes, name.as_str()];
                ours |= restore_handler(&mut document, &before, &path);
            }
        }
        ours |= forget_import(&mut document, &before);
        Ok(ours.then(|| document.to_string()))
    }

    fn same(&self, one: &str, other: &str) -> bool {
        let value = |text: &str| toml_edit::de::from_str::<serde_json::Value>(text).ok();
        value(one).is_some_and(|one| Some(one) == value(other))
    }

    fn is_blank(&self, text: &str) -> bool {
        text.parse::<DocumentMut>()
            .is_ok_and(|document| document.iter().all(|(key, _)| key == "version"))
    }
}

/// Takes our settings out of a handler, and the handler out if it was ours altogether.
fn restore_handler(document: &mut DocumentMut, before: &DocumentMut, path: &[&str]) -> bool {
    let Some(table) = descend_mut(document.as_table_mut(), path) else {
        return false;
    };
    let spec = table.get("base_runtime_spec").and_then(Item::as_str);
    if !spec.is_some_and(|spec| spec.starts_with(BASE_SPEC)) {
        return false;
    }
    let previous = descend(before.as_table(), path);
    let earlier = |key: &str| previous.and_then(|table| table.get(key));
    match earlier("base_runtime_spec") {
        Some(item) => set(table, "base_runtime_spec", item.clone()),
        None => drop(table.remove("base_runtime_spec")),
    }
    for list in LISTS {
        let kept = strings(earlier(list));
        if let Some(array) = table.get_mut(list).and_then(Item::as_array_mut) {
            array.retain(|element| {
                let ours = element
                    .as_str()
                    .is_some_and(|text| ANNOTATIONS.contains(&text));
                !ours
                    || kept
                        .iter()
                        .any(|text| Some(text.as_str()) == element.as_str())
            });
            if array.is_empty() && earlier(list).is_none() {
                table.remove(list);
            }
        }
    }
    if previous.is_none() && table.iter().all(|(key, _)| key == "runtime_type") {
        remove(document, path);
    }
    // Tables that were made only to hold the handler.
    for depth in (1..path.len()).rev() {
        let parent = &path[..depth];
        let empty = descend(document.as_table(), parent).is_some_and(TableLike::is_empty);
        if empty && descend(before.as_table(), parent).is_none() {
            remove(document, parent);
        }
    }
    true
}

fn forget_import(document: &mut DocumentMut, before: &DocumentMut) -> bool {
    let Some(imports) = document.get_mut("imports").and_then(Item::as_array_mut) else {
        return false;
    };
    let count = imports.len();
    imports.retain(|element| element.as_str() != Some(DROP_IN));
    let ours = imports.len() != count;
    if ours && imports.is_empty() && !before.contains_key("imports") {
        document.remove("imports");
    }
    ours
}

/// Texts of an array.
pub(super) fn strings(item: Option<&Item>) -> Vec<String> {
    item.and_then(Item::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect()
}

fn remove(document: &mut DocumentMut, path: &[&str]) {
    if let Some((name, parent)) = path.split_last()
        && let Some(table) = descend_mut(document.as_table_mut(), parent)
    {
        table.remove(name);
    }
}

fn descend<'a>(table: &'a dyn TableLike, path: &[&str]) -> Option<&'a dyn TableLike> {
    path.iter()
        .try_fold(table, |table, key| table.get(key)?.as_table_like())
}

fn descend_mut<'a>(table: &'a mut dyn TableLike, path: &[&str]) -> Option<&'a mut dyn TableLike> {
    path.iter()
        .try_fold(table, |table, key| table.get_mut(key)?.as_table_like_mut())
}

fn descend_or_make<'a>(
    place: &Path,
    document: &'a mut DocumentMut,
    path: &[&str],
) -> Result<&'a mut dyn TableLike, Error> {
    let top: &mut dyn TableLike = document.as_table_mut();
    path.iter()
        .try_fold(top, |table, key| child(place, table, key))
}

/// A table in a table, made if it is not there.
fn child<'a>(
    place: &Path,
    table: &'a mut dyn TableLike,
    key: &str,
) -> Result<&'a mut dyn TableLike, Error> {
    if !table.contains_key(key) {
        let mut made = Table::new();
        made.set_implicit(true);
        table.insert(key, Item::Table(made));
    }
    let item = table.get_mut(key).and_then(Item::as_table_like_mut);
    item.ok_or_else(|| Error::Shape {
        path: place.to_owned(),
        key: key.to_owned(),
        expected: "a table",
    })
}

/// Sets a key; a new one is indented like the first one of its table.
fn set(table: &mut dyn TableLike, key: &str, item: Item) {
    if let Some(there) = table.get_mut(key) {
        let decor = there.as_value().map(|value| value.decor().clone());
        *there = item;
        if let (Some(value), Some(decor)) = (there.as_value_mut(), decor) {
            *value.decor_mut() = decor;
        }
        return;
    }
    let first = table.iter().next().map(|(first, _)| first.to_owned());
    let space = first
        .and_then(|first| table.key(&first).and_then(indentation))
        .unwrap_or_default();
    table.insert(key, item);
    if let Some(mut key) = table.key_mut(key) {
        key.leaf_decor_mut().set_prefix(space);
    }
}

/// White space between the start of the line and a key.
fn indentation(key: &Key) -> Option<String> {
    let before = key.leaf_decor().prefix()?.as_str()?;
    let line = before.rsplit('\n').next().unwrap_or_default();
    line.trim().is_empty().then(|| line.to_owned())
}
