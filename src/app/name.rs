//! What a gitspace is called that was given no name.

use crate::api::GitspaceName;

const NAME_MAX: usize = 50;

/// A gitspace's name after its repository: `https://host/Team/My.Repo.git` → `my-repo`.
pub fn name_after(repository: &str) -> GitspaceName {
    let last = repository
        .trim_end_matches('/')
        .rsplit(['/', ':'])
        .next()
        .unwrap_or_default();
    let mut name: String = last
        .trim_end_matches(".git")
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_MAX)
        .collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    let parsed = name.trim_matches('-').parse();
    parsed
        .or_else(|_| "gitspace".parse())
        .unwrap_or_else(|_| unreachable!("\"gitspace\" is a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gitspace_is_named_after_its_repository() {
        for (repository, expected) in [
            ("https://host/Team/My.Repo.git", "my-repo"),
            ("git@host:team/api.git", "api"),
            ("/home/dev/api/", "api"),
            ("/", "gitspace"),
            ("https://host/ünï--x", "n-x"),
        ] {
            assert_eq!(name_after(repository).as_str(), expected, "{repository}");
        }
    }
}
