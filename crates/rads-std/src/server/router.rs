//! Which handler answers a path: patterns in, one match with its parameters out. Knows nothing of HTTP beyond the
//! method's name, and nothing of what a target is.
//!
//! A pattern must match the whole path. `:name` stands for one segment, `*` (or `*name`) at the end for all the rest.
//! A literal path wins over a pattern; among patterns the one registered first wins, as people expect from Express.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::web::urlencoded::decode_path;

/// Parameters in the order in which the pattern names them, percent-decoded.
pub(crate) type Params = Vec<(String, String)>;

#[derive(Debug, PartialEq)]
pub(crate) enum Match<T> {
    Found {
        target: T,
        params: Params,
    },
    /// The path exists, the method does not; what an `Allow` header must say (RFC 9110, 15.5.6).
    WrongMethod {
        allow: String,
    },
    Nothing,
}

pub(crate) struct Router<T> {
    literal: HashMap<String, Methods<T>>,
    patterns: Vec<(Vec<Segment>, Methods<T>)>,
}

/// Targets by method; the empty name stands for every method.
type Methods<T> = BTreeMap<String, T>;

#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    One(String),
    Rest(String),
}

impl<T: Copy> Router<T> {
    pub(crate) fn new() -> Router<T> {
        Router { literal: HashMap::new(), patterns: Vec::new() }
    }

    /// Registers `target`; the same pattern and method again replaces the earlier target. No method means all.
    pub(crate) fn add(&mut self, pattern: &str, method: Option<&str>, target: T) -> Result<(), String> {
        let segments = parse(pattern)?;
        let method = method.unwrap_or_default().to_ascii_uppercase();
        if segments.iter().all(|segment| matches!(segment, Segment::Literal(_))) {
            self.literal.entry(pattern.to_owned()).or_default().insert(method, target);
        } else if let Some((_, methods)) = self.patterns.iter_mut().find(|(known, _)| *known == segments) {
            methods.insert(method, target);
        } else {
            self.patterns.push((segments, Methods::from([(method, target)])));
        }
        Ok(())
    }

    /// Finds the target for a raw request path (still percent-encoded, without the query).
    pub(crate) fn find(&self, method: &str, path: &str) -> Match<T> {
        let mut refused: Vec<&Methods<T>> = Vec::new();
        if let Some(methods) = self.literal.get(path) {
            match pick(methods, method) {
                Some(target) => return Match::Found { target, params: Params::new() },
                None => refused.push(methods),
            }
        }
        for (segments, methods) in &self.patterns {
            let Some(params) = match_segments(segments, path) else { continue };
            match pick(methods, method) {
                Some(target) => return Match::Found { target, params },
                None => refused.push(methods),
            }
        }
        if refused.is_empty() { Match::Nothing } else { Match::WrongMethod { allow: allow_list(&refused) } }
    }
}

fn parse(pattern: &str) -> Result<Vec<Segment>, String> {
    let Some(rest) = pattern.strip_prefix('/') else {
        return Err(format!("route `{pattern}` must start with `/`"));
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let last = parts.len() - 1;
    parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            if let Some(name) = part.strip_prefix(':') {
                if name.is_empty() {
                    return Err(format!("route `{pattern}` has a `:` without a name"));
                }
                Ok(Segment::One(name.to_owned()))
            } else if let Some(name) = part.strip_prefix('*') {
                if index != last {
                    return Err(format!("route `{pattern}` has a `*` that is not its last segment"));
                }
                Ok(Segment::Rest(if name.is_empty() { "*" } else { name }.to_owned()))
            } else {
                Ok(Segment::Literal((*part).to_owned()))
            }
        })
        .collect()
}

fn match_segments(segments: &[Segment], path: &str) -> Option<Params> {
    let mut rest = path.strip_prefix('/')?;
    let mut params = Params::new();
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().enumerate() {
        if let Segment::Rest(name) = segment {
            params.push((name.clone(), decode_path(rest)));
            return Some(params);
        }
        let (part, after) = match rest.split_once('/') {
            Some((part, after)) => (part, Some(after)),
            None => (rest, None),
        };
        match segment {
            Segment::Literal(literal) if literal == part => {}
            // An empty segment is no value: `/users/` is not a user.
            Segment::One(name) if !part.is_empty() => params.push((name.clone(), decode_path(part))),
            _ => return None,
        }
        match after {
            Some(after) if index != last => rest = after,
            None if index == last => {}
            _ => return None,
        }
    }
    Some(params)
}

