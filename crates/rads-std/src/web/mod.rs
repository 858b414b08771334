//! The text formats of the web as pure functions: forms, cookies, HTML escaping, base64, dates, media types, ranges.

pub(crate) mod base64;
pub(crate) mod cookie;
pub(crate) mod date;
pub(crate) mod html;
pub(crate) mod media_type;
pub(crate) mod range;
pub(crate) mod urlencoded;
