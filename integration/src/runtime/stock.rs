//! Images of stock programs under the names that they have in public registries, which no trial can reach.
//!
//! [`NGINX`] is Debian's nginx with Debian's configuration. [`COLLECTOR`] is rotel in the place of the OpenTelemetry
//! collector: it takes OTLP on the same ports and prints what it got, but reads no configuration of the collector's.

use super::image::{self, Image};
use super::machine::Machine;
use crate::place;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A web server on port 80.
pub const NGINX: &str = "docker.io/library/nginx:latest";

/// A receiver of OTLP on the ports 4317 and 4318.
pub const COLLECTOR: &str = "docker.io/otel/opentelemetry-collector-contrib:0.128.0";

/// Files of [`NGINX`] beside its libraries.
const NGINX_FILES: &[&str] = &[
    "/usr/sbin/nginx",
    "/usr/share/nginx",
    "/etc/nginx",
    "/etc/passwd",
    "/etc/group",
    "/var/www",
    "/var/log/nginx",
    "/var/lib/nginx",
];

/// Writes a layer of files and of the libraries that the programs among them are linked with, links resolved.
/// `/run` and `/tmp` are there and empty.
const PACK: &str = r#"
layer=$1
shift
for file; do
    echo "$file"
    [ ! -f "$file" ] || ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true
done | sort -u | tar --create --dereference --absolute-names --transform='s,^/,,' --files-from=- --file="$layer"
mkdir -p "$layer.empty/run" "$layer.empty/tmp"
tar --append --directory="$layer.empty" --file="$layer" run tmp
"#;

/// An archive with [`NGINX`], made of the machine's own.
pub fn nginx(machine: &Machine) -> Result<Vec<u8>> {
    let place = "/tmp/nginx.tar";
    let words = ["-euc", PACK, "sh", place];
    machine.output("sh", words.iter().chain(NGINX_FILES))?;
    let layer = fs::read(machine.path(place)).context("the layer is not there")?;
    let process = json!({
        "Cmd": ["nginx", "-g", "daemon off;"],
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "ExposedPorts": { "80/tcp": {} },
    });
    image::archive_of(&[Image {
        name: NGINX,
        process,
        layer: &layer,
    }])
}

/// An archive with [`COLLECTOR`], made of the host's rotel. `folder` is for the layer.
pub fn collector(folder: &Path) -> Result<Vec<u8>> {
    let rotel = place::tool("rotel").context("rotel is not installed")?;
    let place = folder.join("collector.tar");
    let mut pack = Command::new("sh");
    pack.args(["-euc", PACK, "sh"]).arg(&place).arg(&rotel);
    let packed = pack.output().context("cannot start a shell")?;
    let errors = String::from_utf8_lossy(&packed.stderr);
    ensure!(packed.status.success(), "no layer of rotel: {errors}");
    let layer = fs::read(&place).context("the layer is not there")?;
    let process = json!({
        "Entrypoint": [
            rotel,
            "start",
            "--exporter=blackhole",
            "--debug-log=traces",
            "--debug-log=metrics",
            "--debug-log-verbosity=detailed",
            "--pid-file=/tmp/rotel.pid",
            "--otlp-grpc-endpoint=0.0.0.0:4317",
            "--otlp-http-endpoint=0.0.0.0:4318",
        ],
    });
    image::archive_of(&[Image {
        name: COLLECTOR,
        process,
        layer: &layer,
    }])
}
