use super::*;
use crate::announced::{Command, Ledger};
use clap::Parser;
use pilotfish_workload::Identity;
use pilotfish_workload::announcement::{Request, encode};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

fn args(directory: &TempDir, more: &[&str]) -> NodeArgs {
    let socket = directory.path().join("hook.sock");
    let line = ["pilotfish", "node", "--adopt=false", "--socket"];
    let line = line
        .iter()
        .copied()
        .chain(socket.to_str())
        .chain(more.iter().copied());
    match crate::cli::Cli::parse_from(line).command {
        crate::cli::Command::Node(args) => args,
        other => panic!("{other:?}"),
    }
}

fn announcement(id: &str) -> Announcement {
    Announcement {
        id: id.to_owned(),
        pid: 1,
        identity: Identity::default(),
        annotations: [].into(),
        labels: [].into(),
        warnings: Vec::new(),
        program: None,
    }
}

fn own() -> (i32, u64) {
    let pid = i32::try_from(std::process::id()).unwrap();
    (pid, crate::discovery::start_of(pid).unwrap())
}

/// An observer that attaches everything but "refused", and says which ids it was asked for.
fn observer(ledger: StateDirectory) -> (Commands, Arc<Mutex<Vec<String>>>) {
    let (commands, mut queue) = mpsc::channel(crate::announced::COMMAND_QUEUE);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut ledger = ledger;
        while let Some(command) = queue.recv().await {
            match command {
                Command::Attach {
                    announcement,
                    reply,
                    ..
                } => {
                    seen.lock().unwrap().push(announcement.id.clone());
                    let answer = if announcement.id == "refused" {
                        Reply::Ignored {
                            reason: "switched off".to_owned(),
                        }
                    } else {
                        let (pid, start) = own();
                        ledger.attached(&announcement, pid, start);
                        Reply::Attached
                    };
                    let _ = reply.send(answer);
                }
                Command::Remove { id, reply } => {
                    ledger.removed(&id);
                    let _ = reply.send(Reply::Removed);
                }
                Command::Keep { .. } => {}
                Command::Complete { done } => {
                    seen.lock().unwrap().push("and the rest".to_owned());
                    let _ = done.send(());
                }
            }
        }
    });
    (commands, asked)
}

fn files(directory: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path().join("containers")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn reply_of(mut stream: StdStream) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn containers_of_a_former_agent_are_attached_before_the_socket_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let former = Node::prepare(&args(&directory, &[])).await.unwrap();
    let (pid, start) = own();
    former.ledger().attached(&announcement("kept"), pid, start);
    former
        .ledger()
        .attached(&announcement("recycled"), pid, start + 1);
    former
        .ledger()
        .attached(&announcement("refused"), pid, start);
    drop(former);
    assert_eq!(
        files(&directory),
        ["kept.json", "recycled.json", "refused.json"]
    );

    let node = Node::prepare(&args(&directory, &[])).await.unwrap();
    let (stats, pages) = (Arc::clone(&node.stats), node.front_end());
    let (commands, asked) = observer(node.ledger());
    assert!(pages.not_ready().is_some());
    // It waits from before the agent serves until it has attached what ran already.
    let mut client = StdStream::connect(directory.path().join("hook.sock")).unwrap();
    let request = encode(&Request::Remove { id: "x".to_owned() }).unwrap();
    std::io::Write::write_all(&mut client, &request).unwrap();
    let served = {
        let asked = Arc::clone(&asked);
        let pages = Arc::clone(&pages);
        async move {
            let reply = tokio::task::spawn_blocking(move || reply_of(client))
                .await
                .unwrap();
            assert!(reply.contains("removed"), "{reply}");
            assert!(pages.not_ready().is_none());
            asked.lock().unwrap().clone()
        }
    };
    let (asked_before, end) = oneshot::channel();
    tokio::spawn(async move { asked_before.send(served.await) });
    let mut asked_when_served = Vec::new();
    let address = node
        .serve(commands, async { asked_when_served = end.await.unwrap() })
        .await
        .unwrap();
    assert_eq!(asked_when_served.pop().as_deref(), Some("and the rest"));
    asked_when_served.sort();
    assert_eq!(asked_when_served, ["kept", "refused"]);
    assert_eq!(stats.restored.load(Ordering::Relaxed), 1);
    assert_eq!(files(&directory), ["kept.json"]);
    drop(address);
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_ends_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = args(&directory, &["--exit-when-idle", "5"]);
    let node = Node::prepare(&arguments).await.unwrap();
    let (commands, _) = observer(node.ledger());
    let address = node.serve(commands, std::future::pending()).await.unwrap();
    assert!(!arguments.socket.exists());
    drop(address);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "the state directory");
    assert!(files(&directory).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_a_container_stays_until_that_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::prepare(&args(&directory, &["--exit-when-idle", "5"]))
        .await
        .unwrap();
    let mut ledger = node.ledger();
    let (pid, start) = own();
    ledger.attached(&announcement("kept"), pid, start);
    let began = tokio::time::Instant::now();
    let (commands, _) = observer(node.ledger());
    let ending = async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        ledger.removed("kept");
        std::future::pending::<()>().await;
    };
    node.serve(commands, ending).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(65));
}

