//! Operators on operands that are not two small ints: promotion, text, comparison, and the errors they throw.

use crate::cx::{Cx, with_article};
use crate::heap::{Heap, Obj, OutOfMemory};
use crate::op::BitOperator;
use crate::value::Value;

/// Why an instruction did not finish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// This is thrown.
    Thrown(Value),
    /// A bound was in the way: collect and try again, or throw.
    Memory,
}

impl From<OutOfMemory> for Fault {
    fn from(_: OutOfMemory) -> Fault {
        Fault::Memory
    }
}

impl From<Value> for Fault {
    fn from(value: Value) -> Fault {
        Fault::Thrown(value)
    }
}

/// The arithmetic operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl Arith {
    fn sign(self) -> &'static str {
        match self {
            Arith::Add => "+",
            Arith::Sub => "-",
            Arith::Mul => "*",
            Arith::Div => "/",
            Arith::Rem => "%",
        }
    }
}

impl Heap {
    pub(crate) fn thrown(&mut self, kind: &str, message: impl AsRef<str>) -> Fault {
        Fault::Thrown(Cx { heap: self }.error(kind, message))
    }

    /// `left operator right`, written where the result belongs.
    #[cold]
    #[inline(never)]
    pub(crate) fn arith_into(
        &mut self,
        operator: Arith,
        left: Value,
        right: Value,
        into: &mut Value,
    ) -> Result<(), Fault> {
        *into = self.arith(operator, left, right)?;
        Ok(())
    }

    pub(crate) fn arith(&mut self, operator: Arith, left: Value, right: Value) -> Result<Value, Fault> {
        match (left, right) {
            (Value::Float(x), Value::Float(y)) => self.arith_floats(operator, x, y),
            (Value::Int(x), Value::Float(y)) => self.arith_floats(operator, x as f64, y),
            (Value::Float(x), Value::Int(y)) => self.arith_floats(operator, x, y as f64),
            (Value::Int(x), Value::Int(y)) => self.arith_ints(operator, x, y),
            (Value::Str(_), _) | (_, Value::Str(_)) if operator == Arith::Add => self.join(left, right),
            (Value::Array(x), Value::Array(y)) if operator == Arith::Add => {
                let total = self.items(x).len() + self.items(y).len();
                let bytes = total.saturating_mul(size_of::<Value>());
                if self.used.saturating_add(bytes) > self.limit {
                    self.charge(bytes)?;
                }
                let joined = [self.items(x), self.items(y)].concat();
                Ok(self.array(joined))
            }
            _ => match (as_number(left), as_number(right)) {
                (Some(Value::Int(x)), Some(Value::Int(y))) => self.arith_ints(operator, x, y),
                (Some(x), Some(y)) => {
                    let (x, y) = (x.as_number().unwrap_or(0.0), y.as_number().unwrap_or(0.0));
                    self.arith_floats(operator, x, y)
                }
                _ => Err(self.no_operator(operator.sign(), left, right)),
            },
        }
    }

    fn no_operator(&mut self, sign: &str, left: Value, right: Value) -> Fault {
        let (left, right) = (with_article(left.kind()), with_article(right.kind()));
        self.thrown("type", format!("`{sign}` does not apply to {left} and {right}"))
    }

    fn arith_ints(&mut self, operator: Arith, x: i64, y: i64) -> Result<Value, Fault> {
        let result = match operator {
            Arith::Add => x.checked_add(y),
            Arith::Sub => x.checked_sub(y),
            Arith::Mul => x.checked_mul(y),
            Arith::Div | Arith::Rem if y == 0 => return Err(self.thrown("division", "division by zero")),
            Arith::Div => x.checked_div(y),
            // The one remainder that overflows is zero.
            Arith::Rem => Some(x.wrapping_rem(y)),
        };
        match result {
            Some(n) => Ok(Value::Int(n)),
            None => Err(self.thrown("overflow", format!("`{x} {} {y}` is beyond 64 bits", operator.sign()))),
        }
    }

    fn arith_floats(&mut self, operator: Arith, x: f64, y: f64) -> Result<Value, Fault> {
        Ok(Value::Float(match operator {
            Arith::Add => x + y,
            Arith::Sub => x - y,
            Arith::Mul => x * y,
            Arith::Div | Arith::Rem if y == 0.0 => return Err(self.thrown("division", "division by zero")),
            Arith::Div => x / y,
            Arith::Rem => x % y,
        }))
    }

