//! `[gateway.chp]`: its host can be reached, its API too, and its pages of errors come from somewhere.

use super::{Findings, route::gitspaces_own, text};
use crate::config::Gateway;

pub(super) fn check(gateway: &Gateway, findings: &mut Findings) {
    let Some(chp) = &gateway.chp else {
        return;
    };
    findings.unless_ok("gateway.chp.host", text::host(&chp.host));
    if let Some(domain) = gitspaces_own(&chp.host, &gateway.domains) {
        findings.add(
            "gateway.chp.host",
            format!(
                "is {:?}, which is a gitspace's own host under the domain {domain:?}",
                chp.host
            ),
            "take a host outside `gateway.domains`",
        );
    }
    if gateway.admin.address.is_none() {
        findings.add(
            "gateway.chp",
            "is there, and `gateway.admin.address` is not, so nobody could send routes",
            "set `gateway.admin.address`",
        );
    }
    if let Some(url) = &chp.error_target {
        findings.unless_ok("gateway.chp.error_target", text::page_url(url));
    }
}
