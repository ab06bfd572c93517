//! The plugin against a runtime that is written here from the specification, frames by hand.

use pilotfish_nri::{
    Handler, Moment, Plugin, Snapshot, Stats,
    api::{
        ConfigureRequest, ConfigureResponse, Container, ContainerRequest, Event, PodSandbox,
        RegisterPluginRequest, StateChangeEvent, SynchronizeRequest, SynchronizeResponse,
    },
};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

/// Only so that a broken test ends.
const PATIENCE: Duration = Duration::from_mins(1);

const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;

#[derive(Debug, PartialEq)]
enum Heard {
    Configured(String, String),
    Synchronized(Snapshot),
    Happened(Event, Box<(PodSandbox, Container)>),
}

/// Tells what it hears; a container named `stuck` is never done.
struct Listener(mpsc::UnboundedSender<Heard>);

impl Handler for Listener {
    fn configured(&mut self, runtime: &str, version: &str) {
        let heard = Heard::Configured(runtime.to_owned(), version.to_owned());
        self.0.send(heard).unwrap();
    }

    fn synchronized(&mut self, snapshot: Snapshot) {
        self.0.send(Heard::Synchronized(snapshot)).unwrap();
    }

    async fn happened(&mut self, moment: Moment) {
        if moment.container.name == "stuck" {
            std::future::pending::<()>().await;
        }
        let heard = Heard::Happened(moment.event, Box::new((moment.pod, moment.container)));
        self.0.send(heard).unwrap();
    }
}

/// A call as ttrpc has it.
#[derive(Clone, PartialEq, prost::Message)]
struct Call {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Code {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// The runtime's end of one connection.
struct Connection {
    stream: UnixStream,
    stream_id: u32,
}

impl Connection {
    async fn send(&mut self, channel: u32, stream_id: u32, kind: u8, payload: &[u8]) {
        let mut message = Vec::new();
        message.extend((payload.len() as u32).to_be_bytes());
        message.extend(stream_id.to_be_bytes());
        message.extend([kind, 0]);
        message.extend(payload);
        // Go writes the header and the rest as they come; small frames show that boundaries mean nothing.
        for piece in message.chunks(7.max(message.len() / 100)) {
            let mut frame = Vec::new();
            frame.extend(channel.to_be_bytes());
            frame.extend((piece.len() as u32).to_be_bytes());
            frame.extend(piece);
            self.stream.write_all(&frame).await.unwrap();
        }
    }

    /// One message, which the plugin writes in one frame.
    async fn receive(&mut self) -> (u32, u32, u8, Vec<u8>) {
        let mut header = [0; 18];
        timeout(PATIENCE, self.stream.read_exact(&mut header))
            .await
            .unwrap()
            .unwrap();
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(number(4), number(8) + 10);
        let mut payload = vec![0; number(8) as usize];
        self.stream.read_exact(&mut payload).await.unwrap();
        (number(0), number(12), header[16], payload)
    }

    async fn ask(&mut self, method: &str, payload: Vec<u8>, timeout_nano: i64) -> Answer {
        let call = Call {
            service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano,
        };
        self.stream_id += 2;
        let stream_id = self.stream_id;
        self.send(PLUGIN, stream_id, 1, &call.encode_to_vec()).await;
        let (channel, answered, kind, payload) = self.receive().await;
        assert_eq!((channel, answered, kind), (PLUGIN, stream_id, 2));
        Answer::decode(payload.as_slice()).unwrap()
    }

    async fn call<A: Message + Default>(&mut self, method: &str, message: &impl Message) -> A {
        let answer = self
            .ask(method, message.encode_to_vec(), 2_000_000_000)
            .await;
        assert_eq!(answer.status, None, "{method}");
        A::decode(answer.payload.as_slice()).unwrap()
    }

