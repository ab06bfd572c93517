//! `pilotfish inject`: every shape of its corpus through the program, judged by the schemas of Kubernetes.

use anyhow::{Context, Result, bail, ensure};
use integration::{Scene, Trials, kubernetes, place};
use serde_json::{Deserializer, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Fewest shapes that the corpus has.
const SHAPES: usize = 20;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("inject");
    let mut add = |name, run: fn(&Scene) -> Result<()>| {
        trials.add_with(name, &kubernetes::NEEDS[..1], run);
    };
    add("every_shape_is_valid_for_kubernetes", valid);
    add("every_option_is_valid_for_kubernetes", valid_with_options);
    trials.add_with("every_shape_comes_back", &[], comes_back);
    trials.add_with("a_refusal_writes_nothing", &[], refusal);
    trials.add_with(
        "the_namespaces_rule_is_told",
        &[],
        the_namespaces_rule_is_told,
    );
}

fn corpus() -> Result<Vec<PathBuf>> {
    let directory = place::workspace().join("sidecar/src/inject/tests/corpus");
    let mut shapes = Vec::new();
    for entry in fs::read_dir(&directory).context("there is no corpus")? {
        let path = entry?.path();
        if path.extension().is_some() {
            shapes.push(path);
        }
    }
    shapes.sort_unstable();
    ensure!(shapes.len() >= SHAPES, "{} shapes only", shapes.len());
    Ok(shapes)
}

fn inject(arguments: &[&str], file: &Path) -> Result<Output> {
    let mut command = Command::new(place::agent_binary()?);
    command.arg("inject").args(arguments).arg("-f").arg(file);
    command.output().context("cannot run the agent")
}

fn the_namespaces_rule_is_told(_: &Scene) -> Result<()> {
    let shape = corpus()?
        .into_iter()
        .find(|path| path.ends_with("statefulset.yaml"))
        .context("no such shape")?;
    let told = |arguments: &[&str]| {
        let output = inject(arguments, &shape)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).contains("pod-security.kubernetes.io/enforce"))
    };
    ensure!(told(&[])?, "nothing is said of Pod Security");
    ensure!(!told(&["--uninject"])?, "nothing was added");
    Ok(())
}

fn text(output: Output) -> Result<String> {
    let report = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {report}", output.status);
    ensure!(!report.is_empty(), "nothing is reported");
    Ok(String::from_utf8(output.stdout)?)
}

/// Objects of Kubernetes' own kinds, of which there are schemas.
fn objects(manifest: &str) -> Result<Vec<Value>> {
    let json: Result<Vec<Value>, _> = Deserializer::from_str(manifest).into_iter().collect();
    let mut all = Vec::new();
    match json {
        Ok(values) => {
            for value in values {
                all.extend(kubernetes::objects(&value.to_string())?);
            }
        }
        Err(_) => all = kubernetes::objects(manifest)?,
    }
    all.retain(|object| {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        !version.contains("example.com")
    });
    Ok(all)
}

fn validate(manifest: &str) -> Result<()> {
    let objects = objects(manifest)?;
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    kubernetes::validate_all(&list.to_string())
}

fn valid(_: &Scene) -> Result<()> {
    for shape in corpus()? {
        let injected = text(inject(&[], &shape)?)?;
        validate(&injected).with_context(|| shape.display().to_string())?;
        ensure!(
            injected.contains("pilotfish-podinfo"),
            "{} has no sidecar",
            shape.display()
        );
    }
    Ok(())
}

fn valid_with_options(_: &Scene) -> Result<()> {
    let options = [
        "--image",
        "registry.example.com/pilotfish:0.1.0",
        "--otlp-endpoint",
        "http://collector.observability:4318",
        "--listen-port",
        "19464",
        "--run-as",
        "root",
        "--env",
        "OTEL_TRACES_SAMPLER=always_on",
    ];
    for shape in corpus()? {
        let injected = text(inject(&options, &shape)?)?;
        validate(&injected).with_context(|| shape.display().to_string())?;
        ensure!(
            injected.contains("19464"),
            "{} has no port",
            shape.display()
        );
    }
    Ok(())
}

/// Twice is once, and what was put in is taken out to the byte.
fn comes_back(scene: &Scene) -> Result<()> {
    let (once, twice) = (scene.folder().join("once"), scene.folder().join("twice"));
    for shape in corpus()? {
        let name = shape.display();
        let original = fs::read(&shape)?;
        fs::write(&once, text(inject(&[], &shape)?)?)?;
        let output = twice.to_str().context("a path in UTF-8")?;
        ensure!(text(inject(&["-o", output], &once)?)?.is_empty());
        ensure!(
            fs::read(&once)? == fs::read(&twice)?,
            "{name}: twice is not once"
        );
        // In place, as a user would.
        text(inject(&["--uninject", "-o", output], &twice)?)?;
        ensure!(fs::read(&twice)? == original, "{name} did not come back");
    }
    Ok(())
}

fn refusal(scene: &Scene) -> Result<()> {
    let (manifest, written) = (
        scene.folder().join("node.yaml"),
        scene.folder().join("written.yaml"),
    );
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: node}\nspec:\n  hostPID: true\n  containers:\n  - name: a\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: a\n";
    fs::write(&manifest, text)?;
    let output = written.to_str().context("a path in UTF-8")?;
    let refused = inject(&["-o", output], &manifest)?;
    let report = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1),
        "{}: {report}",
        refused.status
    );
    ensure!(report.contains("pod \"node\" refused: hostPID"), "{report}");
    ensure!(!written.exists(), "a refusal wrote something");
    let skipped = inject(&["--skip-refused", "-o", output], &manifest)?;
    ensure!(skipped.status.success(), "{}", skipped.status);
    let documents = fs::read_to_string(&written)?;
    let Some((node, web)) = documents.split_once("---\n") else {
        bail!("a document is lost:\n{documents}");
    };
    ensure!(text.starts_with(node) && web.contains("pilotfish-podinfo"));
    let wrong = inject(&["--listen-port", "0"], &manifest)?;
    ensure!(wrong.status.code() == Some(2), "{}", wrong.status);
    let missing = inject(&[], &scene.folder().join("no such file"))?;
    ensure!(missing.status.code() == Some(1), "{}", missing.status);
    Ok(())
}
