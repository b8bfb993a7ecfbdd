// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is read of a request. Whatever is wrong with it is a [`Problem`].

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{self, DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use tokio::time::timeout;

use crate::api::problem::Problem;

/// Bytes of a body at most.
pub const LONGEST_BODY: usize = 32 << 10;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Media types of bodies: JSON, and what a change of a resource is called (RFC 7396).
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/merge-patch+json"];

/// A body of JSON.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let text = "the body has to be of JSON, with the header Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let body = Limited::new(request.into_body(), LONGEST_BODY).collect();
        let body = timeout(PATIENCE, body).await;
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body has not come in time");
        let body: Bytes = body.map_err(late)?.map_err(|error| unread(&*error))?.to_bytes();
        let read = if body.trim_ascii_start().starts_with(b"{") {
            serde_json::from_slice(&body)
        } else {
            // A list would be read as the fields in their order.
            let is_none = || de::Error::custom("the body has to be an object");
            serde_json::from_slice::<IgnoredAny>(&body).and_then(|_| Err(is_none()))
        };
        read.map(Self).map_err(|error| match error.classify() {
            Category::Data => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error),
            _ => Problem::new(StatusCode::BAD_REQUEST, format_args!("the body is no JSON: {error}")),
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    MEDIA_TYPES.iter().any(|known| kind.eq_ignore_ascii_case(known))
}

fn unread(error: &(dyn std::error::Error + 'static)) -> Problem {
    if error.is::<LengthLimitError>() {
        let text = format_args!("a body has at most {LONGEST_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    } else {
        Problem::new(StatusCode::BAD_REQUEST, "the body cannot be read to its end")
    }
}

/// The guest that the path names.
#[derive(Debug)]
pub struct GuestName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for GuestName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let wrong = |_| Problem::new(StatusCode::BAD_REQUEST, "the guest's name in the path is not UTF-8");
        name.map(|Path(name)| Self(name)).map_err(wrong)
    }
}

/// Whether nothing may be there yet (`If-None-Match: *`).
#[derive(Debug)]
pub struct OnlyNew(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for OnlyNew {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Nothing has a tag here, so anything else matches nothing.
        Ok(Self(parts.headers.get(header::IF_NONE_MATCH).is_some_and(|value| value == "*")))
    }
}

/// Parameters behind the path.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0)).map_err(|error| parameter(&error.body_text(), &parts.uri))
    }
}

fn parameter(why: &str, uri: &Uri) -> Problem {
    let why = why.trim_start_matches("Failed to deserialize query string: ");
    let text = format_args!("what is behind the ? in {:?} is not understood: {why}", uri.path());
    Problem::new(StatusCode::BAD_REQUEST, text)
}
