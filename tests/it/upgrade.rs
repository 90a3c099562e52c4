//! Binary upgrades of the built program: one process takes the place of another, and nobody who is connected notices.

mod carried;
mod support;
mod systemd;

use std::fs;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{GITSPACE, OWNER, Refusing, eventually, port_host, soon};
use support::{LISTENS, PROGRAM, Service, closed, exited, say, signal};

const NAVIGATION: (&str, &str) = ("sec-fetch-mode", "navigate");

#[tokio::test]
async fn an_upgrade_keeps_what_is_open_and_the_new_process_serves() {
    let mut service = Service::start().await;
    let token = service.owner();
    let ours = [("x-gitspace-token", &*token)];
    let app = port_host(3000);
    let mut socket = service.socket().await;
    let mut kept = service.connect_to(&app).await;
    assert_eq!(kept.get("/", &ours).await.header("connection"), None);
    let mut upload = service.upload(&token).await;
    // Accepted, and nothing came yet.
    let silent = service.connect_to(&app).await;

    service.upgrade().await;
    say(&mut socket, "still here").await;
    let answer = kept.get("/", &ours).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close")),
        "its client comes again, and loses no request"
    );
    kept.closed().await;
    let mut silent = silent;
    assert_eq!(silent.get("/", &ours).await.status, 200);
    upload.send("done").await;
    assert_eq!(upload.answer().await.unwrap().text(), "halfdone");
    let mut new = service.connect_to(&app).await;
    let answer = new.get("/", &ours).await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    assert_eq!(service.admin(Method::GET, "/readyz", None).await.0, 200);

    drop(socket);
    let ended = exited(&mut service.first).await;
    assert!(ended.success(), "all had ended by itself");
    assert_eq!(new.get("/", &ours).await.status, 200);
}

#[tokio::test]
async fn streams_of_many_processes_are_listed_ended_and_revoked_at_the_newest() {
    let service = Service::start().await;
    let first = service.first.id();
    let mut sockets = vec![service.socket().await];
    let mut pids = vec![first];
    for _ in 0..2 {
        pids.push(service.upgrade().await);
        sockets.push(service.socket().await);
    }
    for socket in &mut sockets {
        say(socket, "hello").await;
    }
    assert_eq!(service.listed().await, 3);
    let which = json!({ "which": { "port": "ide" }, "message": "lunch", "by": "root" });
    let ended = service.admin(Method::POST, "/v1/streams/end", Some(which));
    assert_eq!(ended.await, (200, json!({ "ended": 3 })));
    for socket in &mut sockets {
        assert_eq!(closed(socket).await, (1008, "lunch".into()));
    }
    drop(sockets);
    for pid in &pids[..2] {
        service.gone(*pid).await;
    }

    let mut sockets = vec![service.socket().await];
    pids.push(service.upgrade().await);
    sockets.push(service.socket().await);
    let whom = json!({ "kind": "sub", "id": OWNER, "by": "root", "reason": "left" });
    let (status, _) = service
        .admin(Method::POST, "/v1/revocations", Some(whom))
        .await;
    assert_eq!(status, 201);
    for socket in &mut sockets {
        assert_eq!(
            closed(socket).await,
            (1008, "access was revoked: left".into())
        );
    }
    drop(sockets);
    service.gone(pids[2]).await;
}

#[tokio::test]
async fn a_new_program_that_does_not_come_to_serve_changes_nothing() {
    let mut service = Service::start().await;
    let mut socket = service.socket().await;
    let script = service.folder.path().join("waits");
    fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let script = script.to_str().unwrap().to_owned();
    let good = fs::read_to_string(service.config()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = LISTENS.replace("127.0.0.1:0", &address.to_string());
    for (program, listens, code, says) in [
        ("/bin/false", "", 1, "ended"),
        ("/no/such/program", "", 1, "cannot start the new program"),
        (&script, "", 1, "was not ready in 1 s"),
        (PROGRAM, &*other, 1, "another program has it"),
        (PROGRAM, "workers = 'many'", 2, "workers"),
    ] {
        service.configure(&format!("{listens}\n{LISTENS}"), "");
        let arguments = ["upgrade", "--timeout", "1", "--program", program];
        let output = match program == PROGRAM {
            // Its own time to start is no matter here.
            true => service.command(&["upgrade", "--program", program]).await,
            false => service.command(&arguments).await,
        };
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {words}");
        assert!(words.contains(says), "{program}: {words}");
        if code == 1 {
            let goes_on = format!("process {} goes on", service.first.id());
            assert!(words.contains(&goes_on), "{words}");
        }
        say(&mut socket, program).await;
        let mut another = service.socket().await;
        say(&mut another, "new").await;
    }
    drop(taken);
    fs::write(service.config(), good).unwrap();
    assert!(service.first.try_wait().unwrap().is_none());
    service.upgrade().await;
    say(&mut socket, "and now").await;
}

#[tokio::test]
async fn without_a_process_there_is_nobody_to_upgrade() {
    let mut service = Service::start().await;
    signal(service.first.id(), Signal::TERM);
    exited(&mut service.first).await;
    let output = service.command(&["upgrade"]).await;
    assert_eq!(output.status.code(), Some(8));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("no process runs in the state directory"),
        "{words}"
    );
}

