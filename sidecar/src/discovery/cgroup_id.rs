//! The cgroup v2 id of a process, by which the kernel side recognises processes that enter a running container.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The id of the cgroup v2 group that a process is in: the inode number of its directory, as
/// `bpf_get_current_cgroup_id` gives it.
///
/// `None` if there is no cgroup v2, if the group is the root or our own, or if a cgroup namespace hides its
/// directory from us: then other means have to do.
pub fn cgroup_id(pid: i32) -> Option<u64> {
    let path = unified_path(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
    let own = unified_path(&fs::read_to_string("/proc/self/cgroup").ok()?);
    if own.as_ref() == Some(&path) {
        return None;
    }
    let mount = unified_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
    let directory = mount.join(path.strip_prefix('/')?);
    fs::metadata(directory).ok().map(|metadata| metadata.ino())
}

/// Whether cgroups are version 2 alone here, so that the kernel side meets whatever enters a container by the
/// group's id. Anywhere else containers may be told apart only by version 1 paths, which the kernel side cannot read.
pub fn is_pure_v2() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|found| found.f_type == CGROUP2_MAGIC)
}

/// `CGROUP2_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The path of the v2 hierarchy, unless it is the root or outside our view.
fn unified_path(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let hidden = path == "/" || path.split('/').any(|component| component == "..");
    (!hidden && path.starts_with('/')).then(|| path.to_owned())
}

/// Where the v2 hierarchy is mounted as a whole.
fn unified_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        if filesystem.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/").then(|| Path::new(point).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_visible_group_below_the_root_counts() {
        let path = |text| unified_path(text);
        assert_eq!(path("4:cpu:/a\n0::/pods/b\n"), Some("/pods/b".to_owned()));
        assert_eq!(path("0::/\n"), None);
        assert_eq!(path("0::/../docker-1.scope\n"), None);
        assert_eq!(path("4:cpu:/a\n"), None);
    }

    #[test]
    fn the_mount_must_show_the_whole_hierarchy() {
        let whole = "30 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(
            unified_mount(whole),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        let part = "30 24 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(unified_mount(part), None);
    }

    #[test]
    fn our_own_group_is_never_named() {
        assert_eq!(
            cgroup_id(i32::try_from(std::process::id()).expect("a process id")),
            None
        );
    }
}
