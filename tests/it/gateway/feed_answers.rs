//! Answers of the feed that were damaged on their way, or were never right: none of them changes anything.
//!
//! The answers are those of a real control plane, recorded by the test, and damaged in some three hundred ways.

use cde_gateway::{
    api::Secret,
    config::FailMode,
    gateway::{self, Settings},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    control_plane::support::{Delegate, GATEWAY, Plane, USER, new_gitspace},
    support::{Asked, ControlPlane, Exactly, Setup, TestGateway, eventually},
};

/// So many gateways are told a part of the damaged answers each.
const GATEWAYS: usize = 8;

async fn recorded(plane: &Plane, query: &str) -> Exactly {
    let answer = plane.get(&format!("/v1/feed?{query}"), GATEWAY).await;
    let digest = answer.headers()["content-digest"].to_str().unwrap();
    Exactly {
        digest: Some(digest.to_owned()),
        body: answer.bytes().await.unwrap().into(),
    }
}

/// A snapshot with two routes, and the change after it: one route other, one gone, two revocations.
async fn answers() -> (Exactly, Exactly) {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let running = plane.running(&delegate).await;
    let mut asked = new_gitspace();
    asked["start"] = false.into();
    let other = plane.post("/v1/gitspaces", USER, asked).await;
    let other = other.json().await.unwrap();
    let snapshot = recorded(&plane, "").await;
    let first: Value = serde_json::from_slice(&snapshot.body).unwrap();
    plane.act(&running, "stop").await;
    plane.delete(&other).await;
    for (kind, id) in [("sub", "alice"), ("gitspace", "api-k3x9q2")] {
        let revocation = json!({ "kind": kind, "id": id, "reason": "left" });
        plane.post("/v1/revocations", USER, revocation).await;
    }
    let text = |name: &str| first[name].as_str().unwrap();
    let query = format!(
        "epoch={}&run={}&after={}",
        text("epoch"),
        text("run"),
        first["revision"]
    );
    (snapshot, recorded(&plane, &query).await)
}

fn plain(body: impl Into<Vec<u8>>) -> Exactly {
    Exactly {
        body: body.into(),
        digest: None,
    }
}

/// The answer with other bytes at some places.
fn flipped(answer: &Exactly, mask: u8, count: usize) -> Vec<Exactly> {
    let size = answer.body.len();
    let places = (0..count).map(|n| n * size / count);
    let flip = |place: usize| {
        let mut changed = answer.clone();
        changed.body[place] ^= mask;
        changed
    };
    places.map(flip).collect()
}

/// The answer with one member other than it was: each in turn, in objects in it too.
fn members(value: &Value, out: &mut Vec<Value>) {
    let Value::Object(object) = value else {
        return;
    };
    for (name, member) in object {
        // What may be absent, and maps whose members are anything.
        let optional = [
            "run",
            "instance",
            "by",
            "reason",
            "until",
            "owner",
            "address",
            "ide",
            "issued_before",
        ];
        let free = ["jwks", "time"];
        let mut wrong = vec![json!(-1.5), json!([[]]), json!({ "a": { "b": 1 } })];
        if !optional.contains(&name.as_str()) {
            wrong.push(Value::Null);
        }
        for other in wrong {
            if free.contains(&name.as_str()) && !other.is_array() {
                continue;
            }
            let mut changed = value.clone();
            changed[name] = other;
            out.push(changed);
        }
        let inner = match member {
            Value::Array(all) => all.first(),
            member => Some(member),
        };
        let mut changed_inside = Vec::new();
        if let Some(inner) = inner.filter(|_| name != "jwks" && name != "ports") {
            members(inner, &mut changed_inside);
        }
        for inside in changed_inside {
            let mut changed = value.clone();
            match changed[name].as_array_mut() {
                Some(all) => all[0] = inside,
                None => changed[name] = inside,
            }
            out.push(changed);
        }
    }
}

