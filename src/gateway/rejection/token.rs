//! From a refused token to a rejection.

use super::Rejection;
use crate::gateway::auth::TokenError;

impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired { .. } => Self::ExpiredToken,
            TokenError::TicketUsed => Self::TicketUsed,
            other => Self::InvalidToken(other.to_string()),
        }
    }
}