    /// As containerd does: configures while the registration waits for its answer.
    async fn register(&mut self) -> ConfigureResponse {
        let (channel, stream_id, kind, payload) = self.receive().await;
        assert_eq!((channel, stream_id, kind), (RUNTIME, 1, 1));
        let call = Call::decode(payload.as_slice()).unwrap();
        assert_eq!(call.service, "nri.pkg.api.v1alpha1.Runtime");
        assert_eq!(call.method, "RegisterPlugin");
        let request = RegisterPluginRequest::decode(call.payload.as_slice()).unwrap();
        assert_eq!(request.plugin_name, "pilotfish");
        assert_eq!(request.plugin_idx, "90");
        let configured = self
            .call(
                "Configure",
                &ConfigureRequest {
                    runtime_name: "containerd".to_owned(),
                    runtime_version: "1.7.24".to_owned(),
                },
            )
            .await;
        self.send(RUNTIME, 1, 2, &[]).await;
        configured
    }
}

struct Runtime {
    directory: TempDir,
    listener: Option<UnixListener>,
    heard: mpsc::UnboundedReceiver<Heard>,
    stats: Arc<Stats>,
    plugin: JoinHandle<()>,
}

impl Runtime {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("nri.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        let stats = Arc::new(Stats::default());
        let plugin = Plugin::new(&socket, Listener(sender), Arc::clone(&stats));
        let plugin = tokio::spawn(async move {
            plugin.run().await;
        });
        Self {
            directory,
            listener: Some(listener),
            heard,
            stats,
            plugin,
        }
    }

    async fn accept(&self) -> Connection {
        let accept = self.listener.as_ref().unwrap().accept();
        let (stream, _) = timeout(PATIENCE, accept).await.unwrap().unwrap();
        Connection {
            stream,
            stream_id: 1,
        }
    }

    /// A connection that is registered, configured and synchronised with nothing.
    async fn ready(&mut self) -> Connection {
        let mut connection = self.accept().await;
        connection.register().await;
        let _: SynchronizeResponse = connection
            .call("Synchronize", &SynchronizeRequest::default())
            .await;
        self.hear().await;
        self.hear().await;
        connection
    }

