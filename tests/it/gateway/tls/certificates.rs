//! Which certificate is served to whom, and how others take their place while the gateway runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use cde_gateway::config::Certificate;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::support::{Client, Dialer, HOST, Setup, TestCa, TestGateway, eventually};

fn read(files: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.chain).unwrap()
}

#[tokio::test]
async fn the_name_that_is_asked_for_picks_the_certificate() {
    let setup = Setup::new();
    let authority = TestCa::new(setup.dir.path(), "test");
    let certificates = vec![
        authority.issue("first", &["first.test", "127.0.0.1"], 10),
        authority.issue("wildcard", &["*.b.test"], 10),
        authority.issue("exact", &["a.b.test", "*.c.b.test"], 10),
    ];
    let gateway = setup
        .with(|config| config.certificate = certificates.clone())
        .start();
    let dialer = Dialer::new(&authority.file);
    for (name, expected) in [
        ("first.test", 0),
        ("x.b.test", 1),
        ("a.b.test", 2),
        ("x.c.b.test", 2),
        // No name can be asked for.
        ("127.0.0.1", 0),
    ] {
        let served = dialer.served(gateway.https, name).await.unwrap();
        assert_eq!(served, read(&certificates[expected]), "{name}");
    }
    // Unknown names get the default, which the client then refuses.
    for name in ["b.test", "x.y.b.test", "unknown.test"] {
        assert!(dialer.served(gateway.https, name).await.is_err(), "{name}");
    }
    let refused = || async {
        let refused = ["reason=\"refused-by-client\""];
        let count = gateway
            .metric("cde_gateway_failed_handshakes_total", &refused)
            .await;
        (count == 3.0).then_some(())
    };
    eventually("three refusals", refused).await;
}

#[tokio::test]
async fn hosts_that_the_served_certificate_does_not_cover_are_misdirected() {
    let setup = Setup::new();
    let authority = TestCa::new(setup.dir.path(), "test");
    let certificates = vec![
        authority.issue("one", &["*.one.test"], 10),
        authority.issue("two", &["*.two.test"], 10),
    ];
    let gateway = setup
        .with(|config| config.certificate = certificates)
        .start();
    let dialer = Dialer::new(&authority.file);
    let ask = async |sni: &str, host: &str| {
        let stream = dialer.connect(gateway.https, sni).await.unwrap();
        let mut client = Client::over(Box::new(stream)).to(host);
        client.get("/", &[]).await.status
    };
    // Browsers use one connection for all that its certificate covers.
    assert_eq!(ask("a.one.test", "b.one.test").await, 401);
    assert_eq!(ask("a.one.test", "a.two.test").await, 421);
    assert_eq!(ask("a.two.test", "a.two.test:8443").await, 401);
    assert_eq!(ask("a.two.test", "a.b.two.test").await, 421);
}

/// A gateway with one certificate of `HOST`, its authority, and the certificate's files.
fn with_certificate() -> (TestGateway, TestCa, Certificate) {
    let setup = Setup::new();
    let authority = TestCa::new(setup.dir.path(), "test");
    let folder = setup.dir.path().join("served");
    fs::create_dir(&folder).unwrap();
    let made = authority.issue("made", &[HOST], 10);
    let files = Certificate {
        chain: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    fs::copy(&made.chain, &files.chain).unwrap();
    fs::copy(&made.key, &files.key).unwrap();
    let certificate = files.clone();
    let gateway = setup
        .with(|config| config.certificate = vec![certificate])
        .start();
    (gateway, authority, files)
}

async fn serves(gateway: &TestGateway, authority: &TestCa, expected: &CertificateDer<'_>) {
    let probe = || async {
        let dialer = Dialer::new(&authority.file);
        let served = dialer.served(gateway.https, HOST).await.unwrap();
        (served == *expected).then_some(())
    };
    eventually("the new certificate", probe).await;
}

/// How a certificate's end is shown.
async fn end(gateway: &TestGateway) -> f64 {
    let first = ["certificate=\"0\""];
    gateway
        .metric("cde_gateway_certificate_not_after_seconds", &first)
        .await
}

#[tokio::test]
async fn a_replaced_certificate_is_taken_and_no_connection_is_dropped() {
    let (gateway, authority, files) = with_certificate();
    let dialer = Dialer::new(&authority.file);
    let kept = dialer.connect(gateway.https, HOST).await.unwrap();
    let mut kept = Client::over(Box::new(kept));
    assert_eq!(kept.get("/", &[]).await.status, 401);
    let before = end(&gateway).await;

    let new = authority.issue("new", &[HOST], 30);
    fs::rename(&new.key, &files.key).unwrap();
    fs::rename(&new.chain, &files.chain).unwrap();
    serves(&gateway, &authority, &read(&files)).await;
    let days = (end(&gateway).await - before) / (24.0 * 3600.0);
    assert!((days - 20.0).abs() < 0.1, "{days}");
    assert_eq!(kept.get("/", &[]).await.status, 401);
}

#[tokio::test]
async fn a_certificate_that_comes_in_pieces_is_taken_when_it_is_whole() {
    let (gateway, authority, files) = with_certificate();
    let old = read(&files);
    let new = authority.issue("new", &[HOST], 30);
    let (chain, key) = (fs::read(&new.chain).unwrap(), fs::read(&new.key).unwrap());

    // Neither half a file nor a certificate without its key changes anything: a reload says why.
    fs::write(&files.chain, &chain[..chain.len() / 2]).unwrap();
    let error = gateway.handle.reload(&gateway.setup.settings).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tls.crt holds no usable certificate")
    );
    serves(&gateway, &authority, &old).await;
    fs::write(&files.chain, &chain).unwrap();
    let error = gateway.handle.reload(&gateway.setup.settings).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not belong to the certificate")
    );
    serves(&gateway, &authority, &old).await;

    fs::write(&files.key, &key).unwrap();
    serves(&gateway, &authority, &read(&new)).await;
}

#[tokio::test]
async fn a_folder_whose_files_are_swapped_by_a_link_is_followed() {
    let setup = Setup::new();
    let authority = TestCa::new(setup.dir.path(), "test");
    // As Kubernetes mounts secrets: tls.crt → ..data/tls.crt, ..data → ..1, and the link is replaced as a whole.
    let folder = setup.dir.path().join("mounted");
    let version = |name: &str, days| {
        let made = authority.issue(name, &[HOST], days);
        let version = folder.join(name);
        fs::create_dir_all(&version).unwrap();
        fs::copy(&made.chain, version.join("tls.crt")).unwrap();
        fs::copy(&made.key, version.join("tls.key")).unwrap();
        let temporary = folder.join("..new");
        symlink(name, &temporary).unwrap();
        fs::rename(&temporary, folder.join("..data")).unwrap();
        read(&made)
    };
    let first = version("..1", 10);
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), folder.join(file)).unwrap();
    }
    let certificate = Certificate {
        chain: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    let gateway = setup
        .with(|config| config.certificate = vec![certificate])
        .start();
    serves(&gateway, &authority, &first).await;
    for (name, days) in [("..2", 20), ("..3", 30)] {
        let next = version(name, days);
        serves(&gateway, &authority, &next).await;
    }
}
