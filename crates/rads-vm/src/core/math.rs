//! `math.*`. Rounding gives an int whenever one holds the result, so that it can be an index.

use super::{Entry, functions, methods};
use crate::cx::Cx;
use crate::native::{NativeBody, NativesBuilder, Params};
use crate::value::Value;

type Done = Result<Value, Value>;

pub(super) fn register(builder: &mut NativesBuilder) {
    functions(builder, "math", TABLE);
    builder.function("math", "min", Params::at_least(1), NativeBody::Pure(|cx, args| extreme(cx, args, true)));
    builder.function("math", "max", Params::at_least(1), NativeBody::Pure(|cx, args| extreme(cx, args, false)));
    builder.constant("math", "pi", std::f64::consts::PI).constant("math", "PI", std::f64::consts::PI);
    builder.constant("math", "e", std::f64::consts::E).constant("math", "E", std::f64::consts::E);
    for kind in ["integer", "float"] {
        methods(builder, kind, &TABLE[..ROUNDING]);
    }
}

/// The first so many entries are methods of numbers, too.
const ROUNDING: usize = 5;

const TABLE: &[Entry] = &[
    ("abs", 1, 1, abs),
    ("floor", 1, 1, |cx, args| rounded(cx, args, f64::floor)),
    ("ceil", 1, 1, |cx, args| rounded(cx, args, f64::ceil)),
    ("round", 1, 2, round),
    ("trunc", 1, 1, |cx, args| rounded(cx, args, f64::trunc)),
    ("sqrt", 1, 1, |cx, args| float(cx, args, f64::sqrt)),
    ("cbrt", 1, 1, |cx, args| float(cx, args, f64::cbrt)),
    ("sin", 1, 1, |cx, args| float(cx, args, f64::sin)),
    ("cos", 1, 1, |cx, args| float(cx, args, f64::cos)),
    ("tan", 1, 1, |cx, args| float(cx, args, f64::tan)),
    ("asin", 1, 1, |cx, args| float(cx, args, f64::asin)),
    ("acos", 1, 1, |cx, args| float(cx, args, f64::acos)),
    ("atan", 1, 1, |cx, args| float(cx, args, f64::atan)),
    ("atan2", 2, 2, |cx, args| {
        let (y, x) = (cx.arg_number(args, 0, "y")?, cx.arg_number(args, 1, "x")?);
        Ok(Value::Float(y.atan2(x)))
    }),
    ("hypot", 2, 2, |cx, args| {
        let (x, y) = (cx.arg_number(args, 0, "x")?, cx.arg_number(args, 1, "y")?);
        Ok(Value::Float(x.hypot(y)))
    }),
    ("log", 1, 1, |cx, args| float(cx, args, f64::ln)),
    ("log2", 1, 1, |cx, args| float(cx, args, f64::log2)),
    ("log10", 1, 1, |cx, args| float(cx, args, f64::log10)),
    ("exp", 1, 1, |cx, args| float(cx, args, f64::exp)),
    ("pow", 2, 2, pow),
    ("sign", 1, 1, |cx, args| match cx.arg(args, 0) {
        Value::Int(n) => Ok(Value::Int(n.signum())),
        _ => {
            let n = cx.arg_number(args, 0, "number")?;
            Ok(Value::Int(if n > 0.0 { 1 } else { -i64::from(n < 0.0) }))
        }
    }),
    ("clamp", 3, 3, |cx, args| {
        let low = extreme(cx, &[args[0], args[2]], true)?;
        extreme(cx, &[low, args[1]], false)
    }),
    ("lerp", 3, 3, |cx, args| {
        let (from, to) = (cx.arg_number(args, 0, "from")?, cx.arg_number(args, 1, "to")?);
        let part = cx.arg_number(args, 2, "part")?;
        Ok(Value::Float(from + (to - from) * part))
    }),
    ("random", 0, 2, random),
    ("random_int", 1, 2, random_int),
    ("srand", 1, 1, |cx, args| {
        cx.heap.random = (cx.arg_int(args, 0, "seed")? as u64) | 1;
        Ok(Value::Null)
    }),
    ("is_nan", 1, 1, |_, args| Ok(Value::Bool(matches!(args[0], Value::Float(n) if n.is_nan())))),
];