/// The runtime's NRI may have something to tell at any time; the configuration file may ask for both.
#[tokio::test(start_paused = true)]
async fn an_agent_that_listens_to_a_runtime_is_never_idle() {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = args(&directory, &["--exit-when-idle", "5"]);
    arguments.nri = Some(directory.path().join("nri.sock"));
    let node = Node::prepare(&arguments).await.unwrap();
    let (commands, _) = observer(node.ledger());
    let began = tokio::time::Instant::now();
    let told = tokio::time::sleep(Duration::from_mins(1));
    node.serve(commands, told).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_mins(1));
}

/// A hook that connects while an idle agent ends is served by it, or meets a refusal and starts another.
#[tokio::test]
async fn a_container_that_comes_at_the_last_moment_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::prepare(&args(&directory, &["--exit-when-idle", "0"]))
        .await
        .unwrap();
    let socket = directory.path().join("hook.sock");
    // In the queue before the agent looks whether it is idle, which it is at once.
    let request = encode(&Request::Remove { id: "x".to_owned() }).unwrap();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let mut client = StdStream::connect(&socket).unwrap();
            std::io::Write::write_all(&mut client, &request).unwrap();
            client
        })
        .collect();
    let (commands, _) = observer(node.ledger());
    let address = node.serve(commands, std::future::pending()).await.unwrap();
    assert!(StdStream::connect(&socket).is_err());
    for client in waiting {
        let reply = reply_of(client);
        assert!(reply.contains("removed"), "{reply}");
    }
    drop(address);
}

/// The units start the agent as its command line is defined.
#[test]
fn the_systemd_units_fit_the_command_line() {
    let unit = |name: &str| {
        let path = format!("{}/../manifests/systemd/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let setting = |unit: &str, key: &str| {
        let mut values = unit
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let value = values.next().unwrap().to_owned();
        assert_eq!(values.next(), None, "{key}");
        value
    };
    let (service, socket) = (unit("pilotfish.service"), unit("pilotfish.socket"));
    let command = setting(&service, "ExecStart");
    let cli = crate::cli::Cli::try_parse_from(command.split_whitespace()).unwrap();
    let crate::cli::Command::Node(args) = cli.command else {
        panic!("{command}");
    };
    assert_eq!(
        Some(args.socket.as_path()),
        Path::new(&setting(&socket, "ListenStream")).into()
    );
    let directory = format!("/run/{}", setting(&service, "RuntimeDirectory"));
    assert_eq!(args.socket.parent(), Some(Path::new(&directory)));
    assert_eq!(setting(&service, "Type"), "notify");
    assert_eq!(setting(&socket, "SocketMode"), "0600");
    assert_eq!(setting(&socket, "DirectoryMode"), "0700");
}
