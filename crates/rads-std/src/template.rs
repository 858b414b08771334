//! Templates: text with `{{ … }}` in it, rendered from values seen through [`Data`]. Pure; where the text comes from and
//! what a value is are the caller's business.
//!
//! - `{{ a.b.0 }}` prints a value with HTML escaped, `{{{ a }}}` as it is; what does not exist prints nothing.
//! - `{{#if a}} … {{else}} … {{/if}}`, `{{#unless a}} … {{/unless}}`.
//! - `{{#each list}} … {{else}} … {{/each}}`: inside, the item's members are names of their own and win over outer
//!   names; `this` is the item, `@index` counts from 0, `@key` is the name when an object is walked.
//! - `{{! a comment }}`. A block's tag alone on its line leaves no empty line behind.

use crate::web::html::escape_into;

/// How a template sees values. The receiver is the place values live in.
pub(crate) trait Data {
    type Value: Copy;

    /// A member of an object or an element of an array; `None` when there is none.
    fn member(&mut self, of: Self::Value, name: &str) -> Option<Self::Value>;
    /// What `#each` walks: keys (for objects) and values. Not walkable is empty.
    fn items(&mut self, of: Self::Value) -> Vec<(Option<String>, Self::Value)>;
    /// An empty array counts as nothing here, unlike in the language: a page asks whether there is something to show.
    fn shows(&mut self, value: Self::Value) -> bool;
    fn text(&mut self, value: Self::Value) -> String;
}

#[derive(Debug, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Print { path: Path, raw: bool },
    If { path: Path, negated: bool, then: Vec<Part>, otherwise: Vec<Part> },
    Each { path: Path, body: Vec<Part>, otherwise: Vec<Part> },
}

/// `a.b.0` in pieces; never empty.
type Path = Vec<String>;

/// Blocks inside blocks; people nest three or four deep, and rendering recurses once per level.
const MAX_DEPTH: usize = 64;

/// A rendered page beyond this is a mistake in the data; it must not exhaust the star.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

impl Template {
    /// Fails with a message that names the line.
    pub(crate) fn parse(source: &str) -> Result<Template, String> {
        Parser { source, at: 0, open: Vec::new(), parts: Vec::new(), line: 1, counted: 0 }
            .run()
            .map(|parts| Template { parts })
    }

    /// `root` holds the outermost names.
    pub(crate) fn render<D: Data>(&self, data: &mut D, root: D::Value) -> Result<String, String> {
        let mut render =
            Render { data, scopes: vec![Scope { value: root, index: None, key: None }], out: String::new() };
        render.parts(&self.parts)?;
        Ok(render.out)
    }
}

struct Parser<'a> {
    source: &'a str,
    at: usize,
    open: Vec<Open>,
    parts: Vec<Part>,
    line: usize,
    counted: usize,
}

/// A block whose end has not come: what it is, and what was collected outside of it.
struct Open {
    kind: &'static str,
    path: Path,
    line: usize,
    outside: Vec<Part>,
    /// The part before `{{else}}`, once that was seen.
    then: Option<Vec<Part>>,
}

