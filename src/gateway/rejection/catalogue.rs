//! What people are told of a rejection: every text of every answer of ours is here.
//!
//! A title says what happened in few words; log, problem and gRPC's message have the same. Then what it means, and what to do next. A
//! text depends on the rejection alone and tells no more than its reason: whoever may not know what exists reads the same of both.
//!
//! Not here: status and reason (`rejection`), in which form the texts are given (`answer`).

use super::{Fault, Rejection, TlsFault};
use crate::api::access::Port;

/// The texts of a rejection.
pub(super) struct Texts {
    /// A sentence without its capital and full stop.
    pub(super) title: &'static str,
    /// What that means.
    pub(super) meaning: &'static str,
    /// What to do next.
    pub(super) next: &'static str,
    /// Whether the same request may be answered once that is done, or after a while.
    pub(super) again: bool,
    /// Whether that may come of itself: its page asks again and again.
    pub(super) waits: bool,
}

/// Link of a page: the same request again.
pub(super) const TRY_AGAIN: &str = "Try again";
/// Link of a page: to the login.
pub(super) const SIGN_IN: &str = "Sign in";
/// On a page that does.
pub(super) const ASKS_AGAIN: &str =
    "This page asks again by itself, and opens what you wanted as soon as it is there.";

/// Whose fault it was, and who has done nothing wrong.
pub(super) fn fault(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::Client => ("The cause is on your side.", "The gateway works."),
        Fault::Gitspace => ("The cause is in the gitspace.", "The gateway works."),
        Fault::Gateway => ("The cause is in the gateway.", "You did nothing wrong."),
    }
}

const fn once(title: &'static str, meaning: &'static str, next: &'static str) -> Texts {
    Texts {
        title,
        meaning,
        next,
        again: false,
        waits: false,
    }
}

const fn again(title: &'static str, meaning: &'static str, next: &'static str) -> Texts {
    Texts {
        again: true,
        ..once(title, meaning, next)
    }
}

const fn waits(title: &'static str, meaning: &'static str, next: &'static str) -> Texts {
    Texts {
        waits: true,
        ..again(title, meaning, next)
    }
}

/// Where nothing listens.
pub(super) fn nothing_listens(port: Port) -> String {
    match port {
        Port::App(number) => format!("nothing listens on port {number} yet"),
        Port::Ide | Port::Ssh => "nothing listens on the IDE's port yet".to_owned(),
    }
}

