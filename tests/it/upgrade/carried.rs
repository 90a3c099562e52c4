//! What a new process knows of the old ones, and they of it: routes of JupyterHub, limits, and what people did.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use super::support::{LISTENS, Prepared, Service, Socket, say};
use crate::support::{Client, GITSPACE, Refusing, eventually, port_host, soon};

const HUB: &str = "hub.test";

/// A service that takes routes of JupyterHub for a host that comes in the clear, and where that is.
async fn of_jupyterhub() -> (Service, Refusing) {
    let (prepared, held) = (Prepared::new().await, Refusing::new());
    let plain = format!(
        "[[gateway.listen]]\naddress = \"{}\"\nprotocol = \"http\"\n",
        held.address()
    );
    let hub = format!("[gateway.chp]\nhost = {HUB:?}\n");
    prepared.configure(&format!("{LISTENS}{plain}{hub}"), "drain = \"1s\"");
    (prepared.start().await, held)
}

async fn route(service: &Service, method: Method, path: &str) -> u16 {
    let target = format!("http://{}", service.echo.address);
    let body = (method == Method::POST).then(|| json!({ "target": target }));
    let path = format!("/api/routes{path}");
    service.admin(method, &path, body).await.0
}

/// A WebSocket below a path of JupyterHub's.
async fn socket(at: &Refusing, path: &str) -> Socket {
    let request = format!("ws://{HUB}{path}/socket");
    let request = request.into_client_request().unwrap();
    let stream = Client::plain(at.address()).await.into_stream();
    let opened = client_async(request, stream);
    soon("the handshake", opened).await.unwrap().0
}

#[tokio::test]
async fn routes_of_jupyterhub_are_those_of_the_newest_everywhere() {
    let (service, at) = of_jupyterhub().await;
    for path in ["/user/ada", "/user/bob"] {
        assert_eq!(route(&service, Method::POST, path).await, 201);
    }
    let mut sockets = [
        socket(&at, "/user/ada").await,
        socket(&at, "/user/bob").await,
    ];
    let mut kept = Client::plain(at.address()).await.to(HUB);
    assert_eq!(kept.get("/user/cy", &[]).await.status, 404);

    service.upgrade().await;
    for socket in &mut sockets {
        say(socket, "still here").await;
    }
    let (_, routes) = service.admin(Method::GET, "/api/routes", None).await;
    assert_eq!(routes.as_object().unwrap().len(), 2, "{routes}");
    assert_eq!(route(&service, Method::DELETE, "/user/ada").await, 204);
    let [ada, bob] = &mut sockets;
    soon("the end of a stream whose route is gone", ada.next()).await;
    say(bob, "not this one").await;

    let mut fresh = Client::plain(at.address()).await.to(HUB);
    assert_eq!(fresh.get("/user/ada/x", &[]).await.status, 404);
    service.upgrade().await;
    say(bob, "nor now").await;
    assert_eq!(route(&service, Method::DELETE, "/user/bob").await, 204);
    soon("the end of a stream of the oldest", bob.next()).await;
}

async fn limited(limits: &str) -> Service {
    Service::start_with(&format!("drain = \"1s\"\n[gateway.limits]\n{limits}")).await
}

/// How many requests are answered until one is refused.
async fn requests(service: &Service, token: &str) -> usize {
    let mut client = service.connect_to(&port_host(3000)).await;
    let mut answered = 0;
    loop {
        let answer = client.get("/", &[("x-gitspace-token", token)]).await;
        match answer.status {
            200 => answered += 1,
            _ => {
                assert_eq!(answer.refusal(), (429, "rate-limited".into()));
                return answered;
            }
        }
    }
}

/// What is said to a request with a token that nobody issued.
async fn guess(service: &Service) -> u16 {
    let mut client = service.connect_to(&port_host(3000)).await;
    let guessed = [("x-gitspace-token", "guessed")];
    client.get("/", &guessed).await.status
}

#[tokio::test]
async fn rates_that_were_used_up_are_used_up_at_the_new_process() {
    // Soon used up, and hardly anything of it comes back in a test's time.
    let limits =
        "requests_per_principal = 1\nburst_per_principal = 200\nfailed_logins_per_network = 1";
    let service = limited(limits).await;
    let token = service.owner();
    assert!(requests(&service, &token).await >= 200);
    assert_eq!((guess(&service).await, guess(&service).await), (401, 429));
    for _ in 0..2 {
        service.upgrade().await;
        let answered = requests(&service, &token).await;
        assert!(answered < 100, "{answered} requests more");
        assert_eq!(guess(&service).await, 429);
    }
}

#[tokio::test]
async fn what_runs_at_once_in_all_processes_counts_together() {
    let service = limited("streams_per_gitspace = 2").await;
    let mut sockets = vec![service.socket().await];
    service.upgrade().await;
    sockets.push(service.socket().await);
    service.upgrade().await;
    for socket in &mut sockets {
        say(socket, "still here").await;
    }
    let token = service.owner();
    let ask = || async {
        let mut client = service.connect_to(&port_host(3000)).await;
        client.get("/", &[("x-gitspace-token", &*token)]).await
    };
    let refused = ask().await;
    assert_eq!(refused.refusal(), (429, "too-many-streams".into()));
    drop(sockets.remove(0));
    eventually("room for one more", || async {
        (ask().await.status == 200).then_some(())
    })
    .await;
    let mut last = service.socket().await;
    say(&mut last, "the second again").await;
    assert_eq!(ask().await.status, 429);
}

/// What somebody does who opens a page.
const OPENS: [(&str, &str); 3] = [
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-user", "?1"),
];

/// Of which kinds of use something is known at the newest process.
async fn used(service: &Service) -> Vec<String> {
    let (_, all) = service.admin(Method::GET, "/v1/activity", None).await;
    let last = all[0]["last"].as_array().unwrap();
    let kinds = last.iter().map(|last| last["kind"].as_str().unwrap());
    kinds.map(str::to_owned).collect()
}

#[tokio::test]
async fn what_people_do_at_old_processes_is_known_at_the_newest() {
    let service = Service::start().await;
    let token = service.owner();
    let mut opens = OPENS.to_vec();
    opens.push(("x-gitspace-token", &token));
    let app = port_host(3000);
    let mut kept = service.connect_to(&app).await;
    kept.get("/", &opens[3..]).await;
    // The old process lives on.
    let mut socket = service.socket().await;
    let told = json!({ "gitspace": GITSPACE, "kind": "ssh" });
    let told = service.admin(Method::POST, "/v1/activity", Some(told));
    assert_eq!(told.await.0, 204);
    service.upgrade().await;
    assert_eq!(used(&service).await, ["ssh"], "from before");
    assert_eq!(kept.get("/", &opens).await.status, 200);
    eventually("what was done at the old process", || async {
        (used(&service).await == ["port", "ssh"]).then_some(())
    })
    .await;
    say(&mut socket, "still here").await;
}
