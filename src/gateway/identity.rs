//! Authenticate: who asks.
//!
//! Fourth step of the path. What the carriers of a request hold becomes an [`Identity`], but for a ticket, which is exchanged for a session.
//! Guessing is limited here: a network that failed too often is told to wait, whatever it holds now.
//!
//! Not here: carriers, tokens and keys (`auth`), what an identity may do (`authorize`).

use std::{ops::ControlFlow, sync::Arc, time::SystemTime};

use http::{HeaderValue, Response, request::Parts};

use super::{
    Gateway, Rejection,
    auth::{Authentication, Authenticator, Principal, TokenError},
    connection::Peer,
    forward::Body,
    http::Head,
    limit::{Asker, Network},
};

/// Who asks, and how we know.
#[derive(Debug)]
pub(crate) enum Identity {
    /// Of a valid token or session.
    Principal {
        principal: Arc<Principal>,
        /// Its browser sent our cookie by itself, so that unsafe methods and WebSockets need an Origin.
        by_cookie: bool,
        /// The `Set-Cookie` value with which a session that is used holds longer, now and then.
        renewed: Option<Box<HeaderValue>>,
    },
    /// Nobody we know. If there was a token, why it was refused.
    Nobody(Option<TokenError>),
}

impl Identity {
    pub(crate) fn principal(&self) -> Option<&Arc<Principal>> {
        match self {
            Self::Principal { principal, .. } => Some(principal),
            Self::Nobody(_) => None,
        }
    }

    /// The principal, where one is needed.
    pub(crate) fn known(&self) -> Result<&Arc<Principal>, Rejection> {
        match self {
            Self::Principal { principal, .. } => Ok(principal),
            Self::Nobody(None) => Err(Rejection::NoToken),
            Self::Nobody(Some(refused)) => Err(refused.clone().into()),
        }
    }

    pub(crate) fn is_by_cookie(&self) -> bool {
        matches!(
            self,
            Self::Principal {
                by_cookie: true,
                ..
            }
        )
    }

    /// Whose limits count.
    pub(crate) fn asker(&self, network: Network) -> Asker<'_> {
        match self.principal() {
            // A visitor has a new name with each session.
            Some(principal) if principal.share.is_none() => Asker::Principal(&principal.name),
            _ => Asker::Anonymous(network),
        }
    }
}

impl Gateway {
    /// Who asks, or the answer to a ticket. `leave`: whether the app tells who asks, and what it is sent is none of ours.
    pub(crate) async fn identify(
        self: &Arc<Self>,
        request: &mut Parts,
        head: &Head,
        peer: &Peer,
        network: Network,
        leave: bool,
        now: SystemTime,
    ) -> Result<ControlFlow<Response<Body>, Identity>, Rejection> {
        let authentication = match leave {
            true => Authenticator::leave_to_app(request),
            false => {
                let last = &peer.last_token;
                self.auth
                    .authenticate(request, &head.host, head.navigation, now, last)
                    .await
            }
        };
        let identity = match authentication {
            Authentication::Principal {
                principal,
                by_cookie,
                renewed,
            } => Identity::Principal {
                principal,
                by_cookie,
                renewed,
            },
            Authentication::Anonymous => Identity::Nobody(None),
            Authentication::Refused(error) => {
                self.limits.may_log_in(network)?;
                // What was good once was not guessed: a page left open must not lock out everybody behind its address.
                if !error.was_good() {
                    self.limits.failed_login(network);
                }
                Identity::Nobody(Some(error))
            }
            Authentication::Ticket(ticket) => {
                self.limits.may_log_in(network)?;
                let exchanged = Box::pin(self.exchange(ticket, head, network, now)).await?;
                return Ok(ControlFlow::Break(exchanged));
            }
        };
        Ok(ControlFlow::Continue(identity))
    }
}
