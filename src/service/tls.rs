//! TLS: a certificate chain and its key, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use super::config::Listen;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
#[error("{}: expected {expected}, got {got}", path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What should be in it.
    pub expected: &'static str,
    /// What is wrong.
    pub got: String,
}

const CHAIN: &str = "a certificate chain in PEM";

/// What shakes hands, if the configuration names a certificate.
pub fn acceptor(listen: &Listen) -> Result<Option<TlsAcceptor>, TlsError> {
    let (Some(certificate), Some(key)) = (&listen.tls_certificate, &listen.tls_key) else { return Ok(None) };
    let fault =
        |path: &Path, expected, got: &dyn ToString| TlsError { path: path.into(), expected, got: got.to_string() };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| fault(certificate, CHAIN, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| fault(certificate, CHAIN, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, "a private key in PEM", &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| fault(key, "the key of the certificate", &error))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
