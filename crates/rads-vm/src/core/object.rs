//! `object.*` and the methods of objects. A field of an object goes before a method of the same name.

use super::{Entry, functions, methods};
use crate::cx::Cx;
use crate::native::NativesBuilder;
use crate::record::Key;
use crate::value::Value;

type Done = Result<Value, Value>;

pub(super) fn register(builder: &mut NativesBuilder) {
    functions(builder, "object", TABLE);
    methods(builder, "object", TABLE);
    methods(builder, "struct", &[("keys", 1, 1, keys), ("copy", 1, 1, copy)]);
}

const TABLE: &[Entry] = &[
    ("keys", 1, 1, keys),
    ("values", 1, 1, |cx, args| {
        let object = cx.arg_object(args, 0, "object")?;
        let values = cx.entries(object).into_iter().map(|(_, value)| value).collect();
        Ok(cx.array(values))
    }),
    ("entries", 1, 1, |cx, args| {
        let object = cx.arg_object(args, 0, "object")?;
        let pairs = cx.entries(object).into_iter().map(|(key, value)| {
            let key = cx.string(key);
            cx.array(vec![key, value])
        });
        let pairs = pairs.collect();
        Ok(cx.array(pairs))
    }),
    ("length", 1, 1, |cx, args| {
        let object = cx.arg_object(args, 0, "object")?;
        Ok(Value::Int(cx.field_count(object) as i64))
    }),
    ("has", 2, 2, |cx, args| {
        let object = cx.arg_object(args, 0, "object")?;
        let key = cx.display(args[1]);
        Ok(Value::Bool(cx.get(object, &key).is_some()))
    }),
    ("get", 2, 3, |cx, args| {
        let object = cx.arg_object(args, 0, "object")?;
        let key = cx.display(args[1]);
        let missing = cx.arg(args, 2);
        Ok(cx.get(object, &key).unwrap_or(missing))
    }),
    ("set", 3, 3, |cx, args| {
        let object = plain(cx, args)?;
        let key = cx.display(args[1]);
        let set = cx.heap.set_field(object, Key::Text(&key), args[2]);
        cx.or_memory(set)?;
        Ok(args[0])
    }),
    // Removes a key; gives what was there.
    ("remove", 2, 2, |cx, args| {
        let object = plain(cx, args)?;
        let key = cx.display(args[1]);
        let removed = cx.heap.remove_field(object, &key);
        Ok(cx.or_memory(removed)?.unwrap_or_default())
    }),
    ("copy", 1, 1, copy),
    ("merge", 2, 2, |cx, args| {
        let merged = copy(cx, args)?;
        let other = cx.arg_object(args, 1, "other")?;
        for (key, value) in cx.entries(other) {
            cx.set(merged, &key, value);
        }
        Ok(merged)
    }),
];

fn plain(cx: &mut Cx<'_>, args: &[Value]) -> Result<crate::value::Handle, Value> {
    match cx.arg(args, 0) {
        Value::Object(handle) => Ok(handle),
        other => Err(cx.wrong("object", "an object", other)),
    }
}

fn keys(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let object = cx.arg_object(args, 0, "object")?;
    Ok(cx.keys(object))
}

fn copy(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let object = cx.arg_object(args, 0, "object")?;
    if let Value::Struct(handle) = object
        && let Some(def) = cx.heap.struct_of(handle)
    {
        let fields: Vec<Value> = cx.entries(object).into_iter().map(|(_, value)| value).collect();
        let slots = crate::heap::Obj::Record { shape: crate::record::Shapes::of_struct(def), slots: fields };
        cx.heap.overcharge(crate::heap::Heap::owned_bytes(&slots));
        return Ok(Value::Struct(cx.heap.insert(slots)));
    }
    let copied = cx.object();
    for (key, value) in cx.entries(object) {
        cx.set(copied, &key, value);
    }
    Ok(copied)
}
