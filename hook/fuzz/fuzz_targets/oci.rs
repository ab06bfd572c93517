//! Identities: any annotations, bundle and image reference give an identity without text that is no name.
//!
//! The input is the path of a bundle, a line break, and annotations as a JSON object; or, as a whole, a reference.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pilotfish_workload::annotations::{relevant, resolve};
use pilotfish_workload::{Identity, Image, oci, service};

/// Longest text that may come out: a name of 512 bytes, or three of them joined.
const MAX_TEXT: usize = 3 * 512 + 2;

fn check_reference(text: &str) {
    let Some(image) = Image::parse(text) else {
        return;
    };
    let name = image.name.expect("a reference has a name");
    let tag = image.tags.first().map(|tag| format!(":{tag}"));
    let digest = image
        .repo_digests
        .first()
        .map(|digest| digest.trim_start_matches(&name).to_owned());
    let again = [name, tag.unwrap_or_default(), digest.unwrap_or_default()].concat();
    assert_eq!(again, text);
}

fn check_annotations(bundle: &str, annotations: &BTreeMap<String, String>) {
    oci::is_sandbox(annotations);
    let identity = Identity::from_annotations("a1", annotations, Path::new(bundle));
    assert_eq!(identity.container_id.as_deref(), Some("a1"));
    let names = [
        &identity.container_name,
        &identity.k8s_container_name,
        &identity.pod_uid,
        &identity.pod_name,
        &identity.namespace,
        &identity.image.name,
    ];
    for name in names.into_iter().flatten() {
        assert!(!name.is_empty() && name.len() <= MAX_TEXT);
        assert!(!name.chars().any(char::is_control));
    }
    assert_eq!(
        Identity::merge(identity.clone(), Identity::default()),
        identity
    );
    let wishes = resolve(
        &relevant(annotations).0,
        identity.k8s_container_name.as_deref(),
    );
    for value in service(&identity, &wishes, &oci::labels(annotations)).values() {
        assert!(!value.is_empty() && value.len() <= MAX_TEXT);
        assert!(!value.chars().any(char::is_control));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    check_reference(&text);
    if let Some((bundle, json)) = text.split_once('\n')
        && let Ok(annotations) = serde_json::from_str(json)
    {
        check_annotations(bundle, &annotations);
    }
});
