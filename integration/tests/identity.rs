//! What a container's runtime said about it, in the resource of its spans. There is no trial here.

use crate::hook::SERVER;
use anyhow::{Result, ensure};
use integration::Span;
use serde_json::{Value, json};

/// The first request is traced, with the identity that the CRI gave to the container `server` of the pod
/// `shop/cart`.
pub(crate) fn must_name(first: &Span, id: &str) -> Result<()> {
    ensure!(first.path() == "/first", "{first:?}");
    must_run_its_program(first)?;
    must_have(
        first,
        &[
            ("container.id", json!(id)),
            ("container.runtime", json!("containerd")),
            ("container.image.name", json!("localhost/prompt")),
            ("container.image.tags", json!(["latest"])),
            ("k8s.namespace.name", json!("shop")),
            ("k8s.pod.name", json!("cart")),
            ("k8s.pod.uid", json!("uid-of-shop-cart")),
            ("k8s.container.name", json!("server")),
        ],
    )
}

/// The container was announced while its first process ran the runtime's program, which names nothing.
pub(crate) fn must_run_its_program(span: &Span) -> Result<()> {
    let program = span.resource.get("process.executable.name");
    ensure!(program.is_none_or(|name| name == SERVER[0]), "{span:?}");
    Ok(())
}

/// Attributes of a span's resource.
pub(crate) fn must_have(span: &Span, attributes: &[(&str, Value)]) -> Result<()> {
    for (key, value) in attributes {
        let found = span.resource.get(*key);
        ensure!(found == Some(value), "{key} is {found:?}: {span:?}");
    }
    Ok(())
}