/// HEAD is answered by GET's handler; the server leaves the body out.
fn pick<T: Copy>(methods: &Methods<T>, method: &str) -> Option<T> {
    let named = methods.get(method).or_else(|| if method == "HEAD" { methods.get("GET") } else { None });
    named.or_else(|| methods.get("")).copied()
}

fn allow_list<T>(refused: &[&Methods<T>]) -> String {
    let mut names: Vec<&str> = refused.iter().flat_map(|methods| methods.keys().map(String::as_str)).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[(&str, &str)]) -> Router<usize> {
        let mut router = Router::new();
        for (index, (method, pattern)) in routes.iter().enumerate() {
            let method = if method.is_empty() { None } else { Some(*method) };
            router.add(pattern, method, index).expect("a good pattern");
        }
        router
    }

    fn check(routes: &[(&str, &str)], method: &str, path: &str, expected: Option<(usize, &[(&str, &str)])>) {
        let found = match router(routes).find(method, path) {
            Match::Found { target, params } => Some((target, params)),
            _ => None,
        };
        let expected = expected.map(|(target, params)| {
            (target, params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
        });
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn a_pattern_matches_the_whole_path_only() {
        let routes = [("GET", "/"), ("GET", "/users"), ("GET", "/users/:id"), ("GET", "/users/:id/posts/:post")];
        check(&routes, "GET", "/", Some((0, &[])));
        check(&routes, "GET", "/users", Some((1, &[])));
        check(&routes, "GET", "/users/", None);
        check(&routes, "GET", "/users/7", Some((2, &[("id", "7")])));
        check(&routes, "GET", "/users/7/", None);
        check(&routes, "GET", "/users/7/posts/9", Some((3, &[("id", "7"), ("post", "9")])));
        check(&routes, "GET", "/users/7/posts", None);
        check(&routes, "GET", "/usersx", None);
        check(&routes, "GET", "", None);
    }

    #[test]
    fn literal_paths_win_over_patterns_and_earlier_patterns_over_later_ones() {
        let routes = [("", "/users/:id"), ("", "/users/new"), ("", "/:a/:b")];
        check(&routes, "GET", "/users/new", Some((1, &[])));
        check(&routes, "GET", "/users/x", Some((0, &[("id", "x")])));
        check(&routes, "GET", "/other/x", Some((2, &[("a", "other"), ("b", "x")])));
    }

    #[test]
    fn a_star_takes_the_rest() {
        let routes = [("", "/files/*"), ("", "/docs/*page")];
        check(&routes, "GET", "/files/a/b%20c", Some((0, &[("*", "a/b c")])));
        check(&routes, "GET", "/files/", Some((0, &[("*", "")])));
        check(&routes, "GET", "/files", None);
        check(&routes, "GET", "/docs/x", Some((1, &[("page", "x")])));
    }

    #[test]
    fn parameters_are_decoded_after_splitting() {
        check(&[("", "/f/:name")], "GET", "/f/a%2Fb%C3%A9", Some((0, &[("name", "a/bé")])));
        check(&[("", "/f/:name")], "GET", "/f/50%", Some((0, &[("name", "50%")])));
        check(&[("", "/f/:name")], "GET", "/f/a+b", Some((0, &[("name", "a+b")])));
    }

    #[test]
    fn methods_select_and_head_falls_back_to_get() {
        let routes = [("GET", "/a"), ("POST", "/a"), ("", "/any"), ("get", "/low")];
        check(&routes, "POST", "/a", Some((1, &[])));
        check(&routes, "HEAD", "/a", Some((0, &[])));
        check(&routes, "DELETE", "/any", Some((2, &[])));
        check(&routes, "GET", "/low", Some((3, &[])));
        let refused = router(&routes).find("PUT", "/a");
        assert_eq!(refused, Match::WrongMethod { allow: "GET, HEAD, POST".to_owned() });
        assert_eq!(router(&routes).find("PUT", "/b"), Match::Nothing);
    }

    #[test]
    fn a_later_pattern_may_have_the_method_an_earlier_one_lacks() {
        let routes = [("GET", "/a/b"), ("POST", "/a/:x")];
        check(&routes, "POST", "/a/b", Some((1, &[("x", "b")])));
    }

    #[test]
    fn faulty_patterns_are_refused() {
        let mut router: Router<u8> = Router::new();
        for (pattern, expected) in [
            ("users", "route `users` must start with `/`"),
            ("/a/:", "route `/a/:` has a `:` without a name"),
            ("/*/b", "route `/*/b` has a `*` that is not its last segment"),
        ] {
            assert_eq!(router.add(pattern, None, 0), Err(expected.to_owned()));
        }
    }
}
