//! What is refused and how: a [`Problem`] becomes a status code and a JSON body, and a request that cannot be read
//! becomes a [`Problem`].

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use model::{Code, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A problem as an HTTP answer.
pub(crate) struct Refusal(pub(crate) Problem);

/// What every route returns.
pub(crate) type Reply<T> = Result<Json<T>, Refusal>;

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(self.0)).into_response()
    }
}

/// The nearest HTTP status, for clients that know no codes of ours.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Usage
        | Code::FileUnreadable
        | Code::FileUnwritable
        | Code::ScriptFaulty
        | Code::UnknownOption
        | Code::InvalidValue
        | Code::LimitTooLow
        | Code::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict
        | Code::AlreadyExists
        | Code::NoCapacity
        | Code::BundleMissing
        | Code::SecretMissing
        | Code::QuotaExceeded
        | Code::AgentRunning
        | Code::NodeTwice
        | Code::PortInUse => StatusCode::CONFLICT,
        Code::Compacted | Code::Ahead => StatusCode::GONE,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NoAgent | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::DataUnwritable
        | Code::DataCorrupt
        | Code::StartFailed
        | Code::CrashLoop
        | Code::RolledBack
        | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A JSON body in which every field is known. A field that would be ignored is a typing slip whose effect the
/// sender believes in, so it is refused.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Serialize> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let invalid = |message: String| Refusal(Problem::new(Code::InvalidValue, message));
        let Json(given) = Json::<Value>::from_request(request, state).await.map_err(|rejection| match rejection {
            JsonRejection::MissingJsonContentType(_) => invalid("the body is not `application/json`".to_owned()),
            other => invalid(format!("the body cannot be read: {}", other.body_text())),
        })?;
        let typed: T = serde_json::from_value(given.clone()).map_err(|error| invalid(format!("the body: {error}")))?;
        let understood = serde_json::to_value(&typed).map_err(|error| invalid(error.to_string()))?;
        match unknown_field(&given, &understood, "") {
            None => Ok(Self(typed)),
            Some(path) => Err(Refusal(
                Problem::new(Code::UnknownOption, format!("the body has an unknown field `{path}`"))
                    .help("the known ones are in `/v1/openapi.json`"),
            )),
        }
    }
}

/// A path parameter, checked by its type.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection: PathRejection| {
                Refusal(Problem::new(Code::InvalidValue, reason(&rejection.body_text())))
            })
    }
}

/// Query parameters; their structs refuse unknown ones.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| {
                Refusal(Problem::new(Code::InvalidValue, reason(&rejection.body_text())))
            })
    }
}

/// The part of a rejection's text that names the fault, without the frame the library puts around it.
fn reason(text: &str) -> String {
    let text = text.strip_prefix("Invalid URL: ").unwrap_or(text);
    text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text).to_owned()
}

/// The path of the first field that was given but did not survive being read as the type.
fn unknown_field(given: &Value, understood: &Value, at: &str) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(name, value)| {
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            match understood.get(name) {
                Some(known) => unknown_field(value, known, &path),
                // A known field that is left out when empty may be given as null.
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(understood)) => given
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(index, (given, understood))| unknown_field(given, understood, &format!("{at}[{index}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_would_be_ignored_is_found_wherever_it_is() {
        let understood = json!({"a": 1, "b": {"c": [{"d": 2}]}});
        let check = |given: Value, expected: Option<&str>| {
            assert_eq!(unknown_field(&given, &understood, "").as_deref(), expected, "{given}");
        };
        check(json!({"a": 1}), None);
        check(json!({"a": 1, "z": null}), None);
        check(json!({"z": 1}), Some("z"));
        check(json!({"b": {"c": [{"d": 2, "e": 3}]}}), Some("b.c[0].e"));
    }

    #[test]
    fn every_code_has_an_error_status() {
        for &code in Code::ALL {
            let status = status(code);
            assert!(status.is_client_error() || status.is_server_error(), "{code}: {status}");
        }
    }
}
