//! TLS towards the collector: rustls with ring, the system's roots unless a certificate is given.

use crate::otlp::config::TlsFiles;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read or holds nothing of use.
    #[error("cannot use the PEM file {path}: {source}; check the path and that it holds a {what}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The cause.
        source: pem::Error,
    },
    /// The TLS library refuses the material.
    #[error(
        "the TLS material for OTLP cannot be used: {0}; check that certificate and key belong together"
    )]
    Refused(#[from] rustls::Error),
}

/// The client configuration for one signal. Without TLS (`http://`) no root is loaded.
pub(crate) fn client(files: &TlsFiles, secure: bool) -> Result<ClientConfig, TlsError> {
    let roots = if secure {
        roots(files)?
    } else {
        RootCertStore::empty()
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match &files.client {
        Some((certificate, key)) if secure => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(pem_error(key, "private key"))?;
            Ok(builder.with_client_auth_cert(certificates(certificate)?, key)?)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &files.authority {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        // Our own image is built from nothing and has no certificate store.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = pem_error(path, "certificate");
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(&error)?;
    if found.is_empty() {
        Err(error(pem::Error::NoItemsFound))
    } else {
        Ok(found)
    }
}

fn pem_error(path: &Path, what: &'static str) -> impl Fn(pem::Error) -> TlsError {
    move |source| TlsError::Pem {
        path: path.to_owned(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("ca.pem");
        std::fs::write(&empty, "no certificate here").unwrap();
        for path in [empty, directory.path().join("absent.pem")] {
            let files = TlsFiles {
                authority: Some(path.clone()),
                client: None,
            };
            let error = client(&files, true).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(client(&files, false).is_ok(), "not needed, not read");
        }
    }

    #[test]
    fn public_collectors_can_be_verified_without_a_certificate_store() {
        assert!(!roots(&TlsFiles::default()).unwrap().is_empty());
    }
}
