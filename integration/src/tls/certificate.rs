//! The servers' certificate, made for one trial.

use crate::scene::Scene;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// A certificate of `localhost` and 127.0.0.1 that signs itself, as files in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, which clients take as their only authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one in the trial's folder.
    pub fn new(scene: &Scene) -> Result<Self> {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made =
            rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
        let files = Self {
            chain: scene.folder().join("certificate.pem"),
            key: scene.folder().join("key.pem"),
        };
        fs::write(&files.chain, made.cert.pem())?;
        fs::write(&files.key, made.signing_key.serialize_pem())?;
        Ok(files)
    }
}
