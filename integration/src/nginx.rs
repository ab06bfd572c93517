//! nginx with a generated configuration and an access log that serves as the exact tally.

use crate::place;
use crate::scene::Scene;
use crate::server::PROBE;
use crate::tally::{Outcome, Tally};
use crate::tls::Certificate;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What a trial wants from nginx.
#[derive(Clone, Debug)]
#[must_use]
pub struct Nginx {
    port: u16,
    workers: u32,
    upstream: String,
    certificate: Option<Certificate>,
    http2: bool,
}

impl Nginx {
    /// Two workers, static files only.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            workers: 2,
            upstream: "127.0.0.1:1".to_owned(),
            certificate: None,
            http2: false,
        }
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Number of worker processes.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Passes `/app/...` on to an address as nginx writes it: `127.0.0.1:8000` or `unix:/path`.
    pub fn upstream(mut self, address: &str) -> Self {
        address.clone_into(&mut self.upstream);
        self
    }

    /// Serves HTTPS instead of HTTP.
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// Serves HTTP/2: in clear nothing else, with TLS to those who choose it.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Writes configuration and files into the trial's folder.
    pub fn command(&self, scene: &Scene) -> Result<Command> {
        let folder = scene.folder().join(format!("nginx-{}", self.port));
        let root = folder.join("root");
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        fs::write(root.join("small"), "a small file\n")?;
        fs::write(root.join("large"), vec![b'L'; 1 << 20])?;
        fs::write(root.join("chunked"), "a part\n".repeat(2000))?;
        let template = fs::read_to_string(place::fixture("nginx.conf"))?;
        let tls = self.certificate.as_ref().map_or_else(String::new, |own| {
            let (chain, key) = (own.chain.display(), own.key.display());
            format!(" ssl; ssl_certificate {chain}; ssl_certificate_key {key}")
        });
        let http2 = if self.http2 { " http2" } else { "" };
        let configuration = template
            .replace("@PROTOCOLS@", &format!("{http2}{tls}"))
            .replace("@FOLDER@", &folder.to_string_lossy())
            .replace("@PORT@", &self.port.to_string())
            .replace("@WORKERS@", &self.workers.to_string())
            .replace("@UPSTREAM@", &self.upstream);
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = place::command("nginx")?;
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        Ok(command)
    }

    /// What nginx answered, by its access log: complete once nginx has ended in an orderly way.
    ///
    /// A request that its client cut off before any byte of the response left has no span and is not counted.
    pub fn access_log(&self, scene: &Scene) -> Result<Tally> {
        let path: PathBuf = scene
            .folder()
            .join(format!("nginx-{}", self.port))
            .join("access.log");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut tally = Tally::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            ensure!(fields.len() == 4, "not a line of our access log: {line:?}");
            if fields[3] != "0" && fields[2] != PROBE {
                tally.add(Outcome::new(fields[1], fields[2], fields[0].parse()?));
            }
        }
        Ok(tally)
    }
}
