//! Where in a script an option was written, found again from the place of the call.

use rads_syntax::Span;
use rads_syntax::ast::{Expr, ExprKind, Property};

/// The key at `path` within the arguments of the call around `at`; when it was not written there literally (a variable, a
/// computed object), the nearest thing that was: the outer key, or the call itself.
pub(crate) fn of_option(source: &str, at: Span, path: &[String]) -> Span {
    let file = rads_syntax::parse(source).file;
    let mut call: Option<&Expr> = None;
    rads_syntax::expressions(&file, &mut |expr| {
        let is_around = expr.span.start <= at.start && at.end <= expr.span.end;
        // Inner ones come later: the last that fits is the innermost.
        if is_around && matches!(expr.kind, ExprKind::Call { .. }) {
            call = Some(expr);
        }
    });
    let Some((ExprKind::Call { arguments, .. }, whole)) = call.map(|call| (&call.kind, call.span)) else {
        return at;
    };
    let Some((first, rest)) = path.split_first() else {
        return whole;
    };
    let named = arguments.iter().find_map(|argument| {
        let name = argument.name.as_ref().filter(|name| *name.text == **first)?;
        Some((name.span, &argument.value))
    });
    let found = named.or_else(|| arguments.iter().find_map(|argument| property(&argument.value, first)));
    let Some((mut span, mut value)) = found else {
        return whole;
    };
    for part in rest {
        let Some((inner_span, inner)) = property(value, part) else {
            break;
        };
        (span, value) = (inner_span, inner);
    }
    span
}

/// The key of an object literal and its value. A volume's path may be written with a `/` at its end.
fn property<'f>(object: &'f Expr, wanted: &str) -> Option<(Span, &'f Expr)> {
    let ExprKind::Object(properties) = &object.kind else {
        return None;
    };
    properties.iter().find_map(|property| match property {
        Property::Field { key, value } if key.text.trim_end_matches('/') == wanted.trim_end_matches('/') => {
            Some((key.span, value))
        }
        _ => None,
    })
}
