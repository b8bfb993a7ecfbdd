// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done for each request.

pub mod change;
pub mod guests;
pub mod look;
pub mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use serde::Serialize;
use vhost_zcache::admin::wish::Wish;

use crate::api::Done;
use crate::api::problem::Problem;
use crate::daemon::{Daemon, DaemonError};

/// What all requests have in common.
pub type Shared = Arc<Daemon>;

/// All there is.
pub fn all(daemon: Shared) -> Router {
    let guest = get(look::guest).put(guests::put).patch(guests::patch).delete(guests::remove);
    Router::new()
        .route("/v1/health", get(look::health))
        .route("/v1/stats", get(look::stats))
        .route("/v1/store", get(look::store))
        .route("/v1/guests", get(look::guests))
        .route("/v1/guests/{name}", guest)
        .route("/v1/guests/{name}/pools", get(look::pools))
        .route("/v1/guests/{name}/freeze", post(guests::freeze))
        .route("/v1/guests/{name}/thaw", post(guests::thaw))
        .route("/v1/guests/{name}/flush", post(guests::flush))
        .route("/v1/settings", patch(change::settings))
        .route("/v1/give-back", post(change::give_back))
        .route("/v1/reload", post(change::reload))
        .route("/v1/upgrade", post(change::upgrade))
        .route("/v1/openapi.json", get(look::openapi))
        .route(metrics::PATH, get(metrics::metrics))
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .with_state(daemon)
}

async fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path; /v1/openapi.json says what there is")
}

async fn not_so() -> Problem {
    let text = "this cannot be done at this path; the header Allow says what can, and /v1/openapi.json how";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// A response of JSON.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    let body = serde_json::to_vec(content).unwrap_or_default();
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Has the daemon do something, and says what has come of it.
async fn have_done(daemon: &Daemon, wish: &Wish, status: StatusCode) -> Result<Response, Problem> {
    let message = daemon.ask(wish).await?;
    Ok(json(status, &Done { message }))
}

impl From<DaemonError> for Problem {
    fn from(error: DaemonError) -> Self {
        let status = match &error {
            DaemonError::Absent(..) | DaemonError::Ended(_) => StatusCode::SERVICE_UNAVAILABLE,
            DaemonError::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            DaemonError::Nonsense(_) => StatusCode::BAD_GATEWAY,
            DaemonError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            DaemonError::Refused(_) => StatusCode::CONFLICT,
        };
        Self::new(status, error)
    }
}
