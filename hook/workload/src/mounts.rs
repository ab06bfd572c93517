//! What `/proc/PID/mountinfo` tells: the kubelet's and the runtimes' bind mounts name pods and containers.

use std::borrow::Cow;

use crate::identity::Runtime;
use crate::syntax::{is_container_name, is_generated_id, is_hex, pod_uid};
use crate::text::lines;

/// The identity that a mount table gives away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountIdentity {
    /// Container id. Of files that several containers can share (docker's `hostname` under `--network
    /// container:OTHER`, where it names OTHER) only outside of pods.
    pub container_id: Option<String>,
    /// The container's name in its pod.
    pub container_name: Option<String>,
    /// Runtime.
    pub runtime: Option<Runtime>,
    /// Kubernetes pod uid.
    pub pod_uid: Option<String>,
}

/// Where runtimes mount the files that they make for each container.
const RUNTIME_FILES: &[&str] = &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Where a container's termination log is unless its pod says otherwise (`terminationMessagePath`). What is mounted there
/// is the kubelet's before anything else: volumes, which are mounted earlier, may contain a path of the same form.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// One line of mountinfo, as far as it matters (`proc_pid_mountinfo(5)`).
struct Mount<'a> {
    /// The directory or file of its file system that is mounted: for a bind mount, the source's path.
    root: Cow<'a, str>,
    /// Where it is mounted.
    point: Cow<'a, str>,
}

/// Evidence collected over all lines. An id that all containers of a pod see (their sandbox's) is kept apart.
#[derive(Default)]
struct Evidence {
    own_id: Option<String>,
    shared_id: Option<String>,
    /// The container's name is that of its termination log's usual place.
    named_for_sure: bool,
    found: MountIdentity,
}

impl MountIdentity {
    /// Reads the text of `/proc/PID/mountinfo`. The first mount that names a thing decides: the runtime's own
    /// mounts precede all that the workload can add.
    pub fn parse(text: &str) -> Self {
        let mut evidence = Evidence::default();
        for mount in lines(text).filter_map(Mount::parse) {
            evidence.kubelet(&mount);
            evidence.runtime(&mount);
        }
        let Evidence {
            own_id,
            shared_id,
            mut found,
            ..
        } = evidence;
        // In a pod, `hostname` and `resolv.conf` are the sandbox's: its id must not pass for the container's.
        let in_pod = found.pod_uid.is_some();
        found.container_id = own_id.or(if in_pod { None } else { shared_id });
        if in_pod && found.runtime == Some(Runtime::Podman) {
            found.runtime = Some(Runtime::CriO);
        }
        found
    }
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ').skip(3);
        Some(Self {
            root: unescape(fields.next()?),
            point: unescape(fields.next()?),
        })
    }

    /// The last `N` components of the source.
    fn tail<const N: usize>(&self) -> Option<[&str; N]> {
        let mut tail = [""; N];
        let mut components = self.root.rsplit('/');
        for place in tail.iter_mut().rev() {
            *place = components
                .next()
                .filter(|component| !component.is_empty())?;
        }
        Some(tail)
    }
}

impl Evidence {
    /// `.../pods/UID/containers/NAME/HASH` (the termination log) and `.../pods/UID/etc-hosts`.
    fn kubelet(&mut self, mount: &Mount<'_>) {
        let for_sure = mount.point == TERMINATION_LOG;
        let is_news = self.found.container_name.is_none() || for_sure && !self.named_for_sure;
        if let Some(["pods", uid, "containers", name, hash]) = mount.tail()
            && is_news
            && is_container_name(name)
            && is_hex(hash)
            && let Some(uid) = pod_uid(uid)
        {
            // The termination log is the container's own, so it overrules the pod's shared files.
            self.found.pod_uid = Some(uid);
            self.found.container_name = Some(name.to_owned());
            self.named_for_sure = for_sure;
        }
        if let Some(["pods", uid, "etc-hosts"]) = mount.tail()
            && mount.point == "/etc/hosts"
            && self.found.pod_uid.is_none()
        {
            self.found.pod_uid = pod_uid(uid);
        }
    }

    fn runtime(&mut self, mount: &Mount<'_>) {
        if let Some([storage, id, "userdata", ".containerenv"]) = mount.tail()
            && mount.point == "/run/.containerenv"
            && storage.ends_with("-containers")
            && is_generated_id(id)
        {
            self.own_id.get_or_insert_with(|| id.to_owned());
            self.found.runtime.get_or_insert(Runtime::Podman);
        }
        if !RUNTIME_FILES.contains(&&*mount.point) {
            return;
        }
        if let Some((id, runtime)) = shared_file(mount) {
            if let Some(id) = id {
                self.shared_id.get_or_insert_with(|| id.to_owned());
            }
            self.found.runtime.get_or_insert(runtime);
        }
    }
}

/// A file that a runtime makes for each container, or for each sandbox: its id, if it can be a container's.
fn shared_file<'m>(mount: &'m Mount<'_>) -> Option<(Option<&'m str>, Runtime)> {
    if let Some([_, "sandboxes", id, _]) = mount.tail()
        && is_generated_id(id)
    {
        return Some((None, Runtime::Containerd));
    }
    if let Some([storage, id, "userdata", _]) = mount.tail()
        && storage.ends_with("-containers")
        && is_generated_id(id)
    {
        return Some((Some(id), Runtime::Podman));
    }
    if let Some(["containers", _namespace, id, _]) = mount.tail()
        && is_generated_id(id)
    {
        return Some((Some(id), Runtime::Containerd));
    }
    if let Some(["containers", id, _]) = mount.tail()
        && is_generated_id(id)
    {
        return Some((Some(id), Runtime::Docker));
    }
    None
}

/// Undoes the kernel's `\ooo` escapes of blanks and backslashes; anything else is left as it is.
fn unescape(field: &str) -> Cow<'_, str> {
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let octal = escape
            .get(1..4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let used = if let Some(byte) = octal.filter(u8::is_ascii) {
            plain.push(char::from(byte));
            4
        } else {
            plain.push('\\');
            1
        };
        rest = escape.get(used..).unwrap_or_default();
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_once() {
        for (escaped, plain) in [
            ("/a\\040b", "/a b"),
            ("/a\\134040b", "/a\\040b"),
            ("\\011\\012", "\t\n"),
            ("/a\\", "/a\\"),
            ("/a\\04", "/a\\04"),
            ("/a\\999", "/a\\999"),
            ("/a\\377", "/a\\377"),
            ("/ü\\040ü", "/ü ü"),
            ("\\ü", "\\ü"),
        ] {
            assert_eq!(unescape(escaped), plain, "{escaped}");
        }
    }
}
