//! Links that somebody else made: they set no session but a ticket's own, and lead nowhere but to the host that was asked.

use reqwest::Url;

use crate::support::{Answer, HOST, OWNER, Setup, TestGateway, Upstream};

const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");
const LOGIN: &str = "https://login.test/start?x=1";

/// What is put where a page should be.
const EVIL: &[&str] = &[
    "//evil.test",
    "///evil.test/",
    "////evil.test/",
    "/\\evil.test",
    "/\\/evil.test",
    "/\\\\evil.test",
    "//\\evil.test",
    "/%5cevil.test",
    "/%2f%2fevil.test",
    "/%09/evil.test",
    "/%0a/evil.test",
    "/.//evil.test",
    "/..//evil.test",
    "/%2e%2e//evil.test",
    "//evil.test:443/%2e%2e",
    "//user:pass@evil.test/",
    "/@evil.test",
    "/:80@evil.test",
    "/.evil.test",
    "/https:evil.test",
    "/https://evil.test",
    "/javascript:alert(1)",
    "/data:text/html,x",
    "/%0d%0aLocation:%20https://evil.test",
    "/%0d%0a%0d%0a<script>",
    "/?return_to=https://evil.test",
    "/?return_to=//evil.test&return_to=/\\evil.test",
    "/?state=x&return_to=https:evil.test",
    "/?next=https://evil.test#//evil.test",
    "/_gitspace/login?return_to=https://evil.test",
    "/_gitspace/login?return_to=//evil.test&state=x",
    "/_gitspace/login//evil.test",
];

/// Fields that some programs believe about where they are.
const CLAIMS: &[(&str, &str)] = &[
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-proto", "javascript"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-server", "evil.test"),
    ("forwarded", "host=evil.test;proto=http"),
    ("x-host", "evil.test"),
    ("x-original-host", "evil.test"),
    ("x-original-url", "//evil.test"),
    ("x-rewrite-url", "//evil.test"),
    ("referer", "https://evil.test/"),
    ("origin", "https://evil.test"),
];

/// Where a browser goes that asked our host.
fn followed(location: &str) -> Url {
    Url::parse(&format!("https://{HOST}/a/b"))
        .unwrap()
        .join(location)
        .unwrap()
}

fn with_claims(more: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
    let mut headers = CLAIMS.to_vec();
    headers.push(more);
    headers
}

fn gateway(upstream: &Upstream) -> TestGateway {
    Setup::to(upstream)
        .with(|config| {
            config.auth.login_url = LOGIN.into();
            config.limits.failed_logins_per_network = std::num::NonZeroU32::MAX;
        })
        .start()
}

async fn ask(gateway: &TestGateway, target: &str) -> Answer {
    gateway
        .tls(HOST)
        .await
        .get(target, &with_claims(PAGE))
        .await
}

