//! A service with a certificate speaks TLS and nothing else on its first port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use crate::support::serve::{Client, DIM, Trained};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// A request over TLS, by a client that trusts this certificate and no other.
fn ask(address: SocketAddr, certificate: &Path) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut tls = Stream::new(&mut session, &mut stream);
    tls.write_all(b"GET /v1/recommend/user-1?k=3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_are_answered_over_tls() {
    let (redis, trained) = Trained::online();
    let tls = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| tls.path().join(name));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let flags = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("--set listen.tls_certificate={certificate} --set listen.tls_key={key}")
    };
    let serving = trained.serve(&redis.url(), &flags(&certificate, &key));
    let answer = ask(serving.public, &certificate);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"rank\":3"), "{answer}");
    assert!(Client::connect(serving.public).unwrap().ask("GET", "/livez", &[], None).is_err(), "it is not plain");
    assert_eq!(serving.admin_get("/livez").status, 200, "administration is");
    // new items come over TLS from whoever trusts the certificate
    let users = crate::support::vectors::numbers(DIM, 2);
    crate::support::vectors::write_npy(&trained.folder.path().join("new.npy"), &users, DIM);
    crate::support::vectors::write_ids(&trained.folder.path().join("new.txt"), "new", 1);
    let (port, trust) = (serving.public.port(), certificate.display());
    let publish = format!("publish --items new.npy --ids new.txt --service https://localhost:{port} --trust");
    trained.run(&format!("{publish} {trust}"));
    assert_eq!(serving.metric("tonnage_added_items"), 1.0);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(tls.path().join("other.pem"), other.cert.pem()).unwrap();
    for (trust, code, word) in [("other.pem", 10, "certificate"), ("key.pem", 2, "certificates to trust in PEM")] {
        let output = trained.command(&format!("{publish} {}", tls.path().join(trust).display())).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && said.contains(word), "{said}");
    }
    // a key that is none is told at the start
    let line = format!("serve --index indexes --store {} {}", redis.url(), flags(&certificate, &certificate));
    let output = trained.command(&line).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("a private key in PEM"), "{said}");
}
