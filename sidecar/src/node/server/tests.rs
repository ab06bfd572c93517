mod scene;

use super::*;
use pilotfish_workload::announcement::{HEADER, MAGIC, MAX_BODY, VERSION};
use scene::{Observer, attach_frame, own_pidfd, reason, reply, scene, send};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as StdStream;

#[tokio::test]
async fn a_container_is_attached_and_removed() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    assert_eq!(scene.attach("a1").await, Some(Reply::Attached));
    let seen = scene.attached.lock().unwrap().clone();
    assert_eq!(seen[0].id, "a1");
    assert_eq!(seen[0].identity.container_id.as_deref(), Some("a1"));
    let remove = encode(&Request::Remove {
        id: "a1".to_owned(),
    })
    .unwrap();
    assert_eq!(scene.exchange(&remove, &[]).await, Some(Reply::Removed));
    assert_eq!(scene.counted(|stats| &stats.attached), 1);
    assert_eq!(scene.counted(|stats| &stats.removes), 1);
    tokio::task::yield_now().await;
    assert!(scene.activity.is_idle());
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let (stream, pidfd) = (scene.connect(), own_pidfd());
    for (index, byte) in attach_frame("a1").iter().enumerate() {
        let beside = [pidfd.as_fd()];
        send(&stream, &[*byte], if index == 0 { &beside } else { &[] });
        tokio::task::yield_now().await;
    }
    assert_eq!(reply(stream).await, Some(Reply::Attached));
}

#[tokio::test]
async fn only_one_pidfd_will_do() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let frame = attach_frame("a1");
    let (pidfd, file) = (own_pidfd(), tempfile::tempfile().unwrap());
    let two = [pidfd.as_fd(), pidfd.as_fd()];
    let many = [pidfd.as_fd(); 16];
    for (descriptors, expected) in [
        (&[][..], "no pidfd"),
        (&[file.as_fd()], "is no pidfd"),
        (&two, "more than one"),
        (&many, "more than one"),
    ] {
        let answer = reason(scene.exchange(&frame, descriptors).await);
        assert!(answer.contains(expected), "{answer}");
    }
    assert_eq!(scene.counted(|stats| &stats.descriptors_refused), 4);
    assert!(scene.attached.lock().unwrap().is_empty());
}

/// How many descriptors of this process are this very file.
fn copies_of(file: &std::fs::File) -> usize {
    let directory = std::path::Path::new("/proc/self/fd");
    let name = std::fs::read_link(directory.join(file.as_raw_fd().to_string())).unwrap();
    std::fs::read_dir(directory)
        .unwrap()
        // Another test may close its descriptor in between.
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| *target == name)
        .count()
}

#[tokio::test]
async fn surplus_descriptors_are_closed() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let file = std::fs::File::create(scene.held.path().join("sent")).unwrap();
    let many = [file.as_fd(); 16];
    // In one message, in many, and before a connection that ends without a request.
    reason(scene.exchange(&attach_frame("a1"), &many).await);
    let stream = scene.connect();
    for byte in attach_frame("a2") {
        send(&stream, &[byte], &many);
        tokio::task::yield_now().await;
    }
    reason(reply(stream).await);
    let stream = scene.connect();
    send(&stream, &MAGIC, &many);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(reply(stream).await, None);
    assert_eq!(copies_of(&file), 1);
}

#[tokio::test]
async fn another_version_is_told_so() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let mut frame = attach_frame("a1");
    frame[4..6].copy_from_slice(&(VERSION + 7).to_le_bytes());
    let answer = reason(scene.exchange(&frame, &[]).await);
    assert!(
        answer.contains(&format!("version {}", VERSION + 7)),
        "{answer}"
    );
    assert!(answer.contains(&format!("version {VERSION}")), "{answer}");
    assert_eq!(scene.counted(|stats| &stats.requests_of_other_version), 1);
}

#[tokio::test]
async fn garbage_is_answered_and_closed() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let mut huge = attach_frame("a1")[..HEADER].to_vec();
    huge[8..].copy_from_slice(&u32::MAX.to_le_bytes());
    let no_request = encode(&serde_json::json!({"request": "dance"})).unwrap();
    let deep = {
        let body = "[".repeat(MAX_BODY);
        let mut frame = huge[..8].to_vec();
        frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        frame.extend_from_slice(body.as_bytes());
        frame
    };
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not speak"),
        (huge, "more than"),
        (no_request, "cannot be read"),
        (attach_frame("../../etc/passwd"), "no pidfd"),
    ] {
        let answer = reason(scene.exchange(&bytes, &[]).await);
        assert!(answer.contains(expected), "{answer}");
    }
    let stream = scene.connect();
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    stream.write_all(&deep).await.unwrap();
    let answer = reason(reply(stream.into_std().unwrap()).await);
    assert!(answer.contains("cannot be read"), "{answer}");
    assert_eq!(scene.counted(|stats| &stats.requests_malformed), 4);
    assert_eq!(scene.counted(|stats| &stats.failed), 1);
}

