//! Names to be found in one look, however many there are: principals, origins, those for whom something is shared.
//!
//! Never empty, since in an empty set nothing is looked for: whoever is refused must not tell by the time whether somebody else is
//! named. Where there is nobody, the name that nobody has stands in.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use crate::api::share::{Audience, Share};

/// Names alone. Sets without any are one.
#[derive(Debug, Clone)]
pub(crate) struct Names(Arc<HashSet<Box<str>>>);

impl Names {
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        static NONE: LazyLock<Names> = LazyLock::new(|| Names(Arc::new([Box::from("")].into())));
        let names: HashSet<Box<str>> = names.into_iter().map(Box::from).collect();
        match names.is_empty() {
            true => NONE.clone(),
            false => Self(Arc::new(names)),
        }
    }

    /// Whether this one is among them.
    pub(crate) fn have(&self, name: &str) -> bool {
        self.0.contains(name) & !name.is_empty()
    }
}

/// The shares of a route, by for whom they are. Routes without any have the same.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<HashMap<Audience, Box<[Share]>>>);

impl Shared {
    pub(super) fn of(shares: &[Share]) -> Self {
        static NONE: LazyLock<Shared> = LazyLock::new(|| {
            let nobody = Audience::User("".into());
            Shared(Arc::new([(nobody, Box::default())].into()))
        });
        let mut to = HashMap::<Audience, Vec<Share>>::new();
        for share in shares {
            to.entry(share.to.clone()).or_default().push(share.clone());
        }
        match to.is_empty() {
            true => NONE.clone(),
            false => Self(Arc::new(
                to.into_iter().map(|(to, of)| (to, of.into())).collect(),
            )),
        }
    }

    /// What is for this one.
    pub(crate) fn to(&self, audience: &Audience) -> &[Share] {
        self.0.get(audience).map_or(&[], |shares| shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_named_is_there() {
        let names = Names::of(["alice", "bob", "bob"]);
        assert!(names.have("alice") && names.have("bob"));
        assert!(!names.have("") && !names.have("Alice") && !names.have("carol"));
        for nobody in [Names::of([]), Names::of([""])] {
            assert!(!nobody.have("") && !nobody.have("alice"));
        }
    }

    #[test]
    fn what_is_shared_is_for_whom_it_is_for() {
        let share = |to: &Audience| Share {
            id: "s1".into(),
            port: crate::api::access::Port::Ide,
            to: to.clone(),
            until: None,
        };
        let [ada, nobody] = ["ada", ""].map(|name| Audience::User(name.into()));
        let shared = Shared::of(&[share(&ada), share(&ada), share(&Audience::Link)]);
        assert_eq!(shared.to(&ada).len(), 2);
        assert_eq!(shared.to(&Audience::Link).len(), 1);
        assert!(shared.to(&Audience::Group("ada".into())).is_empty());
        assert!(shared.to(&nobody).is_empty() && Shared::of(&[]).to(&nobody).is_empty());
    }
}
