//! Activity: what a person did last at each gitspace.
//!
//! A gitspace is in use if somebody does something, not if something is connected. What counts is a page that is opened, what is typed
//! into an editor or a terminal, and a file that is saved; pings, keep-alives, pollers and reconnects do not. Of each kind of use the
//! last deed is kept, in the gitspace's route, as long as the gateway runs, over an upgrade too. What is typed into terminals is told by
//! agents too, through the control plane (`route::feed::report`). docs/activity.md says what is told wrongly.
//!
//! Not here: WebSockets (`relay::observer`), what is done when nobody did anything (the control plane, or whoever asks).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts};

use serde::{Deserialize, Serialize};

use super::{
    auth::seconds,
    http::{Head, is_ahead},
};
use crate::api::{
    GitspaceId,
    access::Port,
    activity::{Deed, Kind, Last},
};

const USER: HeaderName = HeaderName::from_static("sec-fetch-user");
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// A deed is a number: seconds since 1970, what it was, and at which port.
const DEED_AT: u32 = 16;
const SECONDS_AT: u32 = 24;

/// What people did at one gitspace.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    kinds: [AtomicU64; Kind::ALL.len()],
    /// When anything passed last, whoever made it pass: seconds since 1970.
    passed: AtomicU64,
}

impl Activity {
    /// Somebody did this at a port, at this second since 1970.
    pub(crate) fn did(&self, port: Port, deed: Deed, at: u64) {
        let number = match port {
            Port::App(number) => number,
            Port::Ide | Port::Ssh => 0,
        };
        self.note(Kind::of(port), deed, number, at);
    }

    /// A request was answered, by which a person may have done this. A flood of refusals keeps nothing awake.
    pub(crate) fn answered(
        &self,
        status: StatusCode,
        port: Port,
        deed: Option<Deed>,
        now: SystemTime,
    ) {
        if status.is_client_error() || status.is_server_error() {
            return;
        }
        let at = unsigned(now);
        self.passes(at);
        if let Some(deed) = deed {
            self.did(port, deed, at);
        }
    }

    /// Somebody did something that the gateway did not see, at this second. At a terminal that is typing.
    pub(crate) fn told(&self, kind: Kind, at: u64) {
        let deed = match kind {
            Kind::Terminal => Deed::Typed,
            _ => Deed::Told,
        };
        self.note(kind, deed, 0, at);
    }

    fn note(&self, kind: Kind, deed: Deed, port: u16, at: u64) {
        let packed = at << SECONDS_AT | (deed as u64) << DEED_AT | u64::from(port);
        // Two at once: the later one stays.
        self.kinds[kind as usize].fetch_max(packed, Ordering::Relaxed);
    }

    /// Something passed, at this second.
    pub(crate) fn passes(&self, at: u64) {
        self.passed.store(at, Ordering::Relaxed);
    }

