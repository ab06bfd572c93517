//! Which pods get the sidecar, which are left alone, and which are refused.

use super::{
    anchors::Anchors,
    definition::{CONTAINER, Definition, INIT_CONTAINERS, SHARE, VOLUME, VOLUMES, is_ours},
    tree::Node,
    workload::{Pod, shown},
};

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No specification, or nothing in it.
    #[error("it has no pod specification with containers")]
    NoPod,
    /// Readers differ on which one counts.
    #[error("the key \"{0}\" stands twice in one place; remove one")]
    DuplicateKey(String),
    /// A change would reach elsewhere too.
    #[error(
        "its pod, or a list in it, stands in the document more than once (anchor and alias); write it out where the sidecar is to be added"
    )]
    Shared,
    /// What is there cannot be told without merging.
    #[error(
        "its pod specification is put together by a merge key (`<<`); write out what it brings"
    )]
    Merged,
    /// `hostPID: true`.
    #[error(
        "hostPID is true: the sidecar would share the processes of the whole node; use the node agent (`pilotfish node`) for this pod"
    )]
    HostPid,
    /// `hostUsers: false`.
    #[error(
        "hostUsers is false: the pod has a user namespace of its own, and eBPF needs the node's; use the node agent (`pilotfish node`) for this pod"
    )]
    UserNamespace,
    /// `shareProcessNamespace: false`.
    #[error(
        "shareProcessNamespace is false, and the sidecar needs it to see the containers' processes: remove the line if nothing speaks against it"
    )]
    ProcessesApart,
    /// A Windows pod.
    #[error("it is a pod for Windows, and eBPF is Linux's")]
    Windows,
    /// Another container has the name.
    #[error(
        "it has a container \"{CONTAINER}\" that is not ours (an init container with restartPolicy Always and args that begin with \"sidecar\"); rename it"
    )]
    NameTaken,
    /// Another volume has the name.
    #[error("it has a volume \"{VOLUME}\" that belongs to no sidecar of ours; remove or rename it")]
    VolumeTaken,
    /// Another container uses our volume.
    #[error("container \"{0}\" uses the volume \"{VOLUME}\", which would be removed")]
    VolumeUsed(String),
    /// Another container has the port.
    #[error("container \"{container}\" has port {port}; give another one with --listen-port")]
    PortTaken {
        /// Its name.
        container: String,
        /// The port.
        port: u16,
    },
    /// A field of another type.
    #[error("{0} is not of the type that Kubernetes expects")]
    Type(&'static str),
    /// A notation that cannot be edited.
    #[error(
        "line {line}: {key} is written in a way that cannot be edited; write it as `{key}: ...` on a line of its own"
    )]
    Notation {
        /// From 1.
        line: usize,
        /// What would be edited.
        key: &'static str,
    },
    /// The record of the injection was changed.
    #[error(
        "the text without the sidecar would not be the one expected; remove the sidecar by hand"
    )]
    Record,
}

/// What is to be done with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Add the sidecar.
    Add,
    /// Take it out; when injecting, to add the one that is wanted then.
    Remove,
    /// It is as wanted.
    Keep,
    /// Its annotation says that it is not to be observed.
    LeaveAlone,
}

/// What is to be done with a pod: `definition` is what it is to have, none if nothing.
pub(super) fn judge<'t, 'a>(
    pod: &Pod<'t, 'a>,
    anchors: &Anchors<'t, 'a>,
    definition: Option<&Definition>,
) -> Result<Verdict, Refusal> {
    let Some(definition) = definition else {
        return without(pod, anchors);
    };
    if is_declined(pod, anchors) {
        return Ok(Verdict::LeaveAlone);
    }
    let spec = editable(pod, anchors)?;
    let rules = Rules { spec, anchors };
    let ours = rules.ours()?;
    rules.fits()?;
    rules.has_room_for(definition)?;
    let Some(ours) = ours else {
        return Ok(Verdict::Add);
    };
    let shares = spec.own(SHARE).and_then(Node::as_bool) == Some(true);
    if shares && definition.is_met_by(ours, rules.volume()) {
        return Ok(Verdict::Keep);
    }
    rules.lets_go()?;
    Ok(Verdict::Remove)
}

/// What is to be done with a pod that is to have no sidecar.
fn without<'t, 'a>(pod: &Pod<'t, 'a>, anchors: &Anchors<'t, 'a>) -> Result<Verdict, Refusal> {
    let has_ours = |spec| matches!(Rules { spec, anchors }.ours(), Ok(Some(_)));
    if !pod.spec.is_some_and(has_ours) {
        return Ok(Verdict::Keep);
    }
    let spec = editable(pod, anchors)?;
    Rules { spec, anchors }.lets_go()?;
    Ok(Verdict::Remove)
}

/// The specification, if whatever is written there is written for this pod only.
fn editable<'t, 'a>(pod: &Pod<'t, 'a>, anchors: &Anchors<'t, 'a>) -> Result<&'t Node<'a>, Refusal> {
    if pod.way.iter().any(|node| anchors.is_shared(node)) {
        return Err(Refusal::Shared);
    }
    let mut duplicates = pod.way.iter().filter_map(|node| node.own_duplicate());
    if let Some(key) = duplicates.next().or_else(|| pod.object.duplicate_key()) {
        return Err(Refusal::DuplicateKey(shown(key)));
    }
    let spec = pod.spec.ok_or(Refusal::NoPod)?;
    if pod.way.iter().any(|node| node.position("<<").is_some()) {
        return Err(Refusal::Merged);
    }
    let lists = [INIT_CONTAINERS, VOLUMES, SHARE];
    if lists
        .iter()
        .filter_map(|key| spec.own(key))
        .any(|list| anchors.is_shared(list))
    {
        return Err(Refusal::Shared);
    }
    Ok(spec)
}

