//! `array.*` and the methods of arrays that take no callback; those that do are in the prelude.

use std::cmp::Ordering;

use super::{Entry, functions, methods};
use crate::cx::{Cx, with_article};
use crate::heap::Obj;
use crate::native::{NativeBody, NativesBuilder, Params};
use crate::value::{Handle, Value};

type Done = Result<Value, Value>;

pub(super) fn register(builder: &mut NativesBuilder) {
    functions(builder, "array", TABLE);
    methods(builder, "array", TABLE);
    builder.function("array", "push", Params::at_least(2), NativeBody::Pure(push));
    builder.method("array", "push", Params::at_least(1), NativeBody::Pure(push));
    functions(builder, "array", &[("make", 1, 2, make), ("range", 1, 3, range)]);
}

const TABLE: &[Entry] = &[
    ("length", 1, 1, |cx, args| {
        let array = of(cx, args)?;
        Ok(Value::Int(cx.heap.items(array).len() as i64))
    }),
    ("is_empty", 1, 1, |cx, args| {
        let array = of(cx, args)?;
        Ok(Value::Bool(cx.heap.items(array).is_empty()))
    }),
    ("pop", 1, 1, |cx, args| Ok(items(cx, args)?.pop().unwrap_or_default())),
    ("shift", 1, 1, |cx, args| {
        let items = items(cx, args)?;
        Ok(if items.is_empty() { Value::Null } else { items.remove(0) })
    }),
    ("unshift", 2, 2, |cx, args| insert_at(cx, args, 0, args[1])),
    ("insert", 3, 3, |cx, args| {
        let at = cx.arg_int(args, 1, "position")?;
        insert_at(cx, args, at, args[2])
    }),
    ("remove", 2, 2, remove),
    ("clear", 1, 1, |cx, args| {
        items(cx, args)?.clear();
        Ok(args[0])
    }),
    ("first", 1, 1, |cx, args| {
        let array = of(cx, args)?;
        Ok(cx.heap.items(array).first().copied().unwrap_or_default())
    }),
    ("last", 1, 1, |cx, args| {
        let array = of(cx, args)?;
        Ok(cx.heap.items(array).last().copied().unwrap_or_default())
    }),
    ("slice", 1, 3, |cx, args| {
        of(cx, args)?;
        let (from, to) = (cx.arg(args, 1), cx.arg(args, 2));
        super::text::part_of(cx, args[0], from, to)
    }),
    ("copy", 1, 1, |cx, args| {
        of(cx, args)?;
        super::text::part_of(cx, args[0], Value::Null, Value::Null)
    }),
    ("concat", 2, 2, |cx, args| {
        let (left, right) = (of(cx, args)?, of(cx, &args[1..])?);
        let size = size_of_val(cx.heap.items(left)) + size_of_val(cx.heap.items(right));
        cx.reserve(size)?;
        let joined = [cx.heap.items(left), cx.heap.items(right)].concat();
        Ok(cx.array(joined))
    }),
    ("reverse", 1, 1, |cx, args| {
        items(cx, args)?.reverse();
        Ok(args[0])
    }),
    ("index_of", 2, 2, |cx, args| {
        let array = of(cx, args)?;
        let at = cx.heap.items(array).iter().position(|item| cx.equal(*item, args[1]));
        Ok(Value::Int(at.map_or(-1, |at| at as i64)))
    }),
    ("contains", 2, 2, |cx, args| {
        let array = of(cx, args)?;
        Ok(Value::Bool(cx.heap.items(array).iter().any(|item| cx.equal(*item, args[1]))))
    }),
    ("join", 1, 2, super::text::join),
    ("fill", 2, 2, |cx, args| {
        items(cx, args)?.fill(args[1]);
        Ok(args[0])
    }),
    ("flat", 1, 1, flat),
    ("unique", 1, 1, unique),
    ("sum", 1, 1, sum),
    ("min", 1, 1, |cx, args| extreme(cx, args, Ordering::Less)),
    ("max", 1, 1, |cx, args| extreme(cx, args, Ordering::Greater)),
    // The part of `sort` without a comparator; the prelude's `sort` calls it.
    ("_sort", 1, 1, sort),
];

fn of(cx: &mut Cx<'_>, args: &[Value]) -> Result<Handle, Value> {
    match cx.arg(args, 0) {
        Value::Array(handle) => Ok(handle),
        other => Err(cx.wrong("array", "an array", other)),
    }
}

fn items<'a>(cx: &'a mut Cx<'_>, args: &[Value]) -> Result<&'a mut Vec<Value>, Value> {
    let array = of(cx, args)?;
    match cx.heap.objects.get_mut(array.index()) {
        Some(Obj::Array(items)) => Ok(items),
        _ => Err(Value::Null),
    }
}

/// Appends in place; gives the new length.
fn push(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let array = of(cx, args)?;
    for item in &args[1..] {
        let pushed = cx.heap.push(array, *item);
        cx.or_memory(pushed)?;
    }
    Ok(Value::Int(cx.heap.items(array).len() as i64))
}

fn insert_at(cx: &mut Cx<'_>, args: &[Value], at: i64, value: Value) -> Done {
    let array = of(cx, args)?;
    let length = cx.heap.items(array).len();
    let Some(at) = usize::try_from(at).ok().filter(|at| *at <= length) else {
        return Err(cx.error("range", format!("cannot insert at {at}: the array has {length} items")));
    };
    let grown = cx.heap.grow(array, 1);
    cx.or_memory(grown)?;
    items(cx, args)?.insert(at, value);
    Ok(args[0])
}

