//! `service.*` of a container.

use std::collections::BTreeMap;

use crate::annotations::Wishes;
use crate::identity::Identity;
use crate::image::Image;

/// Longest value of a label, bytes (Kubernetes).
const MAX_LABEL: usize = 63;

/// Label of the pods of a deployment: the hash that stands in the names of its replica set and its pods.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Label of the pods of a stateful set: the pod's own name.
const STATEFUL_POD: &str = "statefulset.kubernetes.io/pod-name";

/// Labels of the pods of a job, its name; the second one is what Kubernetes before 1.27 wrote.
const JOB: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Labels of a pod that [`service`] looks at.
const NAMING_LABELS: &[&str] = &[
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    TEMPLATE_HASH,
    STATEFUL_POD,
    JOB[0],
    JOB[1],
];

/// Out of a pod's labels, those that [`service`] looks at.
pub fn naming_labels<K: AsRef<str>, V: AsRef<str>>(
    labels: impl IntoIterator<Item = (K, V)>,
) -> BTreeMap<String, String> {
    labels
        .into_iter()
        .filter(|(key, value)| {
            let value = value.as_ref();
            NAMING_LABELS.contains(&key.as_ref())
                && (1..=MAX_LABEL).contains(&value.len())
                && !value.chars().any(char::is_control)
        })
        .map(|(key, value)| (key.as_ref().to_owned(), value.as_ref().to_owned()))
        .collect()
}

/// `service.name`, `service.namespace`, `service.version` and `service.instance.id`, each as far as it is known, in
/// the order of precedence of the OpenTelemetry semantic conventions for Kubernetes
/// (`docs/non-normative/k8s-attributes.md`): annotations, well-known labels, owners of the pod, the pod, the
/// container. Outside of Kubernetes the container's name and its image remain.
///
/// An owner counts only when a label of its controller and the pod's name agree on it. The conventions want the use
/// of labels to be the operator's choice: without it, pass none. [`Wishes::resource`] has further attributes, and
/// those of these four that it has are taken from there.
pub fn service(
    identity: &Identity,
    wishes: &Wishes,
    labels: &BTreeMap<String, String>,
) -> BTreeMap<&'static str, String> {
    let asked = |key: &str| wishes.resource.get(key).cloned();
    [
        ("service.name", name(identity, wishes, labels)),
        (
            "service.namespace",
            asked("service.namespace").or_else(|| identity.namespace.clone()),
        ),
        (
            "service.version",
            asked("service.version")
                .or_else(|| labels.get("app.kubernetes.io/version").cloned())
                .or_else(|| image_version(&identity.image)),
        ),
        (
            "service.instance.id",
            asked("service.instance.id").or_else(|| instance(identity)),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

fn name(identity: &Identity, wishes: &Wishes, labels: &BTreeMap<String, String>) -> Option<String> {
    let label = |key: &str| labels.get(key).cloned();
    wishes
        .service_name
        .clone()
        .or_else(|| label("app.kubernetes.io/instance"))
        .or_else(|| label("app.kubernetes.io/name"))
        .or_else(|| owner(identity.pod_name.as_deref()?, labels))
        .or_else(|| identity.pod_name.clone())
        .or_else(|| identity.k8s_container_name.clone())
        .or_else(|| identity.container_name.clone())
}

/// The deployment, stateful set or job of a pod.
fn owner(pod: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let deployment = || {
        // DEPLOYMENT-HASH-RANDOM. A name that Kubernetes had to cut does not end so.
        let (replica_set, _random) = pod.rsplit_once('-')?;
        let (deployment, hash) = replica_set.rsplit_once('-')?;
        (labels.get(TEMPLATE_HASH)? == hash).then_some(deployment)
    };
    let stateful_set = || {
        let (set, ordinal) = pod.rsplit_once('-')?;
        let is_ordinal = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
        (is_ordinal && labels.get(STATEFUL_POD)? == pod).then_some(set)
    };
    let job = || {
        let job = JOB.iter().find_map(|key| labels.get(*key))?;
        pod.strip_prefix(job.as_str())?
            .starts_with('-')
            .then_some(job.as_str())
    };
    deployment()
        .or_else(stateful_set)
        .or_else(job)
        .filter(|owner| !owner.is_empty())
        .map(str::to_owned)
}

/// `TAG@DIGEST`, `DIGEST` or `TAG`.
fn image_version(image: &Image) -> Option<String> {
    let tag = image.tags.first();
    let digest = image
        .repo_digests
        .first()
        .and_then(|reference| reference.split_once('@'))
        .map(|(_, digest)| digest);
    match (tag, digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (None, Some(digest)) => Some(digest.to_owned()),
        (tag, None) => tag.cloned(),
    }
}

/// `NAMESPACE.POD.CONTAINER`: the same again when the container restarts.
fn instance(identity: &Identity) -> Option<String> {
    let namespace = identity.namespace.as_deref()?;
    let pod = identity.pod_name.as_deref()?;
    let container = identity.k8s_container_name.as_deref()?;
    Some(format!("{namespace}.{pod}.{container}"))
}
