//! Every shape of the corpus.

use super::*;
use serde_json::json;

/// What a pod without sidecar and one with it have in common.
fn with_the_definition(spec: &mut Value) {
    let definition = definition();
    spec["shareProcessNamespace"] = definition["shareProcessNamespace"].clone();
    for key in ["initContainers", "volumes"] {
        let mut list = definition[key].as_array().expect("a list").clone();
        list.extend(spec[key].as_array().into_iter().flatten().cloned());
        spec[key] = list.into();
    }
}

fn without_record(spec: &mut Value) {
    let environment = &mut spec["initContainers"][0]["env"];
    if let Some(environment) = environment.as_array_mut() {
        environment.retain(|variable| variable["name"] != definition::RECORD);
    }
}

fn is_declined(document: &Value) -> bool {
    let annotation = "/spec/template/metadata/annotations/pilotfish.dev~1instrument";
    document.pointer(annotation) == Some(&json!("false"))
}

#[test]
fn there_are_twenty_shapes_and_more() {
    assert!(shapes().len() >= 20);
}

#[test]
fn what_is_added_is_the_definition_and_nothing_else_changes() {
    for shape in shapes() {
        let filtered = injected(&shape.text);
        let (mut before, mut after) = (values(&shape.text), values(&filtered.text));
        let mut pods = 0;
        for document in before.iter_mut().filter(|document| !is_declined(document)) {
            for spec in pod_specs(document) {
                with_the_definition(spec);
                pods += 1;
            }
        }
        for document in after.iter_mut().filter(|document| !is_declined(document)) {
            pod_specs(document).into_iter().for_each(without_record);
        }
        assert_eq!(before, after, "{}", shape.name);
        let all = outcomes(&filtered);
        let added = all.iter().filter(|outcome| ***outcome == Outcome::Injected);
        assert_eq!(added.count(), pods, "{}", shape.name);
        assert!(pods > 0, "{} has no pod", shape.name);
    }
}

#[test]
fn twice_is_once() {
    for shape in shapes() {
        let once = injected(&shape.text);
        let twice = injected(&once.text);
        assert_eq!(once.text, twice.text, "{}", shape.name);
        assert!(
            !outcomes(&twice).contains(&&Outcome::Injected),
            "{}: {twice:?}",
            shape.name
        );
    }
}

#[test]
fn what_was_added_is_taken_out_to_the_byte() {
    for shape in shapes() {
        assert_eq!(
            uninjected(&injected(&shape.text).text),
            shape.text,
            "{}",
            shape.name
        );
    }
}

#[test]
fn what_is_not_there_is_not_taken_out() {
    for shape in shapes() {
        assert_eq!(uninjected(&shape.text), shape.text, "{}", shape.name);
    }
}

#[test]
fn another_sidecar_takes_its_place() {
    let other = SidecarOptions {
        image: Some("registry.example.com:5000/pilotfish@sha256:0123".to_owned()),
        run_as: RunAs::Root,
        ..SidecarOptions::default()
    };
    for shape in shapes() {
        let once = injected(&shape.text);
        let changed = inject(&once.text, &other).expect("manifests");
        assert!(
            outcomes(&changed).contains(&&Outcome::Updated),
            "{}",
            shape.name
        );
        assert_eq!(
            changed.text,
            inject(&shape.text, &other).expect("manifests").text,
            "{}",
            shape.name
        );
        assert_eq!(injected(&changed.text).text, once.text, "{}", shape.name);
        assert_eq!(uninjected(&changed.text), shape.text, "{}", shape.name);
    }
}

#[test]
fn lines_that_are_there_stay_as_they_are() {
    for shape in shapes()
        .into_iter()
        .filter(|shape| Path::new(&shape.name).extension() == Some("yaml".as_ref()))
    {
        let filtered = injected(&shape.text);
        let mut after = filtered.text.lines();
        // Lists that were empty, and flow notation, are on lines that change.
        let kept = |line: &&str| !line.contains(['[', '{', '~']) && !line.contains("null");
        for line in shape
            .text
            .lines()
            .filter(kept)
            .filter(|line| line.len() > 30)
        {
            assert!(after.any(|after| after == line), "{}: {line}", shape.name);
        }
    }
}