    /// When something passed last, seconds since 1970; None: never.
    pub(crate) fn passed(&self) -> Option<u64> {
        Some(self.passed.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// What was done last, of each kind of which something was done.
    pub(crate) fn last(&self) -> impl Iterator<Item = Last> {
        let deeds = Kind::ALL.iter().zip(&self.kinds);
        deeds.filter_map(|(kind, packed)| {
            let packed = packed.load(Ordering::Relaxed);
            let deed = Deed::ALL.get(usize::from((packed >> DEED_AT) as u8))?;
            let at = packed >> SECONDS_AT;
            let port = (packed as u16 > 0).then_some(packed as u16);
            (at > 0).then_some(Last {
                kind: *kind,
                deed: *deed,
                port,
                at,
            })
        })
    }

    /// What is told another process, if anything passed or was done at this second or later.
    pub(super) fn since(&self, second: u64, gitspace: &GitspaceId) -> Option<Acted> {
        let passed = self.passed.load(Ordering::Relaxed);
        let acted = self.acted().unwrap_or(0);
        (passed.max(acted) >= second.max(1)).then(|| Acted {
            gitspace: gitspace.clone(),
            last: self.last().collect(),
            passed,
        })
    }

    /// Takes in what another process tells. The later deed of each kind stays.
    pub(super) fn take(&self, acted: &Acted) {
        for last in &acted.last {
            self.note(last.kind, last.deed, last.port.unwrap_or(0), last.at);
        }
        self.passed.fetch_max(acted.passed, Ordering::Relaxed);
    }

    /// When a person did something last, seconds since 1970; None: never.
    pub(crate) fn acted(&self) -> Option<u64> {
        self.last().map(|last| last.at).max()
    }
}

/// What people did last at a gitspace, told from one process to another that takes over or has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Acted {
    pub(super) gitspace: GitspaceId,
    last: Vec<Last>,
    passed: u64,
}

/// Seconds since 1970.
pub(crate) fn unsigned(time: SystemTime) -> u64 {
    u64::try_from(seconds(time)).unwrap_or(0)
}

/// What a person does by this request, if it is answered well. Looked at before it is changed on its way. Of what most requests are,
/// reads that open no page, no header is looked at.
pub(crate) fn deed(request: &Parts, head: &Head) -> Option<Deed> {
    match request.method {
        Method::GET | Method::HEAD => (head.top && opens(request)).then_some(Deed::Opened),
        Method::PUT | Method::POST | Method::PATCH | Method::DELETE => {
            saves(request).then_some(Deed::Saved)
        }
        _ => None,
    }
}

/// Whether a page is opened by a person. One that loads itself again, or goes on by itself, says that no person made it.
fn opens(request: &Parts) -> bool {
    let headers = &request.headers;
    let by_person = || {
        headers.get(USER).is_some_and(|user| user == "?1")
            || site(headers).is_some_and(|site| site == "none" || site == "cross-site")
    };
    headers.contains_key(MODE) && by_person() && !is_ahead(headers)
}

/// Whether a file of Jupyter's is saved. It keeps a checkpoint of what is opened too.
fn saves(request: &Parts) -> bool {
    let path = request.uri.path();
    path.contains("/api/contents")
        && !path.ends_with("/checkpoints")
        && site(&request.headers).is_some_and(|site| site == "same-origin")
}

fn site(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(SITE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::http::{self, Transport};

    #[test]
    fn of_each_kind_the_last_deed_is_kept() {
        let activity = Activity::default();
        assert_eq!((activity.acted(), activity.passed()), (None, None));
        activity.did(Port::Ide, Deed::Opened, 1_700_000_000);
        activity.did(Port::App(3000), Deed::Opened, 1_700_000_005);
        activity.did(Port::Ide, Deed::Typed, 1_700_000_009);
        activity.did(Port::Ide, Deed::Saved, 1_700_000_003);
        activity.told(Kind::Ssh, 1_700_000_001);
        activity.told(Kind::Terminal, 1_700_000_002);
        activity.told(Kind::Terminal, 1_700_000_001);
        activity.passes(1_700_000_020);
        let last: Vec<_> = activity
            .last()
            .map(|last| (last.kind, last.deed, last.port, last.at - 1_700_000_000))
            .collect();
        assert_eq!(
            last,
            [
                (Kind::Ide, Deed::Typed, None, 9),
                (Kind::Port, Deed::Opened, Some(3000), 5),
                (Kind::Ssh, Deed::Told, None, 1),
                (Kind::Terminal, Deed::Typed, None, 2),
            ]
        );
        assert_eq!(activity.acted(), Some(1_700_000_009));
        assert_eq!(activity.passed(), Some(1_700_000_020));
    }

    #[test]
    fn another_process_is_told_and_the_later_deed_stays() {
        let gitspace: GitspaceId = "api-k3x9q2".parse().unwrap();
        let (old, new) = (Activity::default(), Activity::default());
        assert!(old.since(0, &gitspace).is_none(), "nothing was ever done");
        old.did(Port::App(3000), Deed::Typed, 100);
        old.did(Port::Ide, Deed::Opened, 100);
        old.passes(120);
        new.did(Port::App(3000), Deed::Opened, 90);
        new.did(Port::Ide, Deed::Saved, 110);
        assert!(old.since(121, &gitspace).is_none());
        let text = serde_json::to_string(&old.since(120, &gitspace)).unwrap();
        new.take(&serde_json::from_str(&text).unwrap());
        let last: Vec<_> = new.last().map(|last| (last.deed, last.at)).collect();
        assert_eq!(last, [(Deed::Saved, 110), (Deed::Typed, 100)]);
        assert_eq!(new.passed(), Some(120));
    }

    fn of(method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Deed> {
        let mut request = ::http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "api-k3x9q2.gitspaces.localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let domains = ["gitspaces.localhost".into()];
        let head = http::parse(&parts, &domains, Transport::of(true, true)).unwrap();
        deed(&parts, &head)
    }

    #[test]
    fn what_a_person_opens_and_saves_counts_and_what_programs_ask_does_not() {
        const PAGE: [(&str, &str); 2] = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let page = |more: &[(&'static str, &'static str)]| of("GET", "/", &[&PAGE, more].concat());
        assert_eq!(page(&[("sec-fetch-user", "?1")]), Some(Deed::Opened));
        assert_eq!(page(&[("sec-fetch-site", "none")]), Some(Deed::Opened));
        assert_eq!(
            page(&[("sec-fetch-site", "cross-site")]),
            Some(Deed::Opened)
        );
        // It reloads itself.
        assert_eq!(page(&[("sec-fetch-site", "same-origin")]), None);
        for ahead in [
            ("sec-purpose", "prefetch;prerender"),
            ("x-purpose", "preview"),
        ] {
            assert_eq!(page(&[("sec-fetch-user", "?1"), ahead]), None);
        }
        let frame = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe"),
            ("sec-fetch-user", "?1"),
        ];
        assert_eq!(of("GET", "/", &frame), None);
        let poll = [
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(of("GET", "/api/sessions", &poll), None);
        assert_eq!(of("PUT", "/lab/api/workspaces/default", &poll), None);
        assert_eq!(of("PUT", "/api/contents/a.ipynb", &poll), Some(Deed::Saved));
        assert_eq!(
            of("PUT", "/alice/api/contents/a.ipynb", &poll),
            Some(Deed::Saved)
        );
        assert_eq!(of("GET", "/api/contents/a.ipynb", &poll), None);
        let checkpoint = "/api/contents/a.ipynb/checkpoints";
        assert_eq!(of("POST", checkpoint, &poll), None);
        // No browser.
        assert_eq!(of("GET", "/", &[("accept", "text/html")]), None);
        assert_eq!(of("PUT", "/api/contents/a.ipynb", &[]), None);
    }
}
