//! One connection to a runtime, from registration to its end.

use crate::{
    api::{
        ConfigureRequest, ConfigureResponse, Container, ContainerRequest, Event, PLUGIN_SERVICE,
        PodSandbox, RUNTIME_SERVICE, RegisterPluginRequest, StateChangeEvent, SynchronizeResponse,
    },
    mux::{self, Channel, Demux, MuxError},
    peer::PeerError,
    snapshot::{Gathered, Part, Snapshot},
    stats::Stats,
    ttrpc::{Assembler, Message, Request, Response, Status},
};
use prost::Message as _;
use std::{future::Future, io, path::PathBuf, sync::Arc, sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

/// Longest time that an answer takes: the runtime drops a plugin after 2 s unless it is configured otherwise.
const ANSWER: Duration = Duration::from_millis(1500);

/// Longest time from the connection to the runtime's first `Configure`; the runtime itself allows 5 s.
const REGISTRATION: Duration = Duration::from_secs(10);

/// Longest time that writing a message takes before the runtime counts as stuck.
const WRITE: Duration = Duration::from_secs(5);

/// Messages that may wait for the handler; the runtime sends one at a time.
const QUEUE: usize = 2;

/// Why a connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No runtime answers there.
    #[error(
        "cannot connect to {}: {source}; check that NRI is enabled in the runtime's configuration and that the path is right", path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever answers is not believed.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Reading or writing failed.
    #[error("the connection to the runtime failed: {0}")]
    Io(#[from] io::Error),
    /// The runtime closed the connection.
    #[error("the runtime closed the connection")]
    Closed,
    /// The runtime did not read for too long.
    #[error("the runtime does not read from the connection")]
    Stuck,
    /// Registration took too long.
    #[error("the runtime did not configure the plugin within {} s", REGISTRATION.as_secs())]
    Silent,
    /// The runtime does not want the plugin.
    #[error("the runtime refused the plugin: {0}")]
    Refused(String),
    /// The peer does not speak NRI.
    #[error(transparent)]
    Mux(#[from] MuxError),
}

/// A container's event.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// What happened; never [`Event::Unknown`].
    pub event: Event,
    /// The container's pod; empty where the runtime does not tell.
    pub pod: PodSandbox,
    /// The container.
    pub container: Container,
    /// When the runtime gets its answer, whether the handler is done or not.
    pub deadline: Instant,
}

/// Who hears of containers. Calls come one after the other, in the runtime's order.
pub trait Handler: Send {
    /// The runtime named itself.
    fn configured(&mut self, runtime: &str, version: &str);
    /// The state of the runtime, after each connection. Does not wait: no container starts meanwhile.
    fn synchronized(&mut self, snapshot: Snapshot);
    /// A container's event. The runtime waits for the end of the future; at [`Moment::deadline`] it is dropped.
    fn happened(&mut self, moment: Moment) -> impl Future<Output = ()> + Send;
}

/// A message and when it came.
type Arrival = (Instant, Channel, Message);

/// Registers and serves until the connection ends.
pub(crate) async fn serve<H: Handler>(
    stream: impl AsyncRead + AsyncWrite,
    (name, index): (&str, &str),
    handler: &mut H,
    stats: &Arc<Stats>,
) -> SessionError {
    let (read, write) = tokio::io::split(stream);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut session = Session {
        write,
        handler,
        stats,
        gathered: Gathered::default(),
        configured: false,
    };
    let ended = tokio::try_join!(
        receive(read, sender),
        session.run(
            receiver,
            RegisterPluginRequest {
                plugin_name: name.to_owned(),
                plugin_idx: index.to_owned(),
            }
        )
    );
    match ended {
        Err(error) => error,
        Ok((never, _)) => match never {},
    }
}

/// Reads messages of both channels until the connection ends.
async fn receive(
    mut read: impl AsyncRead + Unpin,
    messages: mpsc::Sender<Arrival>,
) -> Result<std::convert::Infallible, SessionError> {
    let mut demux = Demux::default();
    let (mut plugin, mut runtime) = (Assembler::default(), Assembler::default());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = read.read(&mut buffer).await?;
        if length == 0 {
            return Err(SessionError::Closed);
        }
        let mut input = buffer.get(..length).unwrap_or_default();
        while let Some((channel, mut piece)) = demux.next(&mut input)? {
            let assembler = match channel {
                Channel::Plugin => &mut plugin,
                Channel::Runtime => &mut runtime,
            };
            while let Some(message) = assembler.next(&mut piece) {
                let arrival = (Instant::now(), channel, message);
                if messages.send(arrival).await.is_err() {
                    return Err(SessionError::Closed);
                }
            }
        }
    }
}

