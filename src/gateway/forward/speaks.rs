//! Whether a program speaks TLS where its route says that it does not: then its answer is no HTTP, or none at all, and that is all
//! that is seen of it.
//!
//! Asked once in a while, by a handshake with nothing behind it, and only where a person waits; others are told what is known.

use std::{io, sync::Arc, time::Duration};

use super::{
    Exchange, Pool,
    connect::{self, Stream},
    tls,
};
use crate::{
    api::route::Protocol,
    gateway::{
        rejection::{Break, Form, Rejection, TlsFault},
        route::{Seat, Target},
    },
};

const WITHIN: Duration = Duration::from_secs(2);

/// The rejection, or that TLS is spoken, where that is its cause.
pub(super) async fn doubt(pool: &Pool, exchange: &Exchange<'_>, rejection: Rejection) -> Rejection {
    let target = exchange.target;
    let garbled = matches!(
        rejection,
        Rejection::Broke(Break::Terminated | Break::Protocol, _)
    );
    if !garbled || target.protocol != Protocol::Http {
        return rejection;
    }
    let person = exchange.head.form == Form::Page;
    if person && target.reach.may_ask_for_tls() {
        let most = pool.most();
        let asked = tokio::time::timeout(WITHIN, speaks_tls(target, most)).await;
        target.reach.speaks_tls(asked.unwrap_or(false));
    }
    match (target.reach.is_known_to_speak_tls(), rejection) {
        (true, Rejection::Broke(_, source)) => Rejection::Tls {
            fault: TlsFault::Unexpected,
            source: io::Error::other(source),
        },
        (_, rejection) => rejection,
    }
}

/// Whether a handshake is understood, whatever becomes of it.
async fn speaks_tls(target: &Arc<Target>, most: usize) -> bool {
    let Some(_seat) = Seat::take(target, most) else {
        return false;
    };
    let Ok(client) = tls::Client::new(target).await else {
        return false;
    };
    let Ok(Stream::Tcp(stream)) = connect::open(&target.address).await else {
        return false;
    };
    match client.connect(stream, true).await {
        Ok(_) => true,
        Err(Rejection::Tls { fault, source }) => match fault {
            TlsFault::Certificate => true,
            // An alert of the other end, and not the end of the connection.
            TlsFault::Handshake => source.get_ref().is_some_and(|error| {
                matches!(error.downcast_ref(), Some(rustls::Error::AlertReceived(_)))
            }),
            TlsFault::NotSpoken | TlsFault::Unexpected => false,
        },
        Err(_) => false,
    }
}
