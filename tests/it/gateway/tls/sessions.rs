//! Sessions that resume, and those that must not.

use std::{fs, path::Path};

use base64::Engine;
use cde_gateway::config::Listen;
use rustls::{
    HandshakeKind::{Full, FullWithHelloRetryRequest, Resumed},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};

use crate::support::{Dialer, HOST, Setup, TestCa, Wishes};

fn only(version: &'static rustls::SupportedProtocolVersion) -> Wishes {
    Wishes {
        version: Some(version),
        ..Wishes::default()
    }
}

/// Both versions, each on its own.
fn dialers(ca: &Path) -> [Dialer; 2] {
    [&TLS12, &TLS13].map(|version| Dialer::with(ca, &only(version)))
}

/// A new current key; the current one becomes the previous one.
fn rotate(keys: &Path, number: u8) {
    let mut file: Value = serde_json::from_slice(&fs::read(keys).unwrap()).unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode([number; 32]);
    let current = file["session"]["current"].take();
    file["session"] = json!({
        "current": { "id": format!("key{number}"), "key": key },
        "previous": current,
    });
    fs::write(keys, file.to_string()).unwrap();
}

#[tokio::test]
async fn a_session_resumes_after_a_restart_with_the_same_state() {
    let setup = Setup::new();
    let gateway = setup.start();
    for dialer in dialers(&gateway.authority()) {
        let first = dialer.visit(gateway.https, HOST).await.unwrap();
        assert_eq!(first, (Full, 401));
        let again = setup.start();
        let second = dialer.visit(again.https, HOST).await.unwrap();
        assert_eq!(second, (Resumed, 401));
        // What a resumed session is given counts as well.
        let third = dialer.visit(again.https, HOST).await.unwrap();
        assert_eq!(third, (Resumed, 401));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn gateways_that_share_their_keys_resume_each_others_sessions() {
    let one = Setup::new();
    let first = one.start();
    let dev = one.dir.path().join("dev");
    let other = || {
        Setup::new().with(|config| {
            config.certificate = vec![cde_gateway::config::Certificate {
                chain: dev.join("cert.pem"),
                key: dev.join("key.pem"),
            }];
        })
    };
    let keys = one.dir.path().join("gateway.keys");
    let sharing = other().with(|config| config.keys.file = Some(keys)).start();
    let apart = other().start();
    for dialer in dialers(&first.authority()) {
        let full = dialer.visit(first.https, HOST).await.unwrap().0;
        assert_eq!(full, Full);
        let resumed = dialer.visit(sharing.https, HOST).await.unwrap().0;
        assert_eq!(resumed, Resumed);
        // To a gateway with other keys a ticket is garbage, and garbage is a full handshake.
        let full = dialer.visit(apart.https, HOST).await.unwrap();
        assert_eq!(full, (Full, 401));
    }
}

#[tokio::test]
async fn the_previous_key_counts_and_the_one_before_it_does_not() {
    let setup = Setup::new();
    let gateway = setup.start();
    let keys = setup.dir.path().join("gateway.keys");
    let ca = gateway.authority();
    let (early, late) = (dialers(&ca), dialers(&ca));
    for dialer in early.iter().chain(&late) {
        assert_eq!(dialer.visit(gateway.https, HOST).await.unwrap().0, Full);
    }
    rotate(&keys, 1);
    gateway.handle.reload(&setup.settings).unwrap();
    for dialer in &early {
        assert_eq!(dialer.visit(gateway.https, HOST).await.unwrap().0, Resumed);
    }
    rotate(&keys, 2);
    gateway.handle.reload(&setup.settings).unwrap();
    for dialer in &late {
        assert_eq!(dialer.visit(gateway.https, HOST).await.unwrap().0, Full);
    }
    // Those that came in between have a ticket of the first change.
    for dialer in &early {
        assert_eq!(dialer.visit(gateway.https, HOST).await.unwrap().0, Resumed);
    }
}

#[tokio::test]
async fn a_session_resumes_only_where_the_same_client_certificates_are_asked_for() {
    let setup = Setup::new();
    let clients = TestCa::new(setup.dir.path(), "clients");
    let others = TestCa::new(setup.dir.path(), "others");
    let listen = |ca: &Path, mode: &str| -> Listen {
        let ca = ca.display();
        toml::from_str(&format!(
            "address = \"127.0.0.1:0\"\nprotocol = \"https\"\nclient_ca = \"{ca}\"\nclient_certificates = \"{mode}\""
        ))
        .unwrap()
    };
    let gateway = setup
        .clone()
        .with(|config| {
            config.listen.push(listen(&clients.file, "optional"));
            config.listen.push(listen(&others.file, "optional"));
            config.listen.push(listen(&clients.file, "require"));
        })
        .start();
    let [open, _, optional, other, required] = gateway.addresses[..] else {
        panic!("five listeners");
    };
    for version in [&TLS12, &TLS13] {
        let dial = || Dialer::with(&gateway.authority(), &only(version));
        for (from, to) in [(open, optional), (optional, open), (optional, other)] {
            let dialer = dial();
            assert_eq!(dialer.visit(from, HOST).await.unwrap().0, Full);
            assert_eq!(dialer.visit(from, HOST).await.unwrap().0, Resumed);
            assert_eq!(dialer.visit(to, HOST).await.unwrap().0, Full);
        }
        // Without a certificate there is no way in by a session of elsewhere.
        for from in [open, optional] {
            let dialer = dial();
            assert_eq!(dialer.visit(from, HOST).await.unwrap().0, Full);
            assert!(dialer.visit(required, HOST).await.is_err());
        }
        // With one there is, and it resumes.
        let identity = clients.issue("client", &["client"], 10);
        let dialer = Dialer::with(
            &gateway.authority(),
            &Wishes {
                identity: Some(identity),
                ..only(version)
            },
        );
        assert_eq!(dialer.visit(required, HOST).await.unwrap().0, Full);
        assert_eq!(dialer.visit(required, HOST).await.unwrap().0, Resumed);
        // Not once another authority is asked for, under the same file name.
        let before = fs::read(&clients.file).unwrap();
        fs::copy(&others.file, &clients.file).unwrap();
        gateway.handle.reload(&gateway.setup.settings).unwrap();
        assert!(dialer.visit(required, HOST).await.is_err());
        fs::write(&clients.file, before).unwrap();
        gateway.handle.reload(&gateway.setup.settings).unwrap();
    }
}

#[tokio::test]
async fn a_handshake_gives_one_ticket() {
    let gateway = Setup::new().start();
    for dialer in dialers(&gateway.authority()) {
        for visits in 1..=3 {
            dialer.visit(gateway.https, HOST).await.unwrap();
            assert_eq!(dialer.tickets(), visits);
        }
    }
}

#[tokio::test]
async fn no_session_is_kept_by_its_identifier() {
    let gateway = Setup::new().start();
    let wishes = Wishes {
        session_ids: true,
        ..only(&TLS12)
    };
    let dialer = Dialer::with(&gateway.authority(), &wishes);
    for _ in 0..2 {
        let kind = dialer.visit(gateway.https, HOST).await.unwrap().0;
        assert_eq!(kind, Full);
    }
}

#[tokio::test]
async fn a_session_of_another_name_does_not_resume() {
    let gateway = Setup::new().start();
    for dialer in dialers(&gateway.authority()) {
        let other = "other-a1b2c3.gitspaces.localhost";
        assert_eq!(dialer.visit(gateway.https, HOST).await.unwrap().0, Full);
        assert_eq!(dialer.visit(gateway.https, other).await.unwrap().0, Full);
        assert_eq!(dialer.visit(gateway.https, HOST).await.unwrap().0, Resumed);
    }
}

#[tokio::test]
async fn whoever_knows_the_hybrid_key_exchange_gets_it() {
    use rustls::NamedGroup::{X25519, X25519MLKEM768, secp256r1};
    let gateway = Setup::new().start();
    let agreed = async |groups: &[_], version| {
        let wishes = Wishes {
            version,
            groups: Some(groups.to_vec()),
            ..Wishes::default()
        };
        let dialer = Dialer::with(&gateway.authority(), &wishes);
        let stream = dialer.connect(gateway.https, HOST).await.unwrap();
        let session = stream.get_ref().1;
        let group = session.negotiated_key_exchange_group().unwrap().name();
        (group, session.handshake_kind().unwrap())
    };
    let asked_first = agreed(&[X25519MLKEM768, X25519], None).await;
    assert_eq!(asked_first, (X25519MLKEM768, Full));
    // Even if it would rather have another and has to be asked.
    let asked_last = agreed(&[X25519, secp256r1, X25519MLKEM768], None).await;
    assert_eq!(asked_last, (X25519MLKEM768, FullWithHelloRetryRequest));
    for group in [X25519, secp256r1] {
        assert_eq!(agreed(&[group], None).await, (group, Full));
    }
    // TLS 1.2 does not have it.
    let old = agreed(&[X25519MLKEM768, X25519], Some(&TLS12)).await;
    assert_eq!(old, (X25519, Full));
}
