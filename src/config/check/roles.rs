//! Roles, and what each needs from the others: if it is not in this process, it must be named.

use super::{Findings, text};
use crate::config::{Config, Role};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    listed(&config.roles, findings);
    delegate(config, findings);
    urls(config, findings);
    if config.control_plane.user.trim().is_empty() {
        findings.add(
            "control_plane.user",
            "is empty",
            "name the user who holds the token, such as \"admin\"",
        );
    }
}

fn listed(roles: &[Role], findings: &mut Findings) {
    if roles.is_empty() {
        findings.add(
            "roles",
            "is empty, so there is nothing to run",
            "list one or more of \"gateway\", \"control-plane\", \"delegate\", \"runner\"",
        );
    }
    for (index, role) in roles.iter().enumerate() {
        if roles[..index].contains(role) {
            findings.add(
                format!("roles[{index}]"),
                "is listed twice",
                "list every role once",
            );
        }
    }
}

fn delegate(config: &Config, findings: &mut Findings) {
    let delegate = &config.delegate;
    if delegate.name.trim().is_empty() {
        findings.add(
            "delegate.name",
            "is empty",
            "give the delegate a name that it keeps over restarts",
        );
    }
    for (index, tag) in delegate.tags.iter().enumerate() {
        if tag.trim().is_empty() {
            findings.add(
                format!("delegate.tags[{index}]"),
                "is empty",
                "remove it or write a tag",
            );
        }
    }
    if !config.runs(Role::Delegate) {
        return;
    }
    let needed = [
        (
            "delegate.url",
            &delegate.url,
            Role::ControlPlane,
            "control plane",
        ),
        ("delegate.runner", &delegate.runner, Role::Runner, "runner"),
    ];
    for (key, url, role, name) in needed {
        if url.is_none() && !config.runs(role) {
            findings.add(
                key,
                format!(
                    "is unset (the default), and this process runs no {name} that could be meant"
                ),
                format!("write the {name}'s URL, or add its role to `roles`"),
            );
        }
    }
}

fn urls(config: &Config, findings: &mut Findings) {
    let urls = [
        (
            "gateway.control_plane.url",
            &config.gateway.control_plane.url,
        ),
        ("control_plane.public_url", &config.control_plane.public_url),
        (
            "control_plane.gateway_url",
            &config.control_plane.gateway_url,
        ),
        ("delegate.url", &config.delegate.url),
        ("delegate.runner", &config.delegate.runner),
    ];
    for (key, url) in urls {
        if let Some(url) = url {
            findings.unless_ok(key, text::base_url(url));
        }
    }
    if config.runs(Role::ControlPlane)
        && !config.runs(Role::Gateway)
        && config.control_plane.gateway_url.is_none()
    {
        findings.add(
            "control_plane.gateway_url",
            "is unset (the default), and this process runs no gateway that could be meant",
            "write how users reach gitspaces, such as \"https://gitspaces.example.com\"",
        );
    }
}