#[tokio::test]
async fn ids_that_are_no_file_names_are_refused() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let answer = reason(scene.attach("../../etc/passwd").await);
    assert!(answer.contains("no container id"), "{answer}");
    let remove = encode(&Request::Remove { id: String::new() }).unwrap();
    assert!(reason(scene.exchange(&remove, &[]).await).contains("no container id"));
    assert!(scene.attached.lock().unwrap().is_empty());
}

/// The clock moves by itself when nothing else does: what has to wait for a deadline meets it at once.
#[tokio::test(start_paused = true)]
async fn a_silent_and_a_slow_peer_are_closed() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let stream = scene.connect();
    send(&stream, &attach_frame("a1")[..20], &[]);
    assert_eq!(reply(stream).await, None);
    assert_eq!(reply(scene.connect()).await, None);
    assert_eq!(scene.counted(|stats| &stats.requests_slow), 2);
}

#[tokio::test]
async fn a_peer_that_ends_early_is_counted() {
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let stream = scene.connect();
    send(&stream, &attach_frame("a1")[..20], &[]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(reply(stream).await, None);
    assert_eq!(scene.counted(|stats| &stats.requests_absent), 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_does_not_answer_fails_the_request() {
    let scene = scene(Observer::NeverAnswers, Limits::default()).await;
    let answer = reason(scene.attach("a1").await);
    assert!(answer.contains("in time"), "{answer}");
    assert_eq!(scene.counted(|stats| &stats.observer_silent), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_fails_the_request_at_once() {
    let scene = scene(Observer::NeverReads, Limits::default()).await;
    let (first, second) = tokio::join!(scene.attach("a1"), scene.attach("a2"));
    let answers = [reason(first), reason(second)];
    assert!(
        answers
            .iter()
            .any(|answer| answer.contains("too many containers")),
        "{answers:?}"
    );
    assert_eq!(scene.counted(|stats| &stats.observer_busy), 1);
}

#[tokio::test]
async fn an_observer_that_is_gone_fails_the_request() {
    let scene = scene(Observer::Gone, Limits::default()).await;
    assert!(reason(scene.attach("a1").await).contains("ending"));
}

#[tokio::test]
async fn a_thousand_containers_at_once_are_attached() {
    crate::node::raise_file_limit();
    let scene = scene(Observer::Attaches, Limits::default()).await;
    let pidfd = own_pidfd();
    let streams: Vec<_> = (0..1000)
        .map(|number| {
            let stream = scene.connect();
            send(
                &stream,
                &attach_frame(&format!("c{number}")),
                &[pidfd.as_fd()],
            );
            stream
        })
        .collect();
    for stream in streams {
        assert_eq!(reply(stream).await, Some(Reply::Attached));
    }
    let seen: BTreeSet<String> = scene
        .attached
        .lock()
        .unwrap()
        .iter()
        .map(|announcement| announcement.id.clone())
        .collect();
    assert_eq!(seen.len(), 1000);
    assert_eq!(scene.counted(|stats| &stats.attached), 1000);
}

#[tokio::test]
async fn more_requests_than_the_bucket_holds_are_refused() {
    let limits = Limits {
        rate: 0,
        burst: 2,
        ..Limits::default()
    };
    let scene = scene(Observer::Attaches, limits).await;
    assert_eq!(scene.attach("a1").await, Some(Reply::Attached));
    assert_eq!(scene.attach("a2").await, Some(Reply::Attached));
    assert!(reason(scene.attach("a3").await).contains("more than 2 containers"));
    assert_eq!(scene.counted(|stats| &stats.announcements_throttled), 1);
}

/// The third waits in the kernel's queue until a place is free.
#[tokio::test(start_paused = true)]
async fn connections_beyond_the_bound_wait() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let scene = scene(Observer::Attaches, limits).await;
    let silent = [scene.connect(), scene.connect()];
    assert_eq!(scene.attach("a1").await, Some(Reply::Attached));
    assert!(
        scene.counted(|stats| &stats.requests_slow) >= 1,
        "a silent one was closed before"
    );
    drop(silent);
}

/// Connects as another user; the file system is opened to it, so that only the server itself is in the way.
#[tokio::test]
async fn another_user_is_closed_without_a_word() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = scene(Observer::Attaches, Limits::default()).await;
    for (path, mode) in [(scene.held.path(), 0o755), (&scene.socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let socket = scene.socket.clone();
    let answer = tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || {
            // Of this thread only.
            let user = rustix::process::Uid::from_raw(4321);
            rustix::thread::set_thread_uid(user).unwrap();
            let mut stream = StdStream::connect(socket).unwrap();
            // The server may have closed it already.
            let _ = stream.write_all(&attach_frame("a1"));
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        })
        .join()
        .unwrap()
    })
    .await
    .unwrap();
    assert!(answer.is_empty());
    assert_eq!(scene.counted(|stats| &stats.peers_refused), 1);
    assert_eq!(scene.counted(|stats| &stats.attaches), 0);
}
