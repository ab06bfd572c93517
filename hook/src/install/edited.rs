//! A file of somebody else, of which a part is ours.
//!
//! Installing is taking our part out and putting the new one in; uninstalling is only the first half. So a second
//! installation changes nothing, one with other options replaces the first, and both leave alone what others wrote in
//! the meantime. The backup remembers what the file was before our part, for the values that we replaced.

use super::{
    Error,
    plan::Plan,
    root::{Existing, Root},
};
use std::path::{Path, PathBuf};

/// How a kind of file is taken apart.
pub(super) trait Format {
    /// The text without our part, values that we replaced taken from `backup`. `None`: nothing is ours.
    fn without_ours(
        &self,
        path: &Path,
        text: &str,
        backup: Option<&str>,
    ) -> Result<Option<String>, Error>;

    /// Whether both texts say the same.
    fn same(&self, one: &str, other: &str) -> bool;

    /// Whether a file that says this might as well be absent.
    fn is_blank(&self, text: &str) -> bool;
}

/// The file, with our part taken out.
pub(super) struct Edited<F> {
    pub(super) path: PathBuf,
    /// Its text without our part; empty if there is no file.
    pub(super) base: String,
    current: Option<Existing>,
    backup: Option<Existing>,
    was_ours: bool,
    format: F,
}

impl<F: Format> Edited<F> {
    pub(super) fn open(root: &Root, path: &Path, format: F) -> Result<Self, Error> {
        let current = root.read(path)?;
        let backup = root.read(&backup_path(path))?;
        let before = backup.as_ref().map(|file| file.text.as_str());
        let text = current.as_ref().map_or("", |file| file.text.as_str());
        let place = root.locate(path)?;
        let stripped = format.without_ours(&place, text, before)?;
        let was_ours = stripped.is_some();
        let base = match (stripped, before) {
            (Some(text), Some(before)) if same(&format, &text, before) => before.to_owned(),
            // Only we wrote it.
            (Some(text), None) if format.is_blank(&text) => String::new(),
            (Some(text), _) => text,
            (None, _) => text.to_owned(),
        };
        Ok(Self {
            path: path.to_owned(),
            base,
            current,
            backup,
            was_ours,
            format,
        })
    }

    /// The file shall hold `after`, which is [`Self::base`] with our part.
    pub(super) fn install(self, plan: &mut Plan, after: String) {
        // A backup from an earlier installation that is gone would bring back values of that time.
        if let (false, Some(current)) = (self.was_ours, &self.current)
            && current.text != after
        {
            plan.keep(&backup_path(&self.path), current.clone());
        }
        plan.write(&self.path, self.current, after);
    }

    /// The file shall hold nothing of ours.
    pub(super) fn uninstall(self, plan: &mut Plan) {
        if !self.was_ours {
            return;
        }
        match self.backup {
            None if self.format.is_blank(&self.base) => plan.remove(&self.path, self.current),
            Some(backup) if backup.text == self.base => {
                plan.write(&self.path, self.current, self.base);
                plan.remove(&backup_path(&self.path), Some(backup));
            }
            _ => plan.write(&self.path, self.current, self.base),
        }
    }
}

/// Whether both texts say the same, or nothing.
fn same<F: Format>(format: &F, one: &str, other: &str) -> bool {
    format.same(one, other) || (format.is_blank(one) && other.trim().is_empty())
}

/// Where the first original is kept.
fn backup_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pilotfish-backup");
    name.into()
}