/// What has no place in an answer to a gateway that has the snapshot.
fn impossible(snapshot: &Value, delta: &Value) -> Vec<Exactly> {
    let with = |of: &Value, changes: &[(&str, Value)]| {
        let mut changed = of.clone();
        for (name, other) in changes {
            changed[*name] = other.clone();
        }
        plain(changed.to_string())
    };
    let had = snapshot["revision"].as_u64().unwrap();
    let mut all = Vec::new();
    for revision in 0..had {
        all.push(with(delta, &[("revision", revision.into())]));
        all.push(with(snapshot, &[("revision", revision.into())]));
    }
    for epoch in ["another", "", "with space", &"x".repeat(65), "\u{e9}"] {
        all.push(with(delta, &[("epoch", epoch.into())]));
    }
    for name in [
        "epoch", "revision", "lease", "type", "routes", "removed", "keys",
    ] {
        for of in [snapshot, delta] {
            let mut without = of.clone();
            without.as_object_mut().unwrap().remove(name);
            all.push(plain(without.to_string()));
            let twice = format!("{{\"{name}\":{},{}", of[name], &of.to_string()[1..]);
            all.push(plain(twice));
        }
    }
    let route = &delta["routes"][0];
    all.push(with(delta, &[("routes", json!([route, route]))]));
    let gone = json!([{ "gitspace": route["gitspace"], "generation": 99 }]);
    all.push(with(delta, &[("removed", gone.clone())]));
    all.push(with(snapshot, &[("removed", gone)]));
    let keys = [
        json!({ "issuer": "", "audience": "a", "jwks": { "keys": [] } }),
        json!({ "issuer": "i", "audience": "a", "jwks": {} }),
        json!({ "issuer": "i", "audience": "a", "jwks": { "keys": [{ "kty": "EC" }] } }),
        json!({ "issuer": "i", "audience": "a", "jwks": [] }),
    ];
    all.extend(keys.map(|keys| with(delta, &[("keys", keys)])));
    for text in [
        "",
        " ",
        "null",
        "[]",
        "{}",
        "<html>",
        "\"",
        "{\"a\":",
        "[[[[[[[[",
        "1e999",
        "true false",
    ] {
        all.push(plain(text));
    }
    all.push(plain("[".repeat(100_000)));
    for number in ["-1", "18446744073709551616", "1e400", "1.5", "\"1\""] {
        for name in ["revision", "lease"] {
            let member = format!("\"{name}\":{}", delta[name]);
            let text = delta.to_string();
            assert!(text.contains(&member), "{member}");
            all.push(plain(
                text.replace(&member, &format!("\"{name}\":{number}")),
            ));
        }
    }
    all
}

fn damaged(snapshot: &Exactly, delta: &Exactly) -> Vec<Exactly> {
    let mut all = Vec::new();
    for answer in [snapshot, delta] {
        // Whatever a byte becomes, the digest tells; and no text is UTF-8 whose bytes have eight bits here and there.
        all.extend(flipped(answer, 1, 20));
        let without_digest = plain(answer.body.clone());
        all.extend(flipped(&without_digest, 0x80, 20));
        let cuts = (0..25).map(|n| n * answer.body.len() / 25);
        all.extend(cuts.map(|cut| plain(&answer.body[..cut])));
    }
    let value = |answer: &Exactly| serde_json::from_slice::<Value>(&answer.body).unwrap();
    let (snapshot, delta) = (value(snapshot), value(delta));
    let mut other = Vec::new();
    members(&delta, &mut other);
    all.extend(other.iter().map(|value| plain(value.to_string())));
    all.extend(impossible(&snapshot, &delta));
    all
}

/// All that the feed says to a gateway.
async fn state(gateway: &TestGateway) -> (Value, Value) {
    let get = |path| async move {
        let answer = gateway.admin(Method::GET, path, None).await;
        answer.json().await.unwrap()
    };
    (get("/v1/routes").await, get("/v1/revocations").await)
}

async fn asks(plane: &ControlPlane, before: usize) -> Asked {
    eventually("it asks again", || async {
        plane.asked().get(before).cloned()
    })
    .await
}

