//! Where the result goes.

use super::output::{OutputError, write};
use super::*;
use std::{
    fs::{File, Permissions},
    io::Read,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::PathBuf,
};
use tempfile::TempDir;

/// A directory with a manifest that only its owner and group may read.
fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("web.yaml");
    fs::write(&file, "old\n").expect("a file");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("its mode");
    (directory, file)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o7777
}

fn names(directory: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.path()).expect("a directory");
    let mut names: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").file_name().into())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let (directory, file) = directory();
    let mut reader = File::open(&file).expect("the old file");
    write(Some(&file), "new\n").expect("a directory to write to");
    let mut seen = String::new();
    reader.read_to_string(&mut seen).expect("a text");
    assert_eq!(seen, "old\n", "who has it open goes on reading the old one");
    assert_eq!(fs::read_to_string(&file).expect("a text"), "new\n");
    assert_eq!(mode(&file), 0o640);
    assert_eq!(names(&directory), [Path::new("web.yaml")]);
}

#[test]
fn a_link_stays_one() {
    let (directory, file) = directory();
    let link = directory.path().join("link");
    symlink("web.yaml", &link).expect("a link");
    write(Some(&link), "new\n").expect("a directory to write to");
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&file).expect("a text"), "new\n");
    assert_eq!(mode(&file), 0o640);
}

#[test]
fn a_link_to_nothing_is_not_followed() {
    let (directory, _) = directory();
    let link = directory.path().join("link");
    symlink("elsewhere", &link).expect("a link");
    let error = write(Some(&link), "new\n").expect_err("a link to nothing");
    assert!(matches!(error, OutputError::Dangling(_)), "{error}");
    assert_eq!(
        names(&directory),
        [Path::new("link"), Path::new("web.yaml")]
    );
}

#[test]
fn a_new_file_has_the_mode_that_others_have() {
    let (directory, _) = directory();
    let (usual, ours) = (
        directory.path().join("usual"),
        directory.path().join("ours"),
    );
    File::create(&usual).expect("a file");
    write(Some(&ours), "new\n").expect("a directory to write to");
    assert_eq!(fs::read_to_string(&ours).expect("a text"), "new\n");
    assert_eq!(mode(&ours), mode(&usual));
}

#[test]
fn what_is_no_file_is_written_to_and_stays() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    write(Some(&path), "new\n").expect("a pipe");
    drop(writer);
    let mut seen = String::new();
    reader.read_to_string(&mut seen).expect("a text");
    assert_eq!(seen, "new\n");
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let (directory, _) = directory();
    let missing = directory.path().join("no such directory/web.yaml");
    for path in [directory.path(), &missing] {
        let error = write(Some(path), "new\n").expect_err("no file");
        assert!(
            error.to_string().contains(&*path.to_string_lossy()),
            "{error}"
        );
    }
    assert_eq!(names(&directory), [Path::new("web.yaml")]);
}

#[test]
fn texts_of_several_files_are_one_stream() {
    let mut stream = String::new();
    for text in [
        "\u{feff}a: 1",
        "\u{feff}b: 2\n",
        "\u{feff}---\nc: 3\n",
        "d: 4\n",
    ] {
        join(&mut stream, text);
    }
    // A mark in the middle of a stream would be part of a key.
    assert_eq!(stream, "\u{feff}a: 1\n---\nb: 2\n---\nc: 3\n---\nd: 4\n");
}