impl Parser<'_> {
    fn run(mut self) -> Result<Vec<Part>, String> {
        while let Some(start) = self.source[self.at..].find("{{").map(|offset| self.at + offset) {
            let raw = self.source[start..].starts_with("{{{");
            let (open, close) = if raw { (3, "}}}") } else { (2, "}}") };
            let Some(length) = self.source[start + open..].find(close) else {
                return Err(format!("line {}: `{{{{` is never closed", self.line(start)));
            };
            let tag = self.source[start + open..start + open + length].trim();
            let end = start + open + length + close.len();
            let is_block = !raw && (tag.starts_with(['#', '/', '!']) || tag == "else");
            let (before, after) = if is_block { self.own_line(start, end) } else { (start, end) };
            if before > self.at {
                self.parts.push(Part::Text(self.source[self.at..before].to_owned()));
            }
            self.tag(tag, raw, start)?;
            self.at = after;
        }
        if let Some(open) = self.open.last() {
            return Err(format!("line {}: `{{{{#{}}}}}` is never closed", open.line, open.kind));
        }
        if self.at < self.source.len() {
            self.parts.push(Part::Text(self.source[self.at..].to_owned()));
        }
        Ok(self.parts)
    }

    /// Widens a tag that stands alone to its whole line, the newline included.
    fn own_line(&self, start: usize, end: usize) -> (usize, usize) {
        let before = self.source[self.at..start].trim_end_matches([' ', '\t']);
        let opens_line = before.ends_with('\n') || (before.is_empty() && self.source[..self.at].ends_with('\n'));
        let opens_line = opens_line || (before.is_empty() && self.at == 0);
        let after = self.source[end..].trim_start_matches([' ', '\t', '\r']);
        let rest = after.strip_prefix('\n').or(if after.is_empty() { Some(after) } else { None });
        match rest {
            Some(rest) if opens_line => (self.at + before.len(), self.source.len() - rest.len()),
            _ => (start, end),
        }
    }

    fn tag(&mut self, tag: &str, raw: bool, start: usize) -> Result<(), String> {
        let line = self.line(start);
        if raw {
            self.parts.push(Part::Print { path: path(tag, line)?, raw });
        } else if tag.starts_with('!') {
            // A comment.
        } else if let Some(block) = tag.strip_prefix('#') {
            self.open_block(block, line)?;
        } else if let Some(kind) = tag.strip_prefix('/') {
            self.close_block(kind.trim(), line)?;
        } else if tag == "else" {
            let parts = std::mem::take(&mut self.parts);
            match self.open.last_mut() {
                Some(open) if open.then.is_none() => open.then = Some(parts),
                _ => return Err(format!("line {line}: `{{{{else}}}}` without a block")),
            }
        } else {
            self.parts.push(Part::Print { path: path(tag, line)?, raw });
        }
        Ok(())
    }

    fn open_block(&mut self, block: &str, line: usize) -> Result<(), String> {
        let (kind, subject) = block.split_once(char::is_whitespace).unwrap_or((block, ""));
        let Some(kind) = ["if", "unless", "each"].into_iter().find(|known| *known == kind) else {
            return Err(format!("line {line}: unknown block `#{kind}` (there are #if, #unless and #each)"));
        };
        if self.open.len() == MAX_DEPTH {
            return Err(format!("line {line}: blocks are nested more than {MAX_DEPTH} deep"));
        }
        let outside = std::mem::take(&mut self.parts);
        self.open.push(Open { kind, path: path(subject.trim(), line)?, line, outside, then: None });
        Ok(())
    }

    fn close_block(&mut self, kind: &str, line: usize) -> Result<(), String> {
        let Some(open) = self.open.pop() else {
            return Err(format!("line {line}: `{{{{/{kind}}}}}` closes nothing"));
        };
        if open.kind != kind {
            return Err(format!(
                "line {line}: `{{{{/{kind}}}}}` found, `{{{{/{}}}}}` of line {} expected",
                open.kind, open.line
            ));
        }
        let inside = std::mem::replace(&mut self.parts, open.outside);
        let (first, otherwise) = match open.then {
            Some(then) => (then, inside),
            None => (inside, Vec::new()),
        };
        self.parts.push(match open.kind {
            "each" => Part::Each { path: open.path, body: first, otherwise },
            kind => Part::If { path: open.path, negated: kind == "unless", then: first, otherwise },
        });
        Ok(())
    }

    /// Counts on from the last question, so that asking for every tag costs one pass.
    fn line(&mut self, at: usize) -> usize {
        self.line += self.source[self.counted..at].matches('\n').count();
        self.counted = at;
        self.line
    }
}

fn path(text: &str, line: usize) -> Result<Path, String> {
    let well_formed =
        |piece: &str| !piece.is_empty() && piece.chars().all(|c| c.is_alphanumeric() || "_@-".contains(c));
    let pieces: Path = text.split('.').map(str::to_owned).collect();
    if pieces.iter().all(|piece| well_formed(piece)) {
        Ok(pieces)
    } else {
        Err(format!("line {line}: `{text}` is no name like `a.b`"))
    }
}