    /// `left + right` where one is a text.
    fn join(&mut self, left: Value, right: Value) -> Result<Value, Fault> {
        match (left, right) {
            (Value::Str(l), Value::Str(r)) => {
                // The right text is copied first only when it is a long one's prefix: the borrow cannot span the growth.
                let text = match self.get(r) {
                    Obj::Str { text, .. } => text.clone(),
                    _ => self.text(r).into(),
                };
                Ok(self.append(l, &text)?)
            }
            (Value::Str(l), Value::Char(c)) => Ok(self.append(l, c.encode_utf8(&mut [0; 4]))?),
            (Value::Str(l), _) => {
                let mut text = String::new();
                self.display(right, &mut text);
                Ok(self.append(l, &text)?)
            }
            _ => {
                let mut text = String::new();
                self.display(left, &mut text);
                self.display(right, &mut text);
                self.checked_string(text)
            }
        }
    }

    /// A string that was put together outside the heap.
    pub(crate) fn checked_string(&mut self, text: String) -> Result<Value, Fault> {
        if self.used.saturating_add(text.len()) > self.limit {
            self.charge(text.len())?;
        }
        Ok(self.string(text.into_boxed_str()))
    }

    pub(crate) fn concat(&mut self, parts: &[Value]) -> Result<Value, Fault> {
        let mut text = String::new();
        for part in parts {
            self.display(*part, &mut text);
            // Each part exists already, but the sum of many references to one large text may not fit.
            if self.used.saturating_add(text.len()) > self.limit {
                self.charge(text.len())?;
            }
        }
        self.checked_string(text)
    }

    pub(crate) fn negate(&mut self, value: Value) -> Result<Value, Fault> {
        match value {
            Value::Int(n) => match n.checked_neg() {
                Some(n) => Ok(Value::Int(n)),
                None => Err(self.thrown("overflow", format!("`-({n})` is beyond 64 bits"))),
            },
            Value::Float(n) => Ok(Value::Float(-n)),
            Value::Char(c) => Ok(Value::Int(-i64::from(u32::from(c)))),
            other => Err(self.thrown("type", format!("`-` does not apply to {}", with_article(other.kind())))),
        }
    }

    pub(crate) fn bit_not(&mut self, value: Value) -> Result<Value, Fault> {
        match value.as_int() {
            Some(n) => Ok(Value::Int(!n)),
            None => Err(self.thrown("type", format!("`~` does not apply to {}", with_article(value.kind())))),
        }
    }

    pub(crate) fn bits(&mut self, operator: BitOperator, left: Value, right: Value) -> Result<Value, Fault> {
        let sign = match operator {
            BitOperator::And => "&",
            BitOperator::Or => "|",
            BitOperator::Xor => "^",
            BitOperator::ShiftLeft => "<<",
            BitOperator::ShiftRight => ">>",
        };
        let (Some(x), Some(y)) = (left.as_int(), right.as_int()) else {
            return Err(self.no_operator(sign, left, right));
        };
        let shift = u32::try_from(y).ok().filter(|by| *by < 64);
        Ok(Value::Int(match (operator, shift) {
            (BitOperator::And, _) => x & y,
            (BitOperator::Or, _) => x | y,
            (BitOperator::Xor, _) => x ^ y,
            (BitOperator::ShiftLeft, Some(by)) => x << by,
            (BitOperator::ShiftRight, Some(by)) => x >> by,
            (_, None) => return Err(self.thrown("value", format!("cannot shift by {y}: it must be from 0 to 63"))),
        }))
    }

    /// `left < right`, or `left <= right`.
    #[inline(never)]
    pub(crate) fn less(&mut self, left: Value, right: Value, or_equal: bool) -> Result<bool, Fault> {
        let order = match (left, right) {
            (Value::Str(x), Value::Str(y)) => Some(self.text(x).cmp(self.text(y))),
            _ => match (as_number(left), as_number(right)) {
                (Some(Value::Int(x)), Some(Value::Int(y))) => Some(x.cmp(&y)),
                (Some(x), Some(y)) => x.as_number().partial_cmp(&y.as_number()),
                _ => return Err(self.no_operator(if or_equal { "<=" } else { "<" }, left, right)),
            },
        };
        Ok(order.is_some_and(|order| order.is_lt() || or_equal && order.is_eq()))
    }
}

/// A number as it is, a char as its code point.
fn as_number(value: Value) -> Option<Value> {
    match value {
        Value::Int(_) | Value::Float(_) => Some(value),
        Value::Char(c) => Some(Value::Int(i64::from(u32::from(c)))),
        _ => None,
    }
}
