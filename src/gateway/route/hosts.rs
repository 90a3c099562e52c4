//! The hosts that static routes claim, and the paths of them: what of a host is whose.
//!
//! A part of the table. The longest path wins that a request's path is, or begins with and goes on behind a slash; the rest of the
//! host belongs to the route that claims it without a path. Paths are compared as they were sent. Where an app could read one in
//! another way and land in the path of another route, the request is nobody's ([`reading`]): what is asked of one route must not
//! be decided by another.
//!
//! Not here: gitspaces' own hosts, which have no paths of different routes.

use std::{collections::HashMap, sync::Arc};

use dashmap::DashMap;

use super::{entry::Place, reading};
use crate::api::{GitspaceId, path::RoutePath};

/// All claimed hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts(DashMap<Arc<str>, Paths>);

/// One host.
#[derive(Debug, Default)]
struct Paths {
    whole: Option<GitspaceId>,
    below: HashMap<RoutePath, GitspaceId>,
    /// The segments of the deepest path: a request's path is looked at no further.
    deepest: usize,
}

impl Hosts {
    /// Whose a path of a host is.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<GitspaceId> {
        self.0.get(host)?.find(path).cloned()
    }

    /// Whether a part of the host is claimed.
    pub(super) fn has(&self, host: &str) -> bool {
        self.0.contains_key(host)
    }

    /// Who has a place.
    pub(super) fn owner(&self, place: &Place) -> Option<GitspaceId> {
        self.0.get(&place.host)?.slot(place).cloned()
    }

    /// Takes a place, unless another gitspace has it: then that one.
    pub(super) fn claim(&self, place: &Place, gitspace: &GitspaceId) -> Result<(), GitspaceId> {
        let mut paths = self.0.entry(Arc::clone(&place.host)).or_default();
        match paths.slot(place) {
            Some(owner) if owner != gitspace => Err(owner.clone()),
            Some(_) => Ok(()),
            None => {
                paths.take(place, gitspace.clone());
                Ok(())
            }
        }
    }

    /// Gives a place back that the gitspace has.
    pub(super) fn release(&self, place: &Place, gitspace: &GitspaceId) {
        if let Some(mut paths) = self.0.get_mut(&place.host)
            && paths.slot(place) == Some(gitspace)
        {
            paths.give_back(place);
        }
        self.0.remove_if(&place.host, |_, paths| {
            paths.whole.is_none() && paths.below.is_empty()
        });
    }
}

impl Paths {
    fn find(&self, path: &str) -> Option<&GitspaceId> {
        let found = self.longest(path);
        if self.below.is_empty() || reading::is_the_only_one(path) {
            return found;
        }
        // Routes of CHP have paths that must be sent encoded; no other path has such characters.
        let found = self.longest(&reading::written(path));
        let mut others = reading::others(path)?.into_iter();
        others
            .all(|other| self.longest(&other) == found)
            .then_some(found)
            .flatten()
    }

    /// The longest claim of a path as it is written.
    fn longest(&self, path: &str) -> Option<&GitspaceId> {
        let (mut found, mut end) = (self.whole.as_ref(), 0);
        for _ in 0..self.deepest {
            let Some(rest) = path.get(end + 1..) else {
                break;
            };
            end += 1 + memchr::memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
            if end > RoutePath::LENGTH {
                break;
            }
            found = self.below.get(&path[..end]).or(found);
        }
        found
    }

    fn slot(&self, place: &Place) -> Option<&GitspaceId> {
        match &place.path {
            Some(path) => self.below.get(path),
            None => self.whole.as_ref(),
        }
    }

    fn take(&mut self, place: &Place, gitspace: GitspaceId) {
        match &place.path {
            Some(path) => {
                self.deepest = self.deepest.max(path.segments());
                self.below.insert(path.clone(), gitspace);
            }
            None => self.whole = Some(gitspace),
        }
    }