    async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.plugin.abort();
    }
}

fn pod() -> PodSandbox {
    PodSandbox {
        id: "p1".to_owned(),
        name: "web-0".to_owned(),
        uid: "12ab".to_owned(),
        namespace: "shop".to_owned(),
        annotations: BTreeMap::from([("pilotfish.dev/instrument".to_owned(), "true".to_owned())]),
        ..PodSandbox::default()
    }
}

fn container(name: &str) -> Container {
    Container {
        id: format!("c-{name}"),
        pod_sandbox_id: "p1".to_owned(),
        name: name.to_owned(),
        pid: 4711,
        ..Container::default()
    }
}

/// Of the container `a`.
fn happened(event: Event) -> Heard {
    Heard::Happened(event, Box::new((pod(), container("a"))))
}

fn change(event: Event, name: &str) -> StateChangeEvent {
    StateChangeEvent {
        event: event as i32,
        pod: Some(pod()),
        container: Some(container(name)),
    }
}

#[tokio::test]
async fn a_plugin_registers_subscribes_and_is_synchronised_in_parts() {
    let mut runtime = Runtime::start();
    let mut connection = runtime.accept().await;
    let configured = connection.register().await;
    assert_eq!(configured.events, 0x660);
    assert_eq!(
        runtime.hear().await,
        Heard::Configured("containerd".to_owned(), "1.7.24".to_owned())
    );
    assert_eq!(runtime.stats.connected(), 0);

    let mut part = SynchronizeRequest {
        pods: vec![pod()],
        containers: vec![container("a")],
        more: true,
    };
    let answer: SynchronizeResponse = connection.call("Synchronize", &part).await;
    assert!(answer.more, "the runtime sends the rest only if asked");
    part = SynchronizeRequest {
        containers: vec![container("b")],
        ..SynchronizeRequest::default()
    };
    let answer: SynchronizeResponse = connection.call("Synchronize", &part).await;
    assert!(!answer.more);
    assert_eq!(
        runtime.hear().await,
        Heard::Synchronized(Snapshot {
            pods: vec![pod()],
            containers: vec![container("a"), container("b")],
            complete: true,
        })
    );
    assert_eq!(runtime.stats.connected(), 1);
}

#[tokio::test]
async fn events_arrive_by_either_kind_of_call() {
    let mut runtime = Runtime::start();
    let mut connection = runtime.ready().await;
    let start = change(Event::StartContainer, "a");
    let (): () = connection.call("StateChange", &start).await;
    let heard = happened(Event::StartContainer);
    assert_eq!(runtime.hear().await, heard);

    for (method, event) in [
        ("StartContainer", Event::StartContainer),
        ("PostStartContainer", Event::PostStartContainer),
        ("StopContainer", Event::StopContainer),
        ("RemoveContainer", Event::RemoveContainer),
    ] {
        let request = ContainerRequest {
            pod: Some(pod()),
            container: Some(container("a")),
        };
        let (): () = connection.call(method, &request).await;
        let heard = happened(event);
        assert_eq!(runtime.hear().await, heard);
    }
    assert_eq!(runtime.stats.events.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn nothing_here_keeps_a_container_from_starting() {
    let mut runtime = Runtime::start();
    let mut connection = runtime.ready().await;
    // A handler that never ends, and a runtime that waits for 100 ms only.
    let stuck = change(Event::StartContainer, "stuck").encode_to_vec();
    let answer = connection.ask("StateChange", stuck, 100_000_000).await;
    assert_eq!(answer.status, None);
    assert_eq!(runtime.stats.late.load(Ordering::Relaxed), 1);
    // An event that cannot be read, one of a pod, one that does not exist yet.
    for payload in [vec![0xff; 40], vec![8, 1], vec![8, 99]] {
        let answer = connection.ask("StateChange", payload, 0).await;
        assert_eq!(answer.status, None);
    }
    for method in ["CreateContainer", "UpdateContainer", "Shutdown"] {
        let (): () = connection.call(method, &()).await;
    }
    // And events go on.
    let start = change(Event::StartContainer, "a");
    let (): () = connection.call("StateChange", &start).await;
    let heard = happened(Event::StartContainer);
    assert_eq!(runtime.hear().await, heard);
}

#[tokio::test]
async fn a_message_that_is_too_long_costs_itself_only() {
    let mut runtime = Runtime::start();
    let mut connection = runtime.accept().await;
    connection.register().await;
    runtime.hear().await;
    let all = SynchronizeRequest {
        pods: vec![PodSandbox {
            name: "x".repeat(17 << 20),
            ..PodSandbox::default()
        }],
        ..SynchronizeRequest::default()
    };
    let (): () = connection.call("Synchronize", &all).await;
    assert_eq!(runtime.stats.too_long.load(Ordering::Relaxed), 1);
    let start = change(Event::StartContainer, "a");
    let (): () = connection.call("StateChange", &start).await;
    assert_eq!(runtime.hear().await, happened(Event::StartContainer));
}

#[tokio::test]
async fn unknown_calls_are_told_from_unreadable_ones() {
    let mut runtime = Runtime::start();
    let mut connection = runtime.ready().await;
    let code = |answer: Answer| answer.status.map(|status| status.code);
    assert_eq!(code(connection.ask("Rewind", vec![], 0).await), Some(12));
    let answer = connection.ask("Synchronize", vec![0xff], 0).await;
    assert_eq!(code(answer), Some(3));
    // A message on the runtime's channel that answers nothing, and a response on the plugin's.
    connection.send(RUNTIME, 9, 2, &[0xff]).await;
    connection.send(PLUGIN, 9, 2, &[]).await;
    let (): () = connection.call("Shutdown", &()).await;
    assert_eq!(runtime.stats.malformed.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_runtime_that_restarts_is_found_again() {
    let mut runtime = Runtime::start();
    drop(runtime.ready().await);
    let socket = runtime.directory.path().join("nri.sock");
    runtime.listener = None;
    std::fs::remove_file(&socket).unwrap();
    runtime.listener = Some(UnixListener::bind(&socket).unwrap());
    let mut connection = runtime.ready().await;
    let start = change(Event::StartContainer, "a");
    let (): () = connection.call("StateChange", &start).await;
    let heard = happened(Event::StartContainer);
    assert_eq!(runtime.hear().await, heard);
    assert_eq!(runtime.stats.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_left_and_tried_again() {
    let runtime = Runtime::start();
    let mut connection = runtime.accept().await;
    let greeting = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    connection.stream.write_all(greeting).await.unwrap();
    let mut rest = Vec::new();
    let read = connection.stream.read_to_end(&mut rest);
    // The end may be a reset, since the plugin left bytes unread.
    let _end = timeout(PATIENCE, read).await.unwrap();
    runtime.accept().await;
    assert_eq!(runtime.stats.connected(), 0);
}
