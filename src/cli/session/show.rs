//! How connections are printed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    api::{activity::Used, stream::Stream},
    cli::{Failure, output},
};

pub(super) fn list(streams: &[Stream], json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&streams);
    }
    if streams.is_empty() {
        output::say("nobody is connected");
        return Ok(());
    }
    let now = now();
    let rows: Vec<_> = streams.iter().map(|stream| row(stream, now)).collect();
    let header = [
        "PRINCIPAL",
        "GITSPACE",
        "PORT",
        "PROTOCOL",
        "SINCE",
        "IDLE",
        "TYPED",
        "RECEIVED",
        "SENT",
        "CLIENT",
        "ID",
    ];
    output::data(&output::table(&header, &rows))
}

fn row(stream: &Stream, now: u64) -> Vec<String> {
    let age = now.saturating_sub(u64::try_from(stream.since).unwrap_or(0));
    vec![
        who(stream),
        stream.gitspace.to_string(),
        stream.port.to_string(),
        stream.protocol.clone(),
        span(age),
        span(stream.idle),
        typed(stream, now),
        bytes(stream.received),
        bytes(stream.sent),
        stream.client.to_string(),
        stream.id.clone(),
    ]
}

/// How long ago somebody typed something on it.
fn typed(stream: &Stream, now: u64) -> String {
    let ago = stream.typed.map(|at| span(now.saturating_sub(at)));
    ago.unwrap_or_else(|| "-".to_owned())
}

/// Why gitspaces are awake.
pub(super) fn why(used: &[Used], json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&used);
    }
    if used.is_empty() {
        output::say("the gateway has no routes");
        return Ok(());
    }
    let now = now();
    let row = |one: &Used| {
        let idle = one.idle_since.map(|at| span(now.saturating_sub(at)));
        vec![
            one.gitspace.to_string(),
            idle.unwrap_or_else(|| "-".to_owned()),
            one.streams.to_string(),
            one.why.clone(),
        ]
    };
    let rows: Vec<_> = used.iter().map(row).collect();
    output::data(&output::table(
        &["GITSPACE", "IDLE", "STREAMS", "WHY"],
        &rows,
    ))
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn who(stream: &Stream) -> String {
    stream.principal.clone().unwrap_or_else(|| "-".to_owned())
}

pub(super) fn one(stream: &Stream, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(stream);
    }
    let since = jiff::Timestamp::from_second(stream.since)
        .map_or_else(|_| stream.since.to_string(), |time| time.to_string());
    let none = || "-".to_owned();
    let lines = [
        format!("id         {}", stream.id),
        format!("principal  {}", who(stream)),
        format!("login      {}", stream.login.clone().unwrap_or_else(none)),
        format!("share      {}", stream.share.clone().unwrap_or_else(none)),
        format!("gitspace   {}", stream.gitspace),
        format!("port       {}", stream.port),
        format!("protocol   {}", stream.protocol),
        format!("client     {}", stream.client),
        format!("since      {since}"),
        format!("idle       {}", span(stream.idle)),
        format!("typed      {}", typed(stream, now())),
        format!("received   {} bytes", stream.received),
        format!("sent       {} bytes", stream.sent),
    ];
    output::data(&lines.join("\n"))
}

/// Seconds for people: the two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// Bytes for people.
fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    match unit {
        "B" => format!("{bytes}B"),
        unit => format!("{value:.1}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_bytes_are_short() {
        assert_eq!(
            [0, 59, 61, 3_700, 90_000].map(span),
            ["0s", "59s", "1m1s", "1h1m", "1d1h"]
        );
        assert_eq!(
            [0, 1023, 1536, 5 << 30].map(bytes),
            ["0B", "1023B", "1.5KiB", "5.0GiB"]
        );
    }
}
