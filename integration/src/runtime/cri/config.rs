//! What pods and containers are made of: `PodSandboxConfig` and `ContainerConfig`.

use super::super::image;
use std::collections::HashMap;

/// `CONTAINER` of the enumeration `NamespaceMode`: its own.
const CONTAINER: i32 = 1;
/// `POD`: one for all of its containers.
const POD: i32 = 0;
/// `NODE`: the machine's.
const NODE: i32 = 2;

type Text = HashMap<String, String>;

/// A pod sandbox in the machine's network.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pod {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(string, tag = "3")]
    pub(in crate::runtime) log_folder: String,
    #[prost(map = "string, string", tag = "6")]
    labels: Text,
    #[prost(map = "string, string", tag = "7")]
    annotations: Text,
    #[prost(message, optional, tag = "8")]
    linux: Option<PodLinux>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodLinux {
    #[prost(message, optional, tag = "2")]
    security: Option<PodSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

/// Which namespaces a container shares.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Namespaces {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

/// A container, from [`image::PROMPT`] unless another image is named.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    pub(in crate::runtime) command: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(in crate::runtime) arguments: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(in crate::runtime) environment: Vec<Variable>,
    #[prost(message, repeated, tag = "7")]
    pub(in crate::runtime) mounts: Vec<Mount>,
    #[prost(map = "string, string", tag = "9")]
    labels: Text,
    #[prost(map = "string, string", tag = "10")]
    annotations: Text,
    #[prost(string, tag = "11")]
    pub(in crate::runtime) log: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<ContainerLinux>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}

/// A variable of the environment.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::runtime) struct Variable {
    #[prost(string, tag = "1")]
    pub(in crate::runtime) key: String,
    #[prost(string, tag = "2")]
    pub(in crate::runtime) value: String,
}

/// A file or folder of the machine in a container.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::runtime) struct Mount {
    #[prost(string, tag = "1")]
    pub(in crate::runtime) inside: String,
    #[prost(string, tag = "2")]
    pub(in crate::runtime) outside: String,
    #[prost(bool, tag = "3")]
    pub(in crate::runtime) read_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerLinux {
    #[prost(message, optional, tag = "1")]
    resources: Option<Resources>,
    #[prost(message, optional, tag = "2")]
    security: Option<Security>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resources {
    #[prost(int64, tag = "4")]
    memory_limit: i64,
}

/// `LinuxContainerSecurityContext`.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::runtime) struct Security {
    #[prost(message, optional, tag = "1")]
    pub(in crate::runtime) capabilities: Option<Capabilities>,
    #[prost(bool, tag = "2")]
    pub(in crate::runtime) privileged: bool,
    #[prost(message, optional, tag = "3")]
    namespaces: Option<Namespaces>,
    #[prost(message, optional, tag = "5")]
    pub(in crate::runtime) user: Option<Number>,
    #[prost(bool, tag = "7")]
    pub(in crate::runtime) read_only_root: bool,
    #[prost(bool, tag = "11")]
    pub(in crate::runtime) no_new_privileges: bool,
    #[prost(message, optional, tag = "12")]
    pub(in crate::runtime) group: Option<Number>,
    #[prost(message, optional, tag = "15")]
    pub(in crate::runtime) seccomp: Option<SecurityProfile>,
}

/// Names of capabilities, without their prefix.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::runtime) struct Capabilities {
    #[prost(string, repeated, tag = "1")]
    pub(in crate::runtime) add: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(in crate::runtime) drop: Vec<String>,
}

/// `Int64Value`: a number that is not absent when it is 0.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::runtime) struct Number {
    #[prost(int64, tag = "1")]
    pub(in crate::runtime) value: i64,
}

/// A profile for system calls: 0 is the runtime's default, 1 none.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::runtime) struct SecurityProfile {
    #[prost(int32, tag = "1")]
    pub(in crate::runtime) kind: i32,
}

impl Pod {
    /// A pod; its user id is made of both names.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self::with_uid(namespace, name, &format!("uid-of-{namespace}-{name}"))
    }

    /// A pod.
    pub fn with_uid(namespace: &str, name: &str, uid: &str) -> Self {
        let namespaces = Namespaces {
            network: NODE,
            pid: CONTAINER,
        };
        Self {
            metadata: Some(PodMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: namespace.to_owned(),
            }),
            linux: Some(PodLinux {
                security: Some(PodSecurity {
                    namespaces: Some(namespaces),
                }),
            }),
            ..Self::default()
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts all containers into one pid namespace, as `shareProcessNamespace` does.
    #[must_use]
    pub fn sharing_processes(self) -> Self {
        self.in_pid_namespace(POD)
    }

    /// Puts all containers into the machine's pid namespace, as `hostPID` does.
    #[must_use]
    pub fn among_the_machines_processes(self) -> Self {
        self.in_pid_namespace(NODE)
    }

    fn in_pid_namespace(mut self, mode: i32) -> Self {
        let linux = self.linux.get_or_insert_default();
        let security = linux.security.get_or_insert_default();
        security.namespaces.get_or_insert_default().pid = mode;
        self
    }

    pub(super) fn namespaces(&self) -> Option<Namespaces> {
        self.linux.as_ref()?.security.as_ref()?.namespaces.clone()
    }
}

impl Container {
    /// A container that runs `words`.
    pub fn new(name: &str, words: &[&str]) -> Self {
        Self {
            command: words.iter().map(|&word| word.to_owned()).collect(),
            ..Self::of_image(name, image::PROMPT)
        }
    }

    /// A container that runs what its image says.
    pub fn of_image(name: &str, image: &str) -> Self {
        Self {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
            }),
            image: Some(Image {
                image: image.to_owned(),
            }),
            ..Self::default()
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Bounds its memory, in bytes.
    pub(in crate::runtime) fn limit_memory(&mut self, bytes: i64) {
        let linux = self.linux.get_or_insert_default();
        linux.resources.get_or_insert_default().memory_limit = bytes;
    }

    /// Its privileges.
    pub(in crate::runtime) fn security(&mut self) -> &mut Security {
        let linux = self.linux.get_or_insert_default();
        linux.security.get_or_insert_default()
    }

    /// The same container in the namespaces of its pod.
    pub(super) fn in_namespaces(&self, namespaces: Option<Namespaces>) -> Self {
        let mut container = self.clone();
        container.security().namespaces = namespaces;
        container
    }
}