/// Removes the item at a position; null when there is none.
fn remove(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let at = cx.arg_int(args, 1, "position")?;
    let items = items(cx, args)?;
    match usize::try_from(at).ok().filter(|at| *at < items.len()) {
        Some(at) => Ok(items.remove(at)),
        None => Ok(Value::Null),
    }
}

/// `make(count, value = null)`
fn make(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let count = usize::try_from(cx.arg_int(args, 0, "count")?).unwrap_or(0);
    cx.reserve(count.saturating_mul(size_of::<Value>()))?;
    let value = cx.arg(args, 1);
    Ok(cx.array(vec![value; count]))
}

/// `range(end)`, `range(start, end)`, `range(start, end, step)`
fn range(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let (start, end) = match args.len() {
        1 => (0, cx.arg_int(args, 0, "end")?),
        _ => (cx.arg_int(args, 0, "start")?, cx.arg_int(args, 1, "end")?),
    };
    let step = if args.len() > 2 { cx.arg_int(args, 2, "step")? } else { 1 };
    if step == 0 {
        return Err(cx.error("value", "the step of a range cannot be 0"));
    }
    let distance = if step > 0 { i128::from(end) - i128::from(start) } else { i128::from(start) - i128::from(end) };
    let step_size = i128::from(step).abs();
    let count = usize::try_from((distance.max(0) + step_size - 1) / step_size).unwrap_or(usize::MAX);
    cx.reserve(count.saturating_mul(size_of::<Value>()))?;
    let items = (0..count as i64).map(|n| Value::Int(start + n * step)).collect();
    Ok(cx.array(items))
}

fn flat(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let array = of(cx, args)?;
    let count: usize = cx.heap.items(array).iter().map(|v| cx.as_items(*v).map_or(1, <[Value]>::len)).sum();
    cx.reserve(count.saturating_mul(size_of::<Value>()))?;
    let mut flat = Vec::with_capacity(count);
    for item in cx.heap.items(array) {
        match cx.as_items(*item) {
            Some(inner) => flat.extend_from_slice(inner),
            None => flat.push(*item),
        }
    }
    Ok(cx.array(flat))
}

/// The first of each group of equal items, in order.
fn unique(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let array = of(cx, args)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<Value> = Vec::new();
    for item in cx.heap.items(array) {
        let plain = matches!(item, Value::Str(_) | Value::Int(_));
        let new = if plain {
            seen.insert((item.kind(), cx.display(*item)))
        } else {
            !kept.iter().any(|other| cx.equal(*other, *item))
        };
        if new {
            kept.push(*item);
        }
    }
    Ok(cx.array(kept))
}

fn sum(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let array = of(cx, args)?;
    let mut total = Value::Int(0);
    for n in 0..cx.heap.items(array).len() {
        let item = cx.heap.items(array)[n];
        if item.as_number().is_none() {
            return Err(cx.wrong("item", "a number", item));
        }
        total = match (total, item) {
            (Value::Int(x), Value::Int(y)) => match x.checked_add(y) {
                Some(sum) => Value::Int(sum),
                None => return Err(cx.error("overflow", "the sum is beyond 64 bits")),
            },
            (x, y) => Value::Float(x.as_number().unwrap_or(0.0) + y.as_number().unwrap_or(0.0)),
        };
    }
    Ok(total)
}

fn extreme(cx: &mut Cx<'_>, args: &[Value], wanted: Ordering) -> Done {
    let array = of(cx, args)?;
    let mut best: Option<Value> = None;
    for n in 0..cx.heap.items(array).len() {
        let item = cx.heap.items(array)[n];
        best = match best {
            Some(so_far) if order(cx, item, so_far)? != wanted => Some(so_far),
            _ => Some(item),
        };
    }
    Ok(best.unwrap_or_default())
}

/// Numbers by size, strings by their bytes; anything else, or a mixture, cannot be ordered.
fn order(cx: &mut Cx<'_>, left: Value, right: Value) -> Result<Ordering, Value> {
    match (left, right) {
        (Value::Int(x), Value::Int(y)) => Ok(x.cmp(&y)),
        (Value::Str(x), Value::Str(y)) => Ok(cx.text_of(x).cmp(cx.text_of(y))),
        (Value::Char(x), Value::Char(y)) => Ok(x.cmp(&y)),
        (Value::Bool(x), Value::Bool(y)) => Ok(x.cmp(&y)),
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        _ => match (left.as_number(), right.as_number()) {
            (Some(x), Some(y)) => Ok(x.total_cmp(&y)),
            _ => {
                let (left, right) = (with_article(left.kind()), with_article(right.kind()));
                Err(cx.error("type", format!("{left} and {right} cannot be ordered")))
            }
        },
    }
}

/// Sorts in place, stable; gives the array.
fn sort(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let mut sorted = std::mem::take(items(cx, args)?);
    let ints: Option<Vec<i64>> = sorted
        .iter()
        .map(|v| match v {
            Value::Int(n) => Some(*n),
            _ => None,
        })
        .collect();
    let mut failed = None;
    if let Some(mut ints) = ints {
        // Equal ints cannot be told apart, so the unstable sort gives the same result sooner.
        ints.sort_unstable();
        sorted.clear();
        sorted.extend(ints.into_iter().map(Value::Int));
    } else {
        sorted.sort_by(|x, y| {
            if failed.is_some() {
                return Ordering::Equal;
            }
            order(cx, *x, *y).unwrap_or_else(|error| {
                failed = Some(error);
                Ordering::Equal
            })
        });
    }
    *items(cx, args)? = sorted;
    failed.map_or(Ok(args[0]), Err)
}
