//! How a gitspace failed a request, in the words of `Proxy-Status` (RFC 9209 §2.3).
//!
//! The client's status and reason stay coarse; these tell its operator, and ours, which failure it was.

use std::io;

/// How a gitspace broke off, or what it sent instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// It closed or reset the connection before a byte of its answer.
    Terminated,
    /// It closed or reset the connection within the head of its answer.
    Incomplete,
    /// Not HTTP, or HTTP that can be read in two ways.
    Protocol,
    /// A head with too many bytes, fields or interim answers.
    HeadTooLarge,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// A switch of protocols that nobody had asked for, or to another one.
    Upgrade,
}

impl Break {
    pub(super) fn proxy_error(self) -> &'static str {
        match self {
            Self::Terminated => "connection_terminated",
            Self::Incomplete => "http_response_incomplete",
            Self::Protocol => "http_protocol_error",
            Self::HeadTooLarge => "http_response_header_section_size",
            Self::TransferCoding => "http_response_transfer_coding",
            Self::Upgrade => "http_upgrade_failed",
        }
    }
}

/// What went wrong between TLS and a gitspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// What it showed of itself was not accepted.
    Certificate,
    /// It speaks something else.
    NotSpoken,
    /// It speaks TLS, where nobody expects it.
    Unexpected,
    /// Anything else.
    Handshake,
}

impl TlsFault {
    pub(super) fn proxy_error(self) -> &'static str {
        match self {
            Self::Certificate => "tls_certificate_error",
            Self::NotSpoken | Self::Handshake => "tls_protocol_error",
            Self::Unexpected => "http_protocol_error",
        }
    }
}

/// What a gitspace was too late with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Taking the connection.
    Connect,
    /// Reading the request.
    Request,
    /// The head of its answer.
    Answer,
}

impl Late {
    pub(super) fn proxy_error(self) -> &'static str {
        match self {
            Self::Connect => "connection_timeout",
            Self::Request => "connection_write_timeout",
            Self::Answer => "http_response_timeout",
        }
    }
}

/// What a connection that could not be made is called.
pub(super) fn unreachable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection_refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            "connection_terminated"
        }
        io::ErrorKind::TimedOut => "connection_timeout",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "destination_ip_unroutable"
        }
        _ => "destination_unavailable",
    }
}
