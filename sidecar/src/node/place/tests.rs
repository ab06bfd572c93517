use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

struct Scene {
    _held: TempDir,
    directory: PathBuf,
    socket: PathBuf,
}

fn scene() -> Scene {
    let held = tempfile::tempdir().unwrap();
    let directory = held.path().join("run");
    Scene {
        socket: directory.join("hook.sock"),
        directory,
        _held: held,
    }
}

async fn take(scene: &Scene) -> Result<Place, PlaceError> {
    Place::take(&scene.socket, None, Duration::ZERO).await
}

#[tokio::test]
async fn directory_and_socket_are_for_the_owner_only_and_gone_at_the_end() {
    let scene = scene();
    let place = take(&scene).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&scene.directory), 0o700);
    assert_eq!(mode(&scene.socket), 0o600);
    drop(place);
    assert_eq!(std::fs::read_dir(&scene.directory).unwrap().count(), 0);
}

#[tokio::test]
async fn a_second_agent_is_refused_until_the_first_has_ended() {
    let scene = scene();
    let first = take(&scene).await.unwrap();
    let refused = take(&scene).await;
    assert!(
        matches!(refused, Err(PlaceError::AlreadyRunning(_))),
        "{refused:?}"
    );
    let waiting = Place::take(&scene.socket, None, Duration::from_mins(1));
    let (second, ()) = tokio::join!(waiting, async { drop(first) });
    StdStream::connect(&scene.socket).unwrap();
    drop(second.unwrap());
}

/// What `kill -9` leaves: files, but neither listener nor lock.
#[tokio::test]
async fn what_a_killed_agent_leaves_is_replaced() {
    let scene = scene();
    std::fs::create_dir(&scene.directory).unwrap();
    drop(StdListener::bind(&scene.socket).unwrap());
    std::fs::write(scene.directory.join(LOCK), "4711\n").unwrap();
    assert!(StdStream::connect(&scene.socket).is_err());
    let place = take(&scene).await.unwrap();
    StdStream::connect(&scene.socket).unwrap();
    drop(place);
    assert!(!scene.socket.exists());
}

#[tokio::test]
async fn a_socket_that_somebody_serves_is_left_alone() {
    let scene = scene();
    std::fs::create_dir(&scene.directory).unwrap();
    let _theirs = StdListener::bind(&scene.socket).unwrap();
    let refused = take(&scene).await;
    assert!(
        matches!(refused, Err(PlaceError::AlreadyRunning(_))),
        "{refused:?}"
    );
    StdStream::connect(&scene.socket).unwrap();
}

#[tokio::test]
async fn unfit_places_are_refused() {
    let scene = scene();
    std::fs::create_dir(&scene.directory).unwrap();
    std::fs::write(&scene.socket, "precious").unwrap();
    assert!(matches!(take(&scene).await, Err(PlaceError::Taken(_))));
    assert_eq!(std::fs::read(&scene.socket).unwrap(), b"precious");

    let open = std::fs::Permissions::from_mode(0o770);
    std::fs::set_permissions(&scene.directory, open).unwrap();
    assert!(matches!(
        take(&scene).await,
        Err(PlaceError::Directory(TrustError::Writable { .. }))
    ));
    for path in ["relative.sock", "/", ""] {
        let refused = Place::take(Path::new(path), None, Duration::ZERO).await;
        assert!(
            matches!(refused, Err(PlaceError::Path(_))),
            "{path}: {refused:?}"
        );
    }
    let long = scene.directory.with_file_name("fit").join("x".repeat(200));
    let refused = Place::take(&long, None, Duration::ZERO).await;
    assert!(
        matches!(refused, Err(PlaceError::Listen { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_used_and_left() {
    let scene = scene();
    std::fs::create_dir(&scene.directory).unwrap();
    let theirs = StdListener::bind(&scene.socket).unwrap();
    let passed = OwnedFd::from(theirs.try_clone().unwrap());
    let place = Place::take(&scene.socket, Some(passed), Duration::ZERO)
        .await
        .unwrap();
    let client = StdStream::connect(&scene.socket).unwrap();
    place.listener.accept().await.unwrap();
    let (address, waiting) = place.close().unwrap();
    assert!(address.is_activated() && waiting.is_empty());
    drop((client, address));
    // Whoever connects now waits for the next agent.
    StdStream::connect(&scene.socket).unwrap();
}

#[tokio::test]
async fn what_is_no_listening_socket_is_not_served() {
    let scene = scene();
    let file = tempfile::tempfile().unwrap();
    let (stream, _other) = StdStream::pair().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for passed in [OwnedFd::from(file), stream.into(), tcp.into()] {
        let refused = Place::take(&scene.socket, Some(passed), Duration::ZERO).await;
        assert!(
            matches!(refused, Err(PlaceError::Activation(_))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn it_can_be_opened_again() {
    let scene = scene();
    let (address, waiting) = take(&scene).await.unwrap().close().unwrap();
    assert!(waiting.is_empty());
    assert!(StdStream::connect(&scene.socket).is_err());
    let refused = take(&scene).await;
    assert!(
        matches!(refused, Err(PlaceError::AlreadyRunning(_))),
        "the lock is still held"
    );
    let place = address.reopen().unwrap();
    StdStream::connect(&scene.socket).unwrap();
    drop(place);
    assert!(!scene.socket.exists());
}

/// Clients connect as fast as they can while the socket is closed: each is either refused or in the list.
#[tokio::test]
async fn no_connection_is_lost_when_it_closes() {
    for _ in 0..20 {
        let scene = scene();
        let place = take(&scene).await.unwrap();
        let (connected, closed) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (socket, connected) = (scene.socket.clone(), Arc::clone(&connected));
                let closed = Arc::clone(&closed);
                std::thread::spawn(move || {
                    let mut streams = Vec::new();
                    // Fewer than the queue takes: nobody accepts, and a client would block.
                    while !closed.load(Ordering::Acquire) && streams.len() < 100 {
                        if let Ok(stream) = StdStream::connect(&socket) {
                            connected.fetch_add(1, Ordering::AcqRel);
                            streams.push(stream);
                        }
                    }
                    streams
                })
            })
            .collect();
        while connected.load(Ordering::Acquire) < 20 {
            std::thread::yield_now();
        }
        let (_address, waiting) = place.close().unwrap();
        closed.store(true, Ordering::Release);
        let streams: Vec<_> = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        assert_eq!(waiting.len(), streams.len());
        assert_eq!(waiting.len(), connected.load(Ordering::Acquire));
    }
}

#[test]
fn who_may_not_take_the_place_is_told_what_to_do() {
    let told = |kind: io::ErrorKind| {
        let error = TrustError::Open {
            path: "/run/pilotfish".into(),
            source: kind.into(),
        };
        PlaceError::from(error).to_string()
    };
    let denied = told(io::ErrorKind::PermissionDenied);
    assert!(
        denied.contains("as root") && denied.contains("--socket"),
        "{denied}"
    );
    assert!(!told(io::ErrorKind::StorageFull).contains("as root"));
}