/// The texts of a rejection.
pub(super) fn of(rejection: &Rejection) -> Texts {
    use Rejection as R;
    match rejection {
        R::BadRequest(_) => once(
            "the request is not acceptable",
            "It is malformed, or can be read in more than one way, so it was not passed on.",
            "Check the address. If a program made the request, tell its makers what stands here.",
        ),
        R::Misdirected => again(
            "this host is not served here",
            "The address names a host that this gateway does not serve, or not on this connection.",
            "Check the host in the address.",
        ),
        R::Loop => once(
            "the request has passed this gateway before",
            "Something behind the gateway sent it back to where it came from.",
            "Check where the program at this address sends its requests to.",
        ),
        R::NoToken => once(
            "a sign-in is needed",
            "Nobody is signed in: the request had neither a session nor an access token.",
            "Sign in. If no sign-in is offered here, open the gitspace from its control plane. A program sends an access token.",
        ),
        R::InvalidToken(_) => once(
            "the access token was not accepted",
            "The session, ticket or token that came with the request does not count here.",
            "Sign in again, or open the gitspace from its control plane. `cde-gateway token inspect` says what is wrong with a token of your own.",
        ),
        R::ExpiredToken => once(
            "the access token has expired",
            "What you signed in with counts for a limited time, and that is over.",
            "Sign in again, or open the gitspace from its control plane.",
        ),
        R::RevokedToken => once(
            "the access token was revoked",
            "What you signed in with was good and counts no more: somebody took it back.",
            "Sign in again, or open the gitspace from its control plane. If that changes nothing, ask its owner or your administrator.",
        ),
        R::TicketUsed => once(
            "the ticket was used before",
            "A link with a ticket opens a gitspace once, and this one has.",
            "Open the gitspace from its control plane; that makes a new link.",
        ),
        R::NotAllowed => again(
            "this port is not shared with you",
            "You may use the gitspace, but not this port of it.",
            "Ask the gitspace's owner to share the port with you.",
        ),
        R::OriginRefused => once(
            "the request comes from another origin",
            "A page of another address wanted to act here in your name. It was stopped.",
            "Open the page under its own address. If both belong together, the gitspace's owner can name the origin in the port's `cors` list.",
        ),
        R::AccessEnded(_) => again(
            "access ended while this was under way",
            "You could use this when the request began, and cannot any more: somebody took it back, or its time was over.",
            "Open the page again; it says what you can do. If that changes nothing, ask the gitspace's owner or your administrator.",
        ),
        R::NoSuchGitspace => again(
            "no such gitspace",
            "There is none of this name, or none that you may use.",
            "Check the host in the address. If it is right, ask the gitspace's owner for access.",
        ),
        R::PortClosed => again(
            "the gitspace does not forward this port",
            "The port is not one of those that can be reached from outside.",
            "Add the port to the gitspace's forwarded ports.",
        ),
        R::NoSuchPage => once(
            "no such page",
            "Addresses below /_gitspace/ are the gateway's own, and this is none of them.",
            "Check the address.",
        ),
        R::MethodNotAllowed => once(
            "the method is not allowed here",
            "This address does not take requests of this kind.",
            "Send the request with another method.",
        ),
        R::ExpectationFailed => once(
            "this expectation cannot be met; only 100-continue can",
            "The request's `Expect` asks for something that is not known here.",
            "Send the request without it.",
        ),
        R::RateLimited { .. } => again(
            "too many requests",
            "More requests came than are allowed in this time.",
            "Wait a moment, then try again.",
        ),
        R::TooManyStreams { .. } => again(
            "too many streams at once",
            "As many requests and connections are open as are allowed at once.",
            "Close pages that you do not need, or wait a moment.",
        ),
        R::BodyTooLarge => once(
            "the request's body is too large",
            "More is being sent than one request may have here.",
            "Send it in smaller parts. How much a request may have is set by the gateway's operator (`body_bytes`).",
        ),
        R::HeadTooLarge => again(
            "the request's head is too large",
            "The address, the cookies or other headers are longer than allowed.",
            "Delete this site's cookies, or use a shorter address.",
        ),
        R::HeadTimeout => again(
            "the request's head did not arrive in time",
            "It came too slowly, or stopped half-way.",
            "Check your connection, then try again.",
        ),
        R::NotImplemented => once(
            "this kind of request is not supported",
            "The request's body comes in a coding, or it asks for a protocol, that is not known here.",
            "Send the body `chunked` or with its length, and ask by CONNECT for nothing but WebSockets.",
        ),
        R::VersionNotSupported => once(
            "this version of HTTP is not supported here",
            "The request was sent in a version that is not spoken on this connection.",
            "Use HTTP/1.1 or HTTP/2.",
        ),
        R::NothingListens(..) => waits(
            "nothing listens",
            "The gitspace is there, and no program takes connections on this port.",
            "Start the program, or wait until it is up. If it runs, check that it listens on this port, and on all addresses instead of 127.0.0.1.",
        ),
        R::Unreachable(_) => waits(
            "the gitspace is not reachable",
            "No connection to it could be made: it may be busy, or the network between it and the gateway is cut.",
            "Wait a moment. If it stays so, stop the gitspace and start it again, or tell the gateway's operator.",
        ),
        R::Tls {
            fault: TlsFault::Certificate,
            ..
        } => waits(
            "the gitspace did not prove who it is",
            "The certificate that it showed is not the one that is expected. Nothing was sent to it.",
            "The gateway's operator finds in the access log what was shown and what was expected.",
        ),
        R::Tls {
            fault: TlsFault::NotSpoken,
            ..
        } => waits(
            "the program on this port does not speak TLS",
            "The route says `https`, and what answers there is something else. Nothing was sent to it.",
            "Switch TLS on in that program, or set the port's protocol to `http`.",
        ),
        R::Tls {
            fault: TlsFault::Unexpected,
            ..
        } => waits(
            "the program on this port speaks TLS",
            "The route says `http`, and the program wants `https`, so neither understands the other.",
            "Switch TLS off in that program (the gateway has it already), or set the port's protocol to `https`.",
        ),
        R::Tls {
            fault: TlsFault::Handshake,
            ..
        } => waits(
            "the gitspace could not be reached securely",
            "TLS with it could not be agreed on. Nothing was sent to it.",
            "The gateway's operator finds in the access log what went wrong.",
        ),
        R::Crowded => again(
            "too much is under way to this gitspace",
            "All the connections that may be open to it are in use.",
            "Wait a moment, then try again.",
        ),
        R::Broke(..) => again(
            "the gitspace broke off",
            "The program on this port closed the connection, or did not answer in HTTP.",
            "Look into that program's log in the gitspace, then try again.",
        ),
        R::Timeout(_) => waits(
            "the gitspace did not answer in time",
            "The program on this port took longer than the gateway waits.",
            "Check that it is running in the gitspace and not stuck, then try again.",
        ),
        R::TargetChanged => waits(
            "the gitspace has moved",
            "It came to another place while the request was under way.",
            "Try again: the next request goes to its new place.",
        ),
        R::Stopped => waits(
            "the gitspace is stopped",
            "Nothing runs in it that could answer.",
            "Start the gitspace, then try again.",
        ),
        R::Starting => waits(
            "the gitspace is starting",
            "It is on its way up and will answer soon.",
            "Wait a moment.",
        ),
        R::ShuttingDown => again(
            "this gateway is stopping",
            "It is being restarted or replaced, and takes nothing new.",
            "Try again in a moment.",
        ),
        R::Overloaded => again(
            "this gateway has too much to do",
            "All the connections or requests that it takes at once are in use.",
            "Try again in a moment.",
        ),
        R::ControlPlaneStale => again(
            "this gateway has not heard from the control plane for too long",
            "It no longer knows for sure who may use what, so it lets nobody in.",
            "Try again in a moment. If it stays so, tell the gateway's operator.",
        ),
        R::BodyTimeout => again(
            "the request body did not arrive in time",
            "The upload stopped half-way.",
            "Check your connection, then send it again.",
        ),
        R::ClientGone => again(
            "the client went away",
            "The connection was closed before there was an answer.",
            "Try again.",
        ),
    }
}
