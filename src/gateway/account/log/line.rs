//! What a line of the access log looks like. Nothing that a client sends can end a line, forge a field or reach a terminal as
//! a control character.
//!
//! Not here: what is told (`account::Record`).

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use crate::{
    config::{ClientAddress, LineFormat},
    gateway::account::Record,
};

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) format: LineFormat,
    pub(super) client_address: ClientAddress,
}

impl Style {
    /// Appends a record's line, with its end.
    pub(super) fn append(self, record: &Record, lines: &mut Vec<u8>) {
        let before = lines.len();
        let client = match self.client_address {
            ClientAddress::Full => record.client,
            ClientAddress::Truncated => truncated(record.client),
        };
        let line = Line::new(record, client);
        let written = match self.format {
            LineFormat::Json => line.json(lines),
            LineFormat::Text => line.text(lines),
        };
        // Writing to memory does not fail; half a line would be worse than none.
        match written {
            Ok(()) => lines.push(b'\n'),
            Err(_) => lines.truncate(before),
        }
    }
}

/// The network of an address: /24 of IPv4 (mapped into IPv6 or not), /48 of IPv6.
fn truncated(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// A line, in the order of its fields.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    client: IpAddr,
    protocol: &'static str,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gitspace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    step: crate::gateway::account::Step,
    status: u16,
    reason: &'static str,
    ended_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    received: u64,
    sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    total_ms: f64,
}

impl<'a> Line<'a> {
    fn new(record: &'a Record, client: IpAddr) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        Self {
            time: jiff::Timestamp::try_from(record.time)
                .map(|time| format!("{time:.3}"))
                .unwrap_or_default(),
            id: &record.id,
            client,
            protocol: record.protocol,
            method: record.method.as_str(),
            host: &record.host,
            path: &record.path,
            gitspace: record.gitspace.as_ref().map(crate::api::GitspaceId::as_str),
            port: record.port.map(|port| port.to_string()),
            principal: record.principal.as_deref(),
            step: record.step,
            status: record.status,
            reason: record.reason,
            ended_by: record.ended_by,
            detail: record.detail.as_deref(),
            received: record.received,
            sent: record.sent,
            first_byte_ms: record.first_byte_micros.map(millis),
            total_ms: millis(record.total_micros),
        }
    }

    fn json(&self, lines: &mut Vec<u8>) -> io::Result<()> {
        let mut serializer = serde_json::Serializer::with_formatter(lines, Printable);
        self.serialize(&mut serializer).map_err(io::Error::other)
    }

    /// The combined format (`client - user [time] "request" status bytes "referrer" "agent"`), then `name=value` pairs.
    /// Referrer and agent are always `-`: they are the client's, and a referrer may hold what a query held.
    fn text(&self, out: &mut Vec<u8>) -> io::Result<()> {
        write!(out, "{} - ", self.client)?;
        bare(out, self.principal)?;
        write!(out, " [{}] \"", self.time)?;
        escape(out, self.method, false)?;
        out.push(b' ');
        // A head that was refused has no path that is for sure.
        let path = if self.path.is_empty() { "-" } else { self.path };
        escape(out, path, false)?;
        let protocol = match self.protocol {
            "h2" => "HTTP/2.0",
            _ => "HTTP/1.1",
        };
        write!(
            out,
            " {protocol}\" {} {} \"-\" \"-\"",
            self.status, self.sent
        )?;
        write!(out, " host=")?;
        quoted(out, self.host)?;
        write!(
            out,
            " step={} reason={} ended_by={} duration_ms={}",
            self.step.name(),
            self.reason,
            self.ended_by,
            self.total_ms
        )?;
        if let Some(first) = self.first_byte_ms {
            write!(out, " first_byte_ms={first}")?;
        }
        write!(out, " received={} id=", self.received)?;
        bare(out, Some(self.id))?;
        if let Some(gitspace) = self.gitspace {
            write!(out, " gitspace={gitspace}")?;
        }
        if let Some(port) = &self.port {
            write!(out, " port={port}")?;
        }
        if let Some(detail) = self.detail {
            write!(out, " detail=")?;
            quoted(out, detail)?;
        }
        Ok(())
    }
}

/// A value between spaces; `-` for none.
fn bare(out: &mut Vec<u8>, text: Option<&str>) -> io::Result<()> {
    match text {
        None | Some("") => out.write_all(b"-"),
        Some("-") => out.write_all(b"\\x2d"),
        Some(text) => escape(out, text, true),
    }
}

fn quoted(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    out.push(b'"');
    escape(out, text, false)?;
    out.push(b'"');
    Ok(())
}

