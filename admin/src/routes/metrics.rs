// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The statistics for Prometheus, at the socket, and on an address of this machine for a Prometheus
//! that knows no sockets.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use zcache_report::Report;

use super::Shared;
use crate::api::problem::Problem;
use crate::openapi;

/// Where they are asked for.
pub(super) const PATH: &str = "/metrics";

/// All metrics, as `docs/metrics.md` describes them.
///
/// # Errors
///
/// That the daemon does not answer.
#[utoipa::path(get, path = "/metrics", tag = "look", responses(
    (status = 200, description = "Metrics in the OpenMetrics text format", body = String,
        content_type = "application/openmetrics-text"),
    openapi::Unreachable))]
pub async fn metrics(State(daemon): State<Shared>) -> Result<Response, Problem> {
    let report: Report = serde_json::from_value(daemon.stats().await?).map_err(|error| {
        let text = format_args!("what the daemon says is no document of this release: {error}");
        Problem::new(StatusCode::BAD_GATEWAY, text)
    })?;
    let mut response = zcache_metrics::render(&report).into_response();
    let kind = HeaderValue::from_static(zcache_metrics::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Metrics and nothing else: whoever is on this machine may ask for them.
pub fn only(daemon: Shared) -> Router {
    Router::new()
        .route(PATH, get(metrics))
        .fallback(super::nothing)
        .method_not_allowed_fallback(super::not_so)
        .with_state(daemon)
}