/// Tells one gateway all of `bad`, and looks after each.
async fn withstands(snapshot: Exactly, delta: Exactly, bad: Vec<Exactly>) {
    let plane = ControlPlane::start().await;
    let gateway = Setup::new().following(&plane, FailMode::Static).start();
    plane.tell_exactly(snapshot.clone());
    let first: Value = serde_json::from_slice(&snapshot.body).unwrap();
    let had = first["revision"].as_u64().unwrap();
    plane.asked_after(had).await;
    let before = state(&gateway).await;
    assert_eq!(before.0.as_array().unwrap().len(), 2);
    let mut quiet = first.clone();
    for (name, value) in [("type", json!("delta")), ("routes", json!([]))] {
        quiet[name] = value;
    }
    for answer in bad {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let count = plane.asked().len();
        plane.tell_exactly(answer);
        let asked = asks(&plane, count).await;
        // It may ask for everything anew where a change did not fit, and nothing else.
        let everything = asked.epoch.is_empty() && asked.after == 0;
        let same = asked.epoch == first["epoch"].as_str().unwrap() && asked.after == had;
        assert!(everything || same, "{asked:?} after {text}");
        assert_eq!(state(&gateway).await, before, "{text}");
        // A good one makes the next pause a short one.
        let count = plane.asked().len();
        plane.tell(quiet.to_string());
        asks(&plane, count).await;
    }
    let told: Value = serde_json::from_slice(&delta.body).unwrap();
    plane.tell_exactly(delta);
    plane.asked_after(told["revision"].as_u64().unwrap()).await;
    let (routes, revocations) = state(&gateway).await;
    assert_eq!(routes.as_array().unwrap().len(), 1);
    assert_eq!(routes[0]["state"], "stopping");
    assert_eq!(revocations["revocations"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test]
async fn damaged_cut_and_older_answers_change_nothing_and_the_next_good_one_counts() {
    let (snapshot, delta) = answers().await;
    let bad = damaged(&snapshot, &delta);
    assert!(bad.len() >= 200, "{}", bad.len());
    let parts = bad.chunks(bad.len().div_ceil(GATEWAYS));
    let all = parts.map(|part| withstands(snapshot.clone(), delta.clone(), part.to_vec()));
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_database_that_was_restored_is_taken_over_whatever_its_revisions_and_generations_are() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let kept = plane.running(&delegate).await;
    // A copy is made of the database, and then more happens.
    let folder = plane.stop().await;
    let database = folder.path().join("control-plane.db");
    let copy = std::fs::read(&database).unwrap();
    let plane = Plane::start_on(folder, Default::default()).await;
    let lost = plane.create().await;
    plane.act(&kept, "stop").await;

    let mut setup = Setup::new();
    setup.settings = following(setup.settings, &plane);
    let gateway = setup.start();
    let revision = eventually("both routes", || async {
        let two = gateway.metric("cde_gateway_routes", &[]).await == 2.0;
        let revision = gateway.metric("cde_gateway_feed_revision", &[]).await;
        two.then_some(revision)
    })
    .await;
    let route = |routes: &Value, id: &str| {
        let mut found = routes.as_array().unwrap().iter();
        found.find(|route| route["gitspace"] == id).cloned()
    };
    let before = route(&state(&gateway).await.0, kept.id.as_str()).unwrap();
    assert_eq!(before["state"], "stopping");
    gateway.stop().await;

    let folder = plane.stop().await;
    std::fs::write(&database, copy).unwrap();
    let plane = Plane::start_on(folder, Default::default()).await;
    setup.settings = following(setup.settings, &plane);
    let gateway = setup.start();
    let after = eventually("the older state", || async {
        let routes = state(&gateway).await.0;
        let kept = route(&routes, kept.id.as_str())?;
        (kept["state"] == "running" && route(&routes, lost.id.as_str()).is_none()).then_some(kept)
    })
    .await;
    assert!(after["generation"].as_u64() < before["generation"].as_u64());
    assert!(gateway.metric("cde_gateway_feed_revision", &[]).await < revision);
}

fn following(settings: Settings, plane: &Plane) -> Settings {
    let mut settings = settings;
    settings.config.issuer[0].prefix = "configured:".into();
    settings.control_plane = Some(gateway::ControlPlane {
        url: plane.url(),
        token: Secret::new(crate::support::secret(GATEWAY)),
        fail_mode: FailMode::Static,
    });
    settings
}