/// Visible ASCII as it is, `\"`, `\\`, and `\xHH` for every other byte; for a space too, where it would end the value.
fn escape(out: &mut Vec<u8>, text: &str, spaces: bool) -> io::Result<()> {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' ' if spaces => out.extend_from_slice(b"\\x20"),
            b' '..=b'~' => out.push(byte),
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

/// JSON in which no character is one that a terminal or a line reader takes for a command: serde_json leaves DEL, the C1
/// controls and Unicode's line ends as they are.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Nearly all are; both looks take many bytes at once.
        if fragment.is_ascii() && memchr::memchr(0x7f, fragment.as_bytes()).is_none() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut plain = 0;
        let special = |c: &char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
        for (at, found) in fragment.char_indices().filter(|(_, c)| special(c)) {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            write!(writer, "\\u{:04x}", u32::from(found))?;
            plain = at + found.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }

    fn write_char_escape<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::gateway::account::Step;

    fn record() -> Record {
        Record {
            time: SystemTime::UNIX_EPOCH,
            id: "1-1".into(),
            client: "192.0.2.77".parse().unwrap(),
            protocol: "h2",
            method: Method::GET,
            host: "a.example".into(),
            path: "/".into(),
            gitspace: Some("app-a1b2c3".parse().unwrap()),
            port: Some(crate::api::access::Port::Ide),
            principal: Some("alice".into()),
            step: Step::Relay,
            status: 200,
            reason: "done",
            ended_by: "both",
            detail: None,
            received: 1,
            sent: 2,
            first_byte_micros: Some(1500),
            total_micros: 2500,
        }
    }

    fn line(record: &Record, format: LineFormat, client_address: ClientAddress) -> String {
        let mut lines = Vec::new();
        let style = Style {
            format,
            client_address,
        };
        style.append(record, &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_text_line_is_the_combined_format_with_more_behind_it() {
        assert_eq!(
            line(&record(), LineFormat::Text, ClientAddress::Full),
            "192.0.2.77 - alice [1970-01-01T00:00:00.000Z] \"GET / HTTP/2.0\" 200 2 \"-\" \"-\" host=\"a.example\" step=relay \
             reason=done ended_by=both duration_ms=2.5 first_byte_ms=1.5 received=1 id=1-1 gitspace=app-a1b2c3 port=ide\n"
        );
        let mut refused = record();
        (refused.principal, refused.gitspace, refused.port) = (None, None, None);
        (refused.first_byte_micros, refused.detail) = (None, Some("two \"Hosts\"".into()));
        let text = line(&refused, LineFormat::Text, ClientAddress::Full);
        assert!(text.starts_with("192.0.2.77 - - ["), "{text}");
        assert!(
            text.ends_with(" received=1 id=1-1 detail=\"two \\\"Hosts\\\"\"\n"),
            "{text}"
        );
    }

    #[test]
    fn no_value_can_end_a_line_or_forge_a_field_in_either_format() {
        let evil = "x\" 200 reason=done\r\n\u{1b}[2J\u{7f}\u{9b}\u{2028}\\é";
        let mut forged = record();
        (forged.path, forged.host) = (evil.into(), evil.into());
        (forged.principal, forged.detail) = (Some(Arc::from(evil)), Some(evil.into()));
        for format in [LineFormat::Text, LineFormat::Json] {
            let text = line(&forged, format, ClientAddress::Full);
            let control = |c: char| c.is_control() || c == '\u{2028}';
            assert!(!text.trim_end_matches('\n').contains(control), "{text:?}");
            assert_eq!(text.matches('\n').count(), 1);
            if format == LineFormat::Json {
                let parsed: Value = serde_json::from_str(&text).unwrap();
                for field in ["path", "host", "principal", "detail"] {
                    assert_eq!(parsed[field], evil, "{field}");
                }
            } else {
                // Without what is quoted, nothing of the client is left but its name, which has no space.
                assert!(
                    text.starts_with("192.0.2.77 - x\\\"\\x20200\\x20reason=done"),
                    "{text}"
                );
                assert_eq!(text.split(' ').nth(3), Some("[1970-01-01T00:00:00.000Z]"));
            }
        }
        forged.principal = Some("-".into());
        let text = line(&forged, LineFormat::Text, ClientAddress::Full);
        assert!(text.starts_with("192.0.2.77 - \\x2d ["), "{text}");
    }

    #[test]
    fn a_truncated_address_is_a_network() {
        for (full, network) in [
            ("192.0.2.77", "192.0.2.0"),
            ("::ffff:192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("::1", "::"),
        ] {
            let mut record = record();
            record.client = full.parse().unwrap();
            for format in [LineFormat::Text, LineFormat::Json] {
                let text = line(&record, format, ClientAddress::Truncated);
                assert!(text.contains(network) && !text.contains("77"), "{text}");
            }
            assert_eq!(truncated(record.client).to_string(), network);
        }
    }
}
