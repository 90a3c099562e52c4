//! Checks across keys, after every value has its type. The rest of the program sees only what passed.
//!
//! Each check tells the dotted key, what was found, and what to change; the place is added by `load`.

mod chp;
mod files;
mod gateway;
mod headers;
mod limits;
mod listeners;
mod roles;
mod route;
mod text;
mod traces;

pub(super) use files::files;

use super::Config;

/// Something that does not fit, without its place.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) problem: String,
    pub(super) change: String,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        key: impl Into<String>,
        problem: impl Into<String>,
        change: impl Into<String>,
    ) {
        self.0.push(Finding {
            key: key.into(),
            problem: problem.into(),
            change: change.into(),
        });
    }

    /// Adds what `result` complains of: (problem, change).
    fn unless_ok(&mut self, key: impl Into<String>, result: Result<(), (String, String)>) {
        if let Err((problem, change)) = result {
            self.add(key, problem, change);
        }
    }
}

/// Everything that can be seen from the values alone.
pub(super) fn keys(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    roles::check(config, &mut findings);
    listeners::check(config, &mut findings);
    gateway::check(config, &mut findings);
    chp::check(&config.gateway, &mut findings);
    traces::check(&config.gateway.traces, &mut findings);
    limits::check(&config.gateway, &mut findings);
    route::check(&config.route, &config.gateway.domains, &mut findings);
    findings.0
}
