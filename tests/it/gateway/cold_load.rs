//! Fair to who opens an IDE: many users behind one address load all of its files at once, while somebody among them guesses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::JoinSet;

use crate::support::{Setup, TestGateway, Upstream};

const USERS: usize = 50;
const ASSETS: usize = 320;
/// Of one user: as browsers do without HTTP/2.
const CONNECTIONS: usize = 5;

/// Some of a user's files, one after the other on one connection.
async fn load(gateway: Arc<TestGateway>, user: usize) {
    let token = gateway.setup.issuer.token(&format!("user{user}"));
    let host = format!("app{user}-a1b2c3.gitspaces.localhost");
    let mut client = gateway.plain().await.to(&host);
    for file in 0..ASSETS / CONNECTIONS {
        let target = format!("/static/{file}.js");
        let answer = client.get(&target, &[("x-gitspace-token", &token)]).await;
        assert_eq!(answer.status, 200, "{user}: {answer:?}");
    }
}

/// Tries tokens until the others have what they want. How many were judged, and how many not even that.
async fn guess(gateway: Arc<TestGateway>, done: Arc<AtomicBool>) -> (usize, usize) {
    let mut client = gateway.plain().await.to("app1-a1b2c3.gitspaces.localhost");
    let (mut judged, mut refused) = (0, 0);
    while judged < 1_000 && (!done.load(Ordering::Relaxed) || refused < 100) {
        let answer = client.get("/", &[("x-gitspace-token", "a.b.c")]).await;
        match answer.status {
            401 => judged += 1,
            429 => refused += 1,
            other => panic!("{other}: {answer:?}"),
        }
    }
    (judged, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_users_behind_one_address_load_their_ides_at_once_and_a_guesser_among_them_is_stopped()
 {
    let upstream = Upstream::echo().await;
    let mut setup = Setup::new().with(|config| config.access_log.path.clear());
    for user in 0..USERS {
        setup = setup.route(&format!(
            "gitspace = \"app{user}-a1b2c3\"\nupstream = \"http://{}\"\nowner = \"user{user}\"",
            upstream.address
        ));
    }
    let gateway = Arc::new(setup.start());
    let done = Arc::new(AtomicBool::new(false));
    let guesser = tokio::spawn(guess(Arc::clone(&gateway), Arc::clone(&done)));
    let started = std::time::Instant::now();
    let mut users = JoinSet::new();
    for user in 0..USERS {
        for _ in 0..CONNECTIONS {
            users.spawn(load(Arc::clone(&gateway), user));
        }
    }
    while let Some(user) = users.join_next().await {
        user.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let (judged, refused) = guesser.await.unwrap();
    assert_eq!(upstream.seen().len(), USERS * ASSETS);
    // 60 a minute: those at once, and one a second.
    let most = 61 + started.elapsed().as_secs() as usize;
    assert!((60..=most).contains(&judged), "{judged} of {most}");
    assert!(refused >= 100, "{refused}");
}
