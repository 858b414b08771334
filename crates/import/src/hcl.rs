//! HCL to trees. A block is an entry whose key has its labels behind it, as `group "web"`. What is no plain value is its own text
//! within `${ }`, as in a template: nothing is evaluated.

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::parser::parse_body;
use hcl_edit::structure::{Body, Structure};
use hcl_edit::template::Element;
use model::{Code, Problem};

use crate::tree::{NODES_MAX, Node, Value};

pub(crate) fn document(file: &str, text: &str) -> Result<Node, Problem> {
    let refused = |line: usize, why: &str| {
        Problem::new(Code::FileUnreadable, format!("cannot read `{file}`, line {line}: {why}"))
    };
    let body = parse_body(text).map_err(|error| {
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let problem = refused(error.location().line(), &format!("it is not HCL: {message}"));
        match text.contains("[[") || text.contains("{{") {
            true => problem.help("it looks like a template: import what it renders to, as of `nomad-pack render`"),
            false => problem.help("mend that line first; nothing was written"),
        }
    })?;
    let reader = Reader { text, lines: text.match_indices('\n').map(|(at, _)| at).collect() };
    let node = Node::new(1, reader.body(&body));
    match node.count() > NODES_MAX {
        true => Err(refused(1, &format!("it holds more than {NODES_MAX} values"))),
        false => Ok(node),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Where lines end.
    lines: Vec<usize>,
}

impl Reader<'_> {
    fn line(&self, at: Option<std::ops::Range<usize>>) -> u32 {
        let at = at.map_or(0, |range| range.start);
        u32::try_from(self.lines.partition_point(|end| *end < at) + 1).unwrap_or(u32::MAX)
    }

    fn body(&self, body: &Body) -> Value {
        let mut entries = Vec::new();
        for structure in body.iter() {
            match structure {
                Structure::Attribute(attribute) => {
                    let mut value = self.expression(&attribute.value);
                    value.line = self.line(attribute.span());
                    entries.push((attribute.key.as_str().to_owned(), value));
                }
                Structure::Block(block) => {
                    let labels: String = block.labels.iter().map(|label| format!(" \"{}\"", label.as_str())).collect();
                    let node = Node::new(self.line(block.span()), self.body(&block.body));
                    entries.push((format!("{}{labels}", block.ident.as_str()), node));
                }
            }
        }
        Value::Map(entries)
    }

    fn expression(&self, expression: &Expression) -> Node {
        let line = self.line(expression.span());
        let scalar = |text: String, plain: bool| Value::Scalar { text, plain };
        let value = match expression {
            Expression::Null(_) => Value::Null,
            Expression::Bool(value) => scalar(value.value().to_string(), true),
            Expression::Number(value) => scalar(value.value().to_string(), true),
            Expression::String(text) => scalar(text.value().clone(), false),
            Expression::Array(items) => Value::List(items.iter().map(|item| self.expression(item)).collect()),
            Expression::Object(object) => {
                let key = |key: &ObjectKey| match key {
                    ObjectKey::Ident(name) => name.as_str().to_owned(),
                    ObjectKey::Expression(name) => self.expression(name).scalar().unwrap_or("?").to_owned(),
                };
                Value::Map(object.iter().map(|(name, value)| (key(name), self.expression(value.expr()))).collect())
            }
            Expression::StringTemplate(template) => scalar(self.template(&mut template.iter()), false),
            Expression::HeredocTemplate(heredoc) => scalar(self.template(&mut heredoc.template.iter()), false),
            other => scalar(format!("${{{}}}", self.source(other.span())), true),
        };
        Node::new(line, value)
    }

    fn template(&self, elements: &mut dyn Iterator<Item = &Element>) -> String {
        let piece = |element: &Element| match element {
            Element::Literal(text) => text.to_string(),
            Element::Interpolation(part) => format!("${{{}}}", self.source(part.expr.span())),
            Element::Directive(part) => self.source(part.span()).to_owned(),
        };
        elements.map(piece).collect()
    }

    fn source(&self, at: Option<std::ops::Range<usize>>) -> &str {
        at.and_then(|range| self.text.get(range)).unwrap_or_default().trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_values_and_templates_come_out_with_their_lines() {
        let text = "job \"x\" {\n  count = 2\n  group \"g\" {\n    env {\n      A = \"p:${NOMAD_PORT_http}\"\n      B = var.b\n    }\n    list = [\"a\", 1, true]\n    map = { k = \"v\" }\n    text = <<EOF\nline\nEOF\n  }\n}\n";
        let root = document("f", text).unwrap();
        let group = root.at(&["job \"x\"", "group \"g\""]).unwrap();
        assert_eq!((root.get("job \"x\"").unwrap().get("count").unwrap().line, group.line), (2, 3));
        assert_eq!(group.at(&["env", "A"]).unwrap().scalar(), Some("p:${NOMAD_PORT_http}"));
        assert_eq!(group.at(&["env", "B"]).unwrap().scalar(), Some("${var.b}"));
        assert_eq!(group.get("list").unwrap().texts().unwrap(), ["a", "1", "true"]);
        assert_eq!(group.at(&["map", "k"]).unwrap().scalar(), Some("v"));
        assert_eq!(group.get("text").unwrap().scalar(), Some("line\n"));
    }

    #[test]
    fn what_nests_without_end_is_refused() {
        assert!(document("f", &format!("a = {}", "[".repeat(50_000))).is_err());
        assert!(document("f", &"a {\n".repeat(50_000)).is_err());
        assert!(document("f", "job [[ .x ]] {}").unwrap_err().help.unwrap().contains("template"));
    }
}
