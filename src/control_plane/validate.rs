//! Whether a new gitspace may be asked for like this. Every refusal names the field, what was found and what is accepted.
//!
//! The repository is handed to git in the instance: nothing that git takes as an option or as a command passes.

use super::refusal::Refusal;
use crate::api::gitspace::{CreateGitspace, ForwardedPort};

const REPOSITORY_MAX: usize = 2048;
const BRANCH_MAX: usize = 255;
/// How many ports a gitspace may ask for.
const PORTS_MAX: usize = 64;
const KEY_MAX: usize = 255;

/// Checks what a client asks for.
pub(super) fn check(asked: &CreateGitspace) -> Result<(), Refusal> {
    repository(&asked.repository)
        .and_then(|()| asked.branch.as_deref().map_or(Ok(()), branch))
        .and_then(|()| ports(&asked.ports))
        .map_err(Refusal::BadRequest)
}

/// Checks an Idempotency-Key.
pub(super) fn idempotency_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > KEY_MAX {
        let found = key.len();
        return Err(Refusal::BadRequest(format!(
            "Idempotency-Key: has {found} bytes; 1 to {KEY_MAX} are accepted"
        )));
    }
    Ok(())
}

fn repository(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > REPOSITORY_MAX {
        let found = text.len();
        return Err(format!(
            "repository: has {found} bytes; 1 to {REPOSITORY_MAX} are accepted"
        ));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(
            "repository: contains a space or a control character; write a space in a URL as %20"
                .into(),
        );
    }
    let accepted = "an https://, http://, ssh:// or git@host:path URL, or an absolute path, is";
    if text.starts_with('/') {
        return Ok(());
    }
    let Some(place) = place(text) else {
        return Err(format!(
            "repository: {:?} is not accepted; {accepted}",
            without_secret(text)
        ));
    };
    if place.host.is_empty() || place.host.starts_with('-') || place.path.is_empty() {
        return Err(format!(
            "repository: {:?} names no host and path; {accepted}",
            without_secret(text)
        ));
    }
    if place.user.is_some_and(|user| user.starts_with('-')) {
        return Err("repository: the user starts with a dash".into());
    }
    let secret = place
        .user
        .is_some_and(|user| place.web || user.contains(':'));
    if secret {
        return Err(
            "repository: contains a user or a password, which would be shown and logged; remove it"
                .into(),
        );
    }
    Ok(())
}

/// The parts of a repository's URL that git takes apart.
struct Place<'a> {
    user: Option<&'a str>,
    host: &'a str,
    path: &'a str,
    /// http or https, where a user is a credential.
    web: bool,
}

fn place(text: &str) -> Option<Place<'_>> {
    if let Some(rest) = text.strip_prefix("git@") {
        let (host, path) = rest.split_once(':')?;
        let path = if path.starts_with([':', '-']) {
            ""
        } else {
            path
        };
        return Some(Place {
            user: None,
            host,
            path,
            web: false,
        });
    }
    let (scheme, rest) = text.split_once("://")?;
    let web = matches!(scheme, "http" | "https");
    if !web && scheme != "ssh" {
        return None;
    }
    let (authority, path) = rest.split_once('/')?;
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    Some(Place {
        user,
        host,
        path,
        web,
    })
}

/// `text` for a message: what may be a credential is left out.
fn without_secret(text: &str) -> String {
    let shown = match text.rsplit_once('@') {
        Some((_, after)) => format!("…@{after}"),
        None => text.to_owned(),
    };
    super::store::shortened(&shown)
}

fn branch(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > BRANCH_MAX {
        let found = text.len();
        return Err(format!(
            "branch: has {found} bytes; 1 to {BRANCH_MAX} are accepted, or leave it out for the default"
        ));
    }
    // git-check-ref-format(1)
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let parts_ok = text
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"));
    if text.starts_with('-')
        || text.contains(bad)
        || text.contains("..")
        || text.contains("@{")
        || text.ends_with('.')
        || !parts_ok
    {
        return Err(format!(
            "branch: {text:?} is no name that git accepts for a branch"
        ));
    }
    Ok(())
}

fn ports(ports: &[ForwardedPort]) -> Result<(), String> {
    if ports.len() > PORTS_MAX {
        let found = ports.len();
        return Err(format!(
            "ports: {found} were given; at most {PORTS_MAX} are accepted"
        ));
    }
    for (index, port) in ports.iter().enumerate() {
        if port.port == 0 {
            return Err(format!(
                "ports[{index}].port: 0 is no port; 1 to 65535 are accepted"
            ));
        }
        if ports[..index]
            .iter()
            .any(|earlier| earlier.port == port.port)
        {
            return Err(format!(
                "ports[{index}].port: {} is there twice; name it once",
                port.port
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_absolute_paths_are_repositories() {
        for good in [
            "https://git.test/a/b.git",
            "http://git.test:3000/a",
            "ssh://git@git.test:22/a/b",
            "git@git.test:a/b.git",
            "/srv/git/a",
        ] {
            assert_eq!(repository(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_git_takes_as_an_option_or_a_command_is_refused() {
        for bad in [
            "",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x",
            "ext::sh -c id",
            "ext::sh%20-c%20id",
            "file:///srv/git",
            "a/b",
            "../b",
            "https:///a",
            "https://git.test",
            "ssh://-oProxyCommand=id/a",
            "ssh://-oProxyCommand=id@host/a",
            "git@-oProxyCommand=id:a",
            "git@host::a",
            "git@host",
            "https://git.test/a\nb",
        ] {
            assert!(repository(bad).is_err(), "{bad:?}");
        }
        assert!(repository(&format!("/{}", "a".repeat(3000))).is_err());
    }

    #[test]
    fn a_credential_in_the_url_is_refused_and_not_repeated() {
        for bad in [
            "https://me:hunter2@git.test/a",
            "https://hunter2@git.test/a",
            "ssh://g:hunter2@git.test/a",
            "x://hunter2@a/b",
        ] {
            let message = repository(bad).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn branches_are_names_that_git_accepts() {
        for good in ["main", "feature/x-1", "v1.2"] {
            assert_eq!(branch(good), Ok(()), "{good}");
        }
        for bad in [
            "", "-x", "a b", "a..b", "a~1", "x.lock", "a//b", "/a", "a/", "a@{1}", ".a", "a.",
        ] {
            assert!(branch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_named_once() {
        let port = |port| ForwardedPort {
            port,
            visibility: crate::api::access::Visibility::Private,
        };
        assert_eq!(ports(&[port(1), port(65535)]), Ok(()));
        assert!(
            ports(&[port(0)])
                .unwrap_err()
                .starts_with("ports[0].port: 0 ")
        );
        assert!(
            ports(&[port(1), port(1)])
                .unwrap_err()
                .contains("there twice")
        );
        let many: Vec<_> = (1..=65).map(port).collect();
        assert!(ports(&many).unwrap_err().contains("at most 64"));
    }
}
