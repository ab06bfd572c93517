//! Every file as it is and as it shall be, printed or carried out.

use super::{
    Error, Runtime,
    replace::replace,
    root::{Existing, Root},
};
use similar::TextDiff;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Mode of a file that was not there before.
const NEW_MODE: u32 = 0o644;

/// One file.
enum Step {
    Write {
        path: PathBuf,
        before: Option<Existing>,
        after: String,
    },
    Keep {
        path: PathBuf,
        original: Existing,
    },
    Remove {
        path: PathBuf,
        before: Existing,
    },
    Program {
        path: PathBuf,
        contents: Vec<u8>,
    },
}

/// What shall be done, in order. Steps that change nothing are not in it.
#[derive(Default)]
pub(super) struct Plan {
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl Plan {
    /// `path` shall hold `after`.
    pub(super) fn write(&mut self, path: &Path, before: Option<Existing>, after: String) {
        if before.as_ref().is_none_or(|file| file.text != after) {
            self.steps.push(Step::Write {
                path: path.to_owned(),
                before,
                after,
            });
        }
    }

    /// `path` shall be a copy of `original`, as private as that.
    pub(super) fn keep(&mut self, path: &Path, original: Existing) {
        self.steps.push(Step::Keep {
            path: path.to_owned(),
            original,
        });
    }

    /// A file that is nobody's but ours shall hold `after`.
    pub(super) fn write_own(
        &mut self,
        root: &Root,
        path: &Path,
        after: String,
    ) -> Result<(), Error> {
        let before = root.read(path)?;
        self.write(path, before, after);
        Ok(())
    }

    /// `path` shall not be there.
    pub(super) fn remove(&mut self, path: &Path, before: Option<Existing>) {
        if let Some(before) = before {
            self.steps.push(Step::Remove {
                path: path.to_owned(),
                before,
            });
        }
    }

    /// A file that is nobody's but ours shall not be there.
    pub(super) fn remove_own(&mut self, root: &Root, path: &Path) -> Result<(), Error> {
        let before = root.read(path)?;
        self.remove(path, before);
        Ok(())
    }

    /// This program shall be at `path`.
    pub(super) fn copy_own_program(&mut self, root: &Root, path: &Path) -> Result<(), Error> {
        let contents = fs::read("/proc/self/exe").map_err(Error::OwnPath)?;
        let place = root.locate(path)?;
        let same = fs::metadata(&place).is_ok_and(|there| there.len() == contents.len() as u64)
            && fs::read(&place).is_ok_and(|there| there == contents);
        if !same {
            self.steps.push(Step::Program {
                path: path.to_owned(),
                contents,
            });
        }
        Ok(())
    }

    /// Something that people should know.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints it, and does it unless `dry_run`.
    pub(super) fn carry_out(
        self,
        root: &Root,
        dry_run: bool,
        runtime: Runtime,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        for step in &self.steps {
            let place = root.locate(step.path())?;
            if dry_run {
                step.show(&place, out)?;
            } else {
                step.carry_out(&place).map_err(|source| Error::Write {
                    path: place.clone(),
                    source,
                })?;
                writeln!(out, "{} {}", step.done(), place.display())?;
            }
        }
        if self.steps.is_empty() {
            writeln!(out, "nothing to change")?;
            return Ok(());
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        let last = if dry_run {
            "dry run: nothing was written"
        } else {
            runtime.restart()
        };
        writeln!(out, "{last}")?;
        Ok(())
    }
}

impl Step {
    fn path(&self) -> &Path {
        match self {
            Self::Write { path, .. }
            | Self::Keep { path, .. }
            | Self::Remove { path, .. }
            | Self::Program { path, .. } => path,
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Write { before: None, .. } | Self::Program { .. } => "wrote",
            Self::Keep { .. } => "kept the original as",
            Self::Write { .. } => "changed",
            Self::Remove { .. } => "removed",
        }
    }

    fn show(&self, place: &Path, out: &mut impl Write) -> io::Result<()> {
        let (before, after) = match self {
            Self::Program { contents, .. } => {
                return writeln!(
                    out,
                    "would copy this program ({} bytes) to {}",
                    contents.len(),
                    place.display()
                );
            }
            Self::Keep { .. } => {
                return writeln!(out, "would keep the original as {}", place.display());
            }
            Self::Write { before, after, .. } => (before.as_ref(), Some(after)),
            Self::Remove { before, .. } => (Some(before), None),
        };
        let name = |there: bool| {
            if there {
                place.display().to_string()
            } else {
                "/dev/null".to_owned()
            }
        };
        let old = before.map_or("", |file| file.text.as_str());
        let new = after.map_or("", String::as_str);
        let diff = TextDiff::from_lines(old, new);
        let unified = diff
            .unified_diff()
            .header(&name(before.is_some()), &name(after.is_some()))
            .to_string();
        out.write_all(unified.as_bytes())
    }

    fn carry_out(&self, place: &Path) -> io::Result<()> {
        if let (false, Some(directory)) = (matches!(self, Self::Remove { .. }), place.parent()) {
            fs::create_dir_all(directory)?;
        }
        match self {
            Self::Write { before, after, .. } => {
                let mode = before.as_ref().map_or(NEW_MODE, |file| file.mode);
                let owner = before.as_ref().map(|file| file.owner);
                replace(place, after.as_bytes(), mode, owner)
            }
            Self::Keep { original, .. } => {
                let contents = original.text.as_bytes();
                replace(place, contents, original.mode, Some(original.owner))
            }
            Self::Program { contents, .. } => replace(place, contents, 0o755, None),
            Self::Remove { .. } => fs::remove_file(place),
        }
    }
}
