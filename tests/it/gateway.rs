//! The whole gateway in this process: real listeners, real upstreams, peers that misbehave.
//!
//! Not here: single steps through their own interfaces (`auth`), more than one role, browsers.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod access;
mod access_log;
mod account;
mod admin;
mod answers;
mod attacks;
mod balancers;
mod bodies;
mod bytes;
mod cold_load;
mod cors;
mod cuts;
mod deadlines;
mod faults;
mod feed;
mod gone;
mod grpc;
mod guard;
mod h2_abuse;
mod h2_allowed;
mod h2_floods;
mod h2_framing;
mod h2_requests;
mod h2_upstreams;
mod header_policy;
mod headers;
mod hosts;
mod https_upstreams;
mod limits;
mod limits_live;
mod listeners;
mod log_injection;
mod login;
mod metrics;
mod moved;
mod overload;
mod own_paths;
mod paths;
mod pool;
mod popup;
mod proxies;
mod proxy;
mod published_keys;
mod ready;
mod reasons;
mod revocation;
mod sessions;
mod sharing;
mod slow;
mod ssrf;
mod start;
mod stop;
mod swaps;
mod tickets;
mod tls;
mod tokens;
#[cfg(feature = "otel")]
mod traces;
mod uploads;
mod upstreams;
mod visits;
mod websocket;