#[tokio::test]
async fn the_way_to_the_login_and_back_stays_with_the_host_that_was_asked() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    for (number, target) in EVIL.iter().enumerate() {
        let answer = ask(&gateway, target).await;
        // Not every target is one, and not every path of ours is the login.
        if matches!(answer.status, 400 | 404) {
            assert_eq!(answer.header("location"), None);
            continue;
        }
        assert_eq!(answer.status, 303, "{target}");
        let to = Url::parse(answer.header("location").unwrap()).unwrap();
        assert_eq!(to.host_str(), Some("login.test"), "{target}: {to}");
        let named = |name: &str| -> Vec<String> {
            let pairs = to.query_pairs().filter(|(found, _)| found == name);
            pairs.map(|(_, value)| value.into_owned()).collect()
        };
        let (back, state) = (named("return_to"), named("state"));
        assert_eq!((back.len(), state.len()), (1, 1), "{target}: {to}");
        assert_eq!((to.path(), named("x").len()), ("/start", 1));
        assert!(back[0].starts_with(&format!("https://{HOST}/")), "{to}");
        assert_eq!(Url::parse(&back[0]).unwrap().host_str(), Some(HOST));
        // And back.
        let cookie = answer.header("set-cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap();
        let issuer = &gateway.setup.issuer;
        let ticket = issuer.ticket(OWNER, &format!("way {number}"), "ide");
        let way = format!(
            "/_gitspace/login?ticket={ticket}&state={}&return_to=//evil.test",
            state[0]
        );
        let headers = [PAGE, ("cookie", cookie), ("x-forwarded-host", "evil.test")];
        let answer = gateway.tls(HOST).await.get(&way, &headers).await;
        assert_eq!(answer.status, 303, "{target}: {answer:?}");
        let to = followed(answer.header("location").unwrap());
        assert_eq!(
            (to.scheme(), to.host_str()),
            ("https", Some(HOST)),
            "{target}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn the_exchange_of_a_ticket_stays_with_its_host_and_a_redirect_to_https_too() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let clear = Setup::to(&upstream)
        .with(|config| config.listen[1].redirect_to_https = true)
        .start();
    for (number, target) in EVIL.iter().enumerate() {
        let bare = target.split('#').next().unwrap();
        let separator = if bare.contains('?') { '&' } else { '?' };
        let issuer = &gateway.setup.issuer;
        let ticket = issuer.ticket(OWNER, &format!("link {number}"), "ide");
        let answer = ask(
            &gateway,
            &format!("{bare}{separator}gitspace_token={ticket}"),
        )
        .await;
        if answer.status != 400 {
            assert_eq!(answer.status, 303, "{target}: {answer:?}");
            let to = followed(answer.header("location").unwrap());
            assert_eq!(
                (to.scheme(), to.host_str()),
                ("https", Some(HOST)),
                "{target}: {to}"
            );
            assert!(!to.as_str().contains(&ticket));
        }
        let answer = clear.plain().await.get(bare, CLAIMS).await;
        if answer.status != 400 {
            assert_eq!(answer.status, 308, "{target}: {answer:?}");
            let to = Url::parse(answer.header("location").unwrap()).unwrap();
            assert_eq!(
                (to.scheme(), to.host_str()),
                ("https", Some(HOST)),
                "{target}: {to}"
            );
            assert!(to.username().is_empty() && to.password().is_none());
        }
    }
}

#[tokio::test]
async fn a_host_that_is_written_to_mislead_gets_no_redirect() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.auth.login_url = LOGIN.into();
            config.listen[1].redirect_to_https = true;
        })
        .start();
    for host in [
        "evil.test",
        "evil.test:443",
        &format!("{HOST}@evil.test"),
        &format!("user:{HOST}@evil.test"),
        &format!("{HOST}.evil.test"),
        &format!("evil.test/{HOST}"),
        &format!("evil.test#.{HOST}"),
        &format!("evil.test?.{HOST}"),
        &format!("evil.test\\.{HOST}"),
        &format!("{HOST}:evil.test"),
        &format!("{HOST}:443@evil.test"),
        &format!("{HOST}:99999"),
        &format!("{HOST}:+443"),
        &format!("{HOST}, evil.test"),
        &format!("{HOST}%00.evil.test"),
        "evil.test%2egitspaces.localhost",
        "xgitspaces.localhost",
        "localhost",
        "[::1]",
        "[::ffff:7f00:1]",
        "127.0.0.1",
        "2130706433",
        "",
    ] {
        for headers in [vec![("host", host)], vec![("host", host), PAGE]] {
            let answer = gateway.plain().await.get("/", &headers).await;
            assert!(matches!(answer.status, 400 | 421), "{host:?}: {answer:?}");
            assert_eq!(answer.header("location"), None, "{host:?}");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_link_with_somebody_elses_session_or_login_sets_no_cookie() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let issuer = &gateway.setup.issuer;
    // The attacker's own: a session, and a login that was begun in another browser.
    let ticket = issuer.ticket("mallory", "m1", "ide");
    let session = ask(&gateway, &format!("/?gitspace_token={ticket}")).await;
    let session = session.session().unwrap();
    let value = session.split_once('=').unwrap().1;
    let begun = ask(&gateway, "/").await;
    let state = begun
        .header("location")
        .unwrap()
        .rsplit_once("&state=")
        .unwrap()
        .1
        .to_owned();
    let second = issuer.ticket("mallory", "m2", "ide");
    for target in [
        format!("/?gitspace_token={value}"),
        format!("/?token={value}"),
        format!("/?__Host-gitspace={value}"),
        format!("/?cookie={session}"),
        format!("/?session={value}&sid={value}"),
        format!("/_gitspace/login?session={value}"),
        format!("/_gitspace/login?ticket={second}"),
        format!("/_gitspace/login?state={state}"),
        format!("/_gitspace/login?ticket={second}&state={state}"),
        format!("/_gitspace/login?ticket={value}&state={state}"),
        "/_gitspace/login?ticket=&state=".into(),
    ] {
        let answer = ask(&gateway, &target).await;
        assert_eq!(answer.session(), None, "{target}: {answer:?}");
        // No page of ours gives back what a link held.
        assert!(!answer.text().contains(value), "{target}");
    }
    // The ticket was not used up by any of it: its own URL still counts, and begins a session that is another than the one before.
    let headers = [PAGE, ("cookie", &*session)];
    let answer = gateway
        .tls(HOST)
        .await
        .get(&format!("/?gitspace_token={second}"), &headers)
        .await;
    let renewed = answer.session().unwrap();
    assert_ne!(renewed, session);
}
