//! `[gateway.timeouts]`, `[gateway.limits]` and the sizes of `[gateway.upstreams]`: nothing that would refuse everybody, nothing without end.

use std::time::Duration;

use super::Findings;
use crate::config::{Allowed, Gateway, Limits, Scope, Timeout, Upstreams};

/// A longer timeout is a mistake, and would overflow the clock in the end.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// With less, a page takes minutes, and one piece of a body is worth seconds.
const BYTES_LEAST: u64 = 16 * 1024;

/// A packet that is lost twice is acknowledged within it.
const DEAD_PEER_LEAST: Duration = Duration::from_secs(5);

pub(super) fn check(gateway: &Gateway, findings: &mut Findings) {
    timeouts(gateway, findings);
    upstreams(&gateway.upstreams, findings);
    sizes(&gateway.limits, findings);
    for scope in Scope::ALL {
        rates(&gateway.limits, scope, findings);
    }
}

fn timeouts(gateway: &Gateway, findings: &mut Findings) {
    let timeouts = &gateway.timeouts;
    let fixed = [
        ("head", timeouts.head),
        ("keep_alive", timeouts.keep_alive),
        ("connect", timeouts.connect),
        ("drain", timeouts.drain),
        ("upgrade_drain", timeouts.upgrade_drain),
        ("session", timeouts.session),
    ];
    let switched = [
        ("response_head", timeouts.response_head),
        ("body_idle", timeouts.body_idle),
        ("tunnel_idle", timeouts.tunnel_idle),
        ("tunnel_lifetime", timeouts.tunnel_lifetime),
        ("dead_peer", timeouts.dead_peer),
    ];
    let zero = "write a duration such as \"30s\"";
    let zero_or_off = "write a duration such as \"30s\", or \"off\"";
    let all = fixed
        .map(|(key, duration)| (key, Some(duration), zero))
        .into_iter()
        .chain(switched.map(|(key, timeout): (_, Timeout)| (key, timeout.duration(), zero_or_off)));
    if timeouts
        .dead_peer
        .duration()
        .is_some_and(|duration| duration < DEAD_PEER_LEAST)
    {
        findings.add(
            "gateway.timeouts.dead_peer",
            "is shorter than 5 s, so that a client on a slow network would be taken for dead",
            "write a duration of \"5s\" or more, or \"off\"",
        );
    }
    for (key, duration, change) in all {
        let Some(duration) = duration else { continue };
        let key = format!("gateway.timeouts.{key}");
        if duration.is_zero() {
            findings.add(key, "is zero, which would end everything at once", change);
        } else if duration > LONGEST {
            findings.add(key, "is longer than 365 days (\"365d\")", change);
        }
    }
}

fn upstreams(upstreams: &Upstreams, findings: &mut Findings) {
    if upstreams.max_connections == 0 {
        findings.add(
            "gateway.upstreams.max_connections",
            "is 0, so that no upstream could be reached",
            "write a number of 1 or more",
        );
    }
    if upstreams.ttl.is_zero() || upstreams.ttl > LONGEST {
        findings.add(
            "gateway.upstreams.ttl",
            "is zero or longer than 365 days",
            "write a duration such as \"30s\"; `idle = 0` keeps no connection at rest",
        );
    }
}

fn sizes(limits: &Limits, findings: &mut Findings) {
    let counts = [
        ("connections", limits.connections),
        ("requests", limits.requests),
        ("connections_per_network", limits.connections_per_network),
        ("keys", limits.keys),
    ]
    .map(|(key, count)| (key.to_owned(), count));
    let at_once = Scope::ALL.map(|scope| {
        let key = format!("streams_per_{}", scope.name());
        (key, limits.of(scope).streams)
    });
    for (key, count) in counts.into_iter().chain(at_once) {
        if count == 0 {
            findings.add(
                format!("gateway.limits.{key}"),
                "is 0, which would refuse everybody",
                "write a number of 1 or more",
            );
        }
    }
    let ranges = [
        // Below, ordinary browsers are refused; above, one head could fill a worker's memory.
        ("head_bytes", limits.head_bytes, 8 * 1024, 1024 * 1024),
        ("head_fields", limits.head_fields, 16, 1000),
    ];
    for (key, found, least, most) in ranges {
        if !(least..=most).contains(&found) {
            findings.add(
                format!("gateway.limits.{key}"),
                format!("is {found}; {least} to {most} are accepted"),
                format!("write a number from {least} to {most}"),
            );
        }
    }
}

fn rates(limits: &Limits, scope: Scope, findings: &mut Findings) {
    let name = scope.name();
    let Allowed {
        requests,
        burst,
        bytes,
        ..
    } = limits.of(scope);
    if burst < requests {
        // The value, and whether it is the default, since then it is in no file.
        let quoted = match requests == Limits::default().of(scope).requests {
            true => format!("{requests}, the default"),
            false => requests.to_string(),
        };
        findings.add(
            format!("gateway.limits.burst_per_{name}"),
            format!("is {burst}; it must be at least `requests_per_{name}` ({quoted})"),
            format!("write {requests} or more, or remove it (unset: twice the rate)"),
        );
    }
    if bytes.is_some_and(|bytes| bytes.get() < BYTES_LEAST) {
        findings.add(
            format!("gateway.limits.bytes_per_{name}"),
            "is less than 16 KiB per second, too little for a page",
            "write \"16KiB\" or more, or \"off\"",
        );
    }
}