fn whole(n: f64) -> Value {
    // The bounds are the floats just inside the range of 64-bit ints.
    if n.abs() < 9.223_372_036_854_775e18 { Value::Int(n as i64) } else { Value::Float(n) }
}

fn float(cx: &mut Cx<'_>, args: &[Value], f: fn(f64) -> f64) -> Done {
    Ok(Value::Float(f(cx.arg_number(args, 0, "number")?)))
}

fn rounded(cx: &mut Cx<'_>, args: &[Value], f: fn(f64) -> f64) -> Done {
    match cx.arg(args, 0) {
        int @ Value::Int(_) => Ok(int),
        _ => Ok(whole(f(cx.arg_number(args, 0, "number")?))),
    }
}

/// `round(number, digits = 0)`: halves go away from zero.
fn round(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    if args.len() < 2 {
        return rounded(cx, args, f64::round);
    }
    let digits = cx.arg_int(args, 1, "digits")?.clamp(0, 15);
    let scale = 10f64.powi(digits as i32);
    Ok(Value::Float((cx.arg_number(args, 0, "number")? * scale).round() / scale))
}

fn abs(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    match cx.arg(args, 0) {
        Value::Int(n) => match n.checked_abs() {
            Some(n) => Ok(Value::Int(n)),
            None => Err(cx.error("overflow", format!("the absolute value of {n} is beyond 64 bits"))),
        },
        _ => float(cx, args, f64::abs),
    }
}

/// An int when both are ints and it fits, else a float.
fn pow(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    if let (Value::Int(base), Value::Int(exponent)) = (args[0], args[1])
        && let Ok(exponent) = u32::try_from(exponent)
        && let Some(n) = base.checked_pow(exponent)
    {
        return Ok(Value::Int(n));
    }
    let (base, exponent) = (cx.arg_number(args, 0, "base")?, cx.arg_number(args, 1, "exponent")?);
    Ok(Value::Float(base.powf(exponent)))
}

/// The least or greatest of the arguments, or of one array.
fn extreme(cx: &mut Cx<'_>, args: &[Value], least: bool) -> Done {
    let given: Vec<Value> = match args {
        [one @ Value::Array(_)] => cx.items(*one).to_vec(),
        _ => args.to_vec(),
    };
    let mut best = Value::Null;
    for (n, value) in given.iter().enumerate() {
        let number = cx.arg_number(&given, n, "number")?;
        let better = best.as_number().is_none_or(|so_far| if least { number < so_far } else { number > so_far });
        if better {
            best = *value;
        }
    }
    Ok(best)
}

/// The next of a sequence of 64-bit numbers that the machine's seed decides (xorshift with a multiplied output).
fn next(cx: &mut Cx<'_>) -> u64 {
    let mut state = cx.heap.random;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    cx.heap.random = state;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// From 0 up to, not including, 1; or between two bounds.
fn random(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let part = (next(cx) >> 11) as f64 / (1u64 << 53) as f64;
    let (low, high) = match args.len() {
        0 => (0.0, 1.0),
        1 => (0.0, cx.arg_number(args, 0, "high")?),
        _ => (cx.arg_number(args, 0, "low")?, cx.arg_number(args, 1, "high")?),
    };
    Ok(Value::Float(low + (high - low) * part))
}

/// `random_int(low, high)`, both included; with one argument from 0.
fn random_int(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let (low, high) = match args.len() {
        1 => (0, cx.arg_int(args, 0, "high")?),
        _ => (cx.arg_int(args, 0, "low")?, cx.arg_int(args, 1, "high")?),
    };
    if low > high {
        return Err(cx.error("value", format!("no integer is between {low} and {high}")));
    }
    let count = (i128::from(high) - i128::from(low) + 1) as u128;
    // The product's high part is even to within 2^-64 of any count.
    let picked = (u128::from(next(cx)) * count) >> 64;
    Ok(Value::Int((i128::from(low) + picked as i128) as i64))
}
