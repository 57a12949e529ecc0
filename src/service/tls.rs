//! TLS: a certificate chain and its key, and certificates to trust, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
use tokio_rustls::{TlsAcceptor, TlsConnector};

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

const TRUSTED: &str = "certificates to trust in PEM";
const CHAIN: &str = "a certificate chain in PEM";

/// What shakes hands with a server of which one of these certificates vouches.
pub fn connector(trusted: &Path) -> Result<TlsConnector, TlsError> {
    let fault = |got: &dyn ToString| TlsError { path: trusted.into(), expected: TRUSTED, got: got.to_string() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted).map_err(|error| fault(&error))? {
        roots.add(certificate.map_err(|error| fault(&error))?).map_err(|error| fault(&error))?;
    }
    if roots.is_empty() {
        return Err(fault(&"none"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&error))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

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
