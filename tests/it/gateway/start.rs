//! What a start refuses, and the development certificate.

use std::{fs, net::TcpListener};

use cde_gateway::{
    config::{Certificate, RouteEntry},
    gateway::Error,
};

use crate::support::{HOST, Setup, Upstream, eventually};

/// The error with its causes, as it would be printed.
fn refusal(setup: &Setup) -> String {
    let Err(error) = setup.try_start() else {
        panic!("it started");
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let setup = Setup::new().with(|config| config.listen[0].address = address);
    let text = refusal(&setup);
    assert!(
        text.starts_with(&format!(
            "cannot listen on {address}: another program has it"
        )) && text.contains("`gateway.listen`"),
        "{text}"
    );
    let setup = Setup::new().with(|config| config.admin.address = Some(address));
    let text = refusal(&setup);
    assert!(
        text.contains(&format!("`gateway.admin.address` {address}")) && text.contains("another"),
        "{text}"
    );
}

#[tokio::test]
async fn a_second_gateway_on_the_same_address_is_refused() {
    let gateway = Setup::new().start();
    let address = gateway.https;
    let setup = Setup::new().with(|config| config.listen[0].address = address);
    let text = refusal(&setup);
    assert!(
        text.starts_with(&format!(
            "cannot listen on {address}: another program has it"
        )),
        "{text}"
    );
}

#[tokio::test]
async fn a_gateway_starts_again_on_the_address_it_had() {
    let upstream = Upstream::echo().await;
    let first = Setup::to(&upstream).start();
    let token = first.owner();
    let headers = [("x-gitspace-token", &*token)];
    assert_eq!(first.plain().await.get("/", &headers).await.status, 200);
    let (address, setup) = (first.http, first.setup.clone());
    first.stop().await;
    let setup = setup.with(|config| config.listen[1].address = address);
    // A process that another test has just forked may hold it for a moment.
    let second = eventually("the address", async || setup.try_start().ok()).await;
    assert_eq!(second.http, address);
    assert_eq!(second.plain().await.get("/", &headers).await.status, 200);
}

#[tokio::test]
async fn an_unreadable_or_mismatched_certificate_names_its_file() {
    let good = Setup::new();
    drop(good.start());
    let dev = good.dir.path().join("dev");
    let (chain, key) = (dev.join("cert.pem"), dev.join("key.pem"));
    let text = |chain: &std::path::Path, key: &std::path::Path| {
        let certificate = Certificate {
            chain: chain.into(),
            key: key.into(),
        };
        refusal(&Setup::new().with(|config| config.certificate = vec![certificate]))
    };
    let missing = dev.join("missing.pem");
    let message = text(&missing, &key);
    assert!(
        message.contains("missing.pem") && message.contains("No such file"),
        "{message}"
    );
    let message = text(&chain, &missing);
    assert!(
        message.contains("missing.pem holds no usable private key"),
        "{message}"
    );
    let empty = dev.join("empty.pem");
    fs::write(&empty, "nothing\n").unwrap();
    let message = text(&empty, &key);
    assert!(
        message.contains("empty.pem holds no usable certificate"),
        "{message}"
    );
    let message = text(&chain, &dev.join("ca.key"));
    assert!(
        message.contains("ca.key does not belong to the certificate")
            && message.contains("cert.pem; name the key"),
        "{message}"
    );
}

#[tokio::test]
async fn the_development_certificate_is_made_once_and_its_ca_is_kept() {
    let upstream = Upstream::echo().await;
    let setup = Setup::to(&upstream);
    let gateway = setup.start();
    let headers = [("x-gitspace-token", &*gateway.owner())];
    let answer = gateway.tls(HOST).await.get("/", &headers).await;
    assert_eq!(answer.status, 200);
    gateway.tls("localhost").await;
    let authority = fs::read(gateway.authority()).unwrap();
    let leaf = fs::read(setup.dir.path().join("dev/cert.pem")).unwrap();
    gateway.stop().await;

    // Another domain needs another leaf; who trusted the CA trusts it still.
    let setup = setup.with(|config| config.domains.push("other.test".into()));
    let gateway = setup.start();
    gateway.tls("any.other.test").await;
    gateway.tls(HOST).await;
    assert_eq!(fs::read(gateway.authority()).unwrap(), authority);
    assert_ne!(
        fs::read(setup.dir.path().join("dev/cert.pem")).unwrap(),
        leaf
    );
    for name in ["ca.key", "key.pem"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(setup.dir.path().join("dev").join(name)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_static_route_that_cannot_be_used_is_named() {
    let entry = |text: &str| toml::from_str::<RouteEntry>(text).unwrap();
    for (route, expected) in [
        (
            "upstream = \"http://127.0.0.1:1\"",
            "needs `gitspace` or `host`",
        ),
        ("gitspace = \"a\"\nupstream = \"ftp://x\"", "[[route]] a"),
        (
            "gitspace = \"app-3000\"\nupstream = \"http://127.0.0.1:1\"",
            "ends like a port",
        ),
        (
            "gitspace = \"a\"\nupstream = \"http://127.0.0.1:1\"\n[ports.0]\nupstream = \"http://127.0.0.1:1\"",
            "`ports.0`",
        ),
    ] {
        let mut setup = Setup::new();
        setup.settings.routes.push(entry(route));
        let text = refusal(&setup);
        assert!(text.contains(expected), "{text}");
    }
    let setup = Setup::new();
    let path = setup.dir.path().join("routes.json");
    fs::write(&path, "{").unwrap();
    let text = refusal(&setup.with(|config| config.routes_file = Some(path)));
    assert!(
        text.contains("routes.json is no JSON array of routes"),
        "{text}"
    );
    let Err(Error::Auth(_)) = Setup::new()
        .with(|config| config.issuer[0].key[0].public_key_file = Some("/missing.pem".into()))
        .try_start()
    else {
        panic!("an issuer without a key was accepted");
    };
}
