//! A client of the Container Runtime Interface, as much of it as a kubelet needs to run a pod.
//!
//! Messages and field numbers: `api.proto` of `runtime.v1`, k8s.io/cri-api. The bindings that are published need
//! `protoc` to build; this is their part that the trials use.

mod config;

use anyhow::{Context, Result};
use std::path::Path;
use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

pub(super) use config::{Capabilities, Mount, Number, SecurityProfile, Variable};
pub use config::{Container, Pod};

/// Seconds between asking a container to end and killing it.
const GRACE: i64 = 5;
/// Bound of a command in a container, in seconds.
const EXEC_LIMIT: i64 = 20;
/// `CONTAINER_EXITED` of the enumeration `ContainerState`.
const EXITED: i32 = 2;

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

/// Of `ContainerStatusResponse`, what the trials look at.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    state: Option<State>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct State {
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(int32, tag = "7")]
    exit_code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

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
        let config = container.in_namespaces(pod.namespaces());
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

    /// `StopContainer`: asks it to end, and kills it after [`GRACE`].
    pub fn stop(&self, container: &str) -> Result<()> {
        self.on("StopContainer", container, GRACE)
    }

    /// `ContainerStatus`: the exit code of a container that has ended.
    pub fn exit_code(&self, container: &str) -> Result<Option<i32>> {
        let request = Id {
            id: container.to_owned(),
            grace: 0,
        };
        let answer: Status = self.call("ContainerStatus", request)?;
        let state = answer.state.context("a container without a state")?;
        Ok((state.state == EXITED).then_some(state.exit_code))
    }

    /// `StopContainer` and `RemoveContainer`.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.stop(container)?;
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
