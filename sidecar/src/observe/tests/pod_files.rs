//! Annotations and labels of our own pod that change.

use super::*;

#[tokio::test]
async fn a_changed_annotations_file_is_obeyed() {
    let path = std::env::temp_dir().join(format!("pilotfish-observer-{}", std::process::id()));
    let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    write(&path, "pilotfish.dev/ports=\"80\"\n");
    let app = Sleeper::start();
    let pod = PodFiles::open(Some(&path), None).unwrap();
    let (mut observer, journal) = observer(Target::Processes(vec![app.pid()]), Some(pod));
    let on = |ports: &[u16]| {
        [
            Said::Resource(1),
            Said::Configured(1, Some(ports.iter().copied().collect())),
            Said::Enabled(1, 1024),
        ]
    };
    assert_eq!(journal.take(), on(&[80]));

    observer.read_pod_files().unwrap();
    assert_eq!(journal.take(), [], "nothing changed");
    write(
        &path,
        "pilotfish.dev/ports=\"81\"\npilotfish.dev/prots=\"1\"\n",
    );
    observer.read_pod_files().unwrap();
    assert_eq!(journal.take(), on(&[81])[..2]);
    assert_eq!(lock(&observer.observed).warning_count(), 1);

    write(&path, "pilotfish.dev/instrument=\"false\"\n");
    observer.read_pod_files().unwrap();
    assert_eq!(journal.take(), [Said::Disabled(1), Said::Forgotten(1)]);

    write(&path, "pilotfish.dev/ports=\"82\"\n");
    observer.read_pod_files().unwrap();
    assert_eq!(journal.take(), on(&[82]));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn changed_labels_name_the_service_anew() {
    let path = std::env::temp_dir().join(format!("pilotfish-labels-{}", std::process::id()));
    let write = |name: &str| {
        let text = format!("app.kubernetes.io/name=\"{name}\"\n");
        std::fs::write(&path, text).unwrap();
    };
    write("shop");
    let app = Sleeper::start();
    let pod = PodFiles::open(None, Some(&path)).unwrap();
    let (mut observer, journal) = observer(Target::Processes(vec![app.pid()]), Some(pod));
    let service = |observer: &Observer<_, _>| {
        let resource = lock(&observer.observed).resource(1).unwrap();
        attribute(&resource, "service.name").map(str::to_owned)
    };
    assert_eq!(service(&observer).as_deref(), Some("shop"));
    journal.take();

    write("store");
    observer.read_pod_files().unwrap();
    assert_eq!(service(&observer).as_deref(), Some("store"));
    assert_eq!(journal.take(), [Said::Resource(1)]);
    std::fs::remove_file(path).unwrap();
}
