//! Which cgroups are a container's own, so that a process that enters it later is recognised.

/// The cgroups of one container. A process is in the container if it is in all of them, or below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Controllers and path of each.
    paths: Vec<(String, String)>,
    /// A path names the container's id.
    named: bool,
    /// The group of version 2 is among what proves a process to be inside.
    unified: bool,
}

impl Groups {
    /// From the `/proc/PID/cgroup` texts of the container's first process and of ourselves, and the container's id.
    ///
    /// The root of a hierarchy is nobody's own, and neither is a group that holds us: everything that the agent starts
    /// would be in it. A path that names the id proves itself; without one all paths count together, because
    /// hierarchies that the runtime does not manage leave the container in the group of whoever started it.
    pub(super) fn of(first: &str, own: &str, id: &str) -> Self {
        let candidates = memberships(first).filter(|(hierarchy, path)| {
            let holds_us = memberships(own)
                .any(|(other, ours)| other == *hierarchy && is_at_or_below(ours, path));
            !leads_up(path) && !holds_us
        });
        let candidates: Vec<_> = candidates
            .map(|(hierarchy, path)| (hierarchy.to_owned(), path.to_owned()))
            .collect();
        let named = candidates.iter().find(|(_, path)| names(path, id)).cloned();
        let unified = candidates.iter().any(|(controllers, path)| {
            controllers.is_empty() && (named.is_none() || names(path, id))
        });
        Self {
            named: named.is_some(),
            paths: named.map_or(candidates, |group| vec![group]),
            unified,
        }
    }

    /// Whether a process with this `/proc/PID/cgroup` text is in the container; the more, the deeper the container's
    /// groups lie. `None` also for a container that has none of its own.
    pub(super) fn hold(&self, cgroup: &str) -> Option<usize> {
        let inside = |(hierarchy, group): &(String, String)| {
            memberships(cgroup)
                .any(|(other, path)| other == hierarchy && is_at_or_below(path, group))
        };
        if self.paths.iter().all(inside) {
            self.paths.iter().map(|(_, group)| group.len()).max()
        } else {
            None
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether the name alone proves that they are the container's own.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Whether a process in the container's cgroup v2 group is in the container.
    pub(super) fn has_unified(&self) -> bool {
        self.unified
    }
}

/// Controllers (empty for version 2) and path of each line (`HIERARCHY:CONTROLLERS:PATH`, cgroups(7)).
fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        path.starts_with('/').then_some((controllers, path))
    })
}

/// The root, or outside of our cgroup namespace with nothing after it: an ancestor of us.
fn leads_up(path: &str) -> bool {
    path.split('/')
        .all(|component| component.is_empty() || component == "..")
}

fn is_at_or_below(path: &str, group: &str) -> bool {
    path.strip_prefix(group)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What runtimes put before an id, where they do.
const PREFIXES: &[&str] = &[
    "",
    "docker-",
    "cri-containerd-",
    "nerdctl-",
    "crio-",
    "libpod-",
    "libpod-payload-",
    "runc-",
    "crun-",
];

/// Whether a component is the id, alone or as runtimes dress it (`docker-ID.scope`, `SLICE:cri-containerd:ID`). Ids
/// may be short: `session-1.scope` is not that of container `1`.
fn names(path: &str, id: &str) -> bool {
    let is_name = |component: &str| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let unsplit = component.contains(':') && component.rsplit(':').next() == Some(id);
        unsplit
            || PREFIXES
                .iter()
                .any(|prefix| name.strip_prefix(prefix) == Some(id))
    };
    !id.is_empty() && path.split('/').any(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1f1c0de1a5b0";

    #[test]
    fn a_path_that_names_the_id_is_enough() {
        let first = "5:misc:/session\n4:cpu:/docker/1f1c0de1a5b0\n0::/\n";
        let groups = Groups::of(first, "5:misc:/other\n4:cpu:/\n0::/\n", ID);
        for inside in [
            "5:misc:/elsewhere\n4:cpu:/docker/1f1c0de1a5b0\n0::/\n",
            "4:cpu:/docker/1f1c0de1a5b0/nested\n",
        ] {
            assert!(groups.hold(inside).is_some(), "{inside}");
        }
        for outside in [
            "5:misc:/session\n4:cpu:/docker/2\n0::/\n",
            "4:cpu:/docker/1f1c0de1a5b0x\n",
            "4:cpuset:/docker/1f1c0de1a5b0\n",
            "4:cpu:/\n",
            "",
        ] {
            assert_eq!(groups.hold(outside), None, "{outside}");
        }
    }

    #[test]
    fn without_a_named_path_all_count_together() {
        let first = "5:misc:/session\n4:cpu:/pod/web\n0::/\n";
        let groups = Groups::of(first, "5:misc:/\n4:cpu:/\n0::/\n", ID);
        assert!(groups.hold("5:misc:/session\n4:cpu:/pod/web\n").is_some());
        assert_eq!(groups.hold("5:misc:/session\n4:cpu:/\n"), None);
        assert_eq!(groups.hold("5:misc:/\n4:cpu:/pod/web\n"), None);
    }

    #[test]
    fn what_holds_us_is_not_the_containers_own() {
        for (first, own) in [
            ("0::/\n", "0::/agent\n"),
            ("0::/\n", "0::/\n"),
            ("0::/session\n", "0::/session\n"),
            ("0::/session\n", "0::/session/agent\n"),
            ("0::/..\n", "0::/\n"),
            ("0::/../..\n", "0::/\n"),
        ] {
            let groups = Groups::of(first, own, ID);
            assert!(groups.is_empty(), "{first} {own}");
            assert_eq!(groups.hold(first), None);
        }
        assert!(!Groups::of("0::/../app\n", "0::/\n", ID).is_empty());
    }

    #[test]
    fn the_unified_group_counts_where_it_is_the_containers_own() {
        let unified = |first: &str| Groups::of(first, "0::/agent\n", ID).has_unified();
        assert!(unified("0::/pod/web\n"));
        assert!(unified(
            "4:cpu:/docker/1f1c0de1a5b0\n0::/docker/1f1c0de1a5b0\n"
        ));
        assert!(!unified("4:cpu:/docker/1f1c0de1a5b0\n0::/session\n"));
        assert!(!unified("4:cpu:/docker/1f1c0de1a5b0\n0::/\n"));
        assert!(!unified("4:cpu:/pod/web\n"));
    }

    #[test]
    fn runtimes_dress_the_id() {
        for path in [
            "/docker/1f1c0de1a5b0",
            "/system.slice/docker-1f1c0de1a5b0.scope",
            "/machine.slice/libpod-1f1c0de1a5b0.scope/container",
            "/system.slice/kubepods-pod1.slice:cri-containerd:1f1c0de1a5b0",
        ] {
            assert!(names(path, ID), "{path}");
        }
        assert!(!names("/x1f1c0de1a5b0", ID));
        assert!(!names("/user.slice/session-1.scope", "1"));
        assert!(!names("/a", ""));
    }

    #[test]
    fn the_inner_group_is_deeper() {
        let own = "0::/agent\n";
        let (outer, inner) = (
            Groups::of("0::/docker/a\n", own, "a"),
            Groups::of("0::/docker/a/docker/b\n", own, "b"),
        );
        let text = "0::/docker/a/docker/b\n";
        assert!(inner.hold(text) > outer.hold(text) && outer.hold(text).is_some());
    }
}
