use super::*;
use crate::announced::COMMAND_QUEUE;
use pilotfish_workload::{IdSource, Image};
use std::os::fd::OwnedFd;
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A process that waits until it is dropped.
struct Living(Child);

impl Living {
    fn start() -> Self {
        let child = Program::new("/bin/cat").stdin(Stdio::piped()).spawn();
        Self(child.unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A pod as containerd 1.7 tells of it.
fn pod() -> PodSandbox {
    let texts = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect::<BTreeMap<_, _>>()
    };
    PodSandbox {
        id: "p1".to_owned(),
        name: "web-5d9c-abcde".to_owned(),
        uid: "11111111-2222-3333-4444-555555555555".to_owned(),
        namespace: "shop".to_owned(),
        labels: texts(&[
            ("app.kubernetes.io/name", "web"),
            ("io.cri-containerd.kind", "sandbox"),
            ("pod-template-hash", "5d9c"),
        ]),
        annotations: texts(&[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("other", "x"),
            ("pilotfish.dev/instrument", "web"),
        ]),
    }
}

fn container(id: &str, name: &str, pid: u32) -> Container {
    let annotations = [
        ("io.kubernetes.cri.container-name", "forged"),
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.image-name", "localhost/box:1.2"),
        ("io.kubernetes.cri.sandbox-namespace", "forged"),
        ("pilotfish.dev/routes", "/a/{b}"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Container {
        id: id.to_owned(),
        pod_sandbox_id: "p1".to_owned(),
        name: name.to_owned(),
        state: ContainerState::Running as i32,
        annotations: BTreeMap::from(annotations),
        pid,
        ..Container::default()
    }
}

fn moment(event: Event, container: Container) -> Moment {
    Moment {
        event,
        pod: pod(),
        container,
        deadline: Instant::now(),
    }
}

fn listener() -> (Listener, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
    let mut listener = Listener::new(commands, Arc::default());
    listener.configured("containerd", "1.7.24");
    (listener, receiver)
}

fn total(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Has an event handled, answers what it asks of the observer, and gives back the announcement.
async fn answered(
    listener: &mut Listener,
    commands: &mut mpsc::Receiver<Command>,
    moment: Moment,
    answer: Reply,
) -> (Announcement, OwnedFd) {
    let observer = async {
        let Some(Command::Attach {
            announcement,
            pidfd,
            reply,
        }) = commands.recv().await
        else {
            panic!("the observer is asked to attach");
        };
        reply.send(answer).unwrap();
        (*announcement, pidfd)
    };
    tokio::join!(listener.happened(moment), observer).1
}

#[test]
fn an_announcement_has_what_the_runtime_itself_says() {
    let announcement = announce::selected(
        Some(Runtime::Containerd),
        &pod(),
        &container("c1", "web", 42),
    )
    .unwrap();
    assert_eq!(announcement.id, "c1");
    assert_eq!(announcement.pid, 42);
    let identity = announcement.identity;
    assert_eq!(identity.container_id.as_deref(), Some("c1"));
    assert_eq!(identity.id_source, Some(IdSource::Runtime));
    assert_eq!(identity.runtime, Some(Runtime::Containerd));
    assert_eq!(identity.k8s_container_name.as_deref(), Some("web"));
    assert_eq!(identity.pod_name.as_deref(), Some("web-5d9c-abcde"));
    assert_eq!(identity.namespace.as_deref(), Some("shop"));
    assert_eq!(
        identity.pod_uid.as_deref(),
        Some("11111111-2222-3333-4444-555555555555")
    );
    let image = Image {
        name: Some("localhost/box".to_owned()),
        tags: vec!["1.2".to_owned()],
        ..Image::default()
    };
    assert_eq!(identity.image, image);
    let keys: Vec<&str> = announcement
        .annotations
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, ["pilotfish.dev/instrument", "pilotfish.dev/routes"]);
    let labels: Vec<&str> = announcement.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["app.kubernetes.io/name", "pod-template-hash"]);
    assert_eq!(announcement.warnings, Vec::<String>::new());
}

#[test]
fn only_annotations_select() {
    let selected = |name: &str| announce::selected(None, &pod(), &container("c1", name, 42));
    assert!(selected("web").is_some());
    assert!(selected("proxy").is_none());
    let mut silent = pod();
    silent.annotations.clear();
    assert!(announce::selected(None, &silent, &container("c1", "web", 42)).is_none());
}

#[tokio::test]
async fn a_container_is_attached_once_before_it_starts_and_removed_once() {
    let (mut listener, mut commands) = listener();
    let living = Living::start();
    let web = container(&id_of(&living), "web", living.pid());
    let start = moment(Event::StartContainer, web.clone());
    let (announcement, _) = answered(&mut listener, &mut commands, start, Reply::Attached).await;
    assert_eq!(announcement.id, web.id);
    listener
        .happened(moment(Event::PostStartContainer, web.clone()))
        .await;
    assert!(commands.try_recv().is_err());

    for event in [Event::StopContainer, Event::RemoveContainer] {
        listener.happened(moment(event, web.clone())).await;
    }
    let removed = commands.try_recv().unwrap();
    assert!(matches!(removed, Command::Remove { id, .. } if id == web.id));
    assert!(commands.try_recv().is_err());
    let stats = &listener.desk.stats;
    assert_eq!((total(&stats.attached), total(&stats.removes)), (1, 1));
}

#[tokio::test]
async fn what_could_not_be_attached_is_tried_again_once_it_has_started() {
    let (mut listener, mut commands) = listener();
    let living = Living::start();
    let web = container(&id_of(&living), "web", living.pid());
    let refused = Reply::Failed {
        reason: "all slots are in use".to_owned(),
    };
    let start = moment(Event::StartContainer, web.clone());
    answered(&mut listener, &mut commands, start, refused).await;
    let started = moment(Event::PostStartContainer, web);
    answered(&mut listener, &mut commands, started, Reply::Attached).await;
    let stats = &listener.desk.stats;
    assert_eq!((total(&stats.failed), total(&stats.attached)), (1, 1));
}

#[tokio::test]
async fn an_observer_that_ends_is_no_reason_to_wait() {
    let (mut listener, commands) = listener();
    drop(commands);
    let living = Living::start();
    let web = container(&id_of(&living), "web", living.pid());
    listener.happened(moment(Event::StartContainer, web)).await;
    assert_eq!(total(&listener.desk.stats.failed), 1);
}

#[tokio::test]
async fn nothing_is_asked_about_others() {
    let (mut listener, mut commands) = listener();
    let living = Living::start();
    for (id, name, pid) in [
        ("c1", "proxy", living.pid()),
        ("../c1", "web", living.pid()),
        ("c2", "web", 0),
        ("c3", "web", u32::MAX),
    ] {
        let container = container(id, name, pid);
        for event in [Event::StartContainer, Event::PostStartContainer] {
            listener.happened(moment(event, container.clone())).await;
        }
    }
    assert!(commands.try_recv().is_err());
    let stats = &listener.desk.stats;
    assert_eq!(
        (total(&stats.failed), total(&stats.without_process)),
        (2, 4)
    );
}

#[tokio::test]
async fn a_snapshot_ends_what_is_gone_and_attaches_what_runs() {
    let (mut listener, mut commands) = listener();
    let living = Living::start();
    let here = id_of(&living);
    let gone = container("gone", "web", 0);
    listener
        .happened(moment(Event::StartContainer, gone.clone()))
        .await;

    let stopped = Container {
        id: "stopped".to_owned(),
        state: ContainerState::Stopped as i32,
        ..gone.clone()
    };
    let created = Container {
        id: "created".to_owned(),
        state: ContainerState::Created as i32,
        ..gone
    };
    listener.synchronized(Snapshot {
        pods: vec![pod()],
        containers: vec![
            container(&here, "web", living.pid()),
            container("other", "proxy", living.pid()),
            stopped,
            created,
        ],
        complete: true,
    });
    let keep = commands.recv().await.unwrap();
    let expected: BTreeSet<String> = [here.as_str(), "other", "created"]
        .map(str::to_owned)
        .into();
    assert!(matches!(
        keep,
        Command::Keep { ids, among } if ids == expected && among == BTreeSet::from(["gone".to_owned()])
    ));
    let Some(Command::Attach { announcement, .. }) = commands.recv().await else {
        panic!("what runs is attached");
    };
    assert_eq!(announcement.id, here);
    assert_eq!(listener.known, BTreeMap::from([(here, true)]));
}

#[tokio::test]
async fn a_snapshot_with_holes_ends_nothing() {
    let (mut listener, mut commands) = listener();
    let gone = container("gone", "web", 0);
    listener.happened(moment(Event::StartContainer, gone)).await;
    listener.synchronized(Snapshot::default());
    while listener.snapshot.join_next().await.is_some() {}
    assert!(commands.try_recv().is_err());
    assert!(listener.known.contains_key("gone"));
}

/// The tests may run in a container themselves, and then a process of theirs is of no other.
fn id_of(living: &Living) -> String {
    process::named(living.pid().cast_signed()).unwrap_or_else(|| "c1".to_owned())
}