/// `pilotfish.dev/instrument: "false"`
fn is_declined<'t, 'a>(pod: &Pod<'t, 'a>, anchors: &Anchors<'t, 'a>) -> bool {
    let annotations = anchors
        .get(pod.template, "metadata")
        .and_then(|metadata| anchors.get(metadata, "annotations"));
    annotations.and_then(|annotations| anchors.text(annotations, "pilotfish.dev/instrument"))
        == Some("false")
}

struct Rules<'v, 't, 'a> {
    spec: &'t Node<'a>,
    anchors: &'v Anchors<'t, 'a>,
}

impl<'t, 'a> Rules<'_, 't, 'a> {
    fn flag(&self, key: &'static str) -> Result<Option<bool>, Refusal> {
        match self
            .spec
            .own(key)
            .and_then(|value| self.anchors.resolve(value))
        {
            Some(value) if !value.is_null() => value.as_bool().map(Some).ok_or(Refusal::Type(key)),
            _ => Ok(None),
        }
    }

    fn containers(&self) -> impl Iterator<Item = &'t Node<'a>> {
        ["containers", INIT_CONTAINERS, "ephemeralContainers"]
            .into_iter()
            .flat_map(|key| self.anchors.list(self.spec, key))
    }

    fn name(&self, node: &'t Node<'a>) -> &'t str {
        self.anchors.text(node, "name").unwrap_or_default()
    }

    /// The container that is ours; none if none has its name.
    fn ours(&self) -> Result<Option<&'t Node<'a>>, Refusal> {
        let mut named = self
            .containers()
            .filter(|node| self.name(node) == CONTAINER);
        let Some(first) = named.next() else {
            return Ok(None);
        };
        let is_init = self
            .spec
            .own(INIT_CONTAINERS)
            .is_some_and(|list| list.items().iter().any(|item| std::ptr::eq(item, first)));
        if named.next().is_none() && is_init && is_ours(first, self.anchors) {
            Ok(Some(first))
        } else {
            Err(Refusal::NameTaken)
        }
    }

    fn volume(&self) -> Option<&'t Node<'a>> {
        self.anchors
            .list(self.spec, VOLUMES)
            .find(|volume| self.name(volume) == VOLUME)
    }

    /// What no option changes.
    fn fits(&self) -> Result<(), Refusal> {
        if self.anchors.list(self.spec, "containers").next().is_none() {
            return Err(Refusal::NoPod);
        }
        if self.flag("hostPID")? == Some(true) {
            return Err(Refusal::HostPid);
        }
        if self.flag("hostUsers")? == Some(false) {
            return Err(Refusal::UserNamespace);
        }
        if self.flag(SHARE)? == Some(false) {
            return Err(Refusal::ProcessesApart);
        }
        if self.is_for_windows() {
            return Err(Refusal::Windows);
        }
        for key in [INIT_CONTAINERS, VOLUMES] {
            let is_list = |node: &Node<'_>| {
                node.is_null() || matches!(node.value, super::tree::Value::Sequence { .. })
            };
            if self.spec.own(key).is_some_and(|node| !is_list(node)) {
                return Err(Refusal::Type(key));
            }
        }
        Ok(())
    }

    fn is_for_windows(&self) -> bool {
        let within = |key| self.anchors.get(self.spec, key);
        let labels = ["kubernetes.io/os", "beta.kubernetes.io/os"];
        let mut names = labels
            .map(|label| ("nodeSelector", label))
            .into_iter()
            .chain([("os", "name")])
            .filter_map(|(key, name)| self.anchors.text(within(key)?, name));
        names.any(|name| name == "windows")
            || within("securityContext")
                .and_then(|context| self.anchors.get(context, "windowsOptions"))
                .is_some_and(|options| !options.is_null())
    }

    fn has_room_for(&self, definition: &Definition) -> Result<(), Refusal> {
        if self
            .volume()
            .is_some_and(|volume| volume.own("downwardAPI").is_none())
        {
            return Err(Refusal::VolumeTaken);
        }
        if self.volume().is_some() && self.ours()?.is_none() {
            return Err(Refusal::VolumeTaken);
        }
        let others = self
            .containers()
            .filter(|node| self.name(node) != CONTAINER);
        for container in others {
            let mut ports = self.anchors.list(container, "ports");
            if ports.any(|port| {
                let number = self.anchors.text(port, "containerPort");
                number.and_then(|number| number.parse().ok()) == Some(definition.port)
            }) {
                return Err(Refusal::PortTaken {
                    container: shown(self.name(container)),
                    port: definition.port,
                });
            }
        }
        Ok(())
    }

    /// Whether nothing else needs what would be removed.
    fn lets_go(&self) -> Result<(), Refusal> {
        let others = self
            .containers()
            .filter(|node| self.name(node) != CONTAINER);
        for container in others {
            let mut mounts = self.anchors.list(container, "volumeMounts");
            if mounts.any(|mount| self.name(mount) == VOLUME) {
                return Err(Refusal::VolumeUsed(shown(self.name(container))));
            }
        }
        Ok(())
    }
}
