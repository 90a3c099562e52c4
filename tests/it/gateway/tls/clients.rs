//! Who may come: client certificates, and names that must be asked for.

use cde_gateway::config::{Certificate, ClientCertificates};
use rustls::version::{TLS12, TLS13};

use crate::support::{Client, Dialer, HOST, Setup, TestCa, TestGateway, Wishes, eventually};

/// A gateway that asks for certificates of the first authority, and another authority.
fn asking(mode: Option<ClientCertificates>) -> (TestGateway, TestCa, TestCa) {
    let setup = Setup::new();
    let clients = TestCa::new(setup.dir.path(), "clients");
    let others = TestCa::new(setup.dir.path(), "others");
    let gateway = setup
        .with(|config| {
            config.listen[0].client_ca = Some(clients.file.clone());
            config.listen[0].client_certificates = mode;
        })
        .start();
    (gateway, clients, others)
}

/// Whether a client with this identity gets an answer, in both versions alike.
async fn admitted(gateway: &TestGateway, identity: Option<&Certificate>) -> bool {
    let mut admitted = Vec::new();
    for version in [&TLS12, &TLS13] {
        let wishes = Wishes {
            version: Some(version),
            identity: identity.cloned(),
            ..Wishes::default()
        };
        let dialer = Dialer::with(&gateway.authority(), &wishes);
        match dialer.visit(gateway.https, HOST).await {
            Ok((_, status)) => {
                assert_eq!(status, 401);
                admitted.push(true);
            }
            Err(error) => {
                // It is told so, and not only cut off.
                assert!(error.to_string().contains("alert"), "{error}");
                admitted.push(false);
            }
        }
    }
    assert_eq!(admitted[0], admitted[1]);
    admitted[0]
}

#[tokio::test]
async fn a_listener_with_a_client_ca_admits_only_its_certificates() {
    let (gateway, clients, others) = asking(None);
    assert!(admitted(&gateway, Some(&clients.issue("good", &["client"], 10))).await);
    assert!(!admitted(&gateway, None).await);
    assert!(!admitted(&gateway, Some(&others.issue("other", &["client"], 10))).await);
    assert!(!admitted(&gateway, Some(&clients.issue("expired", &["client"], -1))).await);
    let refused = || async {
        let reason = ["reason=\"client-certificate\""];
        let count = gateway
            .metric("cde_gateway_failed_handshakes_total", &reason)
            .await;
        (count == 6.0).then_some(())
    };
    eventually("six refusals", refused).await;
}

#[tokio::test]
async fn where_certificates_are_optional_only_bad_ones_are_refused() {
    let (gateway, clients, others) = asking(Some(ClientCertificates::Optional));
    assert!(admitted(&gateway, Some(&clients.issue("good", &["client"], 10))).await);
    assert!(admitted(&gateway, None).await);
    assert!(!admitted(&gateway, Some(&others.issue("other", &["client"], 10))).await);
}

#[tokio::test]
async fn with_strict_sni_the_host_must_be_the_name_that_was_asked_for() {
    let gateway = Setup::new()
        .with(|config| config.listen[0].strict_sni = true)
        .start();
    let dialer = Dialer::new(&gateway.authority());
    let ask = async |sni: &str, host: &str| {
        let stream = dialer.connect(gateway.https, sni).await.unwrap();
        let mut client = Client::over(Box::new(stream)).to(host);
        client.get("/", &[]).await.status
    };
    let sibling = "other-a1b2c3.gitspaces.localhost";
    assert_eq!(ask(HOST, HOST).await, 401);
    assert_eq!(ask(HOST, &HOST.to_uppercase()).await, 401);
    assert_eq!(ask(HOST, sibling).await, 421);
    assert_eq!(ask(sibling, sibling).await, 401);
    assert_eq!(ask(HOST, "127.0.0.1").await, 421);
    // An address cannot be asked for, and no name may be used without asking for it.
    assert_eq!(ask("127.0.0.1", "127.0.0.1").await, 401);
    assert_eq!(ask("127.0.0.1", HOST).await, 421);
}
