//! A bundle, a container's process, a socket, and the hook's own process.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};
use pilotfish_workload::announcement::{HEADER, Reply, Request, body_length, decode, encode};
use serde_json::{Value, json};

/// Until then every run must have ended; far beyond what any deadline in these tests allows.
const PATIENCE: Duration = Duration::from_mins(2);

/// The annotation that selects.
pub(crate) const SELECTED: &str = "pilotfish.dev/instrument";

/// A directory with everything that one run needs.
pub(crate) struct Rig {
    directory: tempfile::TempDir,
    container: Child,
}

impl Rig {
    /// A container that lives, and a bundle with a configuration that selects it.
    pub(crate) fn new() -> Self {
        let rig = Self {
            directory: tempfile::tempdir().unwrap(),
            container: Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        };
        fs::create_dir(rig.bundle()).unwrap();
        fs::create_dir(rig.socket().parent().unwrap()).unwrap();
        rig.configure(&json!({"ociVersion": "1.0.2", "annotations": {SELECTED: "true"}}));
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/hook.sock")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.container.id()
    }

    /// Writes the bundle's configuration.
    pub(crate) fn configure(&self, spec: &Value) {
        fs::write(self.bundle().join("config.json"), spec.to_string()).unwrap();
    }

    /// The state at createRuntime, as runc writes it.
    pub(crate) fn state(&self) -> Value {
        json!({
            "ociVersion": "1.0.2",
            "id": "c0ffee",
            "status": "creating",
            "pid": self.pid(),
            "bundle": self.bundle(),
            "annotations": {SELECTED: "true"},
        })
    }

    /// The hook with this rig's socket.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish-hook"));
        command.arg("--socket").arg(self.socket());
        command.current_dir(self.bundle());
        command
    }

    /// Runs the hook on a state.
    pub(crate) fn run(&self, state: &Value, arguments: &[&str]) -> Run {
        let mut command = self.command();
        command.args(arguments);
        run(command, state.to_string().as_bytes())
    }

    /// Serves the socket on a thread.
    pub(crate) fn serve(&self, agent: impl FnMut(UnixStream) + Send + 'static) {
        serve(&self.socket(), agent);
    }

    /// An agent that attaches and removes everything; what it was asked comes out of the channel.
    pub(crate) fn agent(&self) -> mpsc::Receiver<Asked> {
        agent_at(&self.socket())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.container.kill();
        let _ = self.container.wait();
    }
}

/// How a run of the hook ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Run {
    /// The container starts, and nothing was said.
    pub(crate) fn assert_silent(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.stderr, "");
    }

    /// The container starts, and this was said.
    pub(crate) fn assert_starts_with_word(&self, word: &str) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
    }

    /// The container does not start, and this was said.
    pub(crate) fn assert_refused_with_word(&self, word: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        assert!(self.stderr.contains("--fail-closed"), "{self:?}");
    }
}

/// Runs a command with a standard input that ends, and is read to its end: a runtime may fail if it is not.
pub(crate) fn run(mut command: Command, input: &[u8]) -> Run {
    let mut child = spawn(&mut command);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let run = finish(child);
    writer.join().unwrap().unwrap();
    run
}

pub(crate) fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end, not for ever.
pub(crate) fn finish(child: Child) -> Run {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let (done, ended) = mpsc::channel::<io::Result<Output>>();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        panic!("the hook hangs");
    };
    let output = output.unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    Run {
        code: output.status.code(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Serves a socket on a thread, one connection after another.
pub(crate) fn serve(socket: &Path, mut agent: impl FnMut(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            agent(stream.unwrap());
        }
    });
}

/// What an agent was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// The process of the pidfd beside the request.
    pub(crate) process: Option<i32>,
    /// The asking process as `/proc` showed it: descriptors, working directory.
    pub(crate) descriptors: usize,
    pub(crate) directory: PathBuf,
}

pub(crate) fn agent_at(socket: &Path) -> mpsc::Receiver<Asked> {
    let (asked, questions) = mpsc::channel();
    serve(socket, move |mut stream| {
        let question = ask(&mut stream);
        let reply = match question.request {
            Request::Attach(_) => Reply::Attached,
            Request::Remove { .. } => Reply::Removed,
        };
        let _ = asked.send(question);
        answer(&mut stream, &reply);
    });
    questions
}

/// Reads a request.
pub(crate) fn ask(stream: &mut UnixStream) -> Asked {
    let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)
        .unwrap()
        .pid();
    let mut header = [0; HEADER];
    let (length, pidfd) = receive_with_descriptor(stream, &mut header);
    stream.read_exact(&mut header[length..]).unwrap();
    let mut body = vec![0; body_length(&header).unwrap()];
    stream.read_exact(&mut body).unwrap();
    Asked {
        request: decode(&body).unwrap(),
        process: pidfd.map(|pidfd| process_of(&pidfd)),
        descriptors: fs::read_dir(format!("/proc/{peer}/fd")).unwrap().count(),
        directory: fs::read_link(format!("/proc/{peer}/cwd")).unwrap(),
    }
}

fn receive_with_descriptor(stream: &UnixStream, buffer: &mut [u8]) -> (usize, Option<OwnedFd>) {
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message: RecvMsg<()> = recvmsg(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .unwrap();
    let descriptors: Vec<i32> = message
        .cmsgs()
        .unwrap()
        .filter_map(|beside| match beside {
            ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(descriptors.len() <= 1, "{descriptors:?}");
    // SAFETY: the kernel has just made it for this process.
    let first = descriptors
        .first()
        .map(|descriptor| unsafe { OwnedFd::from_raw_fd(*descriptor) });
    (message.bytes, first)
}

fn process_of(pidfd: &OwnedFd) -> i32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.expect("it is a pidfd").trim().parse().unwrap()
}

/// Sends a reply.
pub(crate) fn answer(stream: &mut UnixStream, reply: &Reply) {
    // The hook may be gone.
    let _ = stream.write_all(&encode(reply).unwrap());
}
