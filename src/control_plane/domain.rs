//! Where users reach gitspaces: the gateway's URL with an identifier before its host.

use http::uri::{PathAndQuery, Uri};

use crate::api::GitspaceId;

/// Why a text is no gateway URL.
#[derive(Debug, thiserror::Error)]
#[error(
    "gateway_url: {found:?} is not accepted; https://<domain>[:<port>] or http://<domain>[:<port>] is"
)]
pub struct DomainError {
    found: String,
}

/// Scheme, domain and port under which gitspaces are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    scheme: String,
    authority: String,
}

impl std::str::FromStr for Domain {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        let refuse = || DomainError { found: text.into() };
        let uri: Uri = text.parse().map_err(|_| refuse())?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| matches!(*scheme, "http" | "https"));
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'));
        let bare = uri.path() == "/" && uri.query().is_none();
        match (scheme, authority, bare) {
            (Some(scheme), Some(authority), true) => Ok(Self {
                scheme: scheme.into(),
                authority: authority.as_str().into(),
            }),
            _ => Err(refuse()),
        }
    }
}

impl Domain {
    /// The URL of a gitspace's IDE, or of one of its ports, at `path` (with its query) or `/`.
    pub(super) fn url(&self, id: &GitspaceId, port: Option<u16>, path: Option<&str>) -> String {
        let port = port.map(|port| format!("-{port}")).unwrap_or_default();
        format!(
            "{}://{id}{port}.{}{}",
            self.scheme,
            self.authority,
            path.unwrap_or("/")
        )
    }
}

/// `url` with a ticket in its query.
pub(super) fn with_ticket(url: &str, ticket: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}gitspace_token={ticket}")
}

/// The path at which an IDE asks to be opened, if it can stand in a URL; it comes from the instance.
pub(super) fn clean_path(path: &str) -> Option<String> {
    if path.starts_with("//") || path.contains(['#', '\\']) || path.len() > 2048 {
        return None;
    }
    let parsed: PathAndQuery = path.parse().ok()?;
    parsed
        .path()
        .starts_with('/')
        .then(|| parsed.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_stands_before_the_domain() {
        let domain: Domain = "https://gitspaces.localhost:8443".parse().unwrap();
        let id: GitspaceId = "api-k3x9q2".parse().unwrap();
        assert_eq!(
            domain.url(&id, Some(3000), None),
            "https://api-k3x9q2-3000.gitspaces.localhost:8443/"
        );
        let ide = domain.url(&id, None, Some("/?folder=/home/dev"));
        assert_eq!(
            with_ticket(&ide, "T"),
            "https://api-k3x9q2.gitspaces.localhost:8443/?folder=/home/dev&gitspace_token=T"
        );
        assert!(with_ticket("https://a.b/", "T").ends_with("/?gitspace_token=T"));
        for bad in [
            "gitspaces.localhost",
            "ftp://a",
            "https://a/b",
            "https://u@a",
            "",
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_not_taken() {
        assert_eq!(clean_path("/?folder=/a").as_deref(), Some("/?folder=/a"));
        for bad in [
            "//evil.test/",
            "https://evil.test/",
            "",
            "/a#b",
            "/a b",
            "/\\evil",
            "/\n",
        ] {
            assert_eq!(clean_path(bad), None, "{bad:?}");
        }
    }
}
