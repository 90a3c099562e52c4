//! A request that one of the steps ended: what is known of it by then, and its answer.
//!
//! The one place of the path where a rejection becomes an answer. Not here: texts and forms (`rejection`), what is logged (`account`).

use http::{Response, request::Parts};

use super::{
    Gateway, Rejection,
    account::Account,
    chp,
    forward::Body,
    http::{Head, form},
    page::Page,
    rejection::{Form, answer_as, answer_with},
};

/// A rejection; once the head was understood, with the form of its answer and where a login may help.
pub(crate) struct Ended {
    rejection: Rejection,
    form: Option<Form>,
    login: Option<Box<str>>,
    /// Whether it was at the host of configurable-http-proxy's routes.
    of_chp: bool,
    /// Its page, where that says more than any of its kind.
    page: Option<Box<Page>>,
}

impl From<Rejection> for Ended {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            form: None,
            login: None,
            of_chp: false,
            page: None,
        }
    }
}

impl Ended {
    /// Of a request whose head was understood.
    pub(crate) fn at(gateway: &Gateway, head: &Head, rejection: Rejection) -> Self {
        Self {
            form: Some(head.form),
            login: gateway.login_hint(&rejection, head),
            of_chp: gateway.is_chps(head),
            rejection,
            page: None,
        }
    }

    pub(crate) fn with(self, page: Option<Page>) -> Self {
        Self {
            page: page.map(Box::new),
            ..self
        }
    }

    /// The answer. It closes the account, unless that went away with the request.
    pub(crate) async fn answer(
        self,
        gateway: &Gateway,
        request: &Parts,
        account: Option<Account>,
    ) -> Response<Body> {
        let rejection = &self.rejection;
        let form = self.form.unwrap_or_else(|| form(request));
        let chp = gateway.chp.as_ref().filter(|_| self.of_chp);
        let status = match chp {
            Some(_) => chp::status(rejection),
            None => rejection.status(),
        };
        let told = match chp {
            Some(chp) if form == Form::Page => {
                let path = account.as_ref().map_or("", Account::path);
                Box::pin(chp.page(rejection, path)).await
            }
            _ => None,
        };
        let id = account.as_ref().map_or("", Account::id);
        let response = match (told, self.page) {
            (Some(told), _) => told,
            (None, Some(page)) => answer_with(*page, rejection, status, id),
            (None, None) => answer_as(rejection, status, form, id, self.login.as_deref()),
        };
        if let Some(mut account) = account {
            account.sent_own(response.body());
            account.reject_as(rejection, status);
        }
        response
    }
}
