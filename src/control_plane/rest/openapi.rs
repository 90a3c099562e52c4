//! The description of the user's API (OpenAPI 3.1), made from the handlers and kept in `docs/openapi.json`.
//!
//! Delegates and gateways speak the types of `api::task` and `api::feed`, which are no public API. Waking is: any program that fronts
//! gitspaces may ask for it, with a gateway's token.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::{gitspaces, revocations, wake};

#[derive(OpenApi)]
#[openapi(
    info(title = "cde-gateway control plane", description = "Gitspaces: create, start, stop, delete, open; revocations. Errors are application/problem+json with a stable `reason`."),
    paths(
        gitspaces::create, gitspaces::list, gitspaces::show, gitspaces::delete, gitspaces::start, gitspaces::stop,
        gitspaces::ticket, gitspaces::events, revocations::revoke, revocations::list, wake::wake, wake::cancel
    ),
    modifiers(&Bearer)
)]
struct Description;

/// Every path takes the user's bearer token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        api.security = Some(vec![SecurityRequirement::new(
            "bearer",
            Vec::<String>::new(),
        )]);
    }
}

/// The description.
pub fn description() -> openapi::OpenApi {
    Description::openapi()
}

pub(super) async fn show() -> Json<openapi::OpenApi> {
    Json(description())
}