    fn give_back(&mut self, place: &Place) {
        match &place.path {
            Some(path) => {
                self.below.remove(path);
                let depths = self.below.keys().map(RoutePath::segments);
                self.deepest = depths.max().unwrap_or(0);
            }
            None => self.whole = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "dev.test";

    fn place(path: &str) -> Place {
        Place {
            host: HOST.into(),
            path: (!path.is_empty()).then(|| path.parse().unwrap()),
            prefix: Default::default(),
            auth: Default::default(),
        }
    }

    /// Each path is claimed by a gitspace, the empty one is the host.
    fn hosts(claims: &[(&str, &str)]) -> Hosts {
        let hosts = Hosts::default();
        for (path, gitspace) in claims {
            hosts.claim(&place(path), &id(gitspace)).unwrap();
        }
        hosts
    }

    fn id(gitspace: &str) -> GitspaceId {
        gitspace.parse().unwrap()
    }

    fn found(hosts: &Hosts, path: &str) -> Option<String> {
        hosts.find(HOST, path).map(|gitspace| gitspace.to_string())
    }

    #[test]
    fn the_longest_path_of_whole_segments_wins() {
        let hosts = hosts(&[
            ("", "wiki"),
            ("/alice", "home"),
            ("/alice/code", "code"),
            ("/alice/code/docs/api", "docs"),
        ]);
        for (path, gitspace) in [
            ("/", "wiki"),
            ("*", "wiki"),
            ("/bob", "wiki"),
            ("/alicex", "wiki"),
            ("/alice-code", "wiki"),
            ("/Alice/code", "wiki"),
            ("/x/alice/code", "wiki"),
            ("/alice", "home"),
            ("/alice/", "home"),
            ("/alice/codex", "home"),
            ("/alice/code", "code"),
            ("/alice/code/", "code"),
            ("/alice/code/docs", "code"),
            ("/alice/code/docs/apix", "code"),
            ("/alice/code/docs/api/x/y/z", "docs"),
        ] {
            assert_eq!(found(&hosts, path).as_deref(), Some(gitspace), "{path}");
        }
    }

    #[test]
    fn a_path_that_an_app_could_read_as_another_routes_is_nobodys() {
        let hosts = hosts(&[("", "wiki"), ("/alice", "home"), ("/alice/code", "code")]);
        for path in [
            "//alice",
            "//alice/code",
            "/./alice",
            "/x/../alice",
            "/alice/../bob",
            "/alice/code/../../bob",
            "/alice/code/..",
            "/alice/code/./x",
            "/alice/code/%2e%2e/x",
            "/alice/code/.%2E/x",
            "/alice/code/%252e%252e/x",
            "/alice/code/..;/x",
            "/alice/code/..;a=b/x",
            "/alice/code/..%2fx",
            "/alice/code%2f..",
            "/alice/code%2f..%2f..",
            "/alice/code/x/..%5cx",
            "/alice/code/..\\x",
            "/x\\..\\alice",
            "/%61lice",
            "/%2561lice/code",
            "/alice%2fcode",
            "/alice%2Fcode/x",
            "/alice%5ccode",
            "/alice\\code",
            "/alice//code",
            "/alice/%2fcode",
            "/alice/;/code",
            "/alice/c%6fde",
            "/alice;x",
            "/alice;x/code",
            "/alice%3bx/code",
            "/;x/alice",
            "/alice/;%2fcode",
            "/alice/;%2fx/code",
        ] {
            assert_eq!(found(&hosts, path), None, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_the_same_routes_in_every_reading_stays_as_it_is() {
        let hosts = hosts(&[("", "wiki"), ("/alice/code", "code")]);
        for (path, gitspace) in [
            ("/Caf%C3%A9", "wiki"),
            ("/%ff%fe", "wiki"),
            ("/a//b", "wiki"),
            ("/a;v=1/b", "wiki"),
            ("/a%2fb", "wiki"),
            ("/.well-known/x", "wiki"),
            ("/100%", "wiki"),
            ("/alice/.config/x", "wiki"),
            ("/alice/code/a%2fb", "code"),
            ("/alice/code//a", "code"),
            ("/alice/code/...", "code"),
            ("/alice/code/.vscode/%7Ex;y\\z", "code"),
        ] {
            assert_eq!(found(&hosts, path).as_deref(), Some(gitspace), "{path}");
        }
    }

    #[test]
    fn a_path_that_must_be_sent_encoded_is_found_however_it_was_encoded() {
        let hosts = hosts(&[("", "hub")]);
        for (path, gitspace) in [("/user/ada@b", "ada"), ("/user/Ada L\u{e4}", "space")] {
            let place = Place {
                path: crate::api::path::RoutePath::decoded(path),
                ..place("")
            };
            hosts.claim(&place, &id(gitspace)).unwrap();
        }
        for (path, gitspace) in [
            ("/user/ada@b/lab", Some("ada")),
            ("/user/ada%40b/lab", Some("ada")),
            ("/user/Ada%20L%C3%A4/lab", Some("space")),
            ("/user/Ada%20L%c3%a4", Some("space")),
            ("/user/ada%40bc", Some("hub")),
            ("/user/%61da@b/lab", None),
            ("/user/ada%2540b/lab", None),
            ("/user%2fada@b", None),
            ("/user/ada%40b/../x", None),
        ] {
            assert_eq!(found(&hosts, path).as_deref(), gitspace, "{path}");
        }
    }

    #[test]
    fn a_host_without_paths_is_one_routes_whatever_the_path() {
        let hosts = hosts(&[("", "wiki")]);
        for path in ["/../x", "/%2e%2e", "//x", "/\\"] {
            assert_eq!(found(&hosts, path).as_deref(), Some("wiki"), "{path}");
        }
        assert_eq!(hosts.find("other.test", "/"), None);
    }

    #[test]
    fn the_longest_paths_of_clients_are_cheap() {
        let deep = "/a".repeat(RoutePath::SEGMENTS);
        let hosts = hosts(&[(&deep, "deep")]);
        assert_eq!(found(&hosts, &deep).as_deref(), Some("deep"));
        for path in [
            "/".repeat(60_000),
            "/a".repeat(30_000),
            format!("/{}", "a".repeat(60_000)),
            "%25".repeat(20_000),
        ] {
            let begun = std::time::Instant::now();
            let _ = found(&hosts, &path);
            assert!(begun.elapsed().as_millis() < 500, "{}", &path[..6]);
        }
    }

    #[test]
    fn a_place_is_one_gitspaces_until_it_gives_it_back() {
        let hosts = hosts(&[("/alice/code", "code"), ("/bob", "bob")]);
        let taken = hosts.claim(&place("/bob"), &id("code"));
        assert_eq!(taken, Err(id("bob")));
        assert_eq!(hosts.owner(&place("/bob")), Some(id("bob")));
        hosts.release(&place("/bob"), &id("code"));
        assert_eq!(found(&hosts, "/bob").as_deref(), Some("bob"));
        hosts.release(&place("/bob"), &id("bob"));
        assert_eq!(found(&hosts, "/bob"), None);
        hosts.release(&place("/alice/code"), &id("code"));
        assert!(!hosts.has(HOST), "nothing of the host is claimed");
    }
}
