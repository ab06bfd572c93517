//! containerd's configuration file and the files that it imports.

use super::{
    super::{Error, edited::Edited, plan::Plan, root::Root},
    CONFIG, DROP_IN,
    config::{self, ContainerdToml, Handler, Version},
};
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, value};

/// Names of the CRI plugin in `disabled_plugins`.
const CRI: [&str; 3] = [
    "cri",
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.runtime",
];

struct File {
    edited: Edited<ContainerdToml>,
    /// Where it lies for us.
    place: PathBuf,
    document: DocumentMut,
    touched: bool,
}

/// `config.toml` and what it imports, in the order in which containerd reads them, without our part.
pub(super) struct Files {
    main: File,
    imported: Vec<File>,
}

impl Files {
    pub(super) fn open(root: &Root) -> Result<Self, Error> {
        let main = File::open(root, Path::new(CONFIG))?;
        let mut imported = Vec::new();
        for pattern in config::strings(main.document.get("imports")) {
            for path in expand(root, &absolute(&pattern))? {
                if path != Path::new(DROP_IN) && path != Path::new(CONFIG) {
                    imported.push(File::open(root, &path)?);
                }
            }
        }
        Ok(Self { main, imported })
    }

    /// What `config.toml` says its version is; `None` if it is not there or empty.
    pub(super) fn version(&self) -> Result<Option<Version>, Error> {
        let main = &self.main.document;
        // A file without a version is of version 1, which has no key for it.
        let found = match main.get("version") {
            Some(version) => version.as_integer().unwrap_or_default(),
            None if main.is_empty() => return Ok(None),
            None => 1,
        };
        match found {
            2 => Ok(Some(Version::Two)),
            3 => Ok(Some(Version::Three)),
            _ => Err(Error::ConfigVersion {
                path: self.main.place.clone(),
                found,
            }),
        }
    }

    /// Handlers of all files, a later file's settings over those of an earlier one.
    pub(super) fn handlers(&self) -> Vec<Handler> {
        let mut all: Vec<Handler> = Vec::new();
        for file in std::iter::once(&self.main).chain(&self.imported) {
            for handler in config::handlers(&file.document) {
                match all.iter_mut().find(|known| known.name == handler.name) {
                    Some(known) => known.overlay(handler),
                    None => all.push(handler),
                }
            }
        }
        all
    }

    pub(super) fn cri_is_disabled(&self) -> bool {
        config::strings(self.main.document.get("disabled_plugins"))
            .iter()
            .any(|plugin| CRI.contains(&plugin.as_str()))
    }

    /// Makes `config.toml` import the drop-in, unless one of its patterns does.
    pub(super) fn import_drop_in(&mut self) {
        let document = self.main.change(Version::Three);
        let patterns = config::strings(document.get("imports"));
        let covered = patterns.iter().any(|pattern| {
            glob::Pattern::new(&absolute(pattern)).is_ok_and(|pattern| pattern.matches(DROP_IN))
        });
        if covered {
            return;
        }
        let imports = document
            .entry("imports")
            .or_insert_with(|| value(Array::new()));
        if let Some(imports) = imports.as_array_mut() {
            imports.push(DROP_IN);
        }
    }

    /// Adds our settings to each handler in each file that defines it; to one that none defines, in the last file
    /// with a section of the CRI plugin, which is the one that containerd 1.x takes.
    pub(super) fn edit_handlers(&mut self, handlers: &[Handler]) -> Result<(), Error> {
        for handler in handlers {
            let mut defined = false;
            for file in std::iter::once(&mut self.main).chain(&mut self.imported) {
                let here = config::handlers(&file.document);
                if here.iter().any(|known| known.name == handler.name) {
                    file.add(handler)?;
                    defined = true;
                }
            }
            if !defined {
                let owner = self
                    .imported
                    .iter_mut()
                    .rfind(|file| config::has_plugin(&file.document, Version::Two));
                owner.unwrap_or(&mut self.main).add(handler)?;
            }
        }
        Ok(())
    }

    pub(super) fn install(self, plan: &mut Plan) {
        for file in self.imported.into_iter().chain([self.main]) {
            let after = if file.touched {
                file.document.to_string()
            } else {
                file.edited.base.clone()
            };
            file.edited.install(plan, after);
        }
    }

    pub(super) fn uninstall(self, plan: &mut Plan) {
        for file in [self.main].into_iter().chain(self.imported) {
            file.edited.uninstall(plan);
        }
    }
}

impl File {
    fn open(root: &Root, path: &Path) -> Result<Self, Error> {
        let edited = Edited::open(root, path, ContainerdToml)?;
        let place = root.locate(path)?;
        let document = config::parse(&place, &edited.base)?;
        if document.get("imports").is_some_and(|item| !item.is_array()) {
            return Err(Error::Shape {
                path: place,
                key: "imports".to_owned(),
                expected: "an array of paths",
            });
        }
        Ok(Self {
            edited,
            place,
            document,
            touched: false,
        })
    }

    /// The document, to be changed; a new one says its version first.
    fn change(&mut self, version: Version) -> &mut DocumentMut {
        self.touched = true;
        if self.document.is_empty() {
            self.document.insert("version", value(version.number()));
        }
        &mut self.document
    }

    fn add(&mut self, handler: &Handler) -> Result<(), Error> {
        self.change(Version::Two);
        config::add(&self.place, &mut self.document, Version::Two, handler)
    }
}

/// An import as containerd takes it: relative to the directory of the configuration file.
fn absolute(pattern: &str) -> String {
    let directory = Path::new(CONFIG).parent().unwrap_or(Path::new("/"));
    directory.join(pattern).to_string_lossy().into_owned()
}

/// Files below the root that match a pattern, in the order of names, as that system names them.
pub(super) fn expand(root: &Root, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let below = glob::Pattern::escape(&root.directory().to_string_lossy());
    let pattern = format!("{}{pattern}", below.trim_end_matches('/'));
    let found = glob::glob(&pattern).map_err(|_| Error::Shape {
        path: root.directory().join(CONFIG.trim_start_matches('/')),
        key: "imports".to_owned(),
        expected: "an array of paths and patterns",
    })?;
    Ok(found
        .filter_map(Result::ok)
        .filter(|path| path.is_file())
        .map(|path| root.name_inside(&path))
        .collect())
}
