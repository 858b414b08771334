//! Bundles: the manifest tells which files are missing; they are sent, and the manifest again.

use axum::Json;
use axum::body::{Body as RawBody, to_bytes};
use axum::extract::Request;
use model::bundle::{BUNDLE_FILES_MAX, is_bundle_path};
use model::{BundleManifest, Code, ContentHash, Problem};

use super::Asked;
use crate::refusal::{Body, Path, Refusal, Reply};
use crate::types::{BLOB_MAX_BYTES, BundleStatus};

/// Store a bundle
///
/// Nothing is stored while `missing` names a file: send those, then this again.
#[utoipa::path(post, path = "/v1/bundles", tag = "bundles", request_body = BundleManifest, responses(
    (status = 200, body = BundleStatus), (status = "default", body = Problem)))]
pub(super) async fn put(Asked(control): Asked, Body(manifest): Body<BundleManifest>) -> Reply<BundleStatus> {
    check(&manifest)?;
    Ok(Json(control.put_bundle(manifest).await?))
}

/// Send one file of a bundle
#[utoipa::path(put, path = "/v1/blobs/{hash}", tag = "bundles", params(("hash" = ContentHash, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200), (status = "default", body = Problem)))]
pub(super) async fn blob(Asked(control): Asked, Path(hash): Path<ContentHash>, request: Request) -> Reply<()> {
    let body: RawBody = request.into_body();
    let content = to_bytes(body, BLOB_MAX_BYTES).await.map_err(|error| {
        let message = format!("the file was not read to its end: {error}");
        Refusal(Problem::new(Code::InvalidValue, message).help(format!("a file has at most {BLOB_MAX_BYTES} bytes")))
    })?;
    Ok(Json(control.put_blob(hash, content).await?))
}

/// Whether a manifest may be unpacked below a folder at all.
fn check(manifest: &BundleManifest) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal(Problem::new(Code::InvalidValue, message)));
    if manifest.files.len() > BUNDLE_FILES_MAX {
        return invalid(format!("the bundle has {} files, at most {BUNDLE_FILES_MAX} fit", manifest.files.len()));
    }
    if let Some(path) = manifest.files.keys().find(|path| !is_bundle_path(path)) {
        return invalid(format!("`{path}` is not a path within a bundle"));
    }
    if let Some((path, file)) = manifest.files.iter().find(|(_, file)| file.size > BLOB_MAX_BYTES as u64) {
        return invalid(format!("`{path}` has {} bytes, at most {BLOB_MAX_BYTES} fit; use a volume", file.size));
    }
    Ok(())
}
