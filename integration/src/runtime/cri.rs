//! A client of the Container Runtime Interface, as much of it as a kubelet needs to run a pod.
//!
//! Messages and field numbers: `api.proto` of `runtime.v1`, k8s.io/cri-api. The bindings that are published need
//! `protoc` to build; this is their part that the trials use.

use super::image;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::path::Path;
use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// `CONTAINER` of the enumeration `NamespaceMode`: its own.
const CONTAINER: i32 = 1;
/// `POD`: one for all of its containers.
const POD: i32 = 0;
/// `NODE`: the machine's.
const NODE: i32 = 2;
/// Seconds between asking a container to end and killing it.
const GRACE: i64 = 5;
/// Bound of a command in a container, in seconds.
const EXEC_LIMIT: i64 = 20;

type Text = HashMap<String, String>;

/// A pod sandbox in the machine's network.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pod {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
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

#[derive(Clone, PartialEq, prost::Message)]
struct Namespaces {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

/// A container from [`image::PROMPT`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(map = "string, string", tag = "9")]
    labels: Text,
    #[prost(map = "string, string", tag = "10")]
    annotations: Text,
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

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerLinux {
    #[prost(message, optional, tag = "2")]
    security: Option<ContainerSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerSecurity {
    #[prost(message, optional, tag = "3")]
    namespaces: Option<Namespaces>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPod {
    #[prost(message, optional, tag = "1")]
    config: Option<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(message, optional, tag = "2")]
    config: Option<Container>,
    #[prost(message, optional, tag = "3")]
    sandbox: Option<Pod>,
}

/// Requests and answers whose first field is the id of a pod or a container.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
    /// Of `StopContainerRequest` alone, in seconds.
    #[prost(int64, tag = "2")]
    grace: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exec {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    limit: i64,
}

/// How a command in a container ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// Its standard output.
    #[prost(bytes = "vec", tag = "1")]
    pub output: Vec<u8>,
    /// Its standard error.
    #[prost(bytes = "vec", tag = "2")]
    pub errors: Vec<u8>,
    /// Its exit code.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

impl Pod {
    /// A pod; its user id is made of both names.
    pub fn new(namespace: &str, name: &str) -> Self {
        let namespaces = Namespaces {
            network: NODE,
            pid: CONTAINER,
        };
        Self {
            metadata: Some(PodMetadata {
                name: name.to_owned(),
                uid: format!("uid-of-{namespace}-{name}"),
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
    pub fn sharing_processes(mut self) -> Self {
        let linux = self.linux.get_or_insert_default();
        let security = linux.security.get_or_insert_default();
        security.namespaces.get_or_insert_default().pid = POD;
        self
    }

    fn namespaces(&self) -> Option<Namespaces> {
        self.linux.as_ref()?.security.as_ref()?.namespaces.clone()
    }
}

impl Container {
    /// A container that runs `words`.
    pub fn new(name: &str, words: &[&str]) -> Self {
        Self {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
            }),
            image: Some(Image {
                image: image::PROMPT.to_owned(),
            }),
            command: words.iter().map(|&word| word.to_owned()).collect(),
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
}

/// A connection to a runtime.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to a socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
        let channel = runtime
            .block_on(endpoint.connect())
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Self { runtime, channel })
    }

    /// `RunPodSandbox`: makes and starts a sandbox and gives back its id.
    pub fn run_pod(&self, pod: &Pod) -> Result<String> {
        let request = RunPod {
            config: Some(pod.clone()),
        };
        let answer: Id = self.call("RunPodSandbox", request)?;
        Ok(answer.id)
    }

    /// `CreateContainer`: gives back the container's id. `pod` is what the sandbox was made of.
    pub fn create(&self, sandbox: &str, pod: &Pod, container: &Container) -> Result<String> {
        let mut config = container.clone();
        config.linux = Some(ContainerLinux {
            security: Some(ContainerSecurity {
                namespaces: pod.namespaces(),
            }),
        });
        let request = CreateContainer {
            pod: sandbox.to_owned(),
            config: Some(config),
            sandbox: Some(pod.clone()),
        };
        let answer: Id = self.call("CreateContainer", request)?;
        Ok(answer.id)
    }

    /// `StartContainer`.
    pub fn start(&self, container: &str) -> Result<()> {
        self.on("StartContainer", container, 0)
    }

    /// Creates and starts a container and gives back its id.
    pub fn run(&self, sandbox: &str, pod: &Pod, container: &Container) -> Result<String> {
        let id = self.create(sandbox, pod, container)?;
        self.start(&id)?;
        Ok(id)
    }

    /// `ExecSync`.
    pub fn exec(&self, container: &str, words: &[&str]) -> Result<Answer> {
        let request = Exec {
            container: container.to_owned(),
            command: words.iter().map(|&word| word.to_owned()).collect(),
            limit: EXEC_LIMIT,
        };
        self.call("ExecSync", request)
    }

    /// `StopContainer` and `RemoveContainer`.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.on("StopContainer", container, GRACE)?;
        self.on("RemoveContainer", container, 0)
    }

    /// `StopPodSandbox` and `RemovePodSandbox`, with every container that is still in it.
    pub fn remove_pod(&self, sandbox: &str) -> Result<()> {
        self.on("StopPodSandbox", sandbox, 0)?;
        self.on("RemovePodSandbox", sandbox, 0)
    }

    fn on(&self, method: &'static str, id: &str, grace: i64) -> Result<()> {
        let request = Id {
            id: id.to_owned(),
            grace,
        };
        let Nothing {} = self.call(method, request)?;
        Ok(())
    }

    fn call<Request, Response>(&self, method: &'static str, request: Request) -> Result<Response>
    where
        Request: prost::Message + 'static,
        Response: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let exchange = async {
            let mut client = Grpc::new(self.channel.clone());
            client.ready().await?;
            let codec = ProstCodec::<Request, Response>::default();
            let answer = client
                .unary(tonic::Request::new(request), path, codec)
                .await?;
            anyhow::Ok(answer.into_inner())
        };
        self.runtime
            .block_on(exchange)
            .with_context(|| format!("{method} failed"))
    }
}