struct Session<'a, H, W> {
    write: W,
    handler: &'a mut H,
    stats: &'a Arc<Stats>,
    gathered: Gathered,
    configured: bool,
}

impl<H: Handler, W: AsyncWrite + Unpin> Session<'_, H, W> {
    async fn run(
        &mut self,
        mut messages: mpsc::Receiver<Arrival>,
        register: RegisterPluginRequest,
    ) -> Result<std::convert::Infallible, SessionError> {
        let silent_at = Instant::now() + REGISTRATION;
        let call = Request {
            service: RUNTIME_SERVICE.to_owned(),
            method: "RegisterPlugin".to_owned(),
            payload: register.encode_to_vec(),
            timeout_nano: i64::try_from(REGISTRATION.as_nanos()).unwrap_or_default(),
        };
        self.send(Channel::Runtime, &Message::request(1, &call))
            .await?;
        loop {
            let next = if self.configured {
                messages.recv().await
            } else {
                timeout_at(silent_at, messages.recv())
                    .await
                    .map_err(|_| SessionError::Silent)?
            };
            let (arrived, channel, message) = next.ok_or(SessionError::Closed)?;
            match channel {
                Channel::Runtime => self.registered(&message)?,
                Channel::Plugin if message.kind == Message::REQUEST => {
                    let response = self.answer(arrived, &message).await;
                    let response = Message::response(message.stream, &response);
                    self.send(Channel::Plugin, &response).await?;
                }
                // What follows a streaming call that was refused.
                Channel::Plugin => Stats::add(&self.stats.malformed, 1),
            }
        }
    }

    async fn send(&mut self, channel: Channel, message: &Message) -> Result<(), SessionError> {
        let bytes = mux::encode(channel, &message.encode());
        timeout(WRITE, self.write.write_all(&bytes))
            .await
            .map_err(|_| SessionError::Stuck)??;
        Ok(())
    }

    /// The answer to the only call that the plugin makes.
    fn registered(&self, message: &Message) -> Result<(), SessionError> {
        let response = Some(message)
            .filter(|message| message.kind == Message::RESPONSE)
            .and_then(|message| Response::decode(message.payload.as_deref()?).ok());
        match response {
            None => Stats::add(&self.stats.malformed, 1),
            Some(Response {
                status: Some(status),
                ..
            }) if status.code != 0 => return Err(SessionError::Refused(status.message)),
            Some(_) => {}
        }
        Ok(())
    }

    async fn answer(&mut self, arrived: Instant, message: &Message) -> Response {
        let Some(payload) = &message.payload else {
            tracing::warn!(
                "the runtime sent a message over 16 MiB, probably of all its containers: those that run already may not be observed"
            );
            Stats::add(&self.stats.too_long, 1);
            return Response::default();
        };
        let Ok(request) = Request::decode(payload.as_slice()) else {
            return self.malformed("the request cannot be read");
        };
        if request.service != PLUGIN_SERVICE || message.is_streaming() {
            return unimplemented(&request);
        }
        let deadline = arrived + patience(request.timeout_nano);
        let payload = request.payload.as_slice();
        match request.method.as_str() {
            "Configure" => self.configure(payload),
            "Synchronize" => self.synchronize(payload),
            "StateChange" => {
                let event = StateChangeEvent::decode(payload).map(|change| {
                    let event = Event::try_from(change.event).unwrap_or(Event::Unknown);
                    (event, change.pod, change.container)
                });
                self.happened(event, deadline).await
            }
            // Not subscribed to; an empty answer asks for nothing and prevents nothing.
            "CreateContainer" | "UpdateContainer" | "Shutdown" => Response::default(),
            method => match Event::of_method(method) {
                Some(event) => {
                    let event = ContainerRequest::decode(payload)
                        .map(|request| (event, request.pod, request.container));
                    self.happened(event, deadline).await
                }
                // The runtime then falls back to an older call.
                None => unimplemented(&request),
            },
        }
    }

    fn configure(&mut self, payload: &[u8]) -> Response {
        let Ok(request) = ConfigureRequest::decode(payload) else {
            return self.malformed("ConfigureRequest cannot be read");
        };
        self.configured = true;
        self.handler
            .configured(&request.runtime_name, &request.runtime_version);
        done(&ConfigureResponse {
            events: Event::mask(),
        })
    }

    fn synchronize(&mut self, payload: &[u8]) -> Response {
        let gathered = &mut self.gathered;
        let part = Part::decode(payload).and_then(|part| gathered.add(&part).map(|()| part.more));
        let Ok(more) = part else {
            self.gathered = Gathered::default();
            return self.malformed("SynchronizeRequest cannot be read");
        };
        if !more {
            let (snapshot, left_out) = std::mem::take(&mut self.gathered).finish();
            Stats::add(&self.stats.beyond_bound, left_out);
            Stats::add(
                &self.stats.synchronized,
                snapshot.pods.len() + snapshot.containers.len(),
            );
            self.handler.synchronized(snapshot);
            self.stats.connected.store(1, Ordering::Relaxed);
        }
        done(&SynchronizeResponse { more })
    }

    /// All is well whatever happens: an error here keeps the container from starting.
    async fn happened(
        &mut self,
        event: Result<(Event, Option<PodSandbox>, Option<Container>), prost::DecodeError>,
        deadline: Instant,
    ) -> Response {
        match event {
            Ok((Event::Unknown, ..)) => {}
            Ok((event, pod, Some(container))) => {
                Stats::add(&self.stats.events, 1);
                self.stats.connected.store(1, Ordering::Relaxed);
                let moment = Moment {
                    event,
                    pod: pod.unwrap_or_default(),
                    container,
                    deadline,
                };
                let heard = timeout_at(deadline, self.handler.happened(moment)).await;
                Stats::add(&self.stats.late, usize::from(heard.is_err()));
            }
            Ok((_, _, None)) | Err(_) => Stats::add(&self.stats.malformed, 1),
        }
        Response::default()
    }

    fn malformed(&self, what: &str) -> Response {
        Stats::add(&self.stats.malformed, 1);
        failed(Status::INVALID_ARGUMENT, what.to_owned())
    }
}

/// How long an answer may take: three quarters of what the runtime waits.
fn patience(timeout_nano: i64) -> Duration {
    match u64::try_from(timeout_nano) {
        Ok(nanos @ 1..) => ANSWER.min(Duration::from_nanos(nanos / 4 * 3)),
        _ => ANSWER,
    }
}

fn done(message: &impl prost::Message) -> Response {
    Response {
        status: None,
        payload: message.encode_to_vec(),
    }
}

fn unimplemented(request: &Request) -> Response {
    let name = |text: &str| text.chars().take(100).collect::<String>();
    let message = format!(
        "there is no {} of {}",
        name(&request.method),
        name(&request.service)
    );
    failed(Status::UNIMPLEMENTED, message)
}

fn failed(code: i32, message: String) -> Response {
    Response {
        status: Some(Status { code, message }),
        payload: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_before_the_runtime_gives_up() {
        assert_eq!(patience(0), ANSWER);
        assert_eq!(patience(-1), ANSWER);
        assert_eq!(patience(2_000_000_000), ANSWER);
        assert_eq!(patience(i64::MAX), ANSWER);
        assert_eq!(patience(500_000_000), Duration::from_millis(375));
    }
}
