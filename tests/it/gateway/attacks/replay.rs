//! A ticket that was seen by somebody else: it counts once, wherever and however often it is brought.

use futures_util::future::join_all;

use crate::support::{Answer, HOST, OWNER, Setup, TestGateway, Upstream, port_host};

const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");

async fn open(gateway: &TestGateway, host: &str, target: &str, cookie: &str) -> Answer {
    let headers = [PAGE, ("cookie", cookie)];
    gateway.plain().await.to(host).get(target, &headers).await
}

#[tokio::test]
async fn of_fifty_at_once_by_both_ways_one_gets_a_session_over_a_restart_too() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.auth.login_url = "https://login.test/".into())
        .start();
    let begun = open(&gateway, HOST, "/", "a=1").await;
    let state = begun
        .header("location")
        .unwrap()
        .rsplit_once("&state=")
        .unwrap()
        .1
        .to_owned();
    let cookie = begun
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let ticket = gateway.setup.issuer.ticket(OWNER, "seen", "ide");
    let ways = [
        format!("/?gitspace_token={ticket}"),
        format!("/?token={ticket}"),
        format!("/_gitspace/login?ticket={ticket}&state={state}"),
    ];
    let all = (0..51).map(|number| open(&gateway, HOST, &ways[number % 3], &cookie));
    let answers = join_all(all).await;
    let won = answers.iter().filter(|answer| answer.session().is_some());
    assert_eq!(won.count(), 1);
    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    for way in &ways {
        let again = open(&gateway, HOST, way, &cookie).await;
        assert_eq!((again.status, again.session()), (401, None), "{way}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn on_another_host_it_counts_neither_before_nor_after() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "seen", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let others = [
        port_host(3000),
        port_host(4000),
        "web-x1y2z3.gitspaces.localhost".into(),
        "gitspaces.localhost".into(),
        "evil.test".into(),
        format!("{HOST}.evil.test"),
    ];
    for used in [false, true] {
        for host in &others {
            let answer = open(&gateway, host, &target, "a=1").await;
            assert!(
                answer.session().is_none() && answer.header("location").is_none(),
                "{host}: {answer:?}"
            );
        }
        let here = open(&gateway, HOST, &target, "a=1").await;
        assert_eq!(here.session().is_none(), used, "{here:?}");
    }
}
