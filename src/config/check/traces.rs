//! `[gateway.traces]`: an endpoint that this build can send to.

use http::Uri;

use super::Findings;
use crate::config::Traces;

pub(super) fn check(traces: &Traces, findings: &mut Findings) {
    if !(0.0..=1.0).contains(&traces.ratio) {
        findings.add(
            "gateway.traces.ratio",
            format!("is {}, which is no part of all requests", traces.ratio),
            "write a number from 0.0 to 1.0",
        );
    }
    if traces.endpoint.is_empty() {
        return;
    }
    let known = traces.endpoint.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
    });
    if !known {
        findings.add(
            "gateway.traces.endpoint",
            format!("is {:?}, which is no URL of a collector", traces.endpoint),
            "write one such as \"http://127.0.0.1:4318\", or \"\" for no traces",
        );
    } else if cfg!(not(feature = "otel")) {
        findings.add(
            "gateway.traces.endpoint",
            "is set, but this program was built without traces",
            "build it with `cargo build --release --features otel`, or write \"\"",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_needs_a_build_that_sends() {
        let mut findings = Findings::default();
        let endpoint = "http://127.0.0.1:4318".to_owned();
        check(
            &Traces {
                endpoint,
                ratio: 1.0,
            },
            &mut findings,
        );
        let refused = findings
            .0
            .iter()
            .any(|one| one.problem.contains("without traces"));
        assert_eq!(refused, cfg!(not(feature = "otel")));
    }
}
