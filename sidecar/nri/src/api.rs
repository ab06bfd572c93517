//! The messages of NRI (`pkg/api/api.proto`, package `nri.pkg.api.v1alpha1`), reduced to the fields that are read here;
//! the numbers are the specification's. Fields that are not listed are skipped, not kept.

use std::collections::BTreeMap;

/// The service of the plugin, called by the runtime.
pub const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// The service of the runtime, called by the plugin.
pub const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// `RegisterPluginRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterPluginRequest {
    /// Name of the plugin.
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Two digits; plugins are called in ascending order.
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
}

/// `ConfigureRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigureRequest {
    /// `containerd`, `cri-o`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// The runtime's own version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// `ConfigureResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigureResponse {
    /// Bit `event - 1` for each [`Event`] that the plugin wants to hear of.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// `SynchronizeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SynchronizeRequest {
    /// Pods, or some of them.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    /// Containers, or some of them.
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    /// Another request with the rest follows.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// `SynchronizeResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SynchronizeResponse {
    /// The request's `more`, by which the runtime knows that parts are understood.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// `StateChangeEvent`: how NRI tells of most events to plugins (and from runtimes) without a call for each.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateChangeEvent {
    /// See [`Event`].
    #[prost(enumeration = "Event", tag = "1")]
    pub event: i32,
    /// The pod, also of a container's event.
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
    /// The container.
    #[prost(message, optional, tag = "3")]
    pub container: Option<Container>,
}

/// `StopContainerRequest`, and in newer NRI (its pull request 274) `StartContainerRequest`,
/// `PostStartContainerRequest` and `RemoveContainerRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerRequest {
    /// The container's pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    /// The container.
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandbox {
    /// Id of the sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Kubernetes uid.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// Kubernetes namespace.
    #[prost(string, tag = "4")]
    pub namespace: String,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
}

/// `Container`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Container {
    /// Id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`PodSandbox::id`] of its pod.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Name in its pod.
    #[prost(string, tag = "3")]
    pub name: String,
    /// See [`ContainerState`].
    #[prost(enumeration = "ContainerState", tag = "4")]
    pub state: i32,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
    /// The command line of its first process.
    #[prost(string, repeated, tag = "7")]
    pub args: Vec<String>,
    /// Its first process in the runtime's pid namespace; 0 while there is none.
    #[prost(uint32, tag = "12")]
    pub pid: u32,
}

/// `Event`, as far as a listener to containers needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Event {
    /// No event.
    Unknown = 0,
    /// The container is made and about to start; its first process is still the runtime's own program.
    StartContainer = 6,
    /// It has started.
    PostStartContainer = 7,
    /// It has ended.
    StopContainer = 10,
    /// It is deleted.
    RemoveContainer = 11,
}

impl Event {
    /// What the plugin subscribes to.
    pub const SUBSCRIBED: [Self; 4] = [
        Self::StartContainer,
        Self::PostStartContainer,
        Self::StopContainer,
        Self::RemoveContainer,
    ];

    /// [`ConfigureResponse::events`] for [`Self::SUBSCRIBED`].
    pub fn mask() -> i32 {
        Self::SUBSCRIBED
            .iter()
            .fold(0, |mask, &event| mask | 1 << (event as i32 - 1))
    }

    /// The event that a call of [`PLUGIN_SERVICE`] stands for.
    pub fn of_method(method: &str) -> Option<Self> {
        match method {
            "StartContainer" => Some(Self::StartContainer),
            "PostStartContainer" => Some(Self::PostStartContainer),
            "StopContainer" => Some(Self::StopContainer),
            "RemoveContainer" => Some(Self::RemoveContainer),
            _ => None,
        }
    }
}

/// `ContainerState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Not told.
    Unknown = 0,
    /// Made, not started.
    Created = 1,
    /// Frozen.
    Paused = 2,
    /// Running.
    Running = 3,
    /// Ended.
    Stopped = 4,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn the_mask_has_the_bits_of_the_specification() {
        assert_eq!(Event::mask(), 0b110_0110_0000);
    }

    #[test]
    fn fields_that_are_not_read_are_skipped() {
        let container = Container {
            id: "c1".to_owned(),
            args: vec!["run".to_owned(), "fast".to_owned()],
            pid: 4711,
            ..Container::default()
        };
        let mut bytes = container.encode_to_vec();
        // env = 8 and linux = 11, as a runtime sends them.
        bytes.extend(b"\x42\x03a=b\x5a\x02\x2a\x00");
        assert_eq!(Container::decode(bytes.as_slice()), Ok(container));
    }
}
