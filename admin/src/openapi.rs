// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The OpenAPI document, made of the types and routes. `admin/openapi.json` is a copy for those who
//! make clients of it; a test compares.

use utoipa::openapi::PathItem;
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema};

use crate::api::problem::Problem;
use crate::routes::{change, guests, look, metrics};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vhost-zcache",
        description = "Shows and changes what a vhost-zcache daemon does. Errors are problems (RFC 9457) whose \
                       `detail` says what to do. docs/admin.md says who may ask, docs/stats.md what figures mean, and \
                       docs/configuration.md what settings do."
    ),
    servers((url = "http://localhost", description = "Whatever the name: it is a Unix socket")),
    tags(
        (name = "look", description = "What there is"),
        (name = "guests", description = "Guests come, go and become others"),
        (name = "daemon", description = "What is asked of the daemon as a whole")
    ),
    components(schemas(Problem)),
    paths(
        look::health, look::stats, look::store, look::guests, look::guest, look::pools, look::openapi,
        metrics::metrics,
        guests::put, guests::patch, guests::remove, guests::freeze, guests::thaw, guests::flush,
        change::settings, change::give_back, change::reload, change::upgrade
    )
)]
struct Document;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    for path in document.paths.paths.values_mut() {
        let PathItem { get, put, post, patch, delete, .. } = path;
        for operation in [get, put, post, patch, delete].into_iter().flatten() {
            // What follows is for who reads the code: responses say the same.
            let text = operation.description.take().unwrap_or_default();
            let text = text.split("# Errors").next().unwrap_or_default().trim();
            operation.description = Some(text.to_owned()).filter(|text| !text.is_empty());
        }
    }
    document
}

/// Something with fields of its own.
#[derive(ToSchema)]
#[schema(value_type = Object)]
#[allow(dead_code, reason = "it is only described")]
pub struct AnyObject(serde_json::Value);

/// The guest that is meant.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it is only described")]
pub struct Name {
    /// The guest's name, as GET /v1/guests has it; `/` is written as %2F.
    name: String,
}

/// The guest that is meant, or comes.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it is only described")]
pub struct NewName {
    /// The guest's name.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    name: String,
}

/// Nothing may be there yet.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it is only described")]
pub struct IfNoneMatch {
    /// If it is `*`, a guest that is there stays as it is, and the answer is 409.
    #[param(rename = "If-None-Match", value_type = String, required = false)]
    if_none_match: Option<String>,
}

/// The daemon is not there, or does not do what it should.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it is only described")]
pub enum Unreachable {
    /// The request is not understood.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// What the daemon says makes no sense.
    #[response(status = 502, content_type = "application/problem+json")]
    Nonsense(Problem),
    /// There is no daemon; Retry-After says when to ask again.
    #[response(status = 503, content_type = "application/problem+json")]
    Absent(Problem),
    /// The daemon has not answered in time.
    #[response(status = 504, content_type = "application/problem+json")]
    Late(Problem),
}

/// No such guest.
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json", description = "There is no such guest")]
#[allow(dead_code, reason = "it is only described")]
pub struct NoGuest(Problem);

/// The daemon goes on as it did.
#[derive(IntoResponses)]
#[response(
    status = 409,
    content_type = "application/problem+json",
    description = "Refused: the daemon goes on as it did"
)]
#[allow(dead_code, reason = "it is only described")]
pub struct Refused(Problem);

/// What is said cannot be meant.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it is only described")]
pub enum WrongBody {
    /// The body has not come in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Slow(Problem),
    /// The body is too long.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLong(Problem),
    /// The body is not said to be JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
    /// The body is of JSON, and not what is expected.
    #[response(status = 422, content_type = "application/problem+json")]
    Unexpected(Problem),
}