#[tokio::test]
async fn tickets_count_once_whichever_process_they_come_to() {
    let service = Service::start().await;
    let app = port_host(3000);
    let target = |id: &str| {
        let ticket = service.issuer.ticket(OWNER, id, 3000);
        format!("/?gitspace_token={ticket}")
    };
    let [old, new, both] = ["old", "new", "both"].map(target);
    let mut kept = [
        service.connect_to(&app).await,
        service.connect_to(&app).await,
    ];
    let answer = service
        .connect_to(&app)
        .await
        .get(&old, &[NAVIGATION])
        .await;
    let session = answer.session().unwrap();
    service.upgrade().await;
    let used = (401, "ticket-used".to_owned());
    let answer = service
        .connect_to(&app)
        .await
        .get(&new, &[NAVIGATION])
        .await;
    assert_eq!(answer.status, 303);
    let cookie = [("cookie", &*session)];
    let answer = service.connect_to(&app).await.get("/", &cookie).await;
    assert_eq!(answer.status, 200, "a session of the old process");
    // A page that asks again shows that it was used; so does the old process for what the new one took, and the other way round.
    let [first, second] = &mut kept;
    assert_eq!(first.get(&both, &[NAVIGATION]).await.status, 303);
    for (which, answer) in [
        ("new at the old", second.get(&new, &[NAVIGATION]).await),
        (
            "old at the new",
            service
                .connect_to(&app)
                .await
                .get(&old, &[NAVIGATION])
                .await,
        ),
        (
            "both at the new",
            service
                .connect_to(&app)
                .await
                .get(&both, &[NAVIGATION])
                .await,
        ),
    ] {
        assert_eq!(answer.status, used.0, "{which}: {answer:?}");
        let status = answer.header("proxy-status").unwrap();
        assert!(status.contains("ticket-used"), "{which}: {status}");
    }
}

#[tokio::test]
async fn shares_routes_and_revocations_are_those_of_the_newest_everywhere() {
    let service = Service::start().await;
    let echo = service.echo.address;
    let route = json!({
        "gitspace": "made-a1b2c3", "generation": 1, "state": "running", "owner": OWNER,
        "address": "127.0.0.1", "ide": { "port": echo.port() },
    });
    let (status, body) = service
        .admin(Method::PUT, "/v1/routes/made-a1b2c3", Some(route))
        .await;
    assert_eq!(status, 204, "{body}");
    let share = json!({ "gitspace": GITSPACE, "port": 3000, "to": { "user": "bob" } });
    let (status, share) = service.admin(Method::POST, "/v1/shares", Some(share)).await;
    assert_eq!(status, 201, "{share}");
    let id = share["id"].as_str().unwrap().to_owned();
    let mut upload = service.upload(&service.issuer.token("bob")).await;
    eventually("the upload", || async {
        (service.listed().await == 1).then_some(())
    })
    .await;

    service.upgrade().await;
    let (_, routes) = service.admin(Method::GET, "/v1/routes", None).await;
    assert_eq!(routes.as_array().unwrap().len(), 2, "{routes}");
    assert_eq!(service.listed().await, 1);
    let path = format!("/v1/shares/{id}");
    assert_eq!(service.admin(Method::DELETE, &path, None).await.0, 204);
    let answer = soon("the end of the upload", upload.answer())
        .await
        .unwrap();
    assert_eq!(answer.refusal(), (403, "access-ended".into()));
    let removed = service.admin(Method::DELETE, "/v1/routes/made-a1b2c3", None);
    assert_eq!(removed.await.0, 204);
    service.upgrade().await;
    let (_, routes) = service.admin(Method::GET, "/v1/routes", None).await;
    assert_eq!(routes.as_array().unwrap().len(), 1, "{routes}");
}

#[tokio::test]
async fn the_old_process_tells_its_streams_to_go_at_its_deadline_and_at_a_stop() {
    let mut service = Service::start_with("drain = \"1s\"\nupgrade_drain = \"2s\"").await;
    let mut socket = service.socket().await;
    service.configure(LISTENS, "drain = \"1s\"");
    let second = service.upgrade().await;
    say(&mut socket, "not yet").await;
    assert_eq!(closed(&mut socket).await.0, 1012);
    drop(socket);
    service.gone(service.first.id()).await;
    assert!(exited(&mut service.first).await.success());

    let mut socket = service.socket().await;
    let third = service.upgrade().await;
    say(&mut socket, "for hours").await;
    signal(second, Signal::TERM);
    assert_eq!(closed(&mut socket).await.0, 1012);
    drop(socket);
    service.gone(second).await;
    assert_ne!(second, third);
    say(&mut service.socket().await, "served").await;
}

#[tokio::test]
async fn workers_and_listeners_may_be_others_in_the_new_configuration() {
    let service = Service::start().await;
    let held = Refusing::new();
    let added = held.address();
    let more = format!("{LISTENS}[[gateway.listen]]\naddress = \"{added}\"\nprotocol = \"http\"\n");
    for (workers, listens, also) in [
        (1, &*more, true),
        (5, &*more, true),
        (2, LISTENS, false),
        (3, LISTENS, false),
    ] {
        service.configure(listens, "");
        let text = fs::read_to_string(service.config()).unwrap();
        let text = text.replace("workers = 2", &format!("workers = {workers}"));
        fs::write(service.config(), text).unwrap();
        service.upgrade().await;
        for _ in 0..2 * workers {
            say(&mut service.socket().await, "served").await;
        }
        let reached = tokio::net::TcpStream::connect(added).await.is_ok();
        assert_eq!(reached, also, "{workers}");
    }
}