struct Render<'a, D: Data> {
    data: &'a mut D,
    scopes: Vec<Scope<D::Value>>,
    out: String,
}

struct Scope<V> {
    value: V,
    index: Option<usize>,
    key: Option<String>,
}

impl<D: Data> Render<'_, D> {
    fn parts(&mut self, parts: &[Part]) -> Result<(), String> {
        for part in parts {
            match part {
                Part::Text(text) => self.out.push_str(text),
                Part::Print { path, raw } => self.print(path, *raw),
                Part::If { path, negated, then, otherwise } => {
                    let shows = self.find(path).is_some_and(|value| self.data.shows(value));
                    self.parts(if shows != *negated { then } else { otherwise })?;
                }
                Part::Each { path, body, otherwise } => self.each(path, body, otherwise)?,
            }
            if self.out.len() > MAX_OUTPUT {
                return Err(format!("the page is larger than {} MiB", MAX_OUTPUT >> 20));
            }
        }
        Ok(())
    }

    fn each(&mut self, path: &Path, body: &[Part], otherwise: &[Part]) -> Result<(), String> {
        let items = self.find(path).map(|value| self.data.items(value)).unwrap_or_default();
        if items.is_empty() {
            return self.parts(otherwise);
        }
        for (index, (key, value)) in items.into_iter().enumerate() {
            self.scopes.push(Scope { value, index: Some(index), key });
            let done = self.parts(body);
            self.scopes.pop();
            done?;
        }
        Ok(())
    }

    fn print(&mut self, path: &Path, raw: bool) {
        let special = |name: &str| match name {
            "@index" => self.scopes.iter().rev().find_map(|scope| scope.index).map(|index| index.to_string()),
            "@key" => self.scopes.iter().rev().find_map(|scope| scope.key.clone()),
            _ => None,
        };
        let text = match special(&path[0]) {
            Some(text) => text,
            None => match self.find(path) {
                Some(value) => self.data.text(value),
                None => return,
            },
        };
        if raw {
            self.out.push_str(&text);
        } else {
            escape_into(&text, &mut self.out);
        }
    }

    fn find(&mut self, path: &Path) -> Option<D::Value> {
        let (first, rest) = path.split_first()?;
        let mut value = if first == "this" {
            self.scopes.last()?.value
        } else {
            let data = &mut *self.data;
            self.scopes.iter().rev().find_map(|scope| data.member(scope.value, first))?
        };
        for name in rest {
            value = self.data.member(value, name)?;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Json<'a> {
        Nothing,
        Text(&'a str),
        List(&'a [Json<'a>]),
        Object(&'a [(&'a str, Json<'a>)]),
    }

    struct Values<'a>(std::marker::PhantomData<&'a ()>);

    impl<'a> Data for Values<'a> {
        type Value = Json<'a>;

        fn member(&mut self, of: Json<'a>, name: &str) -> Option<Json<'a>> {
            match of {
                Json::Object(fields) => fields.iter().find(|(key, _)| *key == name).map(|(_, value)| *value),
                Json::List(items) => items.get(name.parse::<usize>().ok()?).copied(),
                _ => None,
            }
        }

        fn items(&mut self, of: Json<'a>) -> Vec<(Option<String>, Json<'a>)> {
            match of {
                Json::List(items) => items.iter().map(|item| (None, *item)).collect(),
                Json::Object(fields) => fields.iter().map(|(key, value)| (Some((*key).to_owned()), *value)).collect(),
                _ => Vec::new(),
            }
        }

        fn shows(&mut self, value: Json<'a>) -> bool {
            match value {
                Json::Nothing => false,
                Json::Text(text) => !text.is_empty(),
                Json::List(items) => !items.is_empty(),
                Json::Object(_) => true,
            }
        }

        fn text(&mut self, value: Json<'a>) -> String {
            if let Json::Text(text) = value { text.to_owned() } else { String::new() }
        }
    }

    fn render(source: &str) -> Result<String, String> {
        let root = Json::Object(&[
            ("name", Json::Text("<Ann & Bob>")),
            ("empty", Json::Text("")),
            ("nothing", Json::Nothing),
            ("none", Json::List(&[])),
            ("list", Json::List(&[Json::Text("a"), Json::Text("b")])),
            ("deep", Json::Object(&[("er", Json::Object(&[("est", Json::Text("found"))]))])),
            (
                "people",
                Json::List(&[
                    Json::Object(&[("name", Json::Text("Ann")), ("tags", Json::List(&[Json::Text("x")]))]),
                    Json::Object(&[("name", Json::Text("Bob")), ("tags", Json::List(&[]))]),
                ]),
            ),
        ]);
        Template::parse(source)?.render(&mut Values(std::marker::PhantomData), root)
    }

    fn check(source: &str, expected: &str) {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }

    #[test]
    fn values_are_escaped_unless_asked_raw() {
        check("Hi {{ name }}!", "Hi &lt;Ann &amp; Bob&gt;!");
        check("{{name}}", "&lt;Ann &amp; Bob&gt;");
        check("{{{ name }}}", "<Ann & Bob>");
        check("{{ deep.er.est }} {{ list.1 }}", "found b");
        check("[{{ missing }}{{ deep.missing.est }}{{ nothing }}]", "[]");
        check("{ {{! not shown }}}", "{ }");
        check("no tags, } {", "no tags, } {");
    }

    #[test]
    fn conditions_choose() {
        check("{{#if name}}yes{{else}}no{{/if}}", "yes");
        for empty in ["empty", "nothing", "none", "missing"] {
            check(&format!("{{{{#if {empty}}}}}yes{{{{else}}}}no{{{{/if}}}}"), "no");
            check(&format!("{{{{#unless {empty}}}}}yes{{{{/unless}}}}"), "yes");
        }
    }

    #[test]
    fn each_walks_with_the_item_as_innermost_scope() {
        check("{{#each list}}{{@index}}={{this}};{{/each}}", "0=a;1=b;");
        check("{{#each none}}x{{else}}nobody{{/each}}", "nobody");
        check("{{#each deep}}{{@key}}:{{est}}{{/each}}", "er:found");
        check(
            "{{#each people}}{{name}}({{#each tags}}{{this}} of {{name}} {{deep.er.est}}{{/each}}) {{/each}}",
            "Ann(x of Ann found) Bob() ",
        );
    }

    #[test]
    fn a_block_tag_alone_on_its_line_leaves_no_line() {
        check("<ul>\n  {{#each list}}\n  <li>{{ this }}</li>\n  {{/each}}\n</ul>\n", {
            "<ul>\n  <li>a</li>\n  <li>b</li>\n</ul>\n"
        });
        check("a {{#if name}}b{{/if}}\nc", "a b\nc");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (source, expected) in [
            ("a\n{{ name", "line 2: `{{` is never closed"),
            ("{{#if a}}\n", "line 1: `{{#if}}` is never closed"),
            ("{{/if}}", "line 1: `{{/if}}` closes nothing"),
            ("{{#if a}}\n{{/each}}", "line 2: `{{/each}}` found, `{{/if}}` of line 1 expected"),
            ("{{else}}", "line 1: `{{else}}` without a block"),
            ("{{#if a}}{{else}}{{else}}{{/if}}", "line 1: `{{else}}` without a block"),
            ("{{#for a}}{{/for}}", "line 1: unknown block `#for` (there are #if, #unless and #each)"),
            ("{{ a b }}", "line 1: `a b` is no name like `a.b`"),
            ("{{ }}", "line 1: `` is no name like `a.b`"),
        ] {
            assert_eq!(render(source), Err(expected.to_owned()), "{source}");
        }
        let deep = "{{#if a}}".repeat(100_000);
        assert_eq!(render(&deep), Err("line 1: blocks are nested more than 64 deep".to_owned()));
    }
}
